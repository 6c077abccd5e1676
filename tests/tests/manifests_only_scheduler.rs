//! FlowForge as the only scheduler: a cluster without kube-scheduler starts cold. The scheduler comes as the user of a
//! kubeconfig, as its static pod does, and places pods that name no scheduler, among them FlowForge's own controller.

use anyhow::{Context as _, Result, ensure};
use flowforge_testbed::{ProcessSpec, Profile, Testbed};
use flowforge_tests::eventually;
use flowforge_tests::install::{NAMESPACE, program, repository};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

const USER: &str = "system:flowforge-scheduler";
const LIMIT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_starts_cold_with_no_other_scheduler() {
    let testbed = Testbed::builder().nodes(Profile::Cpu, 3).start().await.expect("a testbed");
    // Before its roles are there, as after a cold start: it has to wait for them, not to end.
    start(&testbed).await.expect("the scheduler starts");
    testbed.apply_manifests(repository().join("manifests/only-scheduler")).await.expect("the manifests");
    unnamed_pod(&testbed).await.expect("a pod that names no scheduler");
    own_controller(&testbed).await.expect("the controller's pods");
    ensure_alive(&testbed).expect("the scheduler never ended");
}

/// The command line of static-pod.yaml, with the paths and the port of this machine.
async fn start(testbed: &Testbed) -> Result<()> {
    let text = std::fs::read_to_string(repository().join("manifests/only-scheduler/static-pod.yaml"))?;
    let pod: Value = serde_saphyr::from_str(&text)?;
    let listen = testbed.network().at(11_080);
    let config = repository().join("manifests/only-scheduler/config.yaml");
    let kubeconfig = kubeconfig(testbed)?;
    let mut args = Vec::new();
    for arg in pod["spec"]["containers"][0]["args"].as_array().context("args")? {
        let arg = arg.as_str().context("an argument")?;
        args.push(match arg.split_once('=').map_or(arg, |(name, _)| name) {
            "--kubeconfig" => format!("--kubeconfig={}", kubeconfig.display()),
            "--config" => format!("--config={}", config.display()),
            "--listen" => format!("--listen={listen}"),
            _ => arg.to_owned(),
        });
    }
    testbed.spawn(ProcessSpec::new("only-scheduler", program("flowforge-scheduler")?).args(args))?;
    Ok(())
}

/// A kubeconfig with a client certificate for the user, as `kubeadm kubeconfig user` makes it.
fn kubeconfig(testbed: &Testbed) -> Result<PathBuf> {
    let identity = testbed.pki().client(USER, None)?;
    let authority = testbed.dir().join("only-scheduler-ca.crt");
    std::fs::write(&authority, testbed.ca_pem())?;
    let text = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": testbed.apiserver_url(), "certificate-authority": authority}}],
        "users": [{"name": "u", "user": {"client-certificate": identity.cert, "client-key": identity.key}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
    });
    let path = testbed.dir().join("only-scheduler-kubeconfig");
    std::fs::write(&path, text.to_string())?;
    Ok(path)
}

async fn unnamed_pod(testbed: &Testbed) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), "default");
    let pod = json!({
        "metadata": {"name": "plain"},
        "spec": {"containers": [{"name": "c", "image": "i"}], "restartPolicy": "Never"},
    });
    pods.create(&PostParams::default(), &serde_json::from_value(pod)?).await?;
    eventually("a pod of default-scheduler is placed and runs to its end", LIMIT, || async {
        let pod = pods.get("plain").await.map_err(|error| error.to_string())?;
        let name = pod.spec.and_then(|spec| spec.scheduler_name).unwrap_or_default();
        let phase = pod.status.and_then(|status| status.phase).unwrap_or_default();
        if name == "default-scheduler" && phase == "Succeeded" { Ok(()) } else { Err(format!("{name}: {phase}")) }
    })
    .await
}

async fn own_controller(testbed: &Testbed) -> Result<()> {
    let pods: Api<Pod> = Api::namespaced(testbed.client().clone(), NAMESPACE);
    let labels = ListParams::default().labels("app.kubernetes.io/name=flowforge-dag-controller");
    eventually("both replicas of the controller are placed", LIMIT, || async {
        let found = pods.list(&labels).await.map_err(|error| error.to_string())?;
        let mut nodes: Vec<String> =
            found.items.into_iter().filter_map(|pod| pod.spec?.node_name).filter(|name| !name.is_empty()).collect();
        nodes.sort();
        if nodes.len() == 2 { Ok(()) } else { Err(format!("placed on {nodes:?}")) }
    })
    .await?;
    let schedulers = ListParams::default().labels("app.kubernetes.io/name=flowforge-scheduler");
    ensure!(pods.list(&schedulers).await?.items.is_empty(), "a scheduler Deployment is part of only-scheduler");
    Ok(())
}

fn ensure_alive(testbed: &Testbed) -> Result<()> {
    let exits = testbed.exits("only-scheduler");
    ensure!(exits.is_empty(), "{exits:?}\n{}", testbed.logs("only-scheduler").text());
    Ok(())
}
