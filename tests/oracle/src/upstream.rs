//! kube-scheduler's side: a process that answers a line with a line.

use anyhow::{Context as _, Result, ensure};
use flowforge_testbed::binaries::KUBERNETES;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// What kube-scheduler says about a case; the fields are those of `tests/testbed/oracle/answer.go`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Answer {
    pub(crate) error: String,
    pub(crate) message: String,
    pub(crate) pre_filter: BTreeMap<String, Vec<String>>,
    pub(crate) applied: Vec<String>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) preemption: Option<Preemption>,
}

/// Whom it would evict.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Preemption {
    pub(crate) feasible: bool,
    pub(crate) message: String,
    pub(crate) node: String,
    pub(crate) victims: Vec<String>,
    pub(crate) violations: u32,
    pub(crate) candidates: Vec<String>,
}

/// What it says about a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) feasible: bool,
    pub(crate) plugin: String,
    pub(crate) reasons: Vec<String>,
    pub(crate) filters: BTreeMap<String, Vec<String>>,
    pub(crate) scores: BTreeMap<String, i64>,
}

/// A running oracle; it ends when this is dropped.
#[derive(Debug)]
pub struct Upstream {
    process: Child,
    questions: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Upstream {
    /// Starts the testbed's oracle, built if need be.
    ///
    /// # Errors
    /// When it cannot be built or started.
    pub fn start() -> Result<Self> {
        Self::start_binary(&KUBERNETES.binary("testbed")?)
    }

    /// Starts the oracle of this testbed binary.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_binary(binary: &Path) -> Result<Self> {
        Self::start_with(binary, &["oracle"])
    }

    /// Starts the part of the testbed's oracle that evaluates device selectors.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_selectors() -> Result<Self> {
        Self::start_with(&KUBERNETES.binary("testbed")?, &["oracle", "cel"])
    }

    fn start_with(binary: &Path, args: &[&str]) -> Result<Self> {
        let mut command = Command::new(binary);
        let mut process = command
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("starting {} oracle", binary.display()))?;
        let questions = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().context("the oracle has no output")?);
        Ok(Self { process, questions, answers })
    }

    /// Its answer to a case.
    pub(crate) fn ask(&mut self, case: &Value) -> Result<Answer> {
        let answer = self.line(case)?;
        serde_json::from_str(&answer).with_context(|| format!("the oracle's answer is no answer: {answer}"))
    }

    /// Its answer to a question, as it writes it.
    pub(crate) fn line(&mut self, case: &Value) -> Result<String> {
        let mut line = serde_json::to_vec(case)?;
        line.push(b'\n');
        let questions = self.questions.as_mut().context("the oracle ended")?;
        questions.write_all(&line).and_then(|()| questions.flush()).context("asking the oracle")?;
        let mut answer = String::new();
        self.answers.read_line(&mut answer).context("reading the oracle's answer")?;
        ensure!(!answer.is_empty(), "the oracle ended without an answer; its log is on stderr");
        Ok(answer)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        // The end of its input ends it.
        drop(self.questions.take());
        let _ = self.process.wait();
    }
}
