//! Durations as Go writes them: `10s`, `1m30s`, `500ms`.

use std::time::Duration;

/// A duration as Go writes it; None where the text is none.
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let unit_at = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(unit_at);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, next) = after.split_at(unit_end);
        seconds += number.parse::<f64>().ok()? * seconds_in(unit)?;
        rest = next;
    }
    if text.is_empty() { None } else { Duration::try_from_secs_f64(seconds).ok() }
}

fn seconds_in(unit: &str) -> Option<f64> {
    Some(match unit {
        "ns" => 1e-9,
        "us" | "µs" | "μs" => 1e-6,
        "ms" => 1e-3,
        "s" => 1.0,
        "m" => 60.0,
        "h" => 3_600.0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        let millis = |text| parse(text).map(|d| d.as_millis());
        assert_eq!(["10s", "1m30s", "500ms", "1.5h", "0"].map(millis), [10_000, 90_000, 500, 5_400_000, 0].map(Some));
        assert_eq!(["", "10", "s", "-5s", "5 s", "1d"].map(millis), [None; 6]);
    }
}
