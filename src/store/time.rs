//! Moments, as the time since 1970 that files have.

use std::time::{Duration, SystemTime};

/// How long ago 1970 began; no time at all by a clock that is set before.
pub fn since_1970() -> Duration {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
}

/// Seconds since 1970 as `2026-11-23T13:03:04Z`; a time that no calendar has, as it is.
pub fn utc(unix_s: u64) -> String {
    // The year 9999, at which the form ends.
    const LAST: u64 = 253_402_300_799;
    match unix_s {
        0..=LAST => humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH + Duration::from_secs(unix_s)).to_string(),
        later => later.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc() {
        assert_eq!(utc(0), "1970-01-01T00:00:00Z");
        assert_eq!(utc(1_795_438_964), "2026-11-23T13:02:44Z");
        assert_eq!(utc(u64::MAX), u64::MAX.to_string());
    }
}
