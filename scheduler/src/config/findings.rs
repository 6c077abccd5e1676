//! What is found in a configuration: values that cannot work, and fields that have no effect here.

use serde::de::DeserializeOwned;
use std::fmt::Display;

/// Problems and notices, each a sentence that begins with the field.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Findings {
    /// What cannot work.
    pub(crate) problems: Vec<String>,
    /// What is accepted and has no effect, or another one than in kube-scheduler.
    pub(crate) notices: Vec<String>,
}

impl Findings {
    /// A value cannot work; `fix` says what would.
    pub(crate) fn problem(&mut self, field: impl Display, fix: impl Display) {
        self.problems.push(format!("{field} {fix}"));
    }

    /// The same, unless it holds.
    pub(crate) fn require(&mut self, holds: bool, field: impl Display, fix: impl Display) {
        if !holds {
            self.problem(field, fix);
        }
    }

    /// A field has no effect, or another one than in kube-scheduler.
    pub(crate) fn notice(&mut self, field: impl Display, what: impl Display) {
        self.notices.push(format!("{field} {what}"));
    }

    /// The same, where the field is set.
    pub(crate) fn notice_set<T>(&mut self, set: &Option<T>, field: impl Display, what: impl Display) {
        if set.is_some() {
            self.notice(field, what);
        }
    }

    /// Arguments of a plugin. None: they are not what is expected, which is noted.
    pub(crate) fn arguments<T: DeserializeOwned>(&mut self, field: &str, given: &serde_json::Value) -> Option<T> {
        match serde_json::from_value(given.clone()) {
            Ok(arguments) => Some(arguments),
            Err(error) => {
                self.problem(field, format!("cannot be read: {}", with_hint(&error.to_string())));
                None
            }
        }
    }
}

/// serde's words about an unknown field, with the nearest known name where one is near.
pub(crate) fn with_hint(message: &str) -> String {
    let Some((_, after)) = message.split_once("unknown field `") else { return message.to_owned() };
    let Some((unknown, expected)) = after.split_once("`, expected ") else { return message.to_owned() };
    let expected = expected.lines().next().unwrap_or_default();
    let words = expected.split([',', ' ', '`']).filter(|word| !matches!(*word, "" | "one" | "of" | "or"));
    match nearest(unknown, words) {
        Some(known) => format!("{message}; did you mean `{known}`?"),
        None => message.to_owned(),
    }
}

/// The known word that a mistyped one is nearest to, where it is near.
pub(crate) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let near = known.map(|known| (distance(&word.to_lowercase(), &known.to_lowercase()), known)).min();
    near.filter(|(distance, _)| *distance <= word.len().div_ceil(3)).map(|(_, known)| known)
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut before = row[0];
        row[0] = i + 1;
        for (j, y) in b.iter().enumerate() {
            let replaced = before + usize::from(x != *y);
            before = row[j + 1];
            row[j + 1] = replaced.min(before + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_word_finds_the_near_one_and_nothing_far() {
        let known = ["settleMs", "scoringStrategy", "weight"];
        let found = |word| nearest(word, known.into_iter());
        assert_eq!(
            [found("setleMs"), found("scoringstrategy"), found("wieght")],
            [Some("settleMs"), Some("scoringStrategy"), Some("weight")]
        );
        assert_eq!(found("zzz"), None);
    }

    #[test]
    fn the_hint_is_taken_from_the_fields_that_serde_names() {
        let hinted = with_hint("unknown field `wieght`, expected `name` or `weight`");
        assert!(hinted.ends_with("did you mean `weight`?"), "{hinted}");
        let shown = with_hint("1:2: unknown field `wieght`, expected one of name, weight\n1 | wieght: 3");
        assert!(shown.ends_with("did you mean `weight`?"), "{shown}");
        assert_eq!(with_hint("invalid type: `x`"), "invalid type: `x`");
    }
}
