//! The images of the real nodes' containers: our own static binary under two
//! names, packed into one archive; and a test's own binaries.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::binaries::Module;

/// The image for workloads: `/workload MODE ...`, see `tests/testbed/workload`.
/// To be used with `imagePullPolicy: Never`.
pub const WORKLOAD_IMAGE: &str = "docker.io/flowforge/workload:test";

/// The image of every pod's first process.
pub const SANDBOX_IMAGE: &str = "docker.io/flowforge/pause:test";

/// What runs in containers, `workload`.
pub const WORKLOAD: Module = Module { dir: "workload", packages: &["."], tags: "", ldflags: "", cgo: false };

/// The writer of image archives, `image`.
pub const IMAGE: Module = Module { dir: "image", ..WORKLOAD };

/// The archive with both images, made if need be.
///
/// It is kept beside the binaries; its name has the hashes of what it was made
/// by and from, and it appears by a rename.
pub(super) fn archive() -> Result<PathBuf> {
    let packer = IMAGE.binary("image")?;
    let workload = WORKLOAD.binary("workload")?;
    let path = archive_path(&packer, &workload)?;
    if path.is_file() {
        return Ok(path);
    }
    pack(&packer, &path, &workload, &[], &[(WORKLOAD_IMAGE, "/workload"), (SANDBOX_IMAGE, "/workload,pause")])?;
    Ok(path)
}

/// Packs a binary into an image archive for [`crate::Testbed::import_images`]:
/// it stands at `/FILE-NAME` and is the entry point. Nothing else is in the
/// image but the shared libraries of a binary that is not static.
///
/// # Errors
/// When `name` is not a full image name (`HOST/PATH:TAG`), or a library is not
/// found.
pub fn pack_image(binary: &Path, name: &str, archive: &Path) -> Result<()> {
    let file = binary.file_name().context("a binary without a name")?.to_string_lossy();
    pack(&IMAGE.binary("image")?, archive, binary, &libraries(binary)?, &[(name, &format!("/{file}"))])
}

/// The shared libraries that a binary loads, and the loader; none for a static
/// one.
fn libraries(binary: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(binary).output().context("ldd, which says what a binary loads")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("not a dynamic executable") {
        return Ok(Vec::new());
    }
    ensure!(output.status.success(), "ldd {}: {}", binary.display(), said.trim());
    parse_ldd(&String::from_utf8_lossy(&output.stdout)).with_context(|| binary.display().to_string())
}

/// Reads `NAME => PATH (ADDRESS)`, `PATH (ADDRESS)` for the loader, and what is
/// no file: the kernel's own library, and the line of a static program.
fn parse_ldd(text: &str) -> Result<Vec<String>> {
    let mut paths = Vec::new();
    for line in text.lines() {
        ensure!(!line.contains("not found"), "a library is missing: {}", line.trim());
        let found = line.split_once("=>").map_or(line, |(_, found)| found);
        let path = found.split(" (").next().unwrap_or_default().trim();
        if path.starts_with('/') {
            paths.push(path.to_owned());
        }
    }
    Ok(paths)
}

/// Packs a binary and what it loads under several names: `images` are names and
/// entry points, whose words are separated by commas.
fn pack(packer: &Path, archive: &Path, binary: &Path, libraries: &[String], images: &[(&str, &str)]) -> Result<()> {
    let output = Command::new(packer)
        .arg("-o")
        .arg(archive)
        .arg("-binary")
        .arg(binary)
        .args(libraries.iter().flat_map(|library| ["-with", library]))
        .args(images.iter().map(|(name, entrypoint)| format!("{name}={entrypoint}")))
        .output()
        .with_context(|| packer.display().to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "cannot pack {}: {}", binary.display(), said.trim());
    Ok(())
}

/// `CACHE/images-<hash of the packer>-<hash of the workload>.tar`.
fn archive_path(packer: &Path, workload: &Path) -> Result<PathBuf> {
    let hash = |binary: &Path| -> Result<String> {
        let dir = binary.parent().and_then(Path::file_name).context("a binary outside the cache")?;
        Ok(dir.to_string_lossy().into_owned())
    };
    let cache = workload.ancestors().nth(2).context("a binary outside the cache")?;
    fs::create_dir_all(cache)?;
    Ok(cache.join(format!("images-{}-{}.tar", hash(packer)?, hash(workload)?)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_taken_from_ldd_and_a_missing_one_is_an_error() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f4f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f50)\n";
        assert_eq!(parse_ldd(text).unwrap(), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert_eq!(parse_ldd("\tstatically linked\n").unwrap(), [""; 0]);
        assert!(parse_ldd("\tlibz.so.1 => not found\n").unwrap_err().to_string().contains("libz.so.1"));
    }

    #[test]
    fn another_workload_gives_another_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path =
            |hash: &str| archive_path(&dir.path().join("aa/image"), &dir.path().join(hash).join("workload")).unwrap();
        assert_eq!(path("bb"), dir.path().join("images-aa-bb.tar"));
        assert_ne!(path("bb"), path("cc"));
    }
}
