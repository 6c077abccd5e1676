//! A picture that is redrawn in place, below what stands on the terminal already.
//!
//! Each line is overwritten where it stands and only its rest is erased, so that nothing blinks; terminals that know
//! synchronised output (mode 2026) show the whole change at once, the others ignore it. After a resize the old lines may
//! take more rows than before: they are counted as the terminal has wrapped them.

use super::style::display_width;

const BEGIN: &str = "\u{1b}[?2026h";
const END: &str = "\u{1b}[?2026l";

/// What was drawn last.
#[derive(Clone, Debug, Default)]
pub(crate) struct Picture {
    /// Columns of each of its lines.
    widths: Vec<usize>,
}

impl Picture {
    /// What to write so that these lines stand in place of the last ones. Lines must not be wider than the terminal.
    pub(crate) fn redraw(&mut self, lines: &[String], columns: usize, rows: usize) -> String {
        let wrapped: usize = self.widths.iter().map(|width| width.div_ceil(columns.max(1)).max(1)).sum();
        // The cursor stands below the last line; what scrolled out of the terminal cannot be reached.
        let up = wrapped.min(rows.saturating_sub(1));
        let mut text = BEGIN.to_owned();
        if up > 0 {
            text.push_str(&format!("\u{1b}[{up}F"));
        }
        for line in lines {
            text.push_str(line);
            text.push_str("\u{1b}[K\r\n");
        }
        text.push_str("\u{1b}[J");
        text.push_str(END);
        self.widths = lines.iter().map(|line| display_width(line)).collect();
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As much of a terminal as a picture uses: text, line breaks, `CSI n F`, `CSI K`, `CSI J`, and scrolling.
    struct Terminal {
        columns: usize,
        rows: usize,
        lines: Vec<Vec<char>>,
        row: usize,
        column: usize,
    }

    impl Terminal {
        fn new(columns: usize, rows: usize) -> Self {
            Self { columns, rows, lines: vec![Vec::new()], row: 0, column: 0 }
        }

        fn top(&self) -> usize {
            self.lines.len().saturating_sub(self.rows)
        }

        fn write(&mut self, text: &str) {
            let mut rest = text.chars();
            while let Some(c) = rest.next() {
                match c {
                    '\r' => self.column = 0,
                    '\n' => self.down(),
                    '\u{1b}' => {
                        let mut argument = String::new();
                        let command = loop {
                            match rest.next().expect("a whole sequence") {
                                c if c.is_ascii_alphabetic() => break c,
                                c => argument.push(c),
                            }
                        };
                        self.control(command, argument.trim_start_matches('['));
                    }
                    c => self.put(c),
                }
            }
        }

        fn control(&mut self, command: char, argument: &str) {
            match command {
                'F' => {
                    let up: usize = argument.parse().expect("a number");
                    (self.row, self.column) = (self.row.saturating_sub(up).max(self.top()), 0);
                }
                'K' => self.lines[self.row].truncate(self.column),
                'J' => {
                    self.lines[self.row].truncate(self.column);
                    self.lines.truncate(self.row + 1);
                }
                'h' | 'l' | 'm' => {}
                other => panic!("CSI {argument}{other} is not used"),
            }
        }

        fn put(&mut self, c: char) {
            if self.column == self.columns {
                self.column = 0;
                self.down();
            }
            let line = &mut self.lines[self.row];
            line.resize(line.len().max(self.column + 1), ' ');
            line[self.column] = c;
            self.column += 1;
        }

        fn down(&mut self) {
            self.row += 1;
            if self.row == self.lines.len() {
                self.lines.push(Vec::new());
            }
        }
    }

    fn shown(terminal: &Terminal) -> Vec<String> {
        terminal.lines.iter().map(|line| line.iter().collect()).collect()
    }

    fn lines(texts: &[&str]) -> Vec<String> {
        texts.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_next_picture_leaves_nothing_of_the_last() {
        let mut terminal = Terminal::new(20, 10);
        terminal.write("$ flowforge watch d\r\n");
        let mut picture = Picture::default();
        for texts in [
            &["d  Running", "a long line of text", "└─ b"][..],
            &["d  Running", "short", "├─ b", "└─ c"],
            &["d"],
            &["d  Succeeded", "├─ b", "└─ c"],
        ] {
            terminal.write(&picture.redraw(&lines(texts), 20, 10));
            let expected: Vec<&str> = ["$ flowforge watch d"].iter().chain(texts).chain(&[""]).copied().collect();
            assert_eq!(shown(&terminal), expected);
        }
    }

    #[test]
    fn nothing_is_erased_before_it_is_written_again() {
        let mut picture = Picture::default();
        picture.redraw(&lines(&["a", "b"]), 20, 10);
        let text = picture.redraw(&lines(&["a", "c"]), 20, 10);
        assert_eq!(text, "\u{1b}[?2026h\u{1b}[2Fa\u{1b}[K\r\nc\u{1b}[K\r\n\u{1b}[J\u{1b}[?2026l");
    }

    #[test]
    fn a_narrower_terminal_has_wrapped_the_last_picture() {
        let mut picture = Picture::default();
        picture.redraw(&lines(&["0123456789abcdefghi", "short"]), 20, 10);
        // At 8 columns the first line takes three rows.
        assert!(picture.redraw(&lines(&["0123", "short"]), 8, 10).contains("\u{1b}[4F"));
    }

    #[test]
    fn a_last_picture_that_is_higher_than_the_terminal_scrolls_as_a_whole() {
        let mut terminal = Terminal::new(20, 4);
        let mut picture = Picture::default();
        terminal.write(&picture.redraw(&lines(&["1", "2", "3"]), 20, 4));
        let all = lines(&["d", "a", "b", "c", "e", "f"]);
        terminal.write(&picture.redraw(&all, 20, 4));
        assert_eq!(shown(&terminal), [all, lines(&[""])].concat());
    }
}
