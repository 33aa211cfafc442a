//! Numbers of any size as short text.

/// Three significant digits.
pub fn significant(value: f64) -> String {
    match value.abs() {
        0.001..1000.0 => {
            let decimals = (2.0 - value.abs().log10().floor()).clamp(0.0, 5.0) as usize;
            format!("{value:.decimals$}")
        }
        0.0 => "0".to_string(),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits() {
        let text = [0.0, 0.012345, 1.23456, 123.456, 1234.5, 0.000012345, f64::NAN].map(significant);
        assert_eq!(text, ["0", "0.0123", "1.23", "123", "1.23e3", "1.23e-5", "NaN"]);
    }
}
