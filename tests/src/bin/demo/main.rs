//! `flowforge-demo`: the diamond of gangs on a real local control plane, as `make demo` runs it.
//!
//! ```text
//!   testbed up ─> install ─> submit (the CLI) ─> watch (the CLI) ─> report: racks, critical path, latency ─> down
//! ```
//! As root it runs on four real nodes (kubelet, containerd, runc) beside the fake ones; otherwise on fake nodes alone, and
//! says so.

mod report;

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use flowforge_testbed::{Profile, Testbed, real, running};
use flowforge_tests::install::{Installation, Options, program};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

const NAMESPACE: &str = "demo";
/// Of a testbed that is left running.
const NAME: &str = "demo";
const DIAMOND: &str = include_str!("diamond.yaml");
const SWEEP: &str = include_str!("sweep.yaml");

/// Run a diamond of gangs on a real local control plane.
#[derive(Parser)]
struct Args {
    /// Fake nodes (played by kwok).
    #[arg(long, default_value_t = 28)]
    fake: usize,
    /// Real nodes (kubelet, containerd, runc); needs root.
    #[arg(long, default_value_t = 4)]
    real: usize,
    /// Leave everything running, and say how to reach and how to end it.
    #[arg(long)]
    keep: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    if args.keep {
        running::ensure_free(NAME)?;
    }
    let start = Instant::now();
    let step = |text: &str| println!("\x1b[1m==>\x1b[0m {text} \x1b[2m({:.1} s)\x1b[0m", start.elapsed().as_secs_f64());

    let real = real_nodes(args.real);
    step(&format!(
        "starting etcd, kube-apiserver, kube-controller-manager; {real} real and {} fake dgx-h100 nodes",
        args.fake
    ));
    let mut builder = Testbed::builder().nodes(Profile::DgxH100, args.fake);
    if real > 0 {
        builder = builder.real_nodes(Profile::DgxH100, real);
    }
    let testbed = builder.start().await.context("start the testbed")?;

    step("installing FlowForge: CRDs, RBAC, webhook; starting flowforge-scheduler and flowforge-dag-controller");
    let installation = Installation::install(&testbed, Options::default()).await?;
    testbed.apply_yaml(&format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {NAMESPACE}}}\n")).await?;
    if real > 0 {
        testbed.shared_claim(NAMESPACE, "my-nas-claim").await.context("the shared claim")?;
    } else {
        testbed.apply_yaml(CLAIM).await.context("the shared claim")?;
    }

    step("submitting the diamond and a sweep of three gangs");
    let nodes = if real > 0 { "nodes=real" } else { "nodes=fake" };
    flowforge(&testbed, &["submit", "-f", &write(&testbed, "diamond.yaml", DIAMOND)?, "-p", nodes])?;
    flowforge(&testbed, &["submit", "-f", &write(&testbed, "sweep.yaml", SWEEP)?])?;
    let ended = flowforge(&testbed, &["watch", "diamond", "-n", NAMESPACE]);
    let ended = ended.and_then(|()| flowforge(&testbed, &["watch", "sweep", "-n", NAMESPACE]));
    if ended.is_err() {
        for name in ["diamond", "sweep"] {
            drop(flowforge(&testbed, &["explain", "workflow", name, "-n", NAMESPACE]));
        }
    }
    ended?;

    step("what happened");
    if real > 0 {
        flowforge(&testbed, &["logs", "diamond", "train", "--all-ranks", "-n", NAMESPACE])?;
    }
    report::print(&installation, NAMESPACE, &["diamond", "sweep"]).await?;

    if args.keep {
        println!("\nleft running; reach it with\n  export KUBECONFIG={}", testbed.admin_kubeconfig().display());
        running::leave(testbed, NAME)?;
        println!("end it with\n  make cluster-down");
        return Ok(());
    }
    step("taking everything down");
    testbed.stop()?;
    step("done");
    Ok(())
}

/// A claim that is bound at once to a volume that no kubelet mounts: enough for fake nodes.
const CLAIM: &str = "
apiVersion: v1
kind: PersistentVolume
metadata: {name: demo-nas}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  storageClassName: \"\"
  claimRef: {namespace: demo, name: my-nas-claim}
  hostPath: {path: /nonexistent}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: my-nas-claim, namespace: demo}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: \"\"
  volumeName: demo-nas
  resources: {requests: {storage: 1Gi}}
";

/// How many real nodes this machine can have, and why not where it cannot.
fn real_nodes(wanted: usize) -> usize {
    match real::available() {
        Ok(()) => wanted,
        Err(missing) if wanted > 0 => {
            println!("no real nodes here: {missing}; the demo runs on fake nodes");
            0
        }
        Err(_) => 0,
    }
}

/// Runs the command line on the testbed as a person would; its output is this process's.
fn flowforge(testbed: &Testbed, args: &[&str]) -> Result<()> {
    println!("\x1b[2m$ flowforge {}\x1b[0m", args.join(" "));
    let mut command = Command::new(program("flowforge")?);
    let status = command.args(args).env("KUBECONFIG", testbed.admin_kubeconfig()).status()?;
    ensure!(status.success(), "flowforge {} ended with {status}", args.join(" "));
    Ok(())
}

fn write(testbed: &Testbed, name: &str, text: &str) -> Result<String> {
    let path = Path::new(testbed.dir()).join(name);
    std::fs::write(&path, text)?;
    Ok(path.display().to_string())
}
