//! Preemption on a real control plane: who is evicted for whom, budgets, promises, and pods of other schedulers.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::metrics::Scrape;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use scheduler::{
    create, delete, gang, install, is_live, members, namespace, node_names, node_of, pod, pods, priority_class,
    refused, unscheduled, until,
};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const SPACE: &str = "preemption";
const FINALIZER: &str = "flowforge.dev/test-holds-it";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_important_evict_the_less_important() {
    let testbed = scheduler::testbed(Profile::DgxH100, 2).await;
    install(&testbed, "").await;
    namespace(&testbed, SPACE).await;
    priority_classes(&testbed).await;
    a_budget_decides_and_the_node_is_promised(&testbed).await;
    a_foreign_pod_goes_as_well(&testbed).await;
    the_meek_wait(&testbed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gangs_evict_as_a_whole_and_as_wholes() {
    let testbed = scheduler::testbed(Profile::DgxH100, 4).await;
    let installation = install(&testbed, "").await;
    namespace(&testbed, SPACE).await;
    priority_classes(&testbed).await;
    a_gang_evicts_a_lower_gang(&testbed).await;
    gangs_of_one_priority_do_not_fight(&testbed).await;
    a_gang_spares_what_a_budget_protects(&testbed).await;
    let scrape = Scrape::of(installation.scheduler).await.unwrap();
    assert_eq!(scrape.sum("flowforge_preemption_wasted_evictions_total", ""), 0.0);
}

/// A gang whose members take a whole node each.
fn wide(name: &str, size: usize, class: &str) -> Vec<Value> {
    let mut pods = gang(name, size, "8");
    for pod in &mut pods {
        pod["spec"]["priorityClassName"] = json!(class);
        pod["metadata"]["labels"]["app"] =
            json!(format!("{name}-{}", pod["metadata"]["labels"]["flowforge.dev/rank"].as_str().unwrap()));
    }
    pods
}

async fn live_members(testbed: &Testbed, gang: &str) -> usize {
    members(testbed, SPACE, gang).await.iter().filter(|pod| is_live(pod)).count()
}

/// All of the lower gang goes, nobody of the higher one is bound before the last of it has gone, and then all are, where they
/// were promised to be.
async fn a_gang_evicts_a_lower_gang(testbed: &Testbed) {
    let mut low = wide("low", 4, "low");
    // It takes its time to end, and holds its node meanwhile.
    low[1]["metadata"]["annotations"]["testbed.flowforge.dev/term-ms"] = json!("30000");
    low[1]["spec"]["terminationGracePeriodSeconds"] = json!(60);
    create(testbed, SPACE, low).await;
    scheduler::bound(testbed, SPACE, "low", 4, SOON).await;
    create(testbed, SPACE, wide("high", 4, "high")).await;
    leaving(testbed, "low-1").await;
    // Whom it evicts, and soon how many of them it waits for.
    refused(testbed, SPACE, "flowforge.dev/gang=high", "evict").await;
    until("all others of the lower gang are gone, and every member of the higher one has a promise", SOON, || async {
        let left = members(testbed, SPACE, "low").await.len();
        let all = members(testbed, SPACE, "high").await;
        let nominated = |pod: &&Pod| pod.status.as_ref().is_some_and(|s| s.nominated_node_name.is_some());
        let promised = all.iter().filter(nominated).count();
        if (left, promised) == (1, 4) { Ok(()) } else { Err(format!("{left} are left, {promised} have a promise")) }
    })
    .await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    let still_there =
        get(testbed, "low-1").await.is_some_and(|pod| pod.status.unwrap().phase.as_deref() == Some("Running"));
    assert_eq!((live_members(testbed, "high").await, still_there), (0, true), "a part of the gang was bound");
    scheduler::bound(testbed, SPACE, "high", 4, SOON).await;
    let told = events(testbed, "Preempted").await;
    // One that is gone before the answer to its eviction comes has no event.
    assert!(told.iter().any(|(victim, _)| victim == "low-1"), "{told:?}");
    assert!(told.iter().all(|(_, note)| note.starts_with("Preempted by gang preemption/high on node ")), "{told:?}");
}

async fn gangs_of_one_priority_do_not_fight(testbed: &Testbed) {
    create(testbed, SPACE, wide("rival", 2, "high")).await;
    refused(testbed, SPACE, "flowforge.dev/gang=rival", "4 Insufficient nvidia.com/gpu.").await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((live_members(testbed, "high").await, live_members(testbed, "rival").await), (4, 0));
    delete(testbed, SPACE, "").await;
}

async fn a_gang_spares_what_a_budget_protects(testbed: &Testbed) {
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(testbed.client().clone(), SPACE);
    let budget = json!({
        "metadata": {"name": "guarded"},
        "spec": {"minAvailable": 2, "selector": {"matchLabels": {"guarded": "true"}}},
    });
    budgets.create(&PostParams::default(), &serde_json::from_value(budget).unwrap()).await.unwrap();
    let mut all = vec![whole("a", "low"), whole("b", "middle"), whole("c", "low"), whole("d", "middle")];
    for guarded in [0, 2] {
        all[guarded]["metadata"]["labels"]["guarded"] = json!("true");
    }
    create(testbed, SPACE, all).await;
    for name in ["a", "b", "c", "d"] {
        bound(testbed, name).await;
    }
    create(testbed, SPACE, wide("high", 2, "high")).await;
    scheduler::bound(testbed, SPACE, "high", 2, SOON).await;
    for name in ["a", "c"] {
        assert!(get(testbed, name).await.is_some_and(|pod| is_live(&pod)), "the budget did not protect {name}");
    }
    delete(testbed, SPACE, "").await;
}

async fn priority_classes(testbed: &Testbed) {
    for (name, value, preempts) in
        [("low", 1, true), ("middle", 100, true), ("high", 1_000, true), ("meek", 1_000, false)]
    {
        priority_class(testbed, name, value, preempts).await;
    }
}

/// A pod that takes a whole node.
fn whole(name: &str, class: &str) -> Value {
    let mut pod = pod(name, "8");
    pod["metadata"]["labels"] = json!({"app": name});
    pod["spec"]["priorityClassName"] = json!(class);
    pod
}

async fn get(testbed: &Testbed, name: &str) -> Option<Pod> {
    pods(testbed, SPACE, &format!("app={name}")).await.pop()
}

async fn bound(testbed: &Testbed, name: &str) -> String {
    until(&format!("{name} is bound"), SOON, || async {
        let pod = get(testbed, name).await.ok_or("it is not there")?;
        node_of(&pod).map(str::to_owned).ok_or_else(|| format!("{:?}", unscheduled(&pod)))
    })
    .await
}

/// The eviction of a pod has begun: since when it is marked, and why.
async fn leaving(testbed: &Testbed, name: &str) -> String {
    until(&format!("{name} is evicted"), SOON, || async {
        let pod = get(testbed, name).await.ok_or("it is gone already")?;
        let conditions = pod.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        let target = conditions.into_iter().find(|c| c.type_ == "DisruptionTarget" && c.status == "True");
        match (pod.metadata.deletion_timestamp, target) {
            (Some(_), Some(target)) => {
                assert_eq!(target.reason.as_deref(), Some("PreemptionByScheduler"));
                Ok(target.message.unwrap_or_default())
            }
            (deleted, target) => Err(format!("deleted {deleted:?}, condition {target:?}")),
        }
    })
    .await
}

/// The first node that a pod that is made later is promised before it is bound.
async fn promises(testbed: &Testbed, name: &str) -> tokio::task::JoinHandle<Option<String>> {
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), SPACE);
    let at = api.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let parameters = WatchParams::default().labels(&format!("app={name}"));
    let mut events = api.watch(&parameters, &at).await.unwrap().boxed();
    tokio::spawn(async move {
        while let Some(Ok(event)) = events.next().await {
            let (WatchEvent::Added(pod) | WatchEvent::Modified(pod)) = event else { continue };
            let promised = pod.status.as_ref().and_then(|status| status.nominated_node_name.clone());
            if promised.is_some() || node_of(&pod).is_some() {
                return promised;
            }
        }
        None
    })
}

async fn let_go(testbed: &Testbed, name: &str) {
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), SPACE);
    let patch = json!({"metadata": {"finalizers": null}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

async fn events(testbed: &Testbed, reason: &str) -> Vec<(String, String)> {
    let api: Api<Event> = Api::namespaced(testbed.client().clone(), SPACE);
    let found = api.list(&ListParams::default()).await.unwrap();
    let told = |e: Event| Some((e.regarding?.name?, e.note?));
    found.into_iter().filter(|e| e.reason.as_deref() == Some(reason)).filter_map(told).collect()
}

/// The least important one is protected, so that the other goes, and its node is promised to whom it goes for.
async fn a_budget_decides_and_the_node_is_promised(testbed: &Testbed) {
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(testbed.client().clone(), SPACE);
    let budget = json!({
        "metadata": {"name": "protected"},
        "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "protected"}}},
    });
    budgets.create(&PostParams::default(), &serde_json::from_value(budget).unwrap()).await.unwrap();
    let mut other = whole("other", "middle");
    other["metadata"]["finalizers"] = json!([FINALIZER]);
    create(testbed, SPACE, vec![whole("protected", "low"), other]).await;
    let (_, node) = (bound(testbed, "protected").await, bound(testbed, "other").await);
    let promised = promises(testbed, "important").await;
    create(testbed, SPACE, vec![whole("important", "high")]).await;
    let message = leaving(testbed, "other").await;
    assert_eq!(message, "flowforge: preempting to accommodate a higher priority pod");
    assert_eq!(bound(testbed, "important").await, node);
    assert_eq!(promised.await.unwrap(), Some(node.clone()), "the promise was never written");
    let protected = get(testbed, "protected").await.unwrap();
    assert!(is_live(&protected), "the budget did not protect it");
    let told = events(testbed, "Preempted").await;
    let uid = get(testbed, "important").await.unwrap().metadata.uid.unwrap();
    assert_eq!(told, [("other".to_owned(), format!("Preempted by pod {uid} on node {node}"))]);
    let_go(testbed, "other").await;
    delete(testbed, SPACE, "").await;
    budgets.delete("protected", &kube::api::DeleteParams::default()).await.unwrap();
}

/// Pods that another scheduler has bound.
async fn a_foreign_pod_goes_as_well(testbed: &Testbed) {
    let nodes = node_names(testbed).await;
    let foreign = |(index, node): (usize, &String)| {
        let mut pod = whole(&format!("foreign-{index}"), "low");
        pod["spec"]["schedulerName"] = json!("somebody-else");
        pod["spec"]["nodeName"] = json!(node);
        pod
    };
    create(testbed, SPACE, nodes.iter().enumerate().map(foreign).collect()).await;
    bound(testbed, "foreign-0").await;
    bound(testbed, "foreign-1").await;
    create(testbed, SPACE, vec![whole("important", "high")]).await;
    let node = bound(testbed, "important").await;
    let left = pods(testbed, SPACE, "").await;
    let left: Vec<&Pod> = left.iter().filter(|pod| is_live(pod)).collect();
    assert_eq!(left.len(), 2, "one foreign pod is enough");
    assert!(left.iter().filter(|pod| node_of(pod) == Some(&node)).count() == 1);
    delete(testbed, SPACE, "").await;
}

/// A pod whose class forbids it evicts nobody, and says so.
async fn the_meek_wait(testbed: &Testbed) {
    create(testbed, SPACE, (0..2).map(|i| whole(&format!("low-{i}"), "low")).collect()).await;
    bound(testbed, "low-0").await;
    bound(testbed, "low-1").await;
    create(testbed, SPACE, vec![whole("meek", "meek")]).await;
    let (_, message) = refused(testbed, SPACE, "app=meek", "").await;
    let told = "0/2 nodes are available: 2 Insufficient nvidia.com/gpu. \
                preemption: not eligible due to preemptionPolicy=Never.";
    assert_eq!(message, told);
    assert_eq!(pods(testbed, SPACE, "").await.iter().filter(|pod| is_live(pod)).count(), 2);
    delete(testbed, SPACE, "").await;
}
