//! Whatever becomes of the owner, nothing of its testbed stays.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what fails in a test's helper fails the test")]

use std::{
    fs,
    io::{BufRead as _, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use flowforge_testbed::{ProcessSpec, Testbed};

const PROGRAM: &str = env!("CARGO_BIN_EXE_flowforge-testbed");

/// How long a teardown may take on a machine that also compiles.
const LIMIT: Duration = Duration::from_secs(60);

/// Starts `flowforge-testbed up` with a scratch directory for its state, and
/// waits for the kubeconfig's path, which is below the testbed's directory.
/// That one is in the scratch directory too: the supervisors of other tests
/// sweep what they find in the common one.
fn up(state: &Path, arguments: &[&str]) -> (Child, PathBuf) {
    let mut child = Command::new(PROGRAM)
        .args(["up", "--profile=cpu", "--fake=1"])
        .args(arguments)
        .env("XDG_RUNTIME_DIR", state)
        .env("FLOWFORGE_TESTBED_DIR", state)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let kubeconfig = Path::new(line.trim());
    assert!(kubeconfig.is_file(), "no kubeconfig at {line:?}");
    (child, kubeconfig.parent().unwrap().to_owned())
}

/// The command lines of the processes that mention a directory.
fn processes_of(dir: &Path) -> Vec<String> {
    let dir = dir.to_str().unwrap();
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(dir))
        .collect()
}

fn assert_gone_soon(dir: &Path) {
    let begin = Instant::now();
    while dir.exists() || !processes_of(dir).is_empty() {
        assert!(begin.elapsed() < LIMIT, "{} is still there, with {:#?}", dir.display(), processes_of(dir));
        thread::sleep(Duration::from_millis(20));
    }
    println!("gone after {:.2} s", begin.elapsed().as_secs_f64());
}

#[test]
fn after_sigkill_of_the_owner_no_process_and_no_directory_is_left() {
    let state = tempfile::tempdir().unwrap();
    let (mut owner, dir) = up(state.path(), &["--foreground"]);
    assert!(processes_of(&dir).len() >= 4, "{:#?}", processes_of(&dir));
    owner.kill().unwrap();
    owner.wait().unwrap();
    assert_gone_soon(&dir);
}

#[test]
fn after_sigkill_of_owner_and_supervisor_the_next_testbed_removes_the_directory() {
    let state = tempfile::tempdir().unwrap();
    let (mut owner, dir) = up(state.path(), &["--foreground"]);
    let supervisor = fs::read_to_string(dir.join("supervisor.lock")).unwrap();
    let killed = Command::new("kill").arg("-KILL").arg(supervisor.trim()).status().unwrap();
    assert!(killed.success());
    owner.kill().unwrap();
    owner.wait().unwrap();
    let begin = Instant::now();
    while !processes_of(&dir).is_empty() {
        assert!(begin.elapsed() < LIMIT, "{:#?}", processes_of(&dir));
        thread::sleep(Duration::from_millis(20));
    }
    assert!(dir.exists(), "nobody was left to remove it");

    let (mut next, next_dir) = up(state.path(), &["--foreground"]);
    assert!(!dir.exists());
    next.kill().unwrap();
    next.wait().unwrap();
    assert_gone_soon(&next_dir);
}

#[test]
fn a_testbed_left_running_ends_with_down() {
    let state = tempfile::tempdir().unwrap();
    let (mut owner, dir) = up(state.path(), &[]);
    assert!(owner.wait().unwrap().success());
    assert!(processes_of(&dir).len() >= 4, "{:#?}", processes_of(&dir));

    let kubectl = Command::new(dir.join("kubectl"))
        .args(["get", "nodes", "-o", "name"])
        .env("KUBECONFIG", dir.join("kubernetes-admin.kubeconfig"))
        .output()
        .unwrap();
    assert_eq!(String::from_utf8_lossy(&kubectl.stdout), "node/cpu-0000\n");
    let again = Command::new(PROGRAM).arg("up").env("XDG_RUNTIME_DIR", state.path()).output().unwrap();
    assert!(String::from_utf8_lossy(&again.stderr).contains("runs already"), "{again:?}");

    let down = Command::new(PROGRAM).arg("down").env("XDG_RUNTIME_DIR", state.path()).status().unwrap();
    assert!(down.success());
    // `down` has waited for it.
    assert!(!dir.exists() && processes_of(&dir).is_empty(), "{:#?}", processes_of(&dir));
}

#[tokio::test]
async fn a_panicking_test_keeps_its_logs() {
    let testbed = Testbed::builder().start().await.unwrap();
    let dir = testbed.dir().to_owned();
    let mut kept = PathBuf::new();
    let unwound = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let testbed = testbed;
        testbed.spawn(ProcessSpec::new("speaker", "/bin/echo").arg("last words")).unwrap();
        while testbed.exits("speaker").is_empty() {
            thread::sleep(Duration::from_millis(5));
        }
        kept = testbed.keep_logs();
        panic!("on purpose");
    }));
    assert!(unwound.is_err());
    assert!(!dir.exists());
    assert_eq!(fs::read_to_string(kept.join("speaker.log")).unwrap(), "last words\n");
    assert!(kept.join("kube-apiserver.log").is_file());
    fs::remove_dir_all(kept).unwrap();
}

#[tokio::test]
async fn what_a_process_left_behind_ends_too_and_cleanups_run_last_in_first_out() {
    let testbed = Testbed::builder().without_kwok().start().await.unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let note = scratch.path().join("order");
    let left = format!("sleep 1000 & setsid sleep 1000 & echo started; exec sleep 0 # {}", testbed.dir().display());
    testbed.spawn(ProcessSpec::new("forker", "/bin/sh").args(["-c", left.as_str()])).unwrap();
    testbed.logs("forker").await_line("started", LIMIT).await.unwrap();
    for word in ["first", "second"] {
        let write =
            format!("test ! -e {} && echo {word} >> {}", testbed.dir().join("nothing").display(), note.display());
        testbed.on_teardown(&["/bin/sh".to_owned(), "-c".to_owned(), write]).unwrap();
    }
    let supervisor = fs::read_to_string(testbed.dir().join("supervisor.lock")).unwrap();
    let children = || fs::read_to_string(format!("/proc/{0}/task/{0}/children", supervisor.trim())).unwrap_or_default();
    let sleepers = || -> Vec<u32> {
        children()
            .split_whitespace()
            .filter(|pid| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n"))
            .map(|pid| pid.parse().unwrap())
            .collect()
    };
    // The forks become the supervisor's, and sleepers, some time after their parent has spoken.
    let deadline = Instant::now() + LIMIT;
    while sleepers().len() < 2 && Instant::now() < deadline {
        thread::sleep(Duration::from_millis(10));
    }
    let sleepers = sleepers();
    assert!(sleepers.len() >= 2, "the supervisor has adopted {sleepers:?}");
    testbed.stop().unwrap();
    for pid in sleepers {
        assert!(!Path::new(&format!("/proc/{pid}")).exists(), "{pid} is still there");
    }
    assert_eq!(fs::read_to_string(note).unwrap(), "second\nfirst\n");
}
