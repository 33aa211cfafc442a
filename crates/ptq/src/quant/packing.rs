//! Levels of 2 to 8 bits without gaps.
//!
//! Level `i` takes bits `i b` to `(i + 1) b - 1` of a string of bits, the least significant first; bit `j` of the string is bit `j % 8`, again
//! from the least significant, of byte `j / 8`. The last byte is filled up with zeros. Four levels of 2 bits are so a byte, the first in
//! its lowest two bits; of levels of 3 bits every eighth begins with a byte.

/// Bytes that `count` levels of `bits` take; `None` where that is beyond any memory.
pub fn packed_len(count: usize, bits: u32) -> Option<usize> {
    Some(count.checked_mul(bits as usize)?.div_ceil(8))
}

/// `levels`, each below `2^bits`, packed; `bits` is 1 to 8.
pub fn pack(levels: &[u8], bits: u32) -> Vec<u8> {
    let mut packed = Vec::with_capacity((levels.len() * bits as usize).div_ceil(8));
    let (mut waiting, mut count) = (0u32, 0u32);
    for &level in levels {
        waiting |= u32::from(level) << count;
        count += bits;
        if count >= 8 {
            packed.push(waiting as u8);
            (waiting, count) = (waiting >> 8, count - 8);
        }
    }
    packed.extend((count > 0).then_some(waiting as u8));
    packed
}

/// The `count` levels that [`pack`] packed. Errors: another number of bytes than they take; bits behind the last level.
pub fn unpack(packed: &[u8], count: usize, bits: u32) -> Result<Vec<u8>, String> {
    if !(1..=8).contains(&bits) {
        return Err(format!("levels of {bits} bits: they have 1 to 8"));
    }
    let expected = packed_len(count, bits);
    if expected != Some(packed.len()) {
        let expected = expected.map_or("more than there can be".to_string(), |bytes| format!("{bytes} bytes"));
        return Err(format!("has {} bytes, but {count} levels of {bits} bits take {expected}", packed.len()));
    }
    let mut levels = Vec::with_capacity(count);
    let (mut waiting, mut left) = (0u32, 0u32);
    let mut bytes = packed.iter();
    while levels.len() < count {
        if left < bits {
            waiting |= u32::from(bytes.next().copied().unwrap_or(0)) << left;
            left += 8;
        }
        levels.push((waiting & ((1 << bits) - 1)) as u8);
        (waiting, left) = (waiting >> bits, left - bits);
    }
    match waiting {
        0 => Ok(levels),
        _ => Err(format!("has bits behind its {count} levels of {bits} bits")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_level_is_in_the_lowest_bits() {
        assert_eq!(pack(&[1, 2, 3, 0], 2), [0b00_11_10_01]);
        assert_eq!(pack(&[0b001, 0b010, 0b111], 3), [0b11_010_001, 0b1]);
        assert_eq!(pack(&[0x5, 0xa, 0xf], 4), [0xa5, 0x0f]);
        assert_eq!(pack(&[7, 200], 8), [7, 200]);
        assert_eq!(pack(&[], 5), [0u8; 0]);
    }

    #[test]
    fn bytes_that_are_no_such_levels_are_refused() {
        assert!(unpack(&[0, 0], 4, 2).unwrap_err().contains("has 2 bytes, but 4 levels of 2 bits take 1 bytes"));
        assert!(unpack(&[0], 5, 2).unwrap_err().contains("take 2 bytes"));
        assert!(unpack(&[0b0100_0000], 3, 2).unwrap_err().contains("bits behind its 3 levels"));
        assert!(unpack(&[0], usize::MAX, 8).is_err() && unpack(&[0], usize::MAX, 3).is_err());
        assert!(unpack(&[0], 1, 0).is_err() && unpack(&[0], 1, 9).is_err());
    }

    proptest! {
        #[test]
        fn levels_come_back(bits in 1u32..=8, levels in prop::collection::vec(any::<u8>(), 0..100)) {
            let levels: Vec<u8> = levels.into_iter().map(|level| level & ((1u16 << bits) - 1) as u8).collect();
            let packed = pack(&levels, bits);
            prop_assert_eq!(Some(packed.len()), packed_len(levels.len(), bits));
            prop_assert_eq!(unpack(&packed, levels.len(), bits).unwrap(), levels);
        }
    }
}
