//! What a process has cost, as the kernel accounts it.

use anyhow::{Context as _, Result};
use std::fs;
use std::path::Path;

/// Kernel ticks per second of `/proc/PID/stat` (USER_HZ, fixed at 100 on Linux for user space).
const TICKS_PER_SECOND: f64 = 100.0;

/// A running process.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Process {
    pid: u32,
}

impl Process {
    pub(crate) fn new(pid: u32) -> Self {
        Self { pid }
    }

    /// The process of a testbed whose command line names both the component and the testbed's directory.
    pub(crate) fn of_testbed(dir: &Path, component: &str) -> Result<Self> {
        let dir = dir.display().to_string();
        for entry in fs::read_dir("/proc")?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
            let Ok(line) = fs::read_to_string(entry.path().join("cmdline")) else { continue };
            let environment = fs::read(entry.path().join("environ")).unwrap_or_default();
            let environment = String::from_utf8_lossy(&environment);
            let words: Vec<&str> = line.split('\0').collect();
            let named = words.iter().take(2).any(|w| w.ends_with(component));
            if named && (line.contains(&dir) || environment.contains(&dir)) {
                return Ok(Self { pid });
            }
        }
        anyhow::bail!("no process {component} of the testbed in {dir}")
    }

    /// User and system time so far, milliseconds.
    pub(crate) fn cpu_ms(&self) -> Result<f64> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid))?;
        let rest = stat.rsplit_once(')').context("an odd /proc/PID/stat")?.1;
        let fields: Vec<&str> = rest.split_whitespace().collect();
        let ticks: f64 = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks * 1000.0 / TICKS_PER_SECOND)
    }

    /// Peak resident memory, MiB.
    pub(crate) fn peak_mib(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).context("no VmHWM")?;
        let kib: f64 = line.trim().trim_end_matches("kB").trim().parse()?;
        Ok(kib / 1024.0)
    }
}
