//! The command line in front of the real scheduler and the real controller, on fake nodes: the examples run, a failure and
//! a cancellation come back as exit codes, and a gang that does not fit is explained in the scheduler's own words.

use anyhow::{Context as _, Result, ensure};
use flowforge_api::names::label;
use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::{Installation, Options, program, repository};
use flowforge_tests::{Follower, eventually};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_user_does_from_submit_to_explain() {
    let testbed = Testbed::builder().nodes(Profile::DgxH100, 4).start().await.expect("a testbed");
    let _installed = Installation::install(&testbed, Options::default()).await.expect("FlowForge");
    basic(&testbed).await.expect("examples/basic");
    plain_gang(&testbed).await.expect("examples/gang-plain");
    failure(&testbed).expect("a failing workflow");
    too_large(&testbed).await.expect("a gang that does not fit");
    refused(&testbed).expect("examples/bad");
}

fn flowforge(testbed: &Testbed, args: &[&str]) -> Result<Command> {
    let mut command = Command::new(program("flowforge")?);
    command.args(args).env("KUBECONFIG", testbed.admin_kubeconfig());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

/// Runs, and checks the exit code and what is said.
fn expect(testbed: &Testbed, args: &[&str], stdin: &str, code: i32, parts: &[&str]) -> Result<String> {
    let mut child = flowforge(testbed, args)?.spawn()?;
    child.stdin.take().context("stdin")?.write_all(stdin.as_bytes())?;
    told(child.wait_with_output()?, args, code, parts)
}

fn told(output: Output, args: &[&str], code: i32, parts: &[&str]) -> Result<String> {
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    let all = parts.iter().all(|part| text.contains(part));
    ensure!(output.status.code() == Some(code) && all, "{args:?}: {:?}\n{text}", output.status);
    Ok(text)
}

fn example(path: &str) -> String {
    repository().join("examples").join(path).to_string_lossy().into_owned()
}

/// The diamond runs to its end, and every node was placed.
async fn basic(testbed: &Testbed) -> Result<()> {
    testbed.shared_claim("default", "my-nas-claim").await?;
    // Its pods run until this test ends them, so that every phase is there to be seen.
    let text = std::fs::read_to_string(example("basic/workflow.yaml"))?;
    let held = "  defaults:\n    annotations: {testbed.flowforge.dev/run-ms: \"600000\"}\n";
    ensure!(text.matches("  defaults:\n").count() == 1, "the example has other defaults: {text}");
    let file = testbed.dir().join("workflow.yaml");
    std::fs::write(&file, text.replace("  defaults:\n", held))?;
    let following = Follower::start(flowforge(testbed, &["submit", "-f", &file.to_string_lossy(), "--watch"])?, "")?;
    following.until_shows("workflow default/diamond created", LIMIT).await?;
    for node in ["preprocess", "train", "eval", "publish"] {
        following.until_shows(&format!("node {node}: Running"), LIMIT).await?;
        end_members(testbed, "diamond", node).await?;
    }
    let (code, text) = following.end(LIMIT).await?;
    ensure!(code == Some(0) && text.contains("workflow diamond: Succeeded"), "{code:?} {text}");
    let tree = expect(testbed, &["get", "diamond"], "", 0, &["Succeeded  4/4 nodes", "4 of 4 succeeded"])?;
    ensure!(tree.matches('✔').count() == 4, "{tree}");
    expect(testbed, &["get"], "", 0, &["diamond", "Succeeded", "4/4"])?;
    expect(testbed, &["explain", "workflow", "diamond"], "", 0, &["workflow default/diamond: Succeeded"])?;
    expect(testbed, &["cancel", "diamond"], "", 0, &["has already ended"])?;
    Ok(())
}

/// Ends the pods of a node, which run, with exit code 0.
async fn end_members(testbed: &Testbed, workflow: &str, node: &str) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
    let members = ListParams::default().labels(&format!("{}={workflow},{}={node}", label::WORKFLOW, label::NODE));
    let now = Patch::Merge(json!({"metadata": {"annotations": {"testbed.flowforge.dev/run-ms": "0"}}}));
    for pod in pods.list(&members).await? {
        pods.patch(&pod.name_any(), &PatchParams::default(), &now).await?;
    }
    Ok(())
}

/// The pods of a Job are placed as one gang by their label alone.
async fn plain_gang(testbed: &Testbed) -> Result<()> {
    apply(testbed, Path::new(&example("gang-plain/job.yaml")))?;
    let jobs: Api<Job> = Api::namespaced(testbed.client().clone(), "default");
    eventually("the Job is complete", LIMIT, || async {
        let job = jobs.get("ring").await.map_err(|error| error.to_string())?;
        let done = job.status.and_then(|status| status.succeeded).unwrap_or_default();
        if done == 4 { Ok(()) } else { Err(format!("{done} of 4 members have ended")) }
    })
    .await?;
    expect(testbed, &["explain", "gang", "ring"], "", 0, &["gang default/ring: Scheduled", "4 bound"])?;
    Ok(())
}

fn apply(testbed: &Testbed, file: &Path) -> Result<()> {
    let output = testbed.kubectl().arg("apply").arg("-f").arg(file).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A member that exits 3 fails its gang, node and workflow, and the exit code says so.
fn failure(testbed: &Testbed) -> Result<()> {
    let text = r#"
workflow:
  name: failing
  defaults: {annotations: {testbed.flowforge.dev/exit-code: "{{params.code}}"}}
  nodes:
    - {id: train, replicas: 2, image: busybox}
    - {id: eval, image: busybox, dependsOn: [train]}
"#;
    let args = ["submit", "-f", "-", "-p", "code=3", "--watch"];
    expect(testbed, &args, text, 1, &["node train: Failed", "exited with code 3", "workflow failing: Failed"])?;
    expect(testbed, &["watch", "failing"], "", 1, &["workflow failing: Failed"])?;
    expect(testbed, &["get", "failing"], "", 0, &["✘ train", "– eval", "exited with code 3"])?;
    Ok(())
}

/// Six members of eight GPUs on four machines: nothing is bound, the reasons are the scheduler's, and it can be canceled.
async fn too_large(testbed: &Testbed) -> Result<()> {
    let text = "
workflow:
  name: large
  nodes:
    - {id: train, replicas: 6, image: busybox, resources: {limits: {nvidia.com/gpu: 8}}}
    - {id: eval, image: busybox, dependsOn: [train]}
";
    expect(testbed, &["submit", "-f", "-"], text, 0, &["workflow default/large created"])?;
    let parts = [
        "Pending for",
        "needs 6 members placed together: 6 exist, 0 bound",
        "Unschedulable",
        "Insufficient nvidia.com/gpu",
    ];
    let start = Instant::now();
    let explained = loop {
        match expect(testbed, &["explain", "gang", "large-train-1"], "", 0, &parts) {
            Ok(text) => break text,
            Err(error) if start.elapsed() > LIMIT => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    };
    ensure!(explained.contains("free nvidia.com/gpu there"), "{explained}");
    let json = expect(testbed, &["explain", "gang", "large-train-1", "-o", "json"], "", 0, &[])?;
    let value: Value = serde_json::from_str(&json)?;
    let nodes = value["refusals"][0]["nodes"].as_array().context("no nodes")?;
    ensure!(nodes.iter().any(|n| n["reason"] == "Insufficient nvidia.com/gpu" && n["nodes"] == 4), "{value}");
    expect(testbed, &["explain", "workflow", "large"], "", 0, &["node train: Scheduling", "waits for train"])?;
    let pod = ["a member of gang large-train-1 (rank 0)", "Unschedulable"];
    expect(testbed, &["explain", "pod", "large-train-1-0"], "", 0, &pod)?;

    let watching = flowforge(testbed, &["watch", "large"])?.spawn()?;
    expect(testbed, &["cancel", "large", "--wait"], "", 0, &["cancel requested", "workflow default/large: Canceled"])?;
    told(watching.wait_with_output()?, &["watch", "large"], 3, &["workflow large: Canceled"])?;
    Ok(())
}

/// What lint refuses, the cluster refuses as well, whoever sends it.
fn refused(testbed: &Testbed) -> Result<()> {
    let mut count = 0;
    for entry in std::fs::read_dir(example("bad"))? {
        let file = entry?.path();
        let output = testbed.kubectl().args(["create", "--validate=strict", "-f"]).arg(&file).output()?;
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success() && !text.trim().is_empty(), "{} was accepted", file.display());
        count += 1;
    }
    ensure!(count >= 15, "only {count} files");
    let cycle = testbed.kubectl().args(["create", "-f", &example("bad/cycle.yaml")]).output()?;
    let text = String::from_utf8_lossy(&cycle.stderr);
    ensure!(text.contains("these nodes wait for each other: a -> c -> b -> a"), "{text}");
    Ok(())
}
