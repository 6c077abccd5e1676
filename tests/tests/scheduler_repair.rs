//! What happens to a gang while it is bound: refused Bindings, lost members and nodes, a restarted API server. It becomes
//! whole, or it is rolled back; it never stays bound in part.
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
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use scheduler::{
    assert_no_overcommit, bound, create, delete, gang, install, is_live, members, namespace, nodes_of, open_intents,
    pods, until,
};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// One Binding at a time: much can happen between the first and the last.
const SLOW: &str = "binding: {repairDeadlineMs: 3000, parallelRequests: 1}\n";
/// The same with time for a hindrance that lasts.
const SLOW_AND_PATIENT: &str = "binding: {repairDeadlineMs: 20000, parallelRequests: 1}\n";
/// The same with time for an API server that is away.
const SLOW_AND_STUBBORN: &str = "binding: {repairDeadlineMs: 120000, parallelRequests: 1}\n";
/// What ends for certain, however busy the machine is.
const AT_LAST: Duration = Duration::from_secs(120);

/// Members of a gang that something happens to. They are bound one by one, which takes longer than to make it happen.
const SIZE: usize = 64;
/// With fewer unbound than this the last Binding may be answered before the scheduler is told of what happened.
const MARGIN: usize = 8;
/// How often it must happen while the gang is bound.
const HITS: usize = 4;
/// Where that took more rounds the test would show nothing.
const MOST_ROUNDS: usize = 20;

/// One test at a time: what they want to hit is short.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Creates gangs that become complete at the same moment: first all of them but one member each.
async fn create_together(testbed: &Testbed, namespace: &str, mut gangs: Vec<Vec<Value>>) {
    let last = gangs.iter_mut().filter_map(Vec::pop).collect();
    create(testbed, namespace, gangs.concat()).await;
    create(testbed, namespace, last).await;
}

/// Members are changed all the time while they are bound, so that Bindings are refused with 409.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_whose_bindings_are_refused_with_conflicts_becomes_whole() {
    const SIZE: usize = 32;
    const REFUSALS: f64 = 10.0;
    let _turn = TURN.lock().await;
    let testbed = scheduler::testbed(Profile::DgxH100, SIZE).await;
    let installation = install(&testbed, SLOW_AND_PATIENT).await;
    namespace(&testbed, "moving").await;
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "moving");
    let (mut bound_by, mut refused) = (0.0, 0.0);
    for round in 0..20 {
        if round >= 5 && refused >= REFUSALS {
            break;
        }
        let name = format!("touched-{round}");
        let (api, target) = (api.clone(), name.clone());
        let meddler = tokio::spawn(async move {
            for count in 0.. {
                let patch = json!({"metadata": {"annotations": {"example.com/touched": count.to_string()}}});
                let pod = format!("{target}-{}", count % SIZE);
                let _ = api.patch(&pod, &PatchParams::default(), &Patch::Merge(patch)).await;
                // Changes enough, and time for the Bindings between them.
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        create_together(&testbed, "moving", vec![gang(&name, SIZE, "8")]).await;
        let took = bound(&testbed, "moving", &name, SIZE, AT_LAST).await;
        meddler.abort();
        println!("round {round}: whole {took:?} after its creation, under constant change");
        let found = members(&testbed, "moving", &name).await;
        assert_eq!(nodes_of(&found).len(), SIZE, "members of 8 GPUs share a node");
        settled(&testbed).await;
        delete(&testbed, "moving", &format!("flowforge.dev/gang={name}")).await;
        (bound_by, refused) = bindings(installation.scheduler).await;
    }
    println!("{bound_by} Bindings were accepted, {refused} refused with a conflict");
    assert!(bound_by >= 5.0 * 32.0 && refused >= REFUSALS, "{bound_by} accepted, {refused} refused");
}

/// Bindings that the API server accepted, and that it refused with a conflict.
async fn bindings(scheduler: SocketAddr) -> (f64, f64) {
    let scrape = Scrape::of(scheduler).await.unwrap();
    let outcomes = |outcome: &str| {
        // The labels are written in the order of their names.
        let labels = format!("command=\"bind\",outcome=\"{outcome}\"");
        scrape.sum("flowforge_dispatch_duration_seconds_count", &labels)
    };
    (outcomes("ok"), outcomes("conflict"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_that_loses_a_member_or_a_node_while_it_is_bound_is_repaired_or_rolled_back() {
    let _turn = TURN.lock().await;
    let testbed = scheduler::testbed(Profile::DgxH100, SIZE + 8).await;
    install(&testbed, SLOW).await;
    namespace(&testbed, "moving").await;
    deleted_members(&testbed).await;
    vanished_nodes(&testbed).await;
    assert_no_overcommit(&testbed, "nvidia.com/gpu").await;
    create(&testbed, "moving", gang("after", SIZE, "8")).await;
    bound(&testbed, "moving", "after", SIZE, AT_LAST).await;
}

/// Waits until no intent is open: what is bound now stays, and nothing is added to it.
async fn settled(testbed: &Testbed) {
    until("every intent is closed", AT_LAST, || async {
        let open = open_intents(testbed).await;
        if open == 0 { Ok(()) } else { Err(format!("{open} are open")) }
    })
    .await;
}

/// How many members of a gang are live.
async fn live(testbed: &Testbed, namespace: &str, gang: &str) -> usize {
    members(testbed, namespace, gang).await.iter().filter(|pod| is_live(pod)).count()
}

/// The node of the first member that a watch shows bound.
async fn first_binding(api: Api<Pod>, selector: &str) -> String {
    let config = watcher::Config::default().labels(selector);
    let mut events = watcher(api, config).default_backoff().applied_objects().boxed();
    while let Some(event) = events.next().await {
        let Ok(pod) = event else { continue };
        if let Some(node) = scheduler::node_of(&pod).filter(|_| is_live(&pod)) {
            return node.to_owned();
        }
    }
    panic!("the watch ended")
}

/// A member is deleted while its gang is bound, and made again by nobody: the gang must not stay partial.
async fn deleted_members(testbed: &Testbed) {
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "moving");
    let (mut rounds, mut rolled_back, mut hit) = (0, 0, 0);
    while hit < HITS {
        rounds += 1;
        assert!(rounds <= MOST_ROUNDS, "only {hit} of {MOST_ROUNDS} gangs lost a member before it was bound");
        let name = format!("bereft-{rounds}");
        let selector = format!("flowforge.dev/gang={name}");
        let (watched, selected) = (api.clone(), selector.clone());
        let first = tokio::spawn(async move { first_binding(watched, &selected).await });
        create_together(testbed, "moving", vec![gang(&name, SIZE, "8")]).await;
        first.await.unwrap();
        let victim = format!("{name}-{}", SIZE - 1);
        let deleted = api.delete(&victim, &DeleteParams::default().grace_period(0)).await.unwrap();
        let unbound = deleted.left().is_some_and(|pod| scheduler::node_of(&pod).is_none());
        let late = !unbound && live(testbed, "moving", &name).await + MARGIN > SIZE;
        hit += usize::from(unbound);
        settled(testbed).await;
        // Without its member the gang is never whole: what was bound is rolled back, unless the loss came after the last Binding.
        let live = live(testbed, "moving", &name).await;
        assert!(live == 0 || late && live == SIZE - 1, "round {rounds}: {live} of {SIZE} stay");
        rolled_back += usize::from(live == 0);
        delete(testbed, "moving", &selector).await;
    }
    println!("{hit} of {rounds} gangs lost a member before it was bound; {rolled_back} were rolled back");
}

/// A node of the plan vanishes while its gang is bound. Every other time its member is made again, as a controller would.
async fn vanished_nodes(testbed: &Testbed) {
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "moving");
    let (mut rounds, mut hit) = (0, 0);
    while hit < HITS {
        rounds += 1;
        assert!(rounds <= MOST_ROUNDS, "only {hit} of {MOST_ROUNDS} nodes vanished while their gang was bound");
        let replaced = hit % 2 == 1;
        let name = format!("homeless-{rounds}");
        let selector = format!("flowforge.dev/gang={name}");
        let (watched, selected) = (api.clone(), selector.clone());
        let first = tokio::spawn(async move { first_binding(watched, &selected).await });
        let pods = gang(&name, SIZE, "8");
        create_together(testbed, "moving", vec![pods.clone()]).await;
        let victim = first.await.unwrap();
        nodes.delete(&victim, &DeleteParams::default()).await.unwrap();
        let found = members(testbed, "moving", &name).await;
        let late = found.iter().filter(|pod| is_live(pod)).count() + MARGIN > SIZE;
        hit += usize::from(!late);
        let start = Instant::now();
        // What the garbage collector of a production cluster does with pods of a node that is gone, only sooner.
        for pod in found.iter().filter(|pod| scheduler::node_of(pod) == Some(victim.as_str())) {
            let lost = pod.metadata.name.as_deref().unwrap();
            let _ = api.delete(lost, &DeleteParams::default().grace_period(0)).await;
            let again = pods.iter().filter(|pod| replaced && pod["metadata"]["name"] == lost).cloned();
            create(testbed, "moving", again.collect()).await;
        }
        settled(testbed).await;
        let live = live(testbed, "moving", &name).await;
        println!("round {rounds}: {live} members live {:?} after {victim} vanished", start.elapsed());
        let repaired = replaced && live == SIZE;
        assert!(live == 0 || repaired || late && live == SIZE - 1, "round {rounds}: {live} of {SIZE} stay");
        delete(testbed, "moving", &selector).await;
        testbed.create_nodes(Profile::DgxH100, 1).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gangs_become_whole_though_the_api_server_is_restarted_while_they_are_bound() {
    const SIZE: usize = 32;
    const GANGS: usize = 4;
    let _turn = TURN.lock().await;
    let testbed = scheduler::testbed(Profile::DgxH100, SIZE * GANGS).await;
    let installation = install(&testbed, SLOW_AND_STUBBORN).await;
    namespace(&testbed, "restarted").await;
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "restarted");
    let (mut round, mut hit) = (0, 0);
    while hit < 3 {
        round += 1;
        assert!(round <= MOST_ROUNDS, "only {hit} of {MOST_ROUNDS} restarts came while gangs were bound");
        let names: Vec<String> = (0..GANGS).map(|gang| format!("gang-{round}-{gang}")).collect();
        let watched = api.clone();
        let first = tokio::spawn(async move { first_binding(watched, "").await });
        create_together(&testbed, "restarted", names.iter().map(|name| gang(name, SIZE, "8")).collect()).await;
        first.await.unwrap();
        let open = open_intents(&testbed).await;
        testbed.restart_apiserver().await.unwrap();
        let made = pods(&testbed, "restarted", "").await;
        hit += usize::from(open > 0);
        let start = Instant::now();
        for name in &names {
            bound(&testbed, "restarted", name, SIZE, AT_LAST).await;
        }
        println!("round {round}: {open} intents open at the restart; all whole {:?} after it", start.elapsed());
        settled(&testbed).await;
        // The very pods that were made, each on a node of its own: none was rolled back, none bound beside another.
        let found = pods(&testbed, "restarted", "").await;
        let ids = |pods: &[Pod]| pods.iter().filter_map(|pod| pod.metadata.uid.clone()).collect::<BTreeSet<_>>();
        assert_eq!(ids(&found), ids(&made), "round {round}: not the pods that were made");
        assert_eq!(nodes_of(&found).len(), SIZE * GANGS, "round {round}: members of 8 GPUs share a node");
        delete(&testbed, "restarted", "").await;
    }
    let scrape = Scrape::of(installation.scheduler).await.unwrap();
    assert!(scrape.sum("flowforge_watch_failures_total", "") > 0.0, "the scheduler noticed no restart");
    for never in ["flowforge_foreign_binds_total", "flowforge_gang_rollbacks_total"] {
        assert!(scrape.has(never) && scrape.sum(never, "") == 0.0, "{never}: {}", scrape.sum(never, ""));
    }
    let log = testbed.logs(flowforge_tests::install::SCHEDULER).text();
    assert!(!log.contains("panicked"), "{log}");
}
