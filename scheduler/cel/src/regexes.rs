//! Regular expressions of RE2, which CEL speaks, on a library that differs in one thing: there `\d`, `\w`, `\s` and `\b` know
//! all of Unicode, in RE2 only ASCII.

use regex::{Regex, RegexBuilder};

/// Compiled patterns may take this much memory each.
const SIZE_LIMIT_BYTES: usize = 1 << 20;

/// Compiles a pattern.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn compile(pattern: &str) -> Result<Regex, String> {
    let wrong = |what: &dyn std::fmt::Display| format!("pattern {pattern:?} is no regular expression: {what}");
    RegexBuilder::new(&ascii(pattern)).size_limit(SIZE_LIMIT_BYTES).build().map_err(|e| wrong(&e))
}

fn ascii(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        if c != '\\' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('d') => out.push_str("[0-9]"),
            Some('D') => out.push_str("[^0-9]"),
            Some('w') => out.push_str("[0-9A-Za-z_]"),
            Some('W') => out.push_str("[^0-9A-Za-z_]"),
            Some('s') => out.push_str(r"[\t\n\f\r ]"),
            Some('S') => out.push_str(r"[^\t\n\f\r ]"),
            Some('b') => out.push_str(r"(?-u:\b)"),
            Some('B') => out.push_str(r"(?-u:\B)"),
            Some(other) => {
                out.push('\\');
                out.push(other);
            }
            None => out.push('\\'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_those_of_ascii() {
        let matches = |pattern: &str, text: &str| compile(pattern).unwrap().is_match(text);
        assert!(matches(r"^\d+$", "123") && !matches(r"^\d+$", "\u{663}"));
        assert!(matches(r"^[\w-]+$", "a-b_9") && !matches(r"^\w$", "\u{e9}"));
        assert!(matches(r"a\b", "a\u{e9}") && matches(r"^a\\d$", "a\\d"));
        assert!(compile("(").is_err() && compile(r"\").is_err());
    }
}
