//! The binary that is measured: the release build of the sources as they are, or none.

use anyhow::{Context as _, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};

/// The scheduler's release build, in the target directory that this program was built in.
///
/// # Errors
/// When it is not built, or a source of it has changed since.
pub(crate) fn release_scheduler() -> Result<PathBuf> {
    let exe = std::env::current_exe()?;
    let target = exe.ancestors().nth(2).context("this program is in no target directory")?;
    let binary = target.join("release/flowforge-scheduler");
    ensure!(binary.is_file(), "{} is not built: run `make bench`, or name a binary with --scheduler", binary.display());
    check(&binary)?;
    Ok(binary)
}

/// Compares a binary's age with that of its sources, which cargo lists beside it: `BINARY: SOURCE SOURCE ...`.
fn check(binary: &Path) -> Result<()> {
    let list = binary.with_extension("d");
    let text = fs::read_to_string(&list).with_context(|| format!("the list of sources {}", list.display()))?;
    let (_, sources) = text.split_once(": ").with_context(|| format!("{} names no source", list.display()))?;
    let built = fs::metadata(binary)?.modified()?;
    // A space inside a path is escaped.
    for source in sources.replace("\\ ", "\0").split_whitespace() {
        let source = PathBuf::from(source.replace('\0', " "));
        let current = fs::metadata(&source).and_then(|data| data.modified()).is_ok_and(|changed| changed <= built);
        ensure!(
            current,
            "{} is older than {}: run `make bench`, or name a binary with --scheduler",
            binary.display(),
            source.display()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    /// A binary of two sources, one with a space in its path, each changed so many seconds after the build.
    fn built(changed_after_s: [i64; 2]) -> Result<()> {
        let dir = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let write = |name: &str, after_s: i64| {
            let path = dir.path().join(name);
            fs::write(&path, "").unwrap();
            let by = Duration::from_secs(after_s.unsigned_abs());
            let time = if after_s < 0 { now - by } else { now + by };
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            path
        };
        let binary = write("program", 0);
        let sources = [write("one.rs", changed_after_s[0]), write("an other.rs", changed_after_s[1])];
        let listed = sources.map(|path| path.display().to_string().replace(' ', "\\ "));
        fs::write(dir.path().join("program.d"), format!("{}: {}\n", binary.display(), listed.join(" "))).unwrap();
        check(&binary)
    }

    #[test]
    fn a_binary_older_than_one_of_its_sources_is_refused() {
        built([-5, -1]).unwrap();
        assert!(built([5, -1]).unwrap_err().to_string().contains("one.rs"));
        assert!(built([-5, 1]).unwrap_err().to_string().contains("an other.rs"));
    }

    #[test]
    fn a_binary_without_a_list_of_sources_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check(&dir.path().join("program")).unwrap_err().to_string().contains("program.d"));
    }
}
