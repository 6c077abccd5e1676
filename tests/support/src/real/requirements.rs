//! What real nodes need from the machine, and what of it is missing.

use std::{
    env,
    ffi::OsStr,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Directories that hold system programs but are not on everybody's `PATH`.
const SYSTEM_DIRS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];

/// Where distributions put the CNI plugins.
const CNI_DIRS: [&str; 2] = ["/usr/lib/cni", "/opt/cni/bin"];

/// The CNI plugins that a node's network configuration names.
const CNI_PLUGINS: [&str; 4] = ["host-local", "loopback", "portmap", "ptp"];

/// Programs of the distribution, found.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    pub(super) runc: PathBuf,
    pub(super) cni: PathBuf,
    /// A `PATH` with the system directories in it.
    pub(super) path: String,
}

/// Why there can be no real nodes on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Missing(
    /// What is missing, one item each.
    pub Vec<String>,
);

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "real nodes are not possible here: {}. Fake nodes are: `Testbed::builder().nodes(..)`, or `REAL=0`. \
             On Debian, tests/testbed/node/install-deps.sh installs the packages.",
            self.0.join("; ")
        )
    }
}

impl std::error::Error for Missing {}

/// Whether real nodes can run here.
///
/// # Errors
/// [`Missing`], which lists everything at once.
pub fn available() -> Result<(), Missing> {
    find_programs().map(|_| ())
}

pub(super) fn find_programs() -> Result<Programs, Missing> {
    let path = search_path();
    let mut missing = Vec::new();
    if !is_root() {
        missing.push("it needs root (namespaces, cgroups, mounts)".to_owned());
    }
    let mut need = |name: &str, package: &str| {
        let found = find(&path, name);
        if found.is_none() {
            missing.push(format!("program {name} (package {package})"));
        }
        found
    };
    let runc = need("runc", "runc");
    for (name, package) in
        [("iptables", "iptables"), ("ip", "iproute2"), ("nsenter", "util-linux"), ("unshare", "util-linux")]
    {
        need(name, package);
    }
    let cni =
        CNI_DIRS.into_iter().map(PathBuf::from).find(|dir| CNI_PLUGINS.iter().all(|plugin| dir.join(plugin).is_file()));
    if cni.is_none() {
        missing.push(format!(
            "CNI plugins {} in one of {} (package containernetworking-plugins)",
            CNI_PLUGINS.join(", "),
            CNI_DIRS.join(", ")
        ));
    }
    // Kernel features show as soon as they are used; a namespace is refused by
    // containers and some virtual machines even to root.
    if is_root() && find(&path, "unshare").is_some() && !can_unshare() {
        missing.push("new network, mount and PID namespaces are refused".to_owned());
    }
    match (runc, cni) {
        (Some(runc), Some(cni)) if missing.is_empty() => Ok(Programs { runc, cni, path }),
        _ => Err(Missing(missing)),
    }
}

/// `PATH` with the system directories in it.
pub(super) fn search_path() -> String {
    let own = env::var("PATH").unwrap_or_default();
    let mut dirs: Vec<&str> = own.split(':').filter(|dir| !dir.is_empty()).collect();
    dirs.extend(SYSTEM_DIRS.into_iter().filter(|dir| !own.split(':').any(|own| own == *dir)));
    dirs.join(":")
}

fn find(path: &str, name: impl AsRef<OsStr>) -> Option<PathBuf> {
    path.split(':').map(|dir| Path::new(dir).join(name.as_ref())).find(|file| file.is_file())
}

fn is_root() -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective =
        status.lines().find_map(|line| line.strip_prefix("Uid:")).and_then(|ids| ids.split_whitespace().nth(1));
    effective == Some("0")
}

fn can_unshare() -> bool {
    let tried = Command::new("unshare").args(["--net", "--mount", "--pid", "--fork", "true"]).output();
    tried.is_ok_and(|output| output.status.success())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_message_names_all_that_is_missing_and_what_is_possible() {
        let text = Missing(vec!["program runc (package runc)".to_owned(), "root".to_owned()]).to_string();
        for part in ["program runc (package runc); root", "Fake nodes are", "install-deps.sh"] {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_program_is_found_along_the_path_in_order() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("tool"), "").unwrap();
        let path = format!("/nowhere:{}", dir.path().display());
        assert_eq!(find(&path, "tool"), Some(dir.path().join("tool")));
        assert_eq!(find(&path, "other"), None);
    }
}
