//! Numbers of bytes as people write and read them.

const UNITS: [(&str, u64); 9] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("B", 1),
];

/// Bytes of `1.5GiB`, `200 MB` or `4096`. Errors: what is wrong, as text.
pub fn parse(text: &str) -> Result<u64, String> {
    let trimmed = text.trim();
    let lower = trimmed.to_lowercase();
    let unit = UNITS.iter().find(|(unit, _)| lower.ends_with(&unit.to_lowercase()));
    let (number, factor) =
        unit.map_or((trimmed, 1), |(unit, factor)| (&trimmed[..trimmed.len() - unit.len()], *factor));
    match number.trim().parse::<f64>() {
        Ok(number) if number >= 0.0 && number.is_finite() => Ok((number * factor as f64) as u64),
        _ => Err(format!("{text:?} is no number of bytes such as 2GiB, 500MB or 0")),
    }
}

/// `1.4 MiB`; below a KiB in bytes.
pub fn shown(bytes: u64) -> String {
    let unit = UNITS.iter().take(4).rev().find(|(_, factor)| bytes >= *factor);
    unit.map_or(format!("{bytes} B"), |(unit, factor)| format!("{:.1} {unit}", bytes as f64 / *factor as f64))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in [("0", 0), ("1.5 GiB", 3 << 29), ("2mb", 2_000_000), ("10B", 10), (" 3kib ", 3072)] {
            assert_eq!(parse(text), Ok(bytes), "{text}");
        }
        for text in ["", "GiB", "-1", "many", "nan", "inf", "1 PiB", "é"] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert_eq!((shown(1023), shown(1 << 20), shown(1536)), ("1023 B".into(), "1.0 MiB".into(), "1.5 KiB".into()));
    }
}
