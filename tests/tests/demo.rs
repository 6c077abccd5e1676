//! `make demo` after its build: it ends well, says where every gang stood and what the end waited for, and nothing of it
//! stays; kept with KEEP=1 it stays until `make cluster-down`.

use anyhow::{Context as _, Result, ensure};
use flowforge_testbed::real;
use flowforge_tests::install::program;
use flowforge_tests::skip;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Two control planes at once would only be slow.
static TURN: Mutex<()> = Mutex::new(());
/// What the demo is promised to take at most.
const LIMIT: Duration = Duration::from_secs(90);

/// A directory for what the demo makes and notes; removed with what is left in it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Result<Self> {
        // Short: sockets lie below it.
        let dir = std::env::temp_dir().join(format!("ff-{name}-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("run"))?;
        std::fs::create_dir_all(dir.join("beds"))?;
        Ok(Self(dir))
    }

    fn run(&self, name: &str, args: &[&str]) -> Result<Output> {
        let mut command = Command::new(program(name)?);
        command.env("FLOWFORGE_TESTBED_DIR", self.beds()).env("XDG_RUNTIME_DIR", self.0.join("run"));
        Ok(command.args(args).output()?)
    }

    fn beds(&self) -> PathBuf {
        self.0.join("beds")
    }

    /// No file, no mount and no process of a testbed in here is left.
    fn assert_nothing_stays(&self) -> Result<()> {
        let left: Vec<_> = std::fs::read_dir(self.beds())?.flatten().map(|entry| entry.path()).collect();
        ensure!(left.is_empty(), "files are left: {left:?}");
        let here = self.0.display().to_string();
        ensure!(!std::fs::read_to_string("/proc/mounts")?.contains(&here), "a mount is left below {here}");
        let processes = processes_of(&here)?;
        ensure!(processes.is_empty(), "processes are left: {processes:?}");
        Ok(())
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A demo that was left running by a test that failed goes with it; where none runs, nothing happens.
        drop(self.run("flowforge-testbed", &["down"]));
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// Command lines of the processes that name this directory there or in their environment.
fn processes_of(dir: &str) -> Result<Vec<String>> {
    let read = |path: &Path| String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).replace('\0', " ");
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let line = read(&entry.path().join("cmdline"));
        if line.contains(dir) || read(&entry.path().join("environ")).contains(dir) {
            found.push(line);
        }
    }
    Ok(found)
}

fn text(output: &Output) -> String {
    [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes)).concat()
}

/// The cells of a row of the report: node, pods, waited, ran, domain and machines.
fn row<'a>(told: &'a str, node: &str, pods: &str) -> Result<Vec<&'a str>> {
    let cells = told.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut rows = cells.filter(|cells| cells.first() == Some(&node) && cells.get(1) == Some(&pods));
    rows.next().with_context(|| format!("no row of {node} with {pods} pods in\n{told}"))
}

#[test]
fn the_demo_ends_well_says_what_happened_and_leaves_nothing() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let real_nodes = real::available();
    if let Err(missing) = &real_nodes {
        skip("real", &format!("the demo's containers do not really run: {missing}"));
    }
    let scratch = Scratch::new("demo").expect("a directory");
    let start = Instant::now();
    let output = scratch.run("flowforge-demo", &[]).expect("the demo runs");
    let (told, took) = (text(&output), start.elapsed());
    assert!(output.status.success() && took < LIMIT, "{} after {took:?}\n{told}", output.status);
    for gang in ["train", "lr-1e-3", "lr-3e-4", "lr-1e-4"] {
        let row = row(&told, gang, "4").expect("a row");
        let machines = row.iter().filter(|cell| cell.starts_with("dgx-h100-")).count();
        assert!(row.iter().any(|cell| cell.starts_with("rack/dgx-h100-rack-")) && machines == 4, "{row:?}");
    }
    assert!(told.contains("critical path: preprocess -> train -> "), "{told}");
    assert!(told.contains(" -> report = "), "{told}");
    for part in ["placement", "queue", "plan", "prepare", "bind"] {
        let name = format!("flowforge_gang_{part}_duration_seconds");
        let line = told.lines().find(|line| line.contains(&name)).unwrap_or_default();
        assert!(line.contains(" p50 ") && line.contains(" p99 ") && line.ends_with(" ms"), "{name}: {line:?}\n{told}");
    }
    for rank in 0..4 {
        let line = format!("{rank} | rank {rank} of 4 met at diamond-train-1-0.diamond-train-1:");
        assert!(real_nodes.is_err() || told.contains(&line), "no {line:?} in\n{told}");
    }
    scratch.assert_nothing_stays().expect("nothing stays");
}

#[test]
fn a_demo_that_was_kept_stays_until_it_is_ended() {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let scratch = Scratch::new("kept").expect("a directory");
    let keep = ["--keep", "--real=0", "--fake=16"];
    let output = scratch.run("flowforge-demo", &keep).expect("the demo runs");
    let told = text(&output);
    assert!(output.status.success() && told.contains("make cluster-down"), "{}\n{told}", output.status);
    let kubeconfig =
        told.lines().find_map(|line| line.trim().strip_prefix("export KUBECONFIG=")).expect("how to reach it");
    let get = ["get", "diamond", "-n", "demo", "--kubeconfig", kubeconfig];
    let there = scratch.run("flowforge", &get).expect("the command line runs");
    assert!(there.status.success() && text(&there).contains("Succeeded"), "{}", text(&there));
    let second = scratch.run("flowforge-demo", &keep).expect("the demo runs");
    assert!(!second.status.success() && text(&second).contains("demo runs already"), "{}", text(&second));
    let down = scratch.run("flowforge-testbed", &["down"]).expect("the testbed's command runs");
    assert!(down.status.success() && text(&down).contains("testbed demo is gone"), "{}", text(&down));
    scratch.assert_nothing_stays().expect("nothing stays");
}
