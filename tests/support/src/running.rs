//! Testbeds that are left running for a person: noted in a file each, so that another process can end them.
//!
//! ```text
//!   leave(testbed, NAME) ─> ${XDG_RUNTIME_DIR:-TMP}/flowforge-testbeds/NAME.json ─> Running::all(), Running::end()
//! ```

use std::{
    env, fs, io,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};

use crate::Testbed;

/// How long a testbed may take to go.
const END_LIMIT: Duration = Duration::from_secs(60);

/// A testbed that was left running.
#[derive(Clone, Debug)]
pub struct Running {
    /// The name it was left under.
    pub name: String,
    note: Note,
}

/// What the file holds.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Note {
    dir: PathBuf,
    supervisor: u32,
}

/// Leaves a testbed running under a name, which no other running one has.
///
/// # Errors
/// When one of this name runs, or it cannot be noted; the testbed is then taken down.
pub fn leave(testbed: Testbed, name: &str) -> Result<()> {
    ensure_free(name)?;
    let note = Note { dir: testbed.dir().to_owned(), supervisor: testbed.supervisor.pid };
    // Noted before it is let go: what cannot be found again goes with this process.
    fs::write(file(name)?, serde_json::to_vec(&note)?)?;
    testbed.detach()?;
    Ok(())
}

/// Fails where a testbed of this name runs, and says where.
///
/// # Errors
/// When one of this name runs, or the files cannot be read.
pub fn ensure_free(name: &str) -> Result<()> {
    if let Some(running) = Running::find(name)? {
        let dir = running.note.dir.display();
        anyhow::bail!(
            "a testbed named {name} runs already, in {dir}; end it with `flowforge-testbed down --name {name}`"
        );
    }
    Ok(())
}

impl Running {
    /// The running testbed of a name. A file whose supervisor is gone counts as none.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn find(name: &str) -> Result<Option<Self>> {
        let file = file(name)?;
        let text = match fs::read_to_string(&file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            text => text?,
        };
        let note: Note = serde_json::from_str(&text).with_context(|| file.display().to_string())?;
        Ok(is_held(&note)?.then(|| Self { name: name.to_owned(), note }))
    }

    /// All that run, by name.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn all() -> Result<Vec<Self>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(folder()?)? {
            let path = entry?.path();
            let name = path.file_stem().and_then(|stem| stem.to_str());
            if let (Some(name), Some("json")) = (name, path.extension().and_then(|extension| extension.to_str())) {
                found.extend(Self::find(name)?);
            }
        }
        found.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(found)
    }

    /// Takes it down and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be signalled or does not go.
    pub fn end(self) -> Result<()> {
        let Note { dir, supervisor } = self.note;
        let status = Command::new("kill").arg(supervisor.to_string()).status()?;
        ensure!(status.success(), "cannot signal the supervisor {supervisor}");
        let deadline = Instant::now() + END_LIMIT;
        while dir.exists() {
            ensure!(Instant::now() < deadline, "{} is still there", dir.display());
            thread::sleep(Duration::from_millis(50));
        }
        fs::remove_file(file(&self.name)?)?;
        Ok(())
    }
}

/// Whether the supervisor lives. The lock file of its directory names the process, so that a pid that somebody else has by
/// now is not signalled.
fn is_held(note: &Note) -> Result<bool> {
    let Ok(lock) = fs::File::open(note.dir.join("supervisor.lock")) else {
        return Ok(false);
    };
    match lock.try_lock_shared() {
        Ok(()) => Ok(false), // nobody holds it
        Err(fs::TryLockError::WouldBlock) => Ok(true),
        Err(fs::TryLockError::Error(error)) => Err(error.into()),
    }
}

fn file(name: &str) -> Result<PathBuf> {
    ensure!(!name.contains('/'), "a name has no slash");
    Ok(folder()?.join(format!("{name}.json")))
}

fn folder() -> Result<PathBuf> {
    let runtime = env::var_os("XDG_RUNTIME_DIR");
    let dir = runtime.map_or_else(env::temp_dir, |dir| Path::new(&dir).to_owned()).join("flowforge-testbeds");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}
