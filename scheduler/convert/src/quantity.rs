//! Kubernetes quantities (`100m`, `1.5Gi`, `129e6`, `12E`) as integers.
//!
//! Semantics of apimachinery's `resource.Quantity`: exact to a billionth, anything finer is rounded away from zero, and
//! reading a value in a coarser unit rounds up. Amounts beyond what 64 bits hold are capped instead of wrapping, so that
//! an absurd request is merely one that fits nowhere.

use serde::de::{self, Deserialize, Deserializer, Visitor};
use smol_str::SmolStr;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::AddAssign;

const NANOS: i128 = 1_000_000_000;
const NANOS_PER_MILLI: i128 = 1_000_000;
/// Far above any `i64` in nano units, far below where sums of a million of them overflow.
const CAP: i128 = 1 << 100;

/// An amount in billionths of its unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity(i128);

/// Quantities by resource name.
pub type QuantityMap = BTreeMap<SmolStr, Quantity>;

/// Why a text is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a quantity")]
pub struct QuantityError {
    text: String,
}

impl Quantity {
    /// An amount of whole units.
    #[must_use]
    pub const fn units(value: i64) -> Self {
        Self(value as i128 * NANOS)
    }

    /// An amount of thousandths.
    #[must_use]
    pub const fn millis(value: i64) -> Self {
        Self(value as i128 * NANOS_PER_MILLI)
    }

    /// Whole units, rounded up.
    #[must_use]
    pub fn value(self) -> i64 {
        clamp(div_ceil(self.0, NANOS))
    }

    /// Billionths.
    #[must_use]
    pub const fn nanos(self) -> i128 {
        self.0
    }

    /// Thousandths, rounded up.
    #[must_use]
    pub fn milli_value(self) -> i64 {
        clamp(div_ceil(self.0, NANOS_PER_MILLI))
    }

    /// Parses a quantity.
    ///
    /// # Errors
    /// When the text is none.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        parse(text).map(Self).ok_or_else(|| QuantityError { text: text.chars().take(64).collect() })
    }
}

impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        self.0 = self.0.saturating_add(other.0).clamp(-CAP, CAP);
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

/// Rounds towards positive infinity.
fn div_ceil(value: i128, divisor: i128) -> i128 {
    value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0)
}

/// `<sign><digits>[.<digits>]<suffix>` in nano units.
fn parse(text: &str) -> Option<i128> {
    let (negative, unsigned) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let number_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
    let (number, suffix) = unsigned.split_at(number_end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let magnitude = match suffix {
        "Ki" => binary(whole, fraction, 10),
        "Mi" => binary(whole, fraction, 20),
        "Gi" => binary(whole, fraction, 30),
        "Ti" => binary(whole, fraction, 40),
        "Pi" => binary(whole, fraction, 50),
        "Ei" => binary(whole, fraction, 60),
        _ => decimal(whole, fraction, decimal_exponent(suffix)?),
    };
    Some(if negative { -magnitude } else { magnitude })
}

fn decimal_exponent(suffix: &str) -> Option<i64> {
    Some(match suffix {
        "n" => -9,
        "u" => -6,
        "m" => -3,
        "" => 0,
        "k" => 3,
        "M" => 6,
        "G" => 9,
        "T" => 12,
        "P" => 15,
        "E" => 18,
        _ => {
            let digits = suffix.strip_prefix(['e', 'E'])?;
            let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            if unsigned.is_empty() || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            // More digits than an exponent can use: any bound beyond the cap will do.
            digits.parse().unwrap_or(if digits.starts_with('-') { i64::MIN / 4 } else { i64::MAX / 4 })
        }
    })
}

/// `whole.fraction × 10^exponent` in nano units, rounded up, capped. Digit by digit, so that no text is too long.
fn decimal(whole: &str, fraction: &str, exponent: i64) -> i128 {
    let mut nanos: i128 = 0;
    let mut rest = false;
    // The power of ten, in nano units, of the digit at hand.
    let mut power = exponent.saturating_add(9).saturating_add(i64::try_from(whole.len()).unwrap_or(i64::MAX));
    for digit in whole.bytes().chain(fraction.bytes()).map(|byte| i128::from(byte - b'0')) {
        power = power.saturating_sub(1);
        if power < 0 {
            rest |= digit != 0;
        } else if digit != 0 {
            let scale = u32::try_from(power).ok().and_then(|power| 10_i128.checked_pow(power));
            nanos = scale.and_then(|scale| digit.checked_mul(scale)).map_or(CAP, |part| nanos.saturating_add(part));
        }
        nanos = nanos.min(CAP);
    }
    (nanos + i128::from(rest)).min(CAP)
}

/// `whole.fraction × 2^shift` in nano units, rounded up, capped at 64 bits of whole units as upstream does.
fn binary(whole: &str, fraction: &str, shift: u32) -> i128 {
    // Twelve decimal places of the factor keep the product exact enough to round up at the ninth.
    const PLACES: i64 = 12;
    let scaled = decimal(whole, fraction, PLACES - 9);
    let product = scaled.checked_mul(1_i128 << shift).unwrap_or(i128::MAX);
    let nanos = div_ceil(product, 10_i128.pow(3));
    nanos.min(i128::from(i64::MAX) * NANOS)
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(QuantityVisitor)
    }
}

struct QuantityVisitor;

impl Visitor<'_> for QuantityVisitor {
    type Value = Quantity;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a quantity such as 500m or 2Gi")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
        Quantity::parse(text).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, value: i64) -> Result<Quantity, E> {
        Ok(Quantity::units(value))
    }

    fn visit_u64<E: de::Error>(self, value: u64) -> Result<Quantity, E> {
        Ok(Quantity::units(i64::try_from(value).unwrap_or(i64::MAX)))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Quantity, E> {
        Quantity::parse(&value.to_string()).map_err(E::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> i64 {
        Quantity::parse(text).expect(text).value()
    }

    fn millis(text: &str) -> i64 {
        Quantity::parse(text).expect(text).milli_value()
    }

    #[test]
    fn every_suffix_means_what_kubernetes_means() {
        let table = [
            ("0", 0),
            ("1", 1),
            ("+7", 7),
            ("-7", -7),
            ("007", 7),
            ("1k", 1_000),
            ("1M", 1_000_000),
            ("1G", 1_000_000_000),
            ("1T", 1_000_000_000_000),
            ("1P", 1_000_000_000_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1Ki", 1 << 10),
            ("123Mi", 128_974_848),
            ("1Gi", 1 << 30),
            ("1Ti", 1 << 40),
            ("1Pi", 1 << 50),
            ("1Ei", 1 << 60),
            ("1e3", 1_000),
            ("1E3", 1_000),
            ("129e6", 129_000_000),
            ("1.5e3", 1_500),
            ("12e+2", 1_200),
            ("12e-1", 2),
            ("1.5Gi", 1_610_612_736),
            (".5Gi", 536_870_912),
            ("1.Gi", 1 << 30),
            ("0.1Ki", 103),
        ];
        for (text, expected) in table {
            assert_eq!(value(text), expected, "{text}");
        }
    }

    #[test]
    fn finer_amounts_are_rounded_up_once() {
        assert_eq!(millis("0.5"), 500);
        assert_eq!(millis("100m"), 100);
        assert_eq!(millis("1u"), 1);
        assert_eq!(millis("1n"), 1);
        assert_eq!(millis("0.0000000000001"), 1, "something asked for is never nothing");
        assert_eq!(millis("1500u"), 2);
        assert_eq!(value("1m"), 1);
        assert_eq!(value("1001m"), 2);
        assert_eq!(value("-1001m"), -1);
        let mut sum = Quantity::parse("400m").expect("quantity");
        sum += Quantity::parse("600m").expect("quantity");
        assert_eq!(sum.value(), 1, "parts are added before they are rounded");
    }

    #[test]
    fn absurd_amounts_are_capped_and_never_wrap() {
        assert_eq!(value("1e18"), 1_000_000_000_000_000_000);
        for text in ["1e19", "1e400", "999999999999999999999999999999999999999999", "9999Ei", "1e99999999999999999999"]
        {
            assert_eq!(value(text), i64::MAX, "{text}");
            assert_eq!(millis(text), i64::MAX, "{text}");
        }
        assert_eq!(millis("1e-99999999999999999999"), 1);
        assert_eq!(value("-1e30"), i64::MIN);
        let mut sum = Quantity::parse("1e400").expect("quantity");
        for _ in 0..1_000 {
            sum += Quantity::parse("1e400").expect("quantity");
        }
        assert_eq!(sum.value(), i64::MAX);
    }

    #[test]
    fn what_is_no_quantity_is_refused() {
        for text in ["", "-", "+", ".", "x", "1x", "1 Gi", "1gi", "1KI", "1e", "1e+", "1.2.3", "1Gi2", "--1", "１"] {
            assert!(Quantity::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn numbers_in_json_are_quantities_too() {
        let parsed: QuantityMap = serde_json::from_str(r#"{"a":"2Gi","b":3,"c":0.25}"#).expect("quantities");
        assert_eq!(parsed["a"].value(), 2 << 30);
        assert_eq!(parsed["b"].value(), 3);
        assert_eq!(parsed["c"].milli_value(), 250);
    }

    /// Every text over the alphabet of quantities either parses or is refused, and a parsed one agrees with floating
    /// point arithmetic where that is exact enough to tell.
    #[test]
    fn random_texts_never_panic_and_agree_with_a_second_way_of_counting() {
        let suffixes =
            [("", 1.0), ("m", 1e-3), ("k", 1e3), ("M", 1e6), ("Ki", 1024.0), ("Mi", 1_048_576.0), ("e2", 1e2)];
        let alphabet = b"0123456789.eE+-kKMGTPmun i";
        let mut state = 0x2545_F491_4F6C_DD1D_u64;
        let mut random = move |bound: usize| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % bound as u64).unwrap_or_default()
        };
        for _ in 0..20_000 {
            let text: String = (0..random(9)).map(|_| char::from(alphabet[random(alphabet.len())])).collect();
            let _ = Quantity::parse(&text);
            let number = format!("{}.{}", random(100_000), random(1_000));
            let (suffix, factor) = suffixes[random(suffixes.len())];
            let parsed = Quantity::parse(&format!("{number}{suffix}")).expect("well-formed");
            let expected: f64 = number.parse::<f64>().expect("a float") * factor * 1_000.0;
            let difference = parsed.milli_value() as f64 - expected;
            assert!((-0.01..1.01).contains(&difference), "{number}{suffix}: {difference}");
        }
    }
}
