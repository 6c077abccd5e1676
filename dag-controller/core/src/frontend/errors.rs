//! Mistakes in a document: where, what, and what to do about it.

use smol_str::SmolStr;
use std::fmt;

/// Most mistakes that one check reports.
pub const MAX_ERRORS: usize = 50;
/// Most look-alike searches of one check: each costs O(candidates).
const MAX_SUGGESTIONS: usize = 20;
/// Longest piece of the user's text that a message repeats, in bytes.
const MAX_ECHO: usize = 64;

/// Longest path, problem or fix, in bytes.
const MAX_TEXT: usize = 1024;

/// One mistake.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct FieldError {
    /// Where, as `kubectl explain` writes it: `spec.nodes[2].replicas`. Empty for the document as a whole.
    pub path: String,
    /// What is wrong.
    pub problem: String,
    /// What would cure it.
    pub fix: String,
}

impl FieldError {
    /// The same with each text cut: keys and values of the user's stand in them, and may be of any length.
    #[must_use]
    pub fn bounded(self) -> Self {
        Self { path: cut(self.path), problem: cut(self.problem), fix: cut(self.fix) }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        text.truncate(text.floor_char_boundary(MAX_TEXT));
        text.push('…');
    }
    text
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = if self.path.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}{}; {}", self.path, self.problem, self.fix)
    }
}

/// Collects mistakes up to the bound.
#[derive(Debug, Default)]
pub(super) struct Errors {
    list: Vec<FieldError>,
    left_out: usize,
    suggestions: usize,
}

impl Errors {
    /// Adds a mistake.
    pub(super) fn push(&mut self, path: impl fmt::Display, problem: impl Into<String>, fix: impl Into<String>) {
        if self.list.len() < MAX_ERRORS {
            let error = FieldError { path: path.to_string(), problem: problem.into(), fix: fix.into() };
            self.list.push(error.bounded());
        } else {
            self.left_out += 1;
        }
    }

    /// No mistake so far.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.list.len() + self.left_out
    }

    /// The list; a last entry counts what is left out.
    pub(super) fn into_list(mut self) -> Vec<FieldError> {
        if self.left_out > 0 {
            let problem = format!("{} more mistakes are not shown", self.left_out);
            self.list.push(FieldError { path: String::new(), problem, fix: "correct these first".into() });
        }
        self.list
    }

    /// The candidate that `word` was probably meant to be. Searches a bounded number of times.
    pub(super) fn look_alike<'a>(&mut self, word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
        if word.len() > MAX_ECHO || self.suggestions >= MAX_SUGGESTIONS || self.list.len() >= MAX_ERRORS {
            return None;
        }
        self.suggestions += 1;
        nearest(word, candidates)
    }
}

/// The nearest candidate, if it is near: a third of the letters may differ; letter case does not count.
fn nearest<'a>(word: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word: Vec<char> = word.chars().flat_map(char::to_lowercase).collect();
    let allowed = (word.len() / 3).max(1);
    let mut best: Option<(usize, &str)> = None;
    for candidate in candidates {
        if candidate.len().abs_diff(word.len()) > allowed {
            continue;
        }
        let distance = edit_distance(&word, candidate);
        if distance <= allowed && best.is_none_or(|(d, _)| distance < d) {
            best = Some((distance, candidate));
        }
    }
    best.map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, a neighbouring swap counting once (optimal string alignment), three rows at a time.
fn edit_distance(a: &[char], b: &str) -> usize {
    let b: Vec<char> = b.chars().flat_map(char::to_lowercase).collect();
    let mut before: Vec<usize> = vec![0; b.len() + 1];
    let mut above: Vec<usize> = (0..=b.len()).collect();
    for i in 0..a.len() {
        let mut row = vec![i + 1; b.len() + 1];
        for j in 0..b.len() {
            let change = above[j] + usize::from(a[i] != b[j]);
            row[j + 1] = change.min(above[j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && a[i] == b[j - 1] && a[i - 1] == b[j] {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut above, row);
    }
    above[b.len()]
}

/// The user's text, quoted, and cut where it is long.
pub(super) fn echo(text: &str) -> String {
    if text.len() <= MAX_ECHO {
        return format!("{text:?}");
    }
    let cut = text.char_indices().map(|(at, _)| at).take_while(|&at| at <= MAX_ECHO).last().unwrap_or(0);
    format!("{:?}…", &text[..cut])
}

/// A place in the document that grows as one descends.
#[derive(Clone, Debug)]
pub(super) struct Path(SmolStr);

impl Path {
    pub(super) fn root(text: &str) -> Self {
        Self(text.into())
    }

    /// A field of this object. A key that is no plain word is quoted.
    pub(super) fn field(&self, key: &str) -> Self {
        let plain =
            !key.is_empty() && key.len() <= MAX_ECHO && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        Self(match (self.0.is_empty(), plain) {
            (true, true) => key.into(),
            (false, true) => smol_str::format_smolstr!("{}.{key}", self.0),
            (_, false) => smol_str::format_smolstr!("{}[{}]", self.0, echo(key)),
        })
    }

    /// The same place, with what explains how it came to be.
    pub(super) fn with_note(&self, note: &str) -> Self {
        Self(smol_str::format_smolstr!("{}({note})", self.0))
    }

    /// An entry of this list.
    pub(super) fn at(&self, index: usize) -> Self {
        Self(smol_str::format_smolstr!("{}[{index}]", self.0))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognised() {
        let known = ["preprocess", "train", "eval", "publish"];
        for (word, expected) in [
            ("preproces", Some("preprocess")),
            ("tarin", Some("train")),
            ("Train", Some("train")),
            ("evall", Some("eval")),
            ("deploy", None),
            ("", None),
        ] {
            assert_eq!(nearest(word, known.into_iter()), expected, "{word}");
        }
    }

    #[test]
    fn long_and_strange_text_is_cut_and_quoted() {
        assert_eq!(echo("a\nb"), r#""a\nb""#);
        let long = "é".repeat(500);
        assert!(echo(&long).len() < 80);
        assert_eq!(Path::root("spec").field("a.b/c").to_string(), r#"spec["a.b/c"]"#);
        assert_eq!(Path::root("spec").field("nodes").at(3).field("id").to_string(), "spec.nodes[3].id");
    }

    #[test]
    fn the_list_is_bounded_and_says_so() {
        let mut errors = Errors::default();
        for at in 0..70 {
            errors.push(format!("spec.nodes[{at}]"), "wrong", "right");
        }
        let list = errors.into_list();
        assert_eq!(list.len(), MAX_ERRORS + 1);
        assert_eq!(list.last().map(|e| e.problem.as_str()), Some("20 more mistakes are not shown"));
    }
}
