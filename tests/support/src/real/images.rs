//! The images of the real nodes' containers: our own static binary under two
//! names, packed into one archive.

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
    pack(&packer, &path, &workload, &[(WORKLOAD_IMAGE, "/workload"), (SANDBOX_IMAGE, "/workload,pause")])?;
    Ok(path)
}

/// Packs a static binary into an image archive for [`crate::Testbed::import_images`]:
/// its only file is the binary at `/FILE-NAME`, which is the entry point.
///
/// # Errors
/// When `name` is not a full image name (`HOST/PATH:TAG`).
pub fn pack_image(binary: &Path, name: &str, archive: &Path) -> Result<()> {
    let file = binary.file_name().context("a binary without a name")?.to_string_lossy();
    pack(&IMAGE.binary("image")?, archive, binary, &[(name, &format!("/{file}"))])
}

/// Packs a static binary under several names: `images` are names and entry
/// points, whose words are separated by commas.
fn pack(packer: &Path, archive: &Path, binary: &Path, images: &[(&str, &str)]) -> Result<()> {
    let output = Command::new(packer)
        .arg("-o")
        .arg(archive)
        .arg("-binary")
        .arg(binary)
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
    fn another_workload_gives_another_archive() {
        let dir = tempfile::tempdir().unwrap();
        let path =
            |hash: &str| archive_path(&dir.path().join("aa/image"), &dir.path().join(hash).join("workload")).unwrap();
        assert_eq!(path("bb"), dir.path().join("images-aa-bb.tar"));
        assert_ne!(path("bb"), path("cc"));
    }
}
