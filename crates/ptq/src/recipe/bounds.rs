//! Which values of a field make sense, said beside the field.

use std::fmt::Display;

/// Bounds of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bounds {
    /// A count, both ends included.
    Count(usize, usize),
    /// From 0 to 1.
    Fraction,
    /// Finite, from this on.
    From(f64),
    /// Finite, above 0.
    Positive,
}

impl Bounds {
    /// Counts that 32 bits hold, from `lowest` on.
    pub const fn counts_from(lowest: usize) -> Self {
        Bounds::Count(lowest, u32::MAX as usize)
    }

    /// What is wrong with `value`, if anything is.
    pub fn check(self, value: impl Number) -> Result<(), String> {
        let number = value.number();
        let (is_within, problem) = match self {
            Bounds::Count(lowest, _) if number < lowest as f64 => (false, "not allowed".to_string()),
            Bounds::Count(_, highest) => (number <= highest as f64, format!("more than {highest}")),
            Bounds::Fraction => ((0.0..=1.0).contains(&number), "not a fraction from 0 to 1".to_string()),
            Bounds::From(lowest) => {
                (number.is_finite() && number >= lowest, format!("not a finite number from {lowest} on"))
            }
            Bounds::Positive => (number.is_finite() && number > 0.0, "not a finite number above 0".to_string()),
        };
        if is_within { Ok(()) } else { Err(format!("{value} is {problem}")) }
    }
}

/// A number that a field can be.
pub trait Number: Copy + Display {
    /// Its value, to be compared with bounds.
    fn number(self) -> f64;
}

impl Number for usize {
    fn number(self) -> f64 {
        self as f64
    }
}

impl Number for f64 {
    fn number(self) -> f64 {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ends_are_in_and_what_is_beyond_or_no_number_is_named() {
        let problem = |bounds: Bounds, value: f64| bounds.check(value).err();
        for (bounds, value) in [
            (Bounds::Fraction, 0.0),
            (Bounds::Fraction, 1.0),
            (Bounds::From(1.0), 1.0),
            (Bounds::Positive, f64::MIN_POSITIVE),
        ] {
            assert_eq!(problem(bounds, value), None);
        }
        for bounds in [Bounds::Fraction, Bounds::From(1.0), Bounds::Positive] {
            for value in [f64::NAN, f64::INFINITY, -0.1] {
                assert!(problem(bounds, value).is_some(), "{bounds:?} {value}");
            }
        }
        assert_eq!(problem(Bounds::Positive, 0.0).unwrap(), "0 is not a finite number above 0");
        assert_eq!(problem(Bounds::From(1.0), 0.5).unwrap(), "0.5 is not a finite number from 1 on");
        let counts = [0, 1, 4, 5].map(|count| Bounds::Count(1, 4).check(count).err());
        assert_eq!(counts, [Some("0 is not allowed".to_string()), None, None, Some("5 is more than 4".to_string())]);
        assert_eq!(Bounds::counts_from(0).check(1usize << 32).unwrap_err(), "4294967296 is more than 4294967295");
    }
}
