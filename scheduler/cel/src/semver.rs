//! Semantic versions 2.0.0, as attributes of devices hold them.

use smol_str::SmolStr;
use std::cmp::Ordering;

/// A version. Build metadata does not count when versions are compared.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Semver {
    /// First number.
    pub major: u64,
    /// Second number.
    pub minor: u64,
    /// Third number.
    pub patch: u64,
    pre: Vec<Pre>,
}

#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
enum Pre {
    Number(u64),
    Text(SmolStr),
}

impl Semver {
    /// Parses `major.minor.patch[-pre][+build]`.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| Err(format!("\"{text}\" is not a semantic version: {what}"));
        let mut numbers = text.splitn(3, '.');
        let (Some(major), Some(minor), Some(rest)) = (numbers.next(), numbers.next(), numbers.next()) else {
            return wrong("it needs the form major.minor.patch");
        };
        let (rest, build) = rest.split_once('+').map_or((rest, None), |(rest, build)| (rest, Some(build)));
        let (patch, pre) = rest.split_once('-').map_or((rest, None), |(patch, pre)| (patch, Some(pre)));
        let (Some(major), Some(minor), Some(patch)) = (number(major), number(minor), number(patch)) else {
            return wrong("major, minor and patch are whole numbers without leading zeros");
        };
        let Some(pre) = pre.map_or(Some(Vec::new()), |pre| pre.split('.').map(identifier).collect()) else {
            return wrong("the pre-release is letters, digits and hyphens, its numbers without leading zeros");
        };
        if build.is_some_and(|build| !build.split('.').all(is_word)) {
            return wrong("build metadata is letters, digits and hyphens");
        }
        Ok(Self { major, minor, patch, pre })
    }

    /// Parses what people write, too: a leading `v`, leading zeros, and missing minor and patch.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub fn parse_normalized(text: &str) -> Result<Self, String> {
        let text = text.strip_prefix('v').unwrap_or(text);
        let mut parts: Vec<String> = text.splitn(3, '.').map(without_leading_zeros).collect();
        if parts.len() < 3 {
            if parts.last().is_some_and(|last| last.contains(['+', '-'])) {
                return Err(format!("\"{text}\": a short version has no pre-release and no build metadata"));
            }
            parts.resize(3, "0".to_owned());
        }
        Self::parse(&parts.join("."))
    }
}

impl Ord for Semver {
    fn cmp(&self, other: &Self) -> Ordering {
        let numbers = |v: &Self| (v.major, v.minor, v.patch);
        let pre = || match (self.pre.is_empty(), other.pre.is_empty()) {
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self.pre.cmp(&other.pre),
        };
        numbers(self).cmp(&numbers(other)).then_with(pre)
    }
}

impl PartialOrd for Semver {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

fn without_leading_zeros(part: &str) -> String {
    if part.len() <= 1 {
        return part.to_owned();
    }
    let trimmed = part.trim_start_matches('0');
    if trimmed.starts_with(|c: char| c.is_ascii_digit()) { trimmed.to_owned() } else { format!("0{trimmed}") }
}

fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let padded = text.len() > 1 && text.starts_with('0');
    if digits && !padded { text.parse().ok() } else { None }
}

fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn identifier(text: &str) -> Option<Pre> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        return number(text).map(Pre::Number);
    }
    is_word(text).then(|| Pre::Text(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v(text: &str) -> Semver {
        Semver::parse(text).unwrap()
    }

    #[test]
    fn versions_are_ordered_by_precedence() {
        let ordered = [
            "1.0.0-alpha",
            "1.0.0-alpha.1",
            "1.0.0-alpha.beta",
            "1.0.0-beta.2",
            "1.0.0-beta.11",
            "1.0.0-rc.1",
            "1.0.0",
            "1.0.1",
            "1.10.0",
            "2.0.0",
        ];
        for pair in ordered.windows(2) {
            assert!(v(pair[0]) < v(pair[1]), "{pair:?}");
        }
        assert_eq!(v("1.0.0+a"), v("1.0.0+b"));
    }

    #[test]
    fn only_the_strict_form_is_a_version() {
        for text in [
            "",
            "1",
            "1.2",
            "v1.2.3",
            "01.2.3",
            "1.2.3-",
            "1.2.3-01",
            "1.2.3+",
            "1.2.3-a..b",
            "1.2.x",
            "1.2.3.4",
            "-1.2.3",
        ] {
            assert!(Semver::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn people_write_short_versions() {
        let normalized = |text: &str| Semver::parse_normalized(text);
        assert_eq!(
            [normalized("v1"), normalized("1.02"), normalized("01.2.03")],
            [Ok(v("1.0.0")), Ok(v("1.2.0")), Ok(v("1.2.3"))]
        );
        assert_eq!(normalized("v01.00.0-x"), Ok(v("1.0.0-x")));
        assert!(normalized("1.2-rc").is_err() && normalized("").is_err() && normalized("x").is_err());
    }
}
