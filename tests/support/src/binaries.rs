//! The Go binaries of the testbed: built once, kept by content.
//!
//! Each directory below `tests/testbed/` with a `go.mod` is a module of its own,
//! because their dependencies conflict. A module's binaries are kept in
//!
//! ```text
//! ${FLOWFORGE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/flowforge}/testbed/<hash>/
//! ```
//!
//! where the hash covers `go.mod`, `go.sum`, the Go sources and the build recipe.
//! A directory there is complete: the build happens beside it, under a file
//! lock, and is renamed into place. Whoever finds it takes no lock at all.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context as _, Result, bail, ensure};
use ring::digest::{Context as Digest, SHA256};

/// A Go module below `tests/testbed/` and how its binaries are built.
#[derive(Clone, Copy, Debug)]
pub struct Module {
    /// The directory, relative to `tests/testbed/`.
    pub dir: &'static str,
    /// Packages to build; each gives a binary named like its last element.
    pub packages: &'static [&'static str],
    /// Build tags, comma separated.
    pub tags: &'static str,
    /// Added to the linker flags `-s -w`.
    pub ldflags: &'static str,
    /// Whether cgo is used; without it the binaries are static.
    pub cgo: bool,
}

/// Kubernetes 1.37 and etcd in one binary, `testbed`.
pub const KUBERNETES: Module = Module {
    dir: ".",
    packages: &["./cmd/testbed"],
    tags: "",
    ldflags: "-X k8s.io/component-base/version.gitVersion=v1.37.2 \
              -X k8s.io/component-base/version.gitMajor=1 \
              -X k8s.io/component-base/version.gitMinor=37 \
              -X k8s.io/client-go/pkg/version.gitVersion=v1.37.2",
    cgo: true,
};

/// Kubernetes 1.33, the oldest that FlowForge supports, in one binary, `testbed`.
/// It has no node components.
pub const KUBERNETES_1_33: Module = Module {
    dir: "k8s-1.33",
    packages: &["./cmd/testbed"],
    tags: "",
    ldflags: "-X k8s.io/component-base/version.gitVersion=v1.33.13 \
              -X k8s.io/component-base/version.gitMajor=1 \
              -X k8s.io/component-base/version.gitMinor=33 \
              -X k8s.io/client-go/pkg/version.gitVersion=v1.33.13",
    cgo: true,
};

/// The player of fake nodes, `kwok`.
pub const KWOK: Module =
    Module { dir: "kwok", packages: &["sigs.k8s.io/kwok/cmd/kwok"], tags: "", ldflags: "", cgo: false };

/// The owner of a testbed's processes, `supervise`.
pub const SUPERVISE: Module = Module { dir: "supervise", packages: &["."], tags: "", ldflags: "", cgo: false };

/// The container runtime of real nodes: `containerd`, `containerd-shim-runc-v2`
/// and `ctr`.
pub const CONTAINERD: Module = Module {
    dir: "containerd",
    packages: &[
        "github.com/containerd/containerd/v2/cmd/containerd",
        "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2",
        "github.com/containerd/containerd/v2/cmd/ctr",
    ],
    tags: "no_btrfs,no_zfs,no_devmapper,no_aufs",
    ldflags: "-X github.com/containerd/containerd/v2/version.Version=v2.3.7",
    cgo: false,
};

/// Cluster DNS of real nodes, `coredns`.
pub const COREDNS: Module = Module { dir: "coredns", packages: &["."], tags: "", ldflags: "", cgo: false };

/// Everything that the default version needs, fake and real nodes.
pub const DEFAULT: [Module; 5] = [SUPERVISE, KWOK, KUBERNETES, CONTAINERD, COREDNS];

impl Module {
    /// The directory that holds the module's binaries, built if need be.
    ///
    /// # Errors
    /// When there is no Go toolchain, or the build fails.
    pub fn build(&self) -> Result<PathBuf> {
        let source = source_root().join(self.dir);
        let cache = cache_root()?;
        let target = cache.join(self.hash(&source)?);
        if target.is_dir() {
            return Ok(target);
        }
        fs::create_dir_all(&cache)?;
        let lock = fs::File::create(cache.join(format!("{}.lock", self.name().replace('/', "-"))))?;
        lock.lock()?;
        // Somebody else may have built it while we waited.
        if target.is_dir() {
            return Ok(target);
        }
        let begin = Instant::now();
        tracing::info!(module = self.name(), "building");
        let staging = target.with_extension("partial");
        match fs::remove_dir_all(&staging) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
            _ => fs::create_dir_all(&staging)?,
        }
        self.compile(&source, &staging)?;
        fs::rename(&staging, &target)?;
        tracing::info!(module = self.name(), seconds = begin.elapsed().as_secs(), "built");
        Ok(target)
    }

    /// One binary of the module, built if need be.
    ///
    /// # Errors
    /// As [`Module::build`], and when the module has no such binary.
    pub fn binary(&self, name: &str) -> Result<PathBuf> {
        let path = self.build()?.join(name);
        ensure!(path.is_file(), "module {} has no binary {name}", self.name());
        Ok(path)
    }

    /// Whether the module's Kubernetes has kubelet and kube-proxy, which real nodes need.
    #[must_use]
    pub fn has_node_components(&self) -> bool {
        self.dir == KUBERNETES.dir
    }

    fn name(&self) -> &'static str {
        if self.dir == "." { "kubernetes" } else { self.dir }
    }

    fn compile(&self, source: &Path, out: &Path) -> Result<()> {
        let output = Command::new("go")
            .current_dir(source)
            .env("CGO_ENABLED", if self.cgo { "1" } else { "0" })
            // A toolchain that fits is already there or is fetched; a workspace
            // file above the checkout must not change the build.
            .env("GOWORK", "off")
            .args(["build", "-trimpath", "-mod=readonly", "-tags", self.tags])
            .arg("-ldflags")
            .arg(format!("-s -w {}", self.ldflags))
            .arg("-o")
            .arg(out.join("")) // a trailing slash: one file per package
            .args(self.packages)
            .stdin(Stdio::null())
            .output();
        let output = match output {
            Ok(output) => output,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                bail!("the testbed's binaries are built with Go 1.26 or newer, and there is no `go` on the PATH")
            }
            Err(error) => return Err(error.into()),
        };
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("go build in {} failed:\n{}", source.display(), last_lines(&said, 30));
        }
        Ok(())
    }

    /// The first 16 hex digits of SHA-256 over recipe and sources.
    fn hash(&self, source: &Path) -> Result<String> {
        let mut files = Vec::new();
        collect_sources(source, source, &mut files).with_context(|| source.display().to_string())?;
        files.sort();
        let mut digest = Digest::new(&SHA256);
        digest.update(format!("{:?} {} {} {}\0", self.packages, self.tags, self.ldflags, self.cgo).as_bytes());
        for file in &files {
            digest.update(file.as_os_str().as_encoded_bytes());
            digest.update(&[0]);
            digest.update(&fs::read(source.join(file))?);
            digest.update(&[0]);
        }
        let digest = digest.finish();
        Ok(digest.as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// Collects module files and Go sources, tests left out, without descending
/// into another module.
fn collect_sources(root: &Path, dir: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            if !path.join("go.mod").exists() {
                collect_sources(root, &path, files)?;
            }
            continue;
        }
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_source = name.ends_with(".go") && !name.ends_with("_test.go");
        if is_source || name == "go.mod" || name == "go.sum" {
            files.push(path.strip_prefix(root)?.to_owned());
        }
    }
    Ok(())
}

/// `tests/testbed/` of the checkout that this crate was compiled from.
fn source_root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testbed")
}

fn cache_root() -> Result<PathBuf> {
    let base = match (env::var_os("FLOWFORGE_CACHE"), env::var_os("XDG_CACHE_HOME"), env::var_os("HOME")) {
        (Some(own), _, _) => PathBuf::from(own),
        (None, Some(cache), _) => Path::new(&cache).join("flowforge"),
        (None, None, Some(home)) => Path::new(&home).join(".cache/flowforge"),
        (None, None, None) => bail!("none of FLOWFORGE_CACHE, XDG_CACHE_HOME and HOME is set"),
    };
    Ok(base.join("testbed"))
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A module in a scratch directory with one source and a nested module.
    fn scratch() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("go.mod"), "module m\n").unwrap();
        fs::write(dir.path().join("main.go"), "package main\n").unwrap();
        fs::create_dir(dir.path().join("nested")).unwrap();
        fs::write(dir.path().join("nested/go.mod"), "module n\n").unwrap();
        fs::write(dir.path().join("nested/main.go"), "package main\n").unwrap();
        dir
    }

    #[test]
    fn the_hash_follows_sources_and_recipe_but_not_nested_modules_or_tests() {
        let dir = scratch();
        let before = SUPERVISE.hash(dir.path()).unwrap();
        assert_eq!(before.len(), 16);
        fs::write(dir.path().join("nested/main.go"), "package other\n").unwrap();
        fs::write(dir.path().join("main_test.go"), "package main\n").unwrap();
        assert_eq!(SUPERVISE.hash(dir.path()).unwrap(), before);
        let other_recipe = Module { tags: "x", ..SUPERVISE };
        assert_ne!(other_recipe.hash(dir.path()).unwrap(), before);
        fs::write(dir.path().join("main.go"), "package main // changed\n").unwrap();
        assert_ne!(SUPERVISE.hash(dir.path()).unwrap(), before);
    }

    #[test]
    fn a_failed_build_says_what_the_compiler_said() {
        let dir = scratch();
        fs::write(dir.path().join("main.go"), "package main\nfunc main() { undefined() }\n").unwrap();
        let out = tempfile::tempdir().unwrap();
        let error = SUPERVISE.compile(dir.path(), out.path()).unwrap_err().to_string();
        assert!(error.contains("undefined"), "{error}");
    }
}
