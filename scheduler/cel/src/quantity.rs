//! Kubernetes quantities as exact numbers: what a capacity, a counter or a request for capacity holds.

use serde::{Serialize, Serializer};
use std::fmt;
use thiserror::Error;

/// Nanos of one.
const ONE: i128 = 1_000_000_000;
/// Largest whole number that the slow way of parsing keeps.
const MAX_WHOLE: i128 = i64::MAX as i128;

/// An amount in units of 10⁻⁹, the precision that Kubernetes keeps. What does not fit is the largest that does.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Quantity(i128);

/// A text that is no quantity.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("\"{0}\" is not a quantity such as 2, 1500m, 1.5Gi or 2e3")]
pub struct NotAQuantity(String);

impl Quantity {
    /// A whole number.
    #[must_use]
    pub const fn whole(value: i64) -> Self {
        Self(value as i128 * ONE)
    }

    /// Parses `<sign><digits>[.<digits>]<suffix>`; more than nine decimals are rounded away from zero.
    ///
    /// # Errors
    /// When the text is not of this form.
    pub fn parse(text: &str) -> Result<Self, NotAQuantity> {
        parse(text).map(Self).ok_or_else(|| NotAQuantity(text.to_owned()))
    }

    /// The whole number, where it is one and fits.
    #[must_use]
    pub fn to_i64(self) -> Option<i64> {
        (self.0 % ONE == 0).then(|| i64::try_from(self.0 / ONE).ok()).flatten()
    }

    /// The next whole number away from zero, as Go's `Value`; saturating.
    #[must_use]
    pub fn ceil(self) -> i64 {
        let up = self.0 / ONE + if self.0 % ONE == 0 { 0 } else { self.0.signum() };
        i64::try_from(up).unwrap_or(if up < 0 { i64::MIN } else { i64::MAX })
    }

    /// As a floating-point number.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "approximate by definition")]
    pub fn to_f64(self) -> f64 {
        let (whole, rest) = (self.0 / ONE, self.0 % ONE);
        if rest == 0 { whole as f64 } else { self.0 as f64 / ONE as f64 }
    }

    /// -1, 0 or 1.
    #[must_use]
    pub fn sign(self) -> i64 {
        self.0.signum() as i64
    }

    /// The sum, saturating.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference, saturating.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl fmt::Display for Quantity {
    /// As a decimal number, which every reader of quantities takes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / ONE, (self.0 % ONE).unsigned_abs());
        if rest == 0 {
            return write!(f, "{whole}");
        }
        // Nanos, micros and millis are the suffixes below one.
        let (mut scaled, mut suffix) = (self.0, "n");
        for larger in ["u", "m"] {
            if scaled % 1000 == 0 {
                (scaled, suffix) = (scaled / 1000, larger);
            }
        }
        write!(f, "{scaled}{suffix}")
    }
}

impl Serialize for Quantity {
    /// As it is displayed.
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

fn parse(text: &str) -> Option<i128> {
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
    let (whole, rest) = rest.split_at(digits(rest));
    let (decimals, suffix) = match rest.strip_prefix('.') {
        Some(rest) => rest.split_at(digits(rest)),
        None => ("", rest),
    };
    if whole.is_empty() && decimals.is_empty() {
        return None;
    }
    let (base, exponent) = scale(suffix)?;
    let amount = nanos(whole, decimals, base, exponent);
    Some(if negative { -amount } else { amount })
}

/// What a suffix multiplies by: a power of 10 or of 2.
fn scale(suffix: &str) -> Option<(u32, i32)> {
    let scale = match suffix {
        "" => (10, 0),
        "n" => (10, -9),
        "u" => (10, -6),
        "m" => (10, -3),
        "k" => (10, 3),
        "M" => (10, 6),
        "G" => (10, 9),
        "T" => (10, 12),
        "P" => (10, 15),
        "E" => (10, 18),
        "Ki" => (2, 10),
        "Mi" => (2, 20),
        "Gi" => (2, 30),
        "Ti" => (2, 40),
        "Pi" => (2, 50),
        "Ei" => (2, 60),
        _ => {
            let exponent = suffix.strip_prefix(['e', 'E'])?;
            let unsigned = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
            if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            (10, exponent.parse::<i32>().ok()?)
        }
    };
    Some(scale)
}

/// The amount in nanos, rounded up.
fn nanos(whole: &str, decimals: &str, base: u32, exponent: i32) -> i128 {
    let significant = whole.trim_start_matches('0');
    let digits = format!("{significant}{decimals}");
    let point = i32::try_from(decimals.len()).unwrap_or(i32::MAX);
    // 10^-point · digits · base^exponent · 10^9
    let (ten, two) =
        if base == 10 { (exponent.saturating_add(9).saturating_sub(point), 0) } else { (9 - point, exponent) };
    if digits.len() > 38 || ten > 38 {
        // Beyond what is kept, or far below it.
        return if digits.bytes().all(|b| b == b'0') { 0 } else { huge_or_tiny(&digits, ten) };
    }
    let Ok(number) = digits.trim_start_matches('0').parse::<i128>() else { return 0 };
    let number = number.checked_mul(1 << two).unwrap_or(i128::MAX);
    if ten >= 0 {
        return 10i128.checked_pow(ten.unsigned_abs()).and_then(|p| number.checked_mul(p)).unwrap_or(i128::MAX);
    }
    match 10i128.checked_pow(ten.unsigned_abs()) {
        Some(by) => (number / by + i128::from(number % by != 0)).min(MAX_WHOLE * ONE),
        None => i128::from(number != 0),
    }
}

fn huge_or_tiny(digits: &str, ten: i32) -> i128 {
    let whole = i64::try_from(digits.trim_start_matches('0').len()).unwrap_or(i64::MAX) + i64::from(ten);
    if whole <= 0 { 1 } else { MAX_WHOLE * ONE }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantity(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    #[test]
    fn every_notation_is_read() {
        for (text, nanos) in [
            ("0", 0),
            ("1", ONE),
            ("-1.5", -3 * ONE / 2),
            ("+2", 2 * ONE),
            (".5", ONE / 2),
            ("1.", ONE),
            ("1500m", 3 * ONE / 2),
            ("1n", 1),
            ("3u", 3000),
            ("2k", 2000 * ONE),
            ("1Ki", 1024 * ONE),
            ("0.5Gi", (1 << 29) * ONE),
            ("1e3", 1000 * ONE),
            ("12E-1", 6 * ONE / 5),
            ("1E", 1_000_000_000_000_000_000 * ONE),
            ("100E", 100 * 1_000_000_000_000_000_000 * ONE),
        ] {
            assert_eq!(quantity(text).0, nanos, "{text}");
        }
    }

    #[test]
    fn what_is_no_quantity_is_refused_and_nothing_panics() {
        for text in ["", "-", ".", "1x", "1e", "1e+", "e3", "1 ", " 1", "1KI", "0x1", "1.2.3", "--1", "\u{e9}"] {
            assert!(Quantity::parse(text).is_err(), "{text}");
        }
        for text in
            ["9".repeat(99), "1e99".into(), "1e-99".into(), "1e2147483647".into(), format!("0.{}1", "0".repeat(60))]
        {
            assert!(quantity(&text) > Quantity::default(), "{text}");
        }
    }

    #[test]
    fn decimals_beyond_nanos_are_rounded_away_from_zero() {
        assert_eq!([quantity("0.1n").0, quantity("-0.1n").0, quantity("1.0000000001").0], [1, -1, ONE + 1]);
    }

    #[test]
    fn whole_numbers_and_their_neighbours() {
        assert_eq!([quantity("1.1").ceil(), quantity("-1.1").ceil(), quantity("100E").ceil()], [2, -2, i64::MAX]);
        assert_eq!([quantity("3").to_i64(), quantity("1m").to_i64(), quantity("100E").to_i64()], [Some(3), None, None]);
    }

    #[test]
    fn what_is_written_is_read_back() {
        for text in ["0", "7", "1500m", "1n", "3u", "-2500m", "1073741824"] {
            assert_eq!(quantity(text).to_string(), text);
        }
        assert_eq!(quantity(&quantity("1.0001").to_string()), quantity("1.0001"));
    }
}
