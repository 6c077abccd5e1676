//! The owner's end of `supervise`, the process that owns all others of a testbed
//! (`tests/testbed/supervise`).
//!
//! Calls are synchronous: a request is a line on a pipe and the answer comes
//! within a millisecond or so, except for SIGKILL, which is answered once the
//! process has been reaped. Dropping the [`Supervisor`] closes the pipe, which is
//! the order to tear down, and waits until everything is gone.

use std::{
    collections::BTreeMap,
    io::{BufReader, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use parking_lot::{Condvar, Mutex};
use serde::{Deserialize, Serialize};

/// How long any single answer may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// A process to start.
#[derive(Clone, Debug)]
pub(crate) struct Launch {
    pub(crate) name: String,
    pub(crate) argv: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) stage: Stage,
    pub(crate) grace: Duration,
}

/// When a process stops in the teardown; the first stage stops first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The binaries under test, and everything else that uses the API server.
    Clients = 10,
    /// What the clients of the node agents need until they have ended.
    Runtimes = 50,
    /// The API server.
    ApiServer = 80,
    /// etcd, which the API server needs to stop in order.
    Etcd = 90,
}

/// How a process ended: the exit code, or 128 + the signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exit {
    /// Its process id.
    pub pid: u32,
    /// The exit code, or 128 + the signal that ended it.
    pub code: i32,
}

/// A running `supervise` and the pipe to it.
#[derive(Debug)]
pub(crate) struct Supervisor {
    child: Mutex<Option<Child>>,
    stdin: Mutex<Option<ChildStdin>>,
    next_id: AtomicU64,
    shared: Arc<Shared>,
    /// The testbed's directory; gone when the supervisor is.
    pub(crate) dir: PathBuf,
    /// The testbed's number on this machine, 1 to 250.
    pub(crate) slot: u8,
    /// The supervisor's own process id.
    pub(crate) pid: u32,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    replies: BTreeMap<u64, Message>,
    exits: BTreeMap<String, Vec<Exit>>,
    closed: bool,
}

#[derive(Serialize)]
struct Request<'a> {
    id: u64,
    #[serde(flatten)]
    body: Body<'a>,
}

#[derive(Serialize)]
#[serde(tag = "op", rename_all = "kebab-case")]
enum Body<'a> {
    Start { name: &'a str, argv: &'a [String], env: Vec<String>, log: &'a Path, stage: u8, grace_ms: u64 },
    Signal { name: &'a str, signal: i32 },
    Cleanup { argv: &'a [String] },
    KeepLogs { dir: &'a Path },
    Detach,
}

#[derive(Debug, Default, Deserialize)]
struct Message {
    #[serde(default)]
    event: String,
    #[serde(default)]
    id: u64,
    #[serde(default)]
    error: String,
    #[serde(default)]
    pid: u32,
    #[serde(default)]
    dir: PathBuf,
    #[serde(default)]
    slot: u8,
    #[serde(default)]
    name: String,
    #[serde(default)]
    code: i32,
}

impl Supervisor {
    /// Starts the supervisor, which claims a directory below `parent` and a slot.
    pub(crate) fn start(program: &Path, parent: &Path) -> Result<Self> {
        let mut child = Command::new(program)
            .arg("-parent")
            .arg(parent)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| program.display().to_string())?;
        let stdin = child.stdin.take().context("no pipe to the supervisor")?;
        let stdout = child.stdout.take().context("no pipe from the supervisor")?;
        let shared = Arc::new(Shared::default());
        let (ready, is_ready) = mpsc::channel();
        let reader = Arc::clone(&shared);
        thread::Builder::new()
            .name("testbed-supervisor".to_owned())
            .spawn(move || read_messages(BufReader::new(stdout), &ready, &reader))?;
        let Ok(hello) = is_ready.recv_timeout(ANSWER_LIMIT) else {
            drop(stdin);
            let status = child.wait()?;
            bail!("the supervisor did not start: {status}");
        };
        Ok(Self {
            child: Mutex::new(Some(child)),
            stdin: Mutex::new(Some(stdin)),
            next_id: AtomicU64::new(1),
            shared,
            dir: hello.dir,
            slot: hello.slot,
            pid: hello.pid,
        })
    }

    /// Starts a process; both of its outputs go to [`Supervisor::log_file`].
    pub(crate) fn launch(&self, launch: &Launch) -> Result<u32> {
        let log = self.log_file(&launch.name);
        let env = launch.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
        let reply = self.ask(Body::Start {
            name: &launch.name,
            argv: &launch.argv,
            env,
            log: &log,
            stage: launch.stage as u8,
            grace_ms: u64::try_from(launch.grace.as_millis())?,
        })?;
        Ok(reply.pid)
    }

    /// Sends a signal. SIGKILL returns when the process is gone.
    pub(crate) fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        self.ask(Body::Signal { name, signal: signal as i32 })?;
        Ok(())
    }

    /// Registers a command for the teardown; the last registered runs first,
    /// after all processes have ended and before the directory goes.
    pub(crate) fn on_teardown(&self, argv: &[String]) -> Result<()> {
        self.ask(Body::Cleanup { argv })?;
        Ok(())
    }

    /// Has the logs copied to `dir` at the teardown.
    pub(crate) fn keep_logs(&self, dir: &Path) -> Result<()> {
        self.ask(Body::KeepLogs { dir })?;
        Ok(())
    }

    /// Lets everything run on without an owner, until the supervisor gets
    /// SIGTERM.
    pub(crate) fn detach(&self) -> Result<()> {
        self.ask(Body::Detach)?;
        self.child.lock().take();
        Ok(())
    }

    pub(crate) fn log_file(&self, name: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{name}.log"))
    }

    /// How often and how the processes of this name have ended so far.
    pub(crate) fn exits(&self, name: &str) -> Vec<Exit> {
        self.shared.state.lock().exits.get(name).cloned().unwrap_or_default()
    }

    /// Closes the pipe and waits for the teardown to end.
    pub(crate) fn stop(&self) -> Result<()> {
        self.stdin.lock().take();
        let Some(mut child) = self.child.lock().take() else {
            return Ok(());
        };
        let status = child.wait()?;
        ensure!(status.success(), "the teardown of {} failed: {status}", self.dir.display());
        Ok(())
    }

    fn ask(&self, body: Body<'_>) -> Result<Message> {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let mut line = serde_json::to_vec(&Request { id, body })?;
        line.push(b'\n');
        match self.stdin.lock().as_mut() {
            Some(stdin) => stdin.write_all(&line).context("the supervisor is gone")?,
            None => bail!("the testbed has been taken down"),
        }
        let mut state = self.shared.state.lock();
        loop {
            if let Some(reply) = state.replies.remove(&id) {
                ensure!(reply.error.is_empty(), "{}", reply.error);
                return Ok(reply);
            }
            ensure!(!state.closed, "the supervisor is gone");
            let waited = self.shared.changed.wait_for(&mut state, ANSWER_LIMIT);
            ensure!(!waited.timed_out(), "the supervisor does not answer");
        }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            eprintln!("testbed: {error:#}");
        }
    }
}

/// The signals that tests send.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Signal {
    Kill = 9,
    Term = 15,
    Continue = 18,
    Stop = 19,
}

fn read_messages(lines: impl std::io::BufRead, ready: &mpsc::Sender<Message>, shared: &Shared) {
    for line in lines.lines().map_while(Result::ok) {
        let Ok(message) = serde_json::from_str::<Message>(&line) else {
            eprintln!("testbed: the supervisor said {line:?}");
            continue;
        };
        match message.event.as_str() {
            "ready" => {
                // Nobody listens only if the start has been given up.
                let _ = ready.send(message);
            }
            "exited" => {
                let exit = Exit { pid: message.pid, code: message.code };
                shared.state.lock().exits.entry(message.name).or_default().push(exit);
            }
            _ => {
                shared.state.lock().replies.insert(message.id, message);
            }
        }
        shared.changed.notify_all();
    }
    shared.state.lock().closed = true;
    shared.changed.notify_all();
}
