//! The command line against a real API server, without scheduler and controller: this test plays their writes, so that
//! every answer and every exit code is shown, the rare ones too.

use anyhow::{Context as _, Result, ensure};
use flowforge_api::gang::{Gang, GangRole, GangSpec};
use flowforge_api::names::label;
use flowforge_api::workflow::Workflow;
use flowforge_testbed::Testbed;
use flowforge_tests::Follower;
use flowforge_tests::install::{program, repository};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Long enough for a loaded machine; a command that takes so long has failed.
const LIMIT: Duration = Duration::from_secs(60);

const DIAMOND: &str = r#"
workflow:
  name: diamond
  storage: {claimRef: nas}
  nodes:
    - {id: preprocess, image: "{{params.image}}", args: ["--input", "/mnt/{{params.set}}"]}
    - {id: train, replicas: "{{params.workers}}", image: "{{params.image}}", dependsOn: [preprocess]}
    - {id: eval, image: "{{params.image}}", dependsOn: [train]}
    - {id: publish, image: "{{params.image}}", dependsOn: [train]}
"#;
const PARAMS: &[&str] = &["-p", "image=busybox:1", "-p", "workers=4", "-p", "set=raw"];

/// What a run of the command line came to.
#[derive(Debug)]
struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

struct Cli {
    program: PathBuf,
    kubeconfig: PathBuf,
}

impl Cli {
    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(args).env("KUBECONFIG", &self.kubeconfig).env_remove("NO_COLOR");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn run(&self, args: &[&str], stdin: &str) -> Result<Ran> {
        let mut child = self.command(args).spawn()?;
        child.stdin.take().context("stdin")?.write_all(stdin.as_bytes())?;
        let output = child.wait_with_output()?;
        Ok(Ran {
            code: output.status.code().context("killed")?,
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
        })
    }

    /// Runs and checks the exit code, and that `stdout` and `stderr` hold these parts.
    fn expect(&self, args: &[&str], stdin: &str, code: i32, stdout: &[&str], stderr: &[&str]) -> Result<Ran> {
        let ran = self.run(args, stdin)?;
        let holds = |text: &str, parts: &[&str]| parts.iter().all(|part| text.contains(part));
        ensure!(ran.code == code && holds(&ran.stdout, stdout) && holds(&ran.stderr, stderr), "{args:?}: {ran:#?}");
        Ok(ran)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_command_answers_with_data_and_an_exit_code() {
    let testbed = Testbed::builder().start().await.expect("a testbed");
    let cli =
        Cli { program: program("flowforge").expect("built"), kubeconfig: testbed.admin_kubeconfig().to_path_buf() };
    clusters(&cli, testbed.dir()).expect("clusters that cannot answer");
    testbed.apply_manifests(repository().join("manifests/crds")).await.expect("definitions");
    submit(&cli, &testbed).await.expect("submit");
    get(&cli).expect("get");
    watch(&cli, &testbed).await.expect("watch");
    explain(&cli, &testbed).await.expect("explain");
    cancel(&cli, &testbed).await.expect("cancel");
    logs(&cli).expect("logs");
    permissions(&cli, &testbed).await.expect("permissions");
}

/// Without a cluster, without an answer, without the definitions: each says what would help.
fn clusters(cli: &Cli, dir: &Path) -> Result<()> {
    let missing = ["get", "--kubeconfig", "/nonexistent/kubeconfig"];
    cli.expect(&missing, "", 2, &[], &["no cluster to talk to", "fix: name one with --kubeconfig"])?;
    let silent = dir.join("silent-kubeconfig");
    let text = "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: c, user: u}}], \
                clusters: [{name: c, cluster: {server: 'https://127.0.0.1:1'}}], users: [{name: u, user: {}}]}";
    std::fs::write(&silent, text)?;
    let silent = silent.to_string_lossy();
    cli.expect(
        &["get", "--kubeconfig", &silent],
        "",
        2,
        &[],
        &["does not answer", "fix: check that the cluster is up"],
    )?;
    cli.expect(&["get"], "", 2, &[], &["does not know FlowForge's kinds", "fix: install FlowForge"])?;
    cli.expect(&["version"], "", 0, &["flowforge", "flowforge.dev/v1alpha1"], &[])?;
    cli.expect(&["version", "--server"], "", 0, &["kubernetes  v1.", "not installed"], &[])?;
    cli.expect(&["completion", "bash"], "", 0, &["_flowforge"], &[])?;
    cli.expect(&["frobnicate"], "", 2, &[], &["unrecognized subcommand"])?;
    Ok(())
}

async fn submit(cli: &Cli, testbed: &Testbed) -> Result<()> {
    let lint: Vec<&str> = ["lint", "-f", "-"].into_iter().chain(PARAMS.iter().copied()).collect();
    cli.expect(&lint, DIAMOND, 0, &["stdin: ok"], &[])?;
    cli.expect(&["lint", "-f", "-"], "kind: Pod\napiVersion: v1\n", 1, &["kind"], &[])?;
    let bad = "workflow: {name: bad, nodes: [{id: a, dependsOn: [a]}]}";
    cli.expect(&["lint", "-f", "-"], bad, 1, &["workflow.nodes[0]", "fix: "], &[])?;
    cli.expect(&["submit", "-f", "-"], bad, 2, &[], &["nothing was submitted", "workflow.nodes[0]", "fix: "])?;
    cli.expect(&["submit", "-f", "-"], DIAMOND, 2, &[], &["{{params.workers}} has no value"])?;

    let submit: Vec<&str> = ["submit", "-f", "-"].into_iter().chain(PARAMS.iter().copied()).collect();
    let dry: Vec<&str> = submit.iter().copied().chain(["--dry-run"]).collect();
    cli.expect(&dry, DIAMOND, 0, &["workflow default/diamond created (dry run)"], &[])?;
    cli.expect(&["get", "diamond"], "", 2, &[], &["there is no workflow default/diamond"])?;
    cli.expect(&submit, DIAMOND, 0, &["workflow default/diamond created"], &[])?;
    cli.expect(&submit, DIAMOND, 2, &[], &["there is already a workflow default/diamond", "generateName"])?;

    let workflows: Api<Workflow> = Api::namespaced(testbed.client().clone(), "default");
    let stored = workflows.get("diamond").await?;
    ensure!(stored.spec.nodes[1].replicas == 4, "{:?}", stored.spec.nodes[1]);
    ensure!(stored.spec.nodes[0].args == ["--input", "/mnt/raw"], "{:?}", stored.spec.nodes[0].args);
    ensure!(stored.spec.storage[0].claim_ref == "nas", "{:?}", stored.spec.storage);

    // A name of the server's choice comes back, and several documents are taken together.
    let two = "{apiVersion: flowforge.dev/v1alpha1, kind: Workflow, metadata: {generateName: run-}, spec: {nodes: [{id: a, image: i}]}}\n\
               ---\n{apiVersion: flowforge.dev/v1alpha1, kind: Workflow, metadata: {name: b}, spec: {nodes: [{id: a, image: i}]}}";
    let ran = cli.expect(&["submit", "-f", "-", "-o", "json"], two, 0, &[], &[])?;
    let list: Value = serde_json::from_str(&ran.stdout)?;
    ensure!(list["items"][0]["metadata"]["name"].as_str().is_some_and(|name| name.starts_with("run-")), "{list}");
    cli.expect(&["submit", "-f", "-", "--watch"], two, 2, &[], &["--watch follows one workflow"])?;
    Ok(())
}

fn get(cli: &Cli) -> Result<()> {
    cli.expect(&["get"], "", 0, &["NAME", "diamond", "Pending", "0/4"], &[])?;
    cli.expect(&["get", "-A"], "", 0, &["NAMESPACE", "default"], &[])?;
    cli.expect(&["get", "diamond"], "", 0, &["diamond  Pending  0/4 nodes", "└─ ○ publish", "after train"], &[])?;
    cli.expect(&["get", "-n", "kube-system"], "", 0, &[], &["no workflows in namespace kube-system"])?;
    let ran = cli.expect(&["get", "-o", "json"], "", 0, &[], &[])?;
    let list: Value = serde_json::from_str(&ran.stdout)?;
    ensure!(list["kind"] == "List" && list["items"].as_array().is_some_and(|items| items.len() == 3), "{list}");
    let ran = cli.expect(&["get", "diamond", "-o", "yaml"], "", 0, &["kind: Workflow"], &[])?;
    ensure!(!ran.stdout.contains('\u{1b}'), "a pipe gets no colours");
    cli.expect(&["get", "--color", "always"], "", 0, &["\u{1b}[33mPending"], &[])?;

    // A reader that leaves early ends the command without a word.
    let mut child = cli.command(&["get", "-o", "yaml"]).spawn()?;
    drop(child.stdout.take());
    let status = child.wait()?;
    let mut said = String::new();
    child.stderr.take().context("stderr")?.read_to_string(&mut said)?;
    ensure!(status.code() == Some(0) && said.is_empty(), "{status}: {said}");
    Ok(())
}

/// Writes a status as the controller would.
async fn status(testbed: &Testbed, name: &str, status: Value) -> Result<()> {
    let workflows: Api<Workflow> = Api::namespaced(testbed.client().clone(), "default");
    workflows.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    Ok(())
}

async fn watch(cli: &Cli, testbed: &Testbed) -> Result<()> {
    for (phase, code) in [("Succeeded", 0), ("Failed", 1), ("Canceled", 3)] {
        let name = format!("watched-{}", phase.to_lowercase());
        let text =
            format!("workflow: {{name: {name}, nodes: [{{id: a, image: i}}, {{id: b, image: i, dependsOn: [a]}}]}}");
        let following = Follower::start(cli.command(&["submit", "-f", "-", "--watch"]), &text)?;
        following.until_shows(&format!("workflow default/{name} created"), LIMIT).await?;
        let node = |id: &str, phase: &str| json!({"id": id, "phase": phase, "attempt": 1});
        let running = json!({"phase": "Running", "nodes": [node("a", "Running"), node("b", "Pending")]});
        status(testbed, &name, running).await?;
        // It ends only after the running node was seen, however slow the command is.
        following.until_shows("node a: Running", LIMIT).await?;
        let last = if phase == "Failed" { "Failed" } else { "Skipped" };
        let nodes = [node("a", "Succeeded"), node("b", if phase == "Succeeded" { "Succeeded" } else { last })];
        status(testbed, &name, json!({"phase": phase, "reason": "TestReason", "nodes": nodes})).await?;
        let (ended, stdout) = following.end(LIMIT).await?;
        let seen = ["node a: Succeeded", &format!("workflow {name}: {phase}, TestReason")]
            .iter()
            .all(|part| stdout.contains(*part));
        ensure!(ended == Some(code) && seen, "{phase}: {ended:?}\n{stdout}");
    }
    cli.expect(&["watch", "nothing"], "", 2, &[], &["there is no workflow default/nothing"])?;
    Ok(())
}

async fn explain(cli: &Cli, testbed: &Testbed) -> Result<()> {
    let silent = ["explain", "workflow", "diamond"];
    cli.expect(&silent, "", 0, &["NotSeen", "the DAG controller has not looked at it yet", "cure: "], &[])?;

    let labels = [(label::WORKFLOW, "diamond"), (label::NODE, "train"), (label::ATTEMPT, "1")];
    let role = GangRole { name: "worker".into(), replicas: 4, ..GangRole::default() };
    let gang = Gang {
        metadata: ObjectMeta {
            name: Some("diamond-train-1".into()),
            labels: Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<BTreeMap<_, _>>()),
            ..ObjectMeta::default()
        },
        spec: GangSpec { min_member: 4, roles: vec![role], ..GangSpec::default() },
        status: None,
    };
    let gangs: Api<Gang> = Api::namespaced(testbed.client().clone(), "default");
    gangs.create(&PostParams::default(), &gang).await?;
    let message = "0/12 nodes are available: 9 Insufficient nvidia.com/gpu, 3 node(s) were unschedulable.";
    let refused = json!({"type": "Scheduled", "status": "False", "reason": "Unschedulable", "message": message,
        "lastTransitionTime": "2026-11-20T08:00:00Z"});
    let patch = Patch::Merge(json!({"status": {"phase": "Pending", "conditions": [refused]}}));
    gangs.patch_status("diamond-train-1", &PatchParams::default(), &patch).await?;
    let nodes =
        json!([{"id": "preprocess", "phase": "Succeeded"}, {"id": "train", "phase": "Scheduling", "attempt": 1}]);
    status(testbed, "diamond", json!({"phase": "Running", "nodes": nodes})).await?;

    let parts = ["needs 4 members placed together", "9       Insufficient nvidia.com/gpu", "kubectl uncordon NODE"];
    cli.expect(&["explain", "gang", "diamond-train-1"], "", 0, &parts, &[])?;
    cli.expect(&silent, "", 0, &["node train: Scheduling", parts[1], "node eval: Pending", "waits for train"], &[])?;
    let ran = cli.expect(&["explain", "gang", "diamond-train-1", "-o", "json"], "", 0, &[], &[])?;
    let value: Value = serde_json::from_str(&ran.stdout)?;
    ensure!(value["refusals"][0]["nodes"][0]["nodes"] == 9, "{value}");

    let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
    let pod = json!({"metadata": {"name": "alone", "labels": {(label::GANG): "plain"}},
        "spec": {"schedulerName": "flowforge", "containers": [{"name": "c", "image": "i"}]}});
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    let parts =
        ["pod default/alone: Pending", "a member of gang plain", "scheduler flowforge has not looked at it yet"];
    cli.expect(&["explain", "pod", "alone"], "", 0, &parts, &[])?;
    cli.expect(&["explain", "gang", "plain"], "", 0, &["1 exist, 0 bound", "the scheduler has not looked"], &[])?;
    cli.expect(&["explain", "gang", "nothing"], "", 2, &[], &["there is no gang default/nothing"])?;
    cli.expect(&["explain", "pod", "nothing"], "", 2, &[], &["there is no pod default/nothing"])?;
    Ok(())
}

async fn cancel(cli: &Cli, testbed: &Testbed) -> Result<()> {
    cli.expect(&["cancel", "b"], "", 0, &["workflow default/b: cancel requested"], &[])?;
    let workflows: Api<Workflow> = Api::namespaced(testbed.client().clone(), "default");
    ensure!(workflows.get("b").await?.spec.cancel, "spec.cancel is not set");
    let waiting = Follower::start(cli.command(&["cancel", "b", "--wait"]), "")?;
    waiting.until_shows("workflow default/b: cancel requested", LIMIT).await?;
    status(testbed, "b", json!({"phase": "Canceled"})).await?;
    let (ended, stdout) = waiting.end(LIMIT).await?;
    ensure!(ended == Some(0) && stdout.contains("workflow default/b: Canceled"), "{ended:?} {stdout}");
    cli.expect(&["cancel", "b"], "", 0, &["has already ended"], &[])?;
    cli.expect(&["cancel", "nothing"], "", 2, &[], &["there is no workflow"])?;
    Ok(())
}

fn logs(cli: &Cli) -> Result<()> {
    cli.expect(&["logs", "diamond", "trian"], "", 2, &[], &["has no node trian", "preprocess, train, eval, publish"])?;
    cli.expect(&["logs", "diamond", "train", "--rank", "4"], "", 2, &[], &["no rank 4", "from 0 to 3"])?;
    cli.expect(&["logs", "diamond", "train"], "", 2, &[], &["it has no pod", "--follow"])?;
    cli.expect(&["logs", "diamond", "train", "--all-ranks"], "", 2, &[], &["rank 0 of node train", "it has no pod"])?;
    cli.expect(&["logs", "diamond", "train", "--all-ranks", "--rank", "1"], "", 2, &[], &["cannot be used with"])?;
    Ok(())
}

async fn permissions(cli: &Cli, testbed: &Testbed) -> Result<()> {
    let account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: nobody, namespace: default}}";
    testbed.apply_yaml(account).await?;
    let kubeconfig = testbed.service_account_kubeconfig("default", "nobody").await?;
    let nobody = Cli { program: cli.program.clone(), kubeconfig };
    let parts = ["is forbidden", "fix: ask the cluster's administrator"];
    nobody.expect(&["get", "-n", "default"], "", 2, &[], &parts)?;
    let text = "workflow: {name: x, nodes: [{id: a, image: i}]}";
    nobody.expect(&["submit", "-n", "default", "-f", "-"], text, 2, &[], &parts)?;
    Ok(())
}
