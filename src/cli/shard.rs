//! `--shard I/N`: a fixed part of a grid.

use std::num::NonZeroUsize;

/// Part `index`, from 0, of `count`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shard {
    index: usize,
    count: usize,
}

/// `I/N`, with I from 1 to N. Errors: what is wrong, as text.
pub fn parse(text: &str) -> Result<Shard, String> {
    let number = |text: &str| text.parse::<NonZeroUsize>().ok().map(NonZeroUsize::get);
    let numbers = text.split_once('/').and_then(|(index, count)| Some((number(index)?, number(count)?)));
    match numbers {
        Some((index, count)) if index <= count => Ok(Shard { index: index - 1, count }),
        _ => Err("it is I/N with I from 1 to N, such as 2/4".to_string()),
    }
}

impl Shard {
    /// Every Nth of all cells: neighbours, which often take as long as each other, go to different parts.
    pub fn of<Cell>(self, all: Vec<Cell>) -> Vec<Cell> {
        all.into_iter().skip(self.index).step_by(self.count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_have_nothing_in_common_and_are_the_whole_together() {
        for count in 1..6 {
            let part = |index: usize| parse(&format!("{index}/{count}")).unwrap().of((0..13).collect());
            let mut all: Vec<i32> = (1..=count).flat_map(part).collect();
            all.sort_unstable();
            assert_eq!(all, (0..13).collect::<Vec<_>>());
        }
        assert_eq!(parse("2/4").unwrap().of((0..9).collect::<Vec<_>>()), [1, 5]);
        assert!(parse("3/3").unwrap().of(vec![0, 1]).is_empty());
        for text in ["", "1", "0/2", "3/2", "1/0", "-1/2", "1/2/3", "a/b"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
