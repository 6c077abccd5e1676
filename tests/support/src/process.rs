//! Processes that a test starts beside the control plane, and their logs.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use tokio::time::sleep;

use crate::{
    network::Network,
    supervisor::{Launch, Stage},
};

/// A process to start, for [`crate::Testbed::spawn`].
#[derive(Clone, Debug)]
pub struct ProcessSpec {
    /// Names the process in [`crate::Testbed::kill`] and its like, and its log.
    pub name: String,
    /// The program: a path, or a name to be found on the PATH.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Environment variables, added to this process's own.
    pub env: Vec<(String, String)>,
    /// How long it may take from SIGTERM to its end in the teardown.
    pub grace: Duration,
}

impl ProcessSpec {
    /// A process without arguments.
    pub fn new(name: impl Into<String>, program: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            program: program.into(),
            args: Vec::new(),
            env: Vec::new(),
            grace: Duration::from_secs(2),
        }
    }

    /// Adds an argument.
    #[must_use]
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// Adds arguments.
    #[must_use]
    pub fn args<S: Into<String>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// Adds an environment variable.
    #[must_use]
    pub fn env(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.env.push((key.into(), value.into()));
        self
    }

    /// Sets `KUBECONFIG`.
    #[must_use]
    pub fn kubeconfig(self, path: &Path) -> Self {
        self.env("KUBECONFIG", path.display().to_string())
    }

    pub(crate) fn into_launch(self, network: &Network) -> Launch {
        let mut argv = vec![self.program.display().to_string()];
        argv.extend(self.args);
        Launch { name: self.name, argv: network.inside(argv), env: self.env, stage: Stage::Clients, grace: self.grace }
    }
}

/// The log of a process: both of its outputs, over all its restarts.
#[derive(Clone, Debug)]
pub struct LogFile {
    path: PathBuf,
}

impl LogFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All of it so far; empty before the process has been started.
    #[must_use]
    pub fn text(&self) -> String {
        fs::read(&self.path).map_or_else(|_| String::new(), |bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for a line that contains `pattern` and returns it.
    ///
    /// # Errors
    /// When there is none within the limit; the message holds the log's end.
    pub async fn await_line(&self, pattern: &str, limit: Duration) -> Result<String> {
        let deadline = Instant::now() + limit;
        loop {
            let text = self.text();
            if let Some(line) = text.lines().find(|line| line.contains(pattern)) {
                return Ok(line.to_owned());
            }
            if Instant::now() >= deadline {
                let lines: Vec<&str> = text.lines().collect();
                let end = lines[lines.len().saturating_sub(20)..].join("\n");
                bail!("no line with {pattern:?} in {}, which ends:\n{end}", self.path.display());
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
