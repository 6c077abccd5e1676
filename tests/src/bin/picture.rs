//! `flowforge-picture`: what a terminal shows, as an SVG for the documentation.
//!
//! ```text
//!   tmux capture-pane -p -e -t PANE | flowforge-picture --title 'flowforge watch pretrain' > docs/watch.svg
//! ```
//! Reads text with the colours that the command line uses (`CSI n m`), writes a picture of its own background, which is
//! readable on a light and on a dark page. Each piece of text is put at its column, whatever font is there.

use anyhow::{Result, ensure};
use clap::Parser;
use std::fmt::Write as _;
use std::io::Read as _;

/// Size of a character cell, and of the frame, in pixels.
const CELL: (usize, usize) = (9, 20);
const MARGIN: usize = 18;
const BAR: usize = 34;
const MOST_LINES: usize = 200;

/// Turn coloured text (stdin) into an SVG (stdout).
#[derive(Parser)]
struct Args {
    /// What stands in the window's bar.
    #[arg(long, default_value = "")]
    title: String,
}

/// Text of one colour at one column.
#[derive(Debug, Eq, PartialEq)]
struct Piece {
    column: usize,
    class: &'static str,
    text: String,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let lines: Vec<Vec<Piece>> = text.trim_end().lines().map(pieces).collect();
    ensure!((1..=MOST_LINES).contains(&lines.len()), "{} lines: from 1 to {MOST_LINES} are a picture", lines.len());
    print!("{}", svg(&args.title, &lines));
    Ok(())
}

/// The class of a colour (cli/src/render/style.rs); none for what is plain.
fn class(code: &str) -> &'static str {
    match code {
        "1" => "strong",
        "2" => "quiet",
        "31" => "bad",
        "32" => "good",
        "33" => "waiting",
        "36" => "busy",
        _ => "",
    }
}

fn pieces(line: &str) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut column, mut current) = (0, "");
    let mut rest = line;
    while !rest.is_empty() {
        let (plain, escape) = rest.split_at(rest.find('\u{1b}').unwrap_or(rest.len()));
        // Words apart from each other are put apart, so that the width of the spaces does not matter.
        let mut at = 0;
        for word in plain.split("  ") {
            let text = word.trim();
            let indent = word.chars().take_while(|c| *c == ' ').count();
            if !text.is_empty() {
                pieces.push(Piece { column: column + at + indent, class: current, text: text.to_owned() });
            }
            at += word.chars().count() + 2;
        }
        column += plain.chars().count();
        rest = match escape.strip_prefix("\u{1b}[").and_then(|e| e.split_once('m')) {
            // The default colour (39, 49) ends a colour, not boldness or faintness.
            Some(("39" | "49", after)) if matches!(current, "strong" | "quiet") => after,
            Some((code, after)) => {
                current = class(code);
                after
            }
            None => escape.get(1..).unwrap_or_default(),
        };
    }
    pieces
}

fn svg(title: &str, lines: &[Vec<Piece>]) -> String {
    let end = |piece: &Piece| piece.column + piece.text.chars().count();
    let columns = lines.iter().flatten().map(end).chain([title.chars().count() + 16]).max().unwrap_or(0);
    let (width, height) = (columns * CELL.0 + 2 * MARGIN, lines.len() * CELL.1 + BAR + MARGIN);
    let mut out = String::new();
    // Writing into a String cannot fail.
    let _ = write!(
        out,
        r##"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-label="{title}">
<style>
text {{ font: 14px ui-monospace, SFMono-Regular, Menlo, Consolas, "DejaVu Sans Mono", monospace; fill: #d6dee8; white-space: pre }}
.strong {{ font-weight: 700; fill: #ffffff }} .quiet {{ fill: #7f8ea3 }} .good {{ fill: #4cc38a }}
.bad {{ fill: #ff6b6b }} .busy {{ fill: #4fc3f7 }} .waiting {{ fill: #f2c14e }}
</style>
<rect x="0.5" y="0.5" width="{}" height="{}" rx="9" fill="#10161f" stroke="#3a4658"/>
<circle cx="20" cy="17" r="5" fill="#3a4658"/><circle cx="37" cy="17" r="5" fill="#3a4658"/><circle cx="54" cy="17" r="5" fill="#3a4658"/>
<text class="quiet" x="{}" y="22" text-anchor="middle">{}</text>
"##,
        width - 1,
        height - 1,
        width / 2,
        escaped(title),
        title = escaped(title),
    );
    for (row, pieces) in lines.iter().enumerate() {
        let y = BAR + (row + 1) * CELL.1 - 5;
        for piece in pieces {
            let (x, length) = (MARGIN + piece.column * CELL.0, piece.text.chars().count() * CELL.0);
            let class = if piece.class.is_empty() { String::new() } else { format!(r#" class="{}""#, piece.class) };
            let text = escaped(&piece.text);
            let _ = writeln!(
                out,
                r#"<text{class} x="{x}" y="{y}" textLength="{length}" lengthAdjust="spacingAndGlyphs">{text}</text>"#
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_stands_at_its_column_in_its_colour() {
        let line = "├─ \u{1b}[32m✔\u{1b}[0m a     \u{1b}[32mSucceeded \u{1b}[0m   1/1";
        let piece = |column, class, text: &str| Piece { column, class, text: text.to_owned() };
        let expected = [
            piece(0, "", "├─"),
            piece(3, "good", "✔"),
            piece(5, "", "a"),
            piece(11, "good", "Succeeded"),
            piece(24, "", "1/1"),
        ];
        assert_eq!(pieces(line), expected);
    }

    #[test]
    fn faint_text_stays_faint_when_only_its_colour_is_reset() {
        let faint = Piece { column: 0, class: "quiet", text: "a".to_owned() };
        let plain = Piece { column: 1, class: "", text: "b".to_owned() };
        assert_eq!(pieces("\u{1b}[2m\u{1b}[39ma\u{1b}[0mb"), [faint, plain]);
    }

    #[test]
    fn text_from_elsewhere_is_no_markup() {
        let picture = svg("a & b", &[pieces("<script>\"x\"</script>")]);
        assert!(!picture.contains("<script>") && picture.contains("a &amp; b"), "{picture}");
    }
}
