//! Gangs on a real control plane: all or none, at once when it can be, and repaired or rolled back when the world moves.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::metrics::{Scrape, get};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use scheduler::{
    assert_no_overcommit, bound, create, delete, gang, install, is_live, label_node, members, namespace, node_names,
    nodes_of, pods, unscheduled, until,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Short deadlines, so that repairs end within a test.
const CONFIG: &str = "binding: {repairDeadlineMs: 4000}\n";
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_one_gpu_short_binds_nothing_until_a_node_brings_it() {
    let testbed = scheduler::testbed(Profile::DgxH100, 3).await;
    let installation = install(&testbed, CONFIG).await;
    namespace(&testbed, "short").await;
    // Three nodes with 8 GPUs: three members of 8 fit, and one more GPU is taken by a pod on its own.
    create(&testbed, "short", vec![scheduler::pod("loner", "1")]).await;
    until("the loner is bound", SOON, || async {
        is_live(&pods(&testbed, "short", "").await[0]).then_some(()).ok_or_else(|| "no".to_owned())
    })
    .await;
    create(&testbed, "short", gang("wide", 3, "8")).await;
    let message = until("every member is refused", SOON, || async {
        let found = members(&testbed, "short", "wide").await;
        let refused: Vec<_> = found.iter().filter_map(unscheduled).collect();
        if refused.len() == 3 { Ok(refused) } else { Err(format!("{} of 3", refused.len())) }
    })
    .await;
    for (reason, message) in &message {
        assert_eq!(reason, "Unschedulable", "a complete gang that fits nowhere lets autoscalers act: {message}");
        assert!(message.contains("Insufficient nvidia.com/gpu") && message.contains("wide"), "{message}");
    }
    for _ in 0..20 {
        assert!(members(&testbed, "short", "wide").await.iter().all(|pod| scheduler::node_of(pod).is_none()));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let before = Scrape::of(installation.scheduler).await.unwrap();
    let took = bound_after_a_node_is_added(&testbed).await;
    assert!(took <= Duration::from_secs(1), "bound {took:?} after the node could take pods");
    let placed = "flowforge_gang_placement_duration_seconds_count";
    until("the placement is measured once its intent is closed", SOON, || async {
        let after = Scrape::of(installation.scheduler).await.unwrap();
        let measured = after.sum(placed, "") - before.sum(placed, "");
        if measured == 1.0 { Ok(()) } else { Err(format!("{measured}")) }
    })
    .await;
    assert_no_overcommit(&testbed, "nvidia.com/gpu").await;
    an_incomplete_gang_says_so(&testbed).await;
}

/// Adds a node and answers how long after the watch event that made it schedulable the last member was bound.
async fn bound_after_a_node_is_added(testbed: &Testbed) -> Duration {
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "short");
    let usable = Arc::new(Mutex::new(None::<Instant>));
    let seen = usable.clone();
    let known = node_names(testbed).await;
    let watching = tokio::spawn(async move {
        let mut events = watcher(nodes, watcher::Config::default()).applied_objects().boxed();
        while let Ok(Some(node)) = events.try_next().await {
            let name = node.metadata.name.clone().unwrap_or_default();
            let tainted = node.spec.as_ref().and_then(|spec| spec.taints.as_ref()).is_some_and(|t| !t.is_empty());
            if !known.contains(&name) && !tainted {
                seen.lock().unwrap().get_or_insert_with(Instant::now);
            }
        }
    });
    let done = tokio::spawn(async move {
        let config = watcher::Config::default().labels("flowforge.dev/gang=wide");
        let mut events = watcher(api, config).applied_objects().boxed();
        let mut live = BTreeSet::new();
        while let Ok(Some(pod)) = events.try_next().await {
            if is_live(&pod) {
                live.insert(pod.metadata.name.unwrap_or_default());
            }
            if live.len() == 3 {
                return Instant::now();
            }
        }
        panic!("the watch ended")
    });
    testbed.create_nodes(Profile::DgxH100, 1).await.unwrap();
    let done = tokio::time::timeout(SOON, done).await.expect("the gang is bound").unwrap();
    watching.abort();
    let usable = usable.lock().unwrap().expect("the node's watch event was seen");
    done.saturating_duration_since(usable)
}

async fn an_incomplete_gang_says_so(testbed: &Testbed) {
    let mut half = gang("half", 4, "1");
    half.truncate(2);
    create(testbed, "short", half).await;
    let (reason, message) = until("the incomplete gang is explained", SOON, || async {
        let found = members(testbed, "short", "half").await;
        assert!(found.iter().all(|pod| !is_live(pod)), "a part of a gang was bound");
        found.iter().find_map(unscheduled).ok_or_else(|| "no condition".to_owned())
    })
    .await;
    assert_ne!(reason, "Unschedulable", "autoscalers would scale for half a gang: {message}");
    assert!(message.contains("2 of 4"), "{message}");
}

/// Watches all pods of a namespace and keeps, per gang, the longest time that it was bound in part.
struct PartialWatch {
    longest: Arc<Mutex<BTreeMap<String, Duration>>>,
    task: tokio::task::JoinHandle<()>,
}

impl PartialWatch {
    fn start(testbed: &Testbed, namespace: &str, size: usize) -> Self {
        let api: Api<Pod> = Api::namespaced(testbed.client().clone(), namespace);
        let longest: Arc<Mutex<BTreeMap<String, Duration>>> = Arc::default();
        let kept = longest.clone();
        let task = tokio::spawn(async move {
            let mut events = watcher(api, watcher::Config::default()).boxed();
            let mut live: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
            let mut since: BTreeMap<String, Instant> = BTreeMap::new();
            while let Ok(Some(event)) = events.try_next().await {
                let (pod, gone) = match event {
                    watcher::Event::Apply(pod) | watcher::Event::InitApply(pod) => (pod, false),
                    watcher::Event::Delete(pod) => (pod, true),
                    watcher::Event::Init | watcher::Event::InitDone => continue,
                };
                let Some(gang) = pod.metadata.labels.as_ref().and_then(|l| l.get("flowforge.dev/gang")) else {
                    continue;
                };
                // Deleting a whole gang takes its members away one by one; that is not a partial gang.
                let deleting = gone || pod.metadata.deletion_timestamp.is_some();
                let members = live.entry(gang.clone()).or_default();
                if deleting {
                    members.clear();
                } else if is_live(&pod) {
                    members.insert(pod.metadata.name.clone().unwrap_or_default());
                }
                if members.is_empty() || members.len() == size {
                    if let Some(since) = since.remove(gang) {
                        let mut kept = kept.lock().unwrap();
                        let longest = kept.entry(gang.clone()).or_default();
                        *longest = (*longest).max(since.elapsed());
                    }
                } else {
                    since.entry(gang.clone()).or_insert_with(Instant::now);
                }
            }
        });
        Self { longest, task }
    }

    fn longest(self) -> Duration {
        self.task.abort();
        self.longest.lock().unwrap().values().copied().max().unwrap_or_default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_gangs_of_which_one_fits_never_lock_each_other_out() {
    const ROUNDS: usize = 200;
    const ISLANDS: usize = 4;
    let testbed = scheduler::testbed(Profile::DgxH100, 5 * ISLANDS).await;
    let installation = install(&testbed, CONFIG).await;
    // Four islands of five nodes run fifty rounds each; a gang takes three nodes, so two never fit together.
    for (index, node) in node_names(&testbed).await.iter().enumerate() {
        label_node(&testbed, node, json!({"island": (index / 5).to_string()})).await;
    }
    let mut islands = Vec::new();
    for island in 0..ISLANDS {
        namespace(&testbed, &format!("island-{island}")).await;
        islands.push(rounds(&testbed, installation.scheduler, island, ROUNDS / ISLANDS));
    }
    let partial: Vec<Duration> = futures::future::join_all(islands).await;
    let worst = partial.into_iter().max().unwrap();
    println!("longest time that a gang was bound in part: {worst:?}");
    assert!(worst < Duration::from_secs(2), "a gang stayed partial for {worst:?}");
    let log = testbed.logs(flowforge_tests::install::SCHEDULER).text();
    assert!(!log.contains("panicked"), "{log}");
}

/// Waits until the gang is whole; what the scheduler thinks meanwhile is the explanation when it never is.
async fn whole(testbed: &Testbed, scheduler: SocketAddr, space: &str, name: &str) {
    until(&format!("gang {name} is whole"), SOON, || async {
        let live = members(testbed, space, name).await.iter().filter(|pod| is_live(pod)).count();
        if live == 3 { Ok(()) } else { Err(get(scheduler, "/debug/state").await.unwrap_or_default()) }
    })
    .await;
}

async fn rounds(testbed: &Testbed, scheduler: SocketAddr, island: usize, rounds: usize) -> Duration {
    let space = format!("island-{island}");
    let watch = PartialWatch::start(testbed, &space, 3);
    for round in 0..rounds {
        let names = [format!("left-{round}"), format!("right-{round}")];
        let on_island = |mut pod: Value| {
            pod["spec"]["nodeSelector"] = json!({"island": island.to_string()});
            pod
        };
        // Interleaved, so that both gangs are half there for a while.
        let [left, right] = names.each_ref().map(|name| gang(name, 3, "8"));
        let both = left.into_iter().zip(right).flat_map(|(l, r)| [l, r]).map(on_island).collect();
        create(testbed, &space, both).await;
        let first = until("one gang is whole", SOON, || async {
            for (index, name) in names.iter().enumerate() {
                if members(testbed, &space, name).await.iter().filter(|pod| is_live(pod)).count() == 3 {
                    return Ok(index);
                }
            }
            Err(format!("round {round} on island {island}: none is"))
        })
        .await;
        let loser = &names[1 - first];
        assert!(
            members(testbed, &space, loser).await.iter().all(|pod| !is_live(pod)),
            "round {round}: both gangs hold nodes"
        );
        delete(testbed, &space, &format!("flowforge.dev/gang={}", names[first])).await;
        whole(testbed, scheduler, &space, loser).await;
        delete(testbed, &space, &format!("flowforge.dev/gang={loser}")).await;
    }
    watch.longest()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_survives_what_happens_while_it_is_bound() {
    let testbed = scheduler::testbed(Profile::DgxH100, 24).await;
    install(&testbed, CONFIG).await;
    namespace(&testbed, "moving").await;
    refused_bindings(&testbed).await;
    deleted_members(&testbed).await;
    vanished_nodes(&testbed).await;
    assert_no_overcommit(&testbed, "nvidia.com/gpu").await;
}

/// Members are changed all the time while they are bound, so that Bindings are refused with 409.
async fn refused_bindings(testbed: &Testbed) {
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "moving");
    for round in 0..5 {
        let name = format!("touched-{round}");
        let (api, target) = (api.clone(), name.clone());
        let meddler = tokio::spawn(async move {
            for count in 0_u64.. {
                let patch = json!({"metadata": {"annotations": {"example.com/touched": count.to_string()}}});
                let pod = format!("{target}-{}", count % 16);
                let _ = api.patch(&pod, &PatchParams::default(), &Patch::Merge(patch)).await;
            }
        });
        create(testbed, "moving", gang(&name, 16, "8")).await;
        let took = bound(testbed, "moving", &name, 16, SOON).await;
        meddler.abort();
        println!("round {round}: whole {took:?} after its creation, under constant change");
        let found = members(testbed, "moving", &name).await;
        assert_eq!(nodes_of(&found).len(), 16, "members of 8 GPUs share a node");
        delete(testbed, "moving", &format!("flowforge.dev/gang={name}")).await;
    }
}

/// A member is deleted while its gang is bound, and made again by nobody: the gang must not stay partial.
async fn deleted_members(testbed: &Testbed) {
    const SIZE: usize = 24;
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "moving");
    let (mut rolled_back, mut hit) = (0, 0);
    for round in 0..8 {
        let name = format!("bereft-{round}");
        let killer = tokio::spawn(delete_the_last_at_the_first_binding(api.clone(), name.clone(), SIZE));
        create(testbed, "moving", gang(&name, SIZE, "8")).await;
        let unbound = killer.await.unwrap();
        hit += usize::from(unbound);
        // Without its member the gang is never whole; what was bound is rolled back, unless it was whole before the loss.
        let live = until("the rest is gone, or was whole before the loss", Duration::from_secs(40), || async {
            let found = members(testbed, "moving", &name).await;
            let live = found.iter().filter(|pod| is_live(pod)).count();
            if live == 0 || (!unbound && live == SIZE - 1) { Ok(live) } else { Err(format!("{live} are live")) }
        })
        .await;
        rolled_back += usize::from(live == 0);
        delete(testbed, "moving", &format!("flowforge.dev/gang={name}")).await;
    }
    println!("{hit} of 8 gangs lost a member before it was bound; {rolled_back} were rolled back");
}

/// Deletes the last member as soon as any member is bound; answers whether the last one was not bound itself by then.
async fn delete_the_last_at_the_first_binding(api: Api<Pod>, gang: String, size: usize) -> bool {
    let config = watcher::Config::default().labels(&format!("flowforge.dev/gang={gang}"));
    let mut events = watcher(api.clone(), config).applied_objects().boxed();
    while let Ok(Some(pod)) = events.try_next().await {
        if is_live(&pod) {
            break;
        }
    }
    let victim = format!("{gang}-{}", size - 1);
    let deleted = api.delete(&victim, &DeleteParams::default().grace_period(0)).await.unwrap();
    deleted.left().is_some_and(|pod| scheduler::node_of(&pod).is_none())
}

/// A node of the plan vanishes while its gang is bound.
async fn vanished_nodes(testbed: &Testbed) {
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    for round in 0_u64..4 {
        let name = format!("homeless-{round}");
        create(testbed, "moving", gang(&name, 16, "8")).await;
        let victim = until("a member is bound", SOON, || async {
            let found = members(testbed, "moving", &name).await;
            nodes_of(&found).into_iter().next_back().map(str::to_owned).ok_or_else(|| "none yet".to_owned())
        })
        .await;
        nodes.delete(&victim, &DeleteParams::default()).await.unwrap();
        let pods_on_it = members(testbed, "moving", &name).await;
        let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "moving");
        // What the garbage collector of a production cluster does with pods of a node that is gone, only sooner.
        for pod in pods_on_it.iter().filter(|pod| scheduler::node_of(pod) == Some(victim.as_str())) {
            let _ = api.delete(pod.metadata.name.as_deref().unwrap(), &DeleteParams::default().grace_period(0)).await;
        }
        let start = Instant::now();
        let whole =
            until("it is whole, rolled back, or was whole before the loss", Duration::from_secs(60), || async {
                let live = members(testbed, "moving", &name).await.iter().filter(|pod| is_live(pod)).count();
                if matches!(live, 0 | 15 | 16) { Ok(live) } else { Err(format!("{live} of 16 are live")) }
            })
            .await;
        println!("round {round}: {whole} members live {:?} after {victim} vanished", start.elapsed());
        delete(testbed, "moving", &format!("flowforge.dev/gang={name}")).await;
        testbed.create_nodes(Profile::DgxH100, 1).await.unwrap();
    }
    create(testbed, "moving", gang("after", 16, "8")).await;
    // Whole, not merely settled: before its first Binding none of its members is live either.
    bound(testbed, "moving", "after", 16, Duration::from_secs(60)).await;
}
