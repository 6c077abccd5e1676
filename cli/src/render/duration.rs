//! Durations as people read them: the two largest units.

use jiff::Timestamp;

/// `58s`, `3m12s`, `2h05m`, `4d03h`.
pub(crate) fn short(seconds: i64) -> String {
    let s = seconds.max(0);
    match s {
        0..=59 => format!("{s}s"),
        60..=3_599 => format!("{}m{:02}s", s / 60, s % 60),
        3_600..=86_399 => format!("{}h{:02}m", s / 3_600, s % 3_600 / 60),
        _ => format!("{}d{:02}h", s / 86_400, s % 86_400 / 3_600),
    }
}

/// The time between two moments.
pub(crate) fn between(start: Timestamp, end: Timestamp) -> String {
    short(end.duration_since(start).as_secs())
}

#[cfg(test)]
mod tests {
    use super::short;

    #[test]
    fn the_two_largest_units_are_shown() {
        let texts: Vec<String> = [-5, 0, 59, 60, 192, 3_599, 3_600, 7_500, 86_400, 356_400].map(short).into();
        assert_eq!(texts, ["0s", "0s", "59s", "1m00s", "3m12s", "59m59s", "1h00m", "2h05m", "1d00h", "4d03h"]);
    }
}
