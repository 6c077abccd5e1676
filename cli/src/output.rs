//! stdout: data only, with colours only where a person looks at it.

use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use crate::args::{Color, Format};
use crate::failure::Failure;
use crate::render::style::Style;

/// Columns assumed where the terminal does not tell its size.
const DEFAULT_COLUMNS: usize = 120;
/// Lines assumed where the terminal does not tell its size.
const DEFAULT_LINES: usize = 40;

/// Where a command writes its answer.
pub(crate) struct Output {
    sink: Box<dyn Write>,
    style: Style,
    terminal: bool,
}

impl Output {
    /// The stdout of this process.
    pub(crate) fn stdout(color: Color) -> Self {
        let stdout = io::stdout();
        let terminal = stdout.is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        let color = match color {
            Color::Always => true,
            Color::Never => false,
            Color::Auto => terminal && !plain,
        };
        let dumb = std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self { sink: Box::new(stdout), style: Style { color }, terminal: terminal && !dumb }
    }

    /// How text is coloured here.
    pub(crate) fn style(&self) -> Style {
        self.style
    }

    /// Whether a person looks at it, so that a picture can be redrawn in place.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Columns and lines of the terminal.
    pub(crate) fn size(&self) -> (usize, usize) {
        terminal_size::terminal_size()
            .map_or((DEFAULT_COLUMNS, DEFAULT_LINES), |(w, h)| (usize::from(w.0), usize::from(h.0)))
    }

    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    pub(crate) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.text(line)?;
        self.text("\n")
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.sink.write_all(bytes).map_err(|error| of_write(&error))
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.sink.flush().map_err(|error| of_write(&error))
    }

    /// Writes a value as data; `table` writes nothing and says so by `false`.
    pub(crate) fn data<T: Serialize>(&mut self, format: Format, value: &T) -> Result<bool, Failure> {
        let text = match format {
            Format::Table => return Ok(false),
            Format::Json => serde_json::to_string_pretty(value).map(|text| text + "\n").map_err(|e| e.to_string()),
            Format::Yaml => serde_saphyr::to_string(value).map_err(|e| e.to_string()),
        };
        self.text(&text.map_err(|error| Failure::new(format!("cannot write the answer: {error}")))?)?;
        Ok(true)
    }
}

fn of_write(error: &io::Error) -> Failure {
    if error.kind() == io::ErrorKind::BrokenPipe {
        return Failure::reader_left();
    }
    Failure::new(format!("cannot write to stdout: {error}"))
}
