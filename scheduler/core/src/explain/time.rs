//! Points in time for people, as Kubernetes writes them.

use crate::model::Millis;

/// `2026-12-01T15:04:05Z` of milliseconds since the epoch, by the proleptic Gregorian calendar (RFC 3339); fractions of a
/// second are cut off.
#[must_use]
pub fn rfc3339(at: Millis) -> String {
    let seconds = at / 1_000;
    let (year, month, day) = date(seconds / 86_400);
    let of_day = seconds % 86_400;
    let (hour, minute, second) = (of_day / 3_600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// Year, month and day so many days after 1970-01-01. Years are counted from March, so that leap days come last.
fn date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // Days since 0000-03-01.
    let days = days + 719_468;
    let (era, day) = (days / DAYS_OF_400_YEARS, days % DAYS_OF_400_YEARS);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * month + 2) / 5 + 1, if month < 10 { month + 3 } else { month - 9 });
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_months_and_leap_years_are_those_of_the_calendar() {
        let of = |seconds: u64| rfc3339(seconds * 1_000 + 999);
        assert_eq!(of(0), "1970-01-01T00:00:00Z");
        assert_eq!(of(951_782_400), "2000-02-29T00:00:00Z");
        assert_eq!(of(951_868_799), "2000-02-29T23:59:59Z");
        assert_eq!(of(1_709_251_200), "2024-03-01T00:00:00Z");
        assert_eq!(of(1_796_137_445), "2026-12-01T15:04:05Z");
        assert_eq!(of(4_107_542_400), "2100-03-01T00:00:00Z");
    }
}
