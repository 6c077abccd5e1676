//! `scheduler_*` metrics beside kube-scheduler's, after the same load: what kube-scheduler marks STABLE or BETA, and
//! what it says of volumes, has the same name, type and labels here.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{Profile, SELECTED_NODE, Testbed, network::port};
use flowforge_tests::metrics::get;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::api::{Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use scheduler::{create, install, is_live, namespace, pod, pods, unscheduled, until};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);
/// What shows only once the volumes of a pod could not be bound.
const OF_VOLUMES: &str = "scheduler_volume_scheduling_stage_error_total";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stable_and_beta_metrics_are_those_of_kube_scheduler() {
    let testbed = Testbed::builder().nodes(Profile::DgxH100, 2).kube_scheduler(true).start().await.unwrap();
    let installation = install(&testbed, "").await;
    load(&testbed, "flowforge").await;
    load(&testbed, "default-scheduler").await;
    refuse_volumes(&testbed).await;
    until("both count volumes that are refused", LIMIT, || async {
        let ours = get(installation.scheduler, "/metrics").await.unwrap();
        let shown = [of_kube_scheduler(&testbed).await, ours].map(|text| families(&text).contains_key(OF_VOLUMES));
        if shown == [true; 2] { Ok(()) } else { Err(format!("kube-scheduler, ours: {shown:?}")) }
    })
    .await;
    let upstream = families(&of_kube_scheduler(&testbed).await);
    let ours = families(&get(installation.scheduler, "/metrics").await.unwrap());
    let marked = |family: &&Family| {
        let is_stable = family.help.starts_with("[STABLE]") || family.help.starts_with("[BETA]");
        is_stable || family.name.starts_with("scheduler_volume_")
    };
    let compared: Vec<&Family> =
        upstream.values().filter(|family| family.name.starts_with("scheduler_")).filter(marked).collect();
    assert!(compared.len() >= 12, "kube-scheduler shows only {} of them", compared.len());
    let mut wrong = Vec::new();
    for family in compared {
        match ours.get(&family.name) {
            None => wrong.push(format!("{} is missing", family.name)),
            Some(mine) if (&mine.kind, &mine.labels) != (&family.kind, &family.labels) => {
                wrong.push(format!(
                    "{}: {} {:?}, here {} {:?}",
                    family.name, family.kind, family.labels, mine.kind, mine.labels
                ));
            }
            Some(mine) if mine.buckets != family.buckets => {
                wrong.push(format!("{}: buckets {:?}, here {:?}", family.name, family.buckets, mine.buckets));
            }
            Some(_) => {}
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// Pods that are bound, and one that fits nowhere.
async fn load(testbed: &Testbed, scheduler_name: &str) {
    let of = |name: &str, gpus: &str| {
        let mut pod = pod(name, gpus);
        pod["spec"]["schedulerName"] = json!(scheduler_name);
        pod
    };
    let space = format!("load-{scheduler_name}");
    namespace(testbed, &space).await;
    create(testbed, &space, vec![of("a", "1"), of("b", "2"), of("too-large", "99")]).await;
    until("two are bound and one is refused", LIMIT, || async {
        let found = pods(testbed, &space, "").await;
        let live = found.iter().filter(|pod| is_live(pod)).count();
        let refused = found.iter().filter(|pod| unscheduled(pod).is_some()).count();
        if (live, refused) == (2, 1) { Ok(()) } else { Err(format!("{live} bound, {refused} refused")) }
    })
    .await;
    // Gauges are set from time to time; kube-scheduler records what plugins took asynchronously.
    tokio::time::sleep(Duration::from_secs(2)).await;
}

/// For a pod of each scheduler, a provisioner refuses to make the volume on the node that was selected.
async fn refuse_volumes(testbed: &Testbed) {
    let class = json!({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": "nobody"},
        "provisioner": "nobody.example", "volumeBindingMode": "WaitForFirstConsumer"});
    testbed.apply_yaml(&class.to_string()).await.unwrap();
    for scheduler_name in ["flowforge", "default-scheduler"] {
        let space = format!("load-{scheduler_name}");
        let mut pod = pod("mounts", "0");
        pod["spec"]["schedulerName"] = json!(scheduler_name);
        pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
        let spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "nobody",
            "resources": {"requests": {"storage": "1Gi"}}});
        let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim",
            "metadata": {"name": "data", "namespace": space}, "spec": spec});
        testbed.apply_yaml(&claim.to_string()).await.unwrap();
        create(testbed, &space, vec![pod]).await;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(testbed.client().clone(), &space);
        until("a node is selected", LIMIT, || async {
            let annotations = claims.get("data").await.unwrap().metadata.annotations.unwrap_or_default();
            annotations.contains_key(SELECTED_NODE).then_some(()).ok_or(format!("{annotations:?}"))
        })
        .await;
        let refused = Patch::Merge(json!({"metadata": {"annotations": {SELECTED_NODE: null}}}));
        claims.patch("data", &PatchParams::default(), &refused).await.unwrap();
    }
}

async fn of_kube_scheduler(testbed: &Testbed) -> String {
    let file = Kubeconfig::read_from(testbed.admin_kubeconfig()).unwrap();
    let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    config.cluster_url = format!("https://{}", testbed.network().at(port::SCHEDULER)).parse().unwrap();
    let request = http::Request::get("/metrics").body(Vec::new()).unwrap();
    Client::try_from(config).unwrap().request_text(request).await.unwrap()
}

/// One metric.
#[derive(Clone, Debug, Default)]
struct Family {
    name: String,
    help: String,
    kind: String,
    labels: BTreeSet<String>,
    buckets: BTreeSet<String>,
}

/// The metrics of a text in Prometheus' format.
fn families(text: &str) -> BTreeMap<String, Family> {
    let mut all: BTreeMap<String, Family> = BTreeMap::new();
    for line in text.lines() {
        let words = line.strip_prefix("# ").and_then(|rest| rest.split_once(' '));
        if let Some((word @ ("HELP" | "TYPE"), rest)) = words {
            let (name, value) = rest.split_once(' ').unwrap_or((rest, ""));
            let family = all.entry(name.to_owned()).or_default();
            family.name = name.to_owned();
            *(if word == "HELP" { &mut family.help } else { &mut family.kind }) = value.to_owned();
        } else if let Some((series, _)) = line.rsplit_once(' ').filter(|_| !line.starts_with('#')) {
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let base = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let key = base.filter(|base| all.contains_key(*base)).unwrap_or(name);
            let Some(family) = all.get_mut(key) else { continue };
            for (label, value) in pairs(labels.trim_end_matches('}')) {
                if label == "le" {
                    family.buckets.insert(bound(value));
                } else {
                    family.labels.insert(label.to_owned());
                }
            }
        }
    }
    all
}

/// Labels and values; no value here has a quote or a comma in it.
fn pairs(labels: &str) -> impl Iterator<Item = (&str, &str)> {
    labels.split(',').filter_map(|pair| pair.split_once('=')).map(|(label, value)| (label, value.trim_matches('"')))
}

/// A bucket's bound to six digits: floating point is written otherwise on both sides.
fn bound(value: &str) -> String {
    value.parse::<f64>().map_or_else(|_| value.to_owned(), |bound| format!("{bound:.5e}"))
}

#[test]
fn names_types_labels_and_buckets_are_read() {
    let text = "# HELP x [STABLE] words\n# TYPE x histogram\nx_bucket{a=\"1\",le=\"0.1\"} 1\nx_bucket{a=\"1\",le=\"+Inf\"} 1\nx_sum{a=\"1\"} 1\n# TYPE y counter\ny 3\n";
    let found = families(text);
    let x = &found["x"];
    assert_eq!((x.kind.as_str(), x.help.as_str(), x.buckets.len()), ("histogram", "[STABLE] words", 2));
    assert_eq!(x.labels, BTreeSet::from(["a".to_owned()]));
    assert!(found["y"].labels.is_empty());
}
