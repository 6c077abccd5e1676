//! A test that this machine cannot run: said and counted, or a failure where it is required.

use std::io::Write as _;

/// Notes that a test does not run here for want of `what`: on stderr, and as a line of the file that `FLOWFORGE_SKIPS` names.
///
/// # Panics
/// When `FLOWFORGE_REQUIRE` (comma separated) contains `what`.
pub fn skip(what: &str, why: &str) {
    let required = std::env::var("FLOWFORGE_REQUIRE").unwrap_or_default();
    assert!(!required.split(',').any(|one| one.trim() == what), "{what} is required here: {why}");
    eprintln!("skipped: {why}");
    if let Some(path) = std::env::var_os("FLOWFORGE_SKIPS") {
        let file = std::fs::OpenOptions::new().create(true).append(true).open(&path);
        if let Err(error) = file.and_then(|mut file| writeln!(file, "{what}: {why}")) {
            eprintln!("cannot note it in {}: {error}", path.display());
        }
    }
}
