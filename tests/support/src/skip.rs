//! A test that this machine cannot run: said and counted, or a failure where it is required.

use std::{env, fs::OpenOptions, io::Write as _, thread};

/// Notes that the calling test does not run for want of `what`: on stderr, and
/// as a line of the file that `FLOWFORGE_SKIPS` names, from which `hack/test`
/// counts. The test returns afterwards.
///
/// # Panics
/// When `FLOWFORGE_REQUIRE` (comma separated) contains `what`.
pub fn skip(what: &str, why: &str) {
    let required = env::var("FLOWFORGE_REQUIRE").unwrap_or_default();
    assert!(!is_required(&required, what), "{what} is required here: {why}");
    eprintln!("skipped: {why}");
    let Some(path) = env::var_os("FLOWFORGE_SKIPS") else {
        return;
    };
    let test = thread::current().name().unwrap_or("a test").to_owned();
    let line = format!("{what}: {test}: {}\n", why.replace('\n', " "));
    let file = OpenOptions::new().create(true).append(true).open(&path);
    // One write, because tests of several processes append.
    let noted = file.and_then(|mut file| file.write_all(line.as_bytes()));
    assert!(noted.is_ok(), "a skipped test cannot be noted in {}: {noted:?}", path.display());
}

fn is_required(required: &str, what: &str) -> bool {
    required.split(',').any(|one| one.trim() == what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_required_is_a_list_of_whole_words() {
        assert!(is_required("real, prometheus", "prometheus") && is_required("real", "real"));
        assert!(!is_required("", "real") && !is_required("surreal,prometheus2", "real"));
    }
}
