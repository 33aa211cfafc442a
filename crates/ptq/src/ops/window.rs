//! Sliding windows over a row of pixels: which of them lie inside, and every `stride`-th pixel.

use std::ops::Range;

/// Output positions `i` with `0 <= stride * i + tap - padding < input`: those whose window has pixel `tap` on the input
/// rather than on the padding.
pub(super) fn inside(tap: usize, stride: usize, padding: usize, input: usize, output: usize) -> Range<usize> {
    let end = (input + padding).saturating_sub(tap).div_ceil(stride).min(output);
    let start = padding.saturating_sub(tap).div_ceil(stride).min(end);
    start..end
}

/// `to[i] = from[stride * i]`, as far as both reach.
pub(super) fn take_every<T: Copy>(stride: usize, from: &[T], to: &mut [T]) {
    match stride {
        1 => {
            let len = from.len().min(to.len());
            to[..len].copy_from_slice(&from[..len]);
        }
        // By far the most common one, and with a constant stride the compiler shuffles vectors.
        2 => {
            let (pairs, last) = from.as_chunks::<2>();
            to.iter_mut().zip(pairs).for_each(|(to, [from, _])| *to = *from);
            to.iter_mut().skip(pairs.len()).zip(last).for_each(|(to, from)| *to = *from);
        }
        _ => to.iter_mut().zip(from.iter().step_by(stride)).for_each(|(to, from)| *to = *from),
    }
}

/// `to[stride * i] = from[i]`, as far as both reach; the adjoint of [`take_every`] into zeros.
pub(super) fn put_every<T: Copy>(stride: usize, from: &[T], to: &mut [T]) {
    match stride {
        1 => {
            let len = from.len().min(to.len());
            to[..len].copy_from_slice(&from[..len]);
        }
        2 => {
            let (pairs, last) = to.as_chunks_mut::<2>();
            pairs.iter_mut().zip(from).for_each(|([to, _], from)| *to = *from);
            last.iter_mut().zip(from.iter().skip(pairs.len())).for_each(|(to, from)| *to = *from);
        }
        _ => to.iter_mut().step_by(stride).zip(from).for_each(|(to, from)| *to = *from),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inside_is_where_the_definition_says() {
        for (tap, stride, padding) in (0..4).flat_map(|t| (1..4).flat_map(move |s| (0..5).map(move |p| (t, s, p)))) {
            for (input, output) in (1..7).flat_map(|input| (0..9).map(move |output| (input, output))) {
                let holds = |i: &usize| (padding..input + padding).contains(&(stride * i + tap));
                let expected: Vec<usize> = (0..output).filter(holds).collect();
                let got: Vec<usize> = inside(tap, stride, padding, input, output).collect();
                assert_eq!(got, expected, "{tap} {stride} {padding} {input} {output}");
            }
        }
    }

    #[test]
    fn values_come_back_to_where_they_were_taken_from() {
        for stride in 1..5 {
            for len in 0..12usize {
                let row: Vec<f32> = (0..len).map(|i| i as f32).collect();
                let count = len.div_ceil(stride);
                let mut taken = vec![-1.; count + 1];
                take_every(stride, &row, &mut taken);
                let expected: Vec<f32> = (0..count).map(|i| (i * stride) as f32).collect();
                assert_eq!(taken[..count], expected, "stride {stride}, length {len}");
                assert_eq!(taken[count], -1.);

                let mut back = vec![-2.; len];
                put_every(stride, &taken, &mut back);
                for (i, value) in back.iter().enumerate() {
                    let expected = if i % stride == 0 { row[i] } else { -2. };
                    assert_eq!(*value, expected, "stride {stride}, length {len}, position {i}");
                }
            }
        }
    }
}
