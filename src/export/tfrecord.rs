//! TensorFlow's framing of records: length and data, each with a masked CRC32C
//! (`tensorflow/core/lib/io/record_writer.h`).

/// Appends `record` to `file`.
pub fn append(file: &mut Vec<u8>, record: &[u8]) {
    let length = (record.len() as u64).to_le_bytes();
    file.extend(length);
    file.extend(masked(crc32c::crc32c(&length)).to_le_bytes());
    file.extend(record);
    file.extend(masked(crc32c::crc32c(record)).to_le_bytes());
}

/// Rotated right by 15 bits, plus a constant.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_framed_as_tensorflow_does() {
        // CRC32C of "123456789" is 0xe3069283 (RFC 3720, B.4 has the polynomial).
        assert_eq!(crc32c::crc32c(b"123456789"), 0xe306_9283);
        let mut file = Vec::new();
        append(&mut file, b"123456789");
        assert_eq!(file.len(), 8 + 4 + 9 + 4);
        assert_eq!(file[..8], [9, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(file[21..], 0xc78a_b0e5u32.to_le_bytes());
    }
}
