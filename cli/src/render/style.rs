//! Colours and glyphs of the phases.

use flowforge_api::workflow::{NodePhase, WorkflowPhase};
use unicode_width::UnicodeWidthChar as _;

/// Whether text is coloured.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Style {
    pub(crate) color: bool,
}

/// What a colour means.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Tone {
    Good,
    Bad,
    Busy,
    Waiting,
    Quiet,
    Strong,
}

impl Style {
    pub(crate) fn paint(self, tone: Tone, text: &str) -> String {
        if !self.color || text.is_empty() {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Busy => "36",
            Tone::Waiting => "33",
            Tone::Quiet => "2",
            Tone::Strong => "1",
        };
        format!("\u{1b}[{code}m{text}\u{1b}[0m")
    }
}

pub(crate) fn tone_of_workflow(phase: WorkflowPhase) -> Tone {
    match phase {
        WorkflowPhase::Pending => Tone::Waiting,
        WorkflowPhase::Running => Tone::Busy,
        WorkflowPhase::Succeeded => Tone::Good,
        WorkflowPhase::Failed | WorkflowPhase::Canceled => Tone::Bad,
    }
}

pub(crate) fn tone_of_node(phase: NodePhase) -> Tone {
    match phase {
        NodePhase::Pending | NodePhase::Skipped => Tone::Quiet,
        NodePhase::Scheduling => Tone::Waiting,
        NodePhase::Running => Tone::Busy,
        NodePhase::Succeeded => Tone::Good,
        NodePhase::Failed => Tone::Bad,
    }
}

pub(crate) fn glyph(phase: NodePhase) -> &'static str {
    match phase {
        NodePhase::Pending => "○",
        NodePhase::Scheduling => "◌",
        NodePhase::Running => "●",
        NodePhase::Succeeded => "✔",
        NodePhase::Failed => "✘",
        NodePhase::Skipped => "–",
    }
}

/// Cuts a line (which may hold colours) to so many columns, so that it never wraps.
pub(crate) fn cut(line: &str, columns: usize) -> String {
    let mut text = String::with_capacity(line.len());
    let (mut used, mut escape, mut colored) = (0, false, false);
    for c in line.chars() {
        if c == '\u{1b}' {
            (escape, colored) = (true, true);
        }
        if escape {
            escape = c != 'm';
            text.push(c);
            continue;
        }
        let width = c.width().unwrap_or(0);
        if used + width > columns.saturating_sub(1) && used + width < display_width(line) {
            text.push('…');
            break;
        }
        used += width;
        text.push(c);
    }
    if colored {
        text.push_str("\u{1b}[0m");
    }
    text
}

/// Breaks text without colours between words, so that no line with more than one word is wider than `columns`.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if display_width(line).saturating_add(1 + display_width(word)) <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// Columns that a line (which may hold colours) takes.
pub(crate) fn display_width(line: &str) -> usize {
    let mut escape = false;
    line.chars()
        .filter(|c| {
            let hidden = escape || *c == '\u{1b}';
            escape = hidden && *c != 'm';
            !hidden
        })
        .map(|c| c.width().unwrap_or(0))
        .sum()
}

/// Text from elsewhere on one line and without control characters, which could otherwise steer the terminal.
pub(crate) fn printable(text: &str) -> String {
    text.split(|c: char| c.is_control()).filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_cut_at_the_edge_and_colours_are_closed() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!(display_width(&cut("日本語日本語", 6)), 5);
        let red = Style { color: true }.paint(Tone::Bad, "abcdefg");
        assert_eq!(cut(&red, 4), "\u{1b}[31mabc…\u{1b}[0m");
    }

    #[test]
    fn text_is_wrapped_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("one two three", 13), ["one two three"]);
        assert_eq!(wrap("a-word-too-long for it", 6), ["a-word-too-long", "for it"]);
        assert_eq!(wrap("one two", usize::MAX), ["one two"]);
        assert_eq!(wrap("", 5), [""]);
    }

    #[test]
    fn foreign_text_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nc\r\nd"), "a [2Jb c d");
    }

    #[test]
    fn without_colour_text_is_left_alone() {
        assert_eq!(Style::default().paint(Tone::Bad, "x"), "x");
    }
}
