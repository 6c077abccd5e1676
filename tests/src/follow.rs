//! A command that runs while a test looks at what it has written so far.

use anyhow::Result;
use std::io::{self, Read as _};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::wait::eventually;

/// A running command, and its stdout so far. Dropping it kills the command.
#[derive(Debug)]
pub struct Follower {
    child: Child,
    text: Text,
    reader: Option<JoinHandle<()>>,
}

#[derive(Clone, Debug, Default)]
struct Text(Arc<Mutex<String>>);

impl Text {
    fn push(&self, bytes: &[u8]) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_str(&String::from_utf8_lossy(bytes));
    }

    fn get(&self) -> String {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Follower {
    /// Starts a command and reads along; `stdin` is all that it gets to read, and its stderr is this process's.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(mut command: Command, stdin: &str) -> io::Result<Self> {
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn()?;
        if let Some(mut pipe) = child.stdin.take() {
            io::Write::write_all(&mut pipe, stdin.as_bytes())?;
        }
        let text = Text::default();
        let reader = child.stdout.take().map(|mut stdout| {
            let written = text.clone();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stdout.read(&mut buffer) {
                    written.push(buffer.get(..count).unwrap_or_default());
                }
            })
        });
        Ok(Self { child, text, reader })
    }

    /// Whether this was written.
    ///
    /// # Errors
    /// All that was written, where it was not.
    pub fn shows(&self, part: &str) -> Result<(), String> {
        let text = self.text.get();
        if text.contains(part) { Ok(()) } else { Err(format!("no {part:?} in: {text}")) }
    }

    /// Waits until this is written.
    ///
    /// # Errors
    /// All that was written, after `limit`.
    pub async fn until_shows(&self, part: &str, limit: Duration) -> Result<()> {
        eventually(&format!("{part:?} is written"), limit, || async { self.shows(part) }).await
    }

    /// Waits for its end; its exit code (none when a signal ended it) and all that it wrote.
    ///
    /// # Errors
    /// All that was written, after `limit`.
    pub async fn end(mut self, limit: Duration) -> Result<(Option<i32>, String)> {
        let (child, text) = (Mutex::new(&mut self.child), self.text.clone());
        let status = eventually("the command ends", limit, || async {
            let ended = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
            ended.map_err(|error| error.to_string())?.ok_or_else(|| text.get())
        })
        .await?;
        if let Some(reader) = self.reader.take() {
            // It has nothing to say, and its end is the end of the output.
            drop(reader.join());
        }
        Ok((status.code(), self.text.get()))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        // Both fail where it has ended.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
