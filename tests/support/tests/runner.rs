//! `hack/test`: what cannot be built, ends without a verdict or is skipped never counts as passed.
#![allow(clippy::unwrap_used, reason = "what fails in a test's helper fails the test")]

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Command, Output},
};

const PASSES: &str = "package m\nimport \"testing\"\nfunc TestGood(t *testing.T) {}\n";

/// A repository with `hack/test`, one Go module with the given test, and a
/// `cargo` that is the given script.
fn repository(go_test: &str, cargo: &str) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../hack/test");
    for folder in ["hack", "bin", "tests/testbed/m"] {
        fs::create_dir_all(dir.path().join(folder)).unwrap();
    }
    fs::copy(source, dir.path().join("hack/test")).unwrap();
    fs::write(dir.path().join("tests/testbed/m/go.mod"), "module m\n\ngo 1.26\n").unwrap();
    fs::write(dir.path().join("tests/testbed/m/m_test.go"), go_test).unwrap();
    // With a promtool the runner installs nothing.
    for (program, script) in [("cargo", cargo), ("promtool", "true")] {
        let path = dir.path().join("bin").join(program);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    dir
}

/// Runs it, and checks the exit status and the last line.
fn check(go_test: &str, cargo: &str, succeeds: bool, summary: &str) -> String {
    let dir = repository(go_test, cargo);
    let path = format!("{}:{}", dir.path().join("bin").display(), std::env::var("PATH").unwrap());
    let output: Output = Command::new(dir.path().join("hack/test"))
        .env("PATH", path)
        .env("GOWORK", "off")
        .env_remove("FLOWFORGE_SKIPS")
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.success(), succeeds, "{text}");
    assert_eq!(text.lines().last(), Some(summary), "{text}");
    text
}

/// What cargo says of `passed` tests.
fn cargo_ok(passed: usize) -> String {
    format!("echo 'test result: ok. {passed} passed; 0 failed; 0 ignored; 0 measured; 0 filtered out'")
}

#[test]
fn tests_of_both_languages_are_added_up() {
    check(PASSES, &cargo_ok(3), true, "4 passed, 0 failed, 0 skipped");
}

#[test]
fn a_go_test_that_fails_counts_once() {
    let fails = PASSES.replace("{}", "{ t.Fatal(\"no\") }");
    let text = check(&fails, &cargo_ok(3), false, "3 passed, 1 failed, 0 skipped");
    assert!(text.contains("--- FAIL: TestGood"), "{text}");
}

#[test]
fn a_go_package_that_does_not_build_fails() {
    let broken = PASSES.replace("{}", "{ undefined() }");
    let text = check(&broken, &cargo_ok(3), false, "3 passed, 1 failed, 0 skipped");
    assert!(text.contains("failed:\n  FAIL\tm [build failed]"), "{text}");
}

#[test]
fn a_go_package_that_ends_without_a_verdict_fails() {
    let exits = PASSES.replace("import \"testing\"", "import (\"os\"; \"testing\")").replace("{}", "{ os.Exit(3) }");
    check(&exits, &cargo_ok(3), false, "3 passed, 1 failed, 0 skipped");
}

#[test]
fn a_cargo_that_cannot_build_fails() {
    let text = check(PASSES, "echo 'error: could not compile `x`'; exit 101", false, "1 passed, 1 failed, 0 skipped");
    assert!(text.contains("error: could not compile"), "{text}");
}

#[test]
fn a_skipped_test_counts_as_skipped_and_not_as_passed() {
    let cargo = format!("echo 'real: no root' >> \"$FLOWFORGE_SKIPS\"; {}", cargo_ok(3));
    let text = check(PASSES, &cargo, true, "3 passed, 0 failed, 1 skipped");
    assert!(text.contains("skipped:\n  real: no root"), "{text}");
}

#[test]
fn where_nothing_passes_nothing_is_green() {
    let skips = PASSES.replace("{}", "{ t.Skip(\"not here\") }");
    check(&skips, &cargo_ok(0), false, "0 passed, 0 failed, 1 skipped");
}
