//! Volumes on a real control plane: claims that wait for their pod are bound or provisioned for its node before the pod is
//! bound, for a gang all or nothing, and whoever leads next finishes what was begun.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{PROVISIONER, Profile, Provisioner, SELECTED_NODE, Testbed};
use flowforge_tests::install::SCHEDULER;
use flowforge_tests::metrics::Scrape;
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod};
use kube::Api;
use kube::api::ListParams;
use scheduler::{
    bound, create, delete, gang, install_with_short_lease, is_live, members, namespace, node_names, node_of, nodes_of,
    open_intents, patiently, pod, pods, unscheduled, until,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Refusals back off, so that what heals may take a few tries.
const SOON: Duration = Duration::from_secs(60);
/// A wish for a node that nobody answers is taken back after so long.
const CONFIG: &str = "binding: {volumeBindTimeoutMs: 20000}\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_that_wait_for_their_pod_are_served_before_it_is_bound() {
    let testbed = scheduler::testbed(Profile::DgxH100, 4).await;
    let provisioner = Provisioner::start(testbed.client().clone());
    let installation = install_with_short_lease(&testbed, CONFIG).await;
    classes(&testbed).await;
    a_volume_is_provisioned_where_the_pod_goes(&testbed).await;
    local_volumes_are_given_to_one_claim_each(&testbed).await;
    an_ephemeral_volume_is_made_with_its_pod(&testbed).await;
    a_claim_for_one_pod_serves_one_pod(&testbed).await;
    a_gang_is_bound_with_all_its_volumes_or_not_at_all(&testbed, &provisioner).await;
    a_wish_that_nobody_answers_is_taken_back(&testbed, &provisioner).await;
    metrics_count_them(installation.scheduler).await;
    for in_between in [true, false] {
        the_next_leader_finishes_what_was_prepared(&testbed, &provisioner, in_between).await;
    }
    let log = testbed.logs(SCHEDULER).text();
    assert!(!log.contains("panicked") && !log.contains("cannot be decoded"), "{log}");
}

async fn classes(testbed: &Testbed) {
    let yaml = format!(
        "
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: made}}
provisioner: {PROVISIONER}
volumeBindingMode: WaitForFirstConsumer
---
apiVersion: storage.k8s.io/v1
kind: StorageClass
metadata: {{name: local}}
provisioner: kubernetes.io/no-provisioner
volumeBindingMode: WaitForFirstConsumer
"
    );
    testbed.apply_yaml(&yaml).await.unwrap();
}

fn claim(namespace: &str, name: &str, class: &str, mode: &str) -> String {
    let metadata = json!({"name": name, "namespace": namespace});
    let spec = claim_spec(class, mode);
    format!(
        "---\n{}\n",
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": metadata, "spec": spec})
    )
}

fn claim_spec(class: &str, mode: &str) -> Value {
    json!({"accessModes": [mode], "storageClassName": class, "resources": {"requests": {"storage": "1Gi"}}})
}

fn mounting(mut pod: Value, claim: &str) -> Value {
    pod["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": claim}}]);
    pod
}

/// The claims of a namespace by name.
async fn claims(testbed: &Testbed, namespace: &str) -> BTreeMap<String, PersistentVolumeClaim> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(testbed.client().clone(), namespace);
    let parameters = ListParams::default();
    let found = patiently("list claims", || api.list(&parameters)).await.items;
    found.into_iter().map(|claim| (claim.metadata.name.clone().unwrap(), claim)).collect()
}

fn selected(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.metadata.annotations.as_ref()?.get(SELECTED_NODE).map(String::as_str)
}

fn is_bound(claim: &PersistentVolumeClaim) -> bool {
    claim.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Bound")
}

/// The only node of a claim's volume.
async fn home(testbed: &Testbed, claim: &PersistentVolumeClaim) -> String {
    let api: Api<PersistentVolume> = Api::all(testbed.client().clone());
    let name = claim.spec.as_ref().unwrap().volume_name.clone().unwrap();
    let spec = serde_json::to_value(api.get(&name).await.unwrap().spec).unwrap();
    let term = &spec["nodeAffinity"]["required"]["nodeSelectorTerms"][0]["matchExpressions"][0];
    term["values"][0].as_str().unwrap().to_owned()
}

/// Waits until a pod is bound; answers its node.
async fn placed(testbed: &Testbed, namespace: &str, name: &str) -> String {
    until(&format!("{name} is bound"), SOON, || async {
        let found = pods(testbed, namespace, "").await;
        let pod = found.iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).ok_or("no such pod")?;
        node_of(pod).map(str::to_owned).ok_or_else(|| format!("{:?}", unscheduled(pod)))
    })
    .await
}

/// Waits until all that the pods of a namespace have asked for is there and that no intent is open.
async fn quiet(testbed: &Testbed) {
    until("no intent is open", SOON, || async {
        match open_intents(testbed).await {
            0 => Ok(()),
            open => Err(format!("{open} are")),
        }
    })
    .await;
}

async fn a_volume_is_provisioned_where_the_pod_goes(testbed: &Testbed) {
    namespace(testbed, "made").await;
    testbed.apply_yaml(&claim("made", "data", "made", "ReadWriteOnce")).await.unwrap();
    create(testbed, "made", vec![mounting(pod("p", "1"), "data")]).await;
    let node = placed(testbed, "made", "p").await;
    let claims = claims(testbed, "made").await;
    assert_eq!(selected(&claims["data"]), Some(node.as_str()));
    assert!(is_bound(&claims["data"]), "the pod was bound before its claim: {:?}", claims["data"]);
    assert_eq!(home(testbed, &claims["data"]).await, node);
}

async fn local_volumes_are_given_to_one_claim_each(testbed: &Testbed) {
    namespace(testbed, "local").await;
    let nodes = node_names(testbed).await;
    let mut objects = String::new();
    // Two of the four nodes have a volume; three pods want one.
    for (at, node) in nodes.iter().take(2).enumerate() {
        let in_node = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [node]});
        let volume = json!({
            "apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("local-{at}")},
            "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "local",
                "local": {"path": "/mnt"},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [in_node]}]}},
            },
        });
        objects += &format!("---\n{volume}\n");
    }
    for at in 0..3 {
        objects += &claim("local", &format!("c{at}"), "local", "ReadWriteOnce");
    }
    testbed.apply_yaml(&objects).await.unwrap();
    create(testbed, "local", (0..3).map(|at| mounting(pod(&format!("p{at}"), "1"), &format!("c{at}"))).collect()).await;
    let message = until("two pods are bound and one is told why it is not", SOON, || async {
        let found = pods(testbed, "local", "").await;
        let live = found.iter().filter(|pod| is_live(pod)).count();
        let refused = found.iter().filter(|pod| !is_live(pod)).find_map(unscheduled);
        match (live, refused) {
            (2, Some((_, message))) => Ok(message),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert!(message.contains("didn't find available persistent volumes to bind"), "{message}");
    let claims = claims(testbed, "local").await;
    let found = pods(testbed, "local", "").await;
    for pod in found.iter().filter(|pod| is_live(pod)) {
        let name = pod.metadata.name.as_deref().unwrap().replace('p', "c");
        assert!(is_bound(&claims[&name]));
        assert_eq!(node_of(pod), Some(home(testbed, &claims[&name]).await.as_str()));
    }
    delete(testbed, "local", "").await;
}

async fn an_ephemeral_volume_is_made_with_its_pod(testbed: &Testbed) {
    namespace(testbed, "ephemeral").await;
    let mut scratch = pod("p", "1");
    let template = json!({"spec": claim_spec("made", "ReadWriteOnce")});
    scratch["spec"]["volumes"] = json!([{"name": "scratch", "ephemeral": {"volumeClaimTemplate": template}}]);
    create(testbed, "ephemeral", vec![scratch]).await;
    let node = placed(testbed, "ephemeral", "p").await;
    let claims = claims(testbed, "ephemeral").await;
    assert!(is_bound(&claims["p-scratch"]));
    assert_eq!(home(testbed, &claims["p-scratch"]).await, node);
}

async fn a_claim_for_one_pod_serves_one_pod(testbed: &Testbed) {
    namespace(testbed, "alone").await;
    testbed.apply_yaml(&claim("alone", "data", "made", "ReadWriteOncePod")).await.unwrap();
    create(testbed, "alone", vec![mounting(pod("first", "1"), "data")]).await;
    let node = placed(testbed, "alone", "first").await;
    let mut second = mounting(pod("second", "1"), "data");
    second["metadata"]["labels"] = json!({"stays": "yes"});
    create(testbed, "alone", vec![second]).await;
    until("the second is told why it waits", SOON, || async {
        let found = pods(testbed, "alone", "stays=yes").await;
        assert!(!is_live(&found[0]), "both were bound");
        let (_, message) = unscheduled(&found[0]).ok_or("no condition")?;
        message.contains("ReadWriteOncePod").then_some(()).ok_or(message)
    })
    .await;
    delete(testbed, "alone", "stays!=yes").await;
    assert_eq!(placed(testbed, "alone", "second").await, node);
}

/// A gang with a claim each, `NAME-c0` and so on; their names.
async fn gang_with_claims(testbed: &Testbed, namespace: &str, name: &str, size: usize) -> Vec<String> {
    let claims: Vec<String> = (0..size).map(|at| format!("{name}-c{at}")).collect();
    let objects: String = claims.iter().map(|one| claim(namespace, one, "made", "ReadWriteOnce")).collect();
    testbed.apply_yaml(&objects).await.unwrap();
    let pods = gang(name, size, "8").into_iter().zip(&claims).map(|(pod, claim)| mounting(pod, claim)).collect();
    create(testbed, namespace, pods).await;
    claims
}

async fn a_gang_is_bound_with_all_its_volumes_or_not_at_all(testbed: &Testbed, provisioner: &Provisioner) {
    namespace(testbed, "gangs").await;
    free_the_nodes(testbed).await;
    provisioner.refuse(&["g-c2"]);
    let names = gang_with_claims(testbed, "gangs", "g", 4).await;
    until("the refusal is told", SOON, || async {
        let found = members(testbed, "gangs", "g").await;
        assert_eq!(found.iter().filter(|pod| node_of(pod).is_some()).count(), 0, "a part of the gang is bound");
        let (_, message) = found.iter().find_map(unscheduled).ok_or("no condition")?;
        message
            .contains("the provisioner has no volume for PersistentVolumeClaim gangs/g-c2")
            .then_some(())
            .ok_or(message)
    })
    .await;
    let refused = claims(testbed, "gangs").await;
    assert!(!is_bound(&refused["g-c2"]));
    provisioner.serve_all().await.unwrap();
    bound(testbed, "gangs", "g", 4, SOON).await;
    volumes_are_where_the_pods_are(testbed, "gangs", "g", &names).await;
    quiet(testbed).await;
    delete(testbed, "gangs", "").await;
}

async fn volumes_are_where_the_pods_are(testbed: &Testbed, namespace: &str, gang: &str, names: &[String]) {
    let (claims, found) = (claims(testbed, namespace).await, members(testbed, namespace, gang).await);
    let by_name: BTreeMap<&str, &Pod> = found.iter().map(|pod| (pod.metadata.name.as_deref().unwrap(), pod)).collect();
    for (rank, name) in names.iter().enumerate() {
        let pod = by_name[format!("{gang}-{rank}").as_str()];
        assert!(is_bound(&claims[name]), "{name}");
        assert_eq!(node_of(pod), Some(home(testbed, &claims[name]).await.as_str()), "{name}");
    }
}

async fn a_wish_that_nobody_answers_is_taken_back(testbed: &Testbed, provisioner: &Provisioner) {
    namespace(testbed, "silent").await;
    provisioner.hold(&["data"]);
    testbed.apply_yaml(&claim("silent", "data", "made", "ReadWriteOnce")).await.unwrap();
    create(testbed, "silent", vec![mounting(pod("p", "1"), "data")]).await;
    let message = until("the pod is told that its volume did not come in time", SOON, || async {
        let found = pods(testbed, "silent", "").await;
        unscheduled(&found[0]).ok_or_else(|| "no condition".to_owned())
    })
    .await;
    assert!(message.1.contains("PersistentVolumeClaim silent/data has no volume on node"), "{message:?}");
    provisioner.serve_all().await.unwrap();
    placed(testbed, "silent", "p").await;
}

async fn metrics_count_them(address: std::net::SocketAddr) {
    let scrape = Scrape::of(address).await.unwrap();
    let prepared = |kind: &str| scrape.sum("flowforge_prepare_duration_seconds_count", kind);
    // What was provisioned for the gang before it was undone is there, and is not prepared again.
    assert!(prepared("kind=\"provision\"") >= 5.0, "{}", prepared("kind=\"provision\""));
    assert!(prepared("kind=\"bind_volume\"") >= 2.0);
    assert!(scrape.sum("flowforge_prepare_failures_total", "") >= 2.0);
}

/// The scheduler is killed when a gang's nodes are selected and its volumes are not there. `in_between`: they come before
/// the next one leads.
async fn the_next_leader_finishes_what_was_prepared(testbed: &Testbed, provisioner: &Provisioner, in_between: bool) {
    let name = if in_between { "between" } else { "after" };
    namespace(testbed, name).await;
    free_the_nodes(testbed).await;
    // Pods of their own that are bound leave the journal a little later.
    quiet(testbed).await;
    provisioner.hold_all();
    let names = gang_with_claims(testbed, name, "g", 4).await;
    until("all nodes are selected", SOON, || async {
        let claims = claims(testbed, name).await;
        let asked = claims.values().filter(|claim| selected(claim).is_some()).count();
        if asked == 4 { Ok(()) } else { Err(format!("{asked} are")) }
    })
    .await;
    testbed.kill(SCHEDULER).unwrap();
    assert!(nodes_of(&members(testbed, name, "g").await).is_empty(), "bound before its volumes are there");
    assert_eq!(open_intents(testbed).await, 1);
    if in_between {
        provisioner.serve_all().await.unwrap();
        until("the volumes are there", SOON, || async {
            let bound = claims(testbed, name).await.values().filter(|claim| is_bound(claim)).count();
            if bound == 4 { Ok(()) } else { Err(format!("{bound} are")) }
        })
        .await;
    }
    testbed.respawn(SCHEDULER).unwrap();
    if !in_between {
        // Not before the next one leads and has taken over.
        tokio::time::sleep(Duration::from_secs(8)).await;
        assert!(nodes_of(&members(testbed, name, "g").await).is_empty(), "bound before its volumes are there");
        provisioner.serve_all().await.unwrap();
    }
    bound(testbed, name, "g", 4, SOON).await;
    volumes_are_where_the_pods_are(testbed, name, "g", &names).await;
    quiet(testbed).await;
}

/// Pods of earlier parts go, so that a gang of whole nodes fits.
async fn free_the_nodes(testbed: &Testbed) {
    for namespace in ["made", "ephemeral", "alone", "silent", "between"] {
        delete(testbed, namespace, "").await;
    }
}
