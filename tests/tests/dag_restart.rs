//! The controller and the API server are killed while workflows run: everything is derived from what is stored.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dag;

use dag::{World, node, on_testbed, until};
use flowforge_api::gang::{Gang, GangPhase};
use flowforge_api::names::label;
use flowforge_api::workflow::{NodePhase, WorkflowPhase};
use flowforge_tests::install::CONTROLLER;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A lease of a second, so that fifty successors take over in good time.
const LEASE: [&str; 3] = ["--lease-duration-s=1", "--lease-renew-deadline-ms=800", "--lease-retry-period-ms=150"];

/// These tests take turns: while one of them has killed the controller or the API server, the webhook does not answer the
/// submissions of another.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn cases<F, Fut>(test: F)
where
    F: FnOnce(&'static World) -> Fut,
    Fut: Future<Output = ()>,
{
    on_testbed(&["--log-level=info"], Some(&LEASE), |world| async move {
        let _turn = TURN.lock().await;
        test(world).await;
    });
}

/// What a watch of a namespace saw, in the order of the store.
#[derive(Default)]
struct Seen {
    /// First resourceVersion of every pod, by node id, rank and UID.
    pods: BTreeMap<(String, String), BTreeMap<String, u64>>,
    /// resourceVersion at which the Gang of a node was first seen Succeeded, by node id.
    succeeded: BTreeMap<String, u64>,
    /// Gangs by node id.
    gangs: BTreeMap<String, Vec<String>>,
}

fn version<K: ResourceExt>(object: &K) -> u64 {
    object.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0)
}

fn watch(world: &World, namespace: &str) -> Arc<Mutex<Seen>> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let config = watcher::Config::default();
    let pods = watcher(world.pods(namespace), config.clone()).default_backoff().applied_objects();
    let gangs = watcher(world.gangs(namespace), config).default_backoff().applied_objects();
    let note = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut pods = std::pin::pin!(pods);
        while let Some(pod) = pods.next().await {
            let Ok(pod): Result<Pod, _> = pod else { continue };
            let of = |key: &str| pod.labels().get(key).cloned().unwrap_or_default();
            let mut seen = note.lock().unwrap();
            let uids = seen.pods.entry((of(label::NODE), of(label::RANK))).or_default();
            uids.entry(pod.uid().unwrap_or_default()).or_insert(version(&pod));
        }
    });
    let note = Arc::clone(&seen);
    tokio::spawn(async move {
        let mut gangs = std::pin::pin!(gangs);
        while let Some(gang) = gangs.next().await {
            let Ok(gang): Result<Gang, _> = gang else { continue };
            let id = gang.labels().get(label::NODE).cloned().unwrap_or_default();
            let mut seen = note.lock().unwrap();
            let names = seen.gangs.entry(id.clone()).or_default();
            if !names.contains(&gang.uid().unwrap_or_default()) {
                names.push(gang.uid().unwrap_or_default());
            }
            if gang.status.as_ref().and_then(|s| s.phase) == Some(GangPhase::Succeeded) {
                seen.succeeded.entry(id).or_insert(version(&gang));
            }
        }
    });
    seen
}

/// SplitMix64: the failing run's seed is printed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

#[test]
fn a_controller_killed_fifty_times_runs_a_dag_of_sixty_nodes_once_and_in_order() {
    const KILLS: u32 = 50;
    const NODES: usize = 60;
    cases(|world| async move {
        let seed = std::process::id().into();
        println!("seed {seed}");
        let mut random = Random(seed);
        world.namespace("kills").await;
        let seen = watch(world, "kills");
        let mut upstream: Vec<Vec<usize>> = Vec::new();
        let mut nodes: Vec<Value> = Vec::new();
        for i in 0..NODES {
            // A chain of thirty with two sides, so that the run outlasts the kills.
            let mut up: Vec<usize> = if i < 2 { vec![] } else { vec![i - 2] };
            if i > 4 {
                up.push(usize::try_from(random.below(u64::try_from(i - 2).unwrap())).unwrap());
            }
            up.sort_unstable();
            up.dedup();
            let names: Vec<String> = up.iter().map(|u| format!("n{u}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let replicas = 1 + i32::try_from(random.below(2)).unwrap();
            nodes.push(node(&format!("n{i}"), replicas, 700 + u32::try_from(random.below(1300)).unwrap(), &names));
            upstream.push(up);
        }
        world.submit("kills", "wf", json!(nodes), json!({})).await;
        let mut kills = 0;
        while kills < KILLS {
            tokio::time::sleep(Duration::from_millis(600 + random.below(2000))).await;
            world.testbed.kill(CONTROLLER).unwrap();
            world.testbed.respawn(CONTROLLER).unwrap();
            kills += 1;
            let workflow = world.workflows("kills").get("wf").await.unwrap();
            let status = workflow.status.unwrap_or_default();
            if matches!(status.phase, Some(WorkflowPhase::Succeeded | WorkflowPhase::Failed | WorkflowPhase::Canceled))
            {
                break;
            }
        }
        let done = world.reaches("kills", "wf", WorkflowPhase::Succeeded).await;
        println!("{kills} kills");
        let status = done.status.unwrap();
        assert_eq!(status.nodes.len(), NODES);
        assert!(status.nodes.iter().all(|n| n.phase == NodePhase::Succeeded && n.attempt == 1));
        // The store's own order: no pod before the end of every upstream gang; one pod of each rank, one Gang a node.
        let pods = world.pods("kills").list(&ListParams::default()).await.unwrap().items;
        let seen = seen.lock().unwrap();
        let expected: usize =
            status.nodes.iter().map(|n| usize::try_from(n.members.as_ref().unwrap().desired).unwrap()).sum();
        assert_eq!(seen.pods.len(), expected);
        assert_eq!(pods.len(), expected, "no pod was made beside those that were seen");
        for ((id, rank), uids) in &seen.pods {
            assert_eq!(uids.len(), 1, "rank {rank} of {id} ran more than once");
            let at = *uids.values().next().unwrap();
            let index: usize = id.trim_start_matches('n').parse().unwrap();
            for up in &upstream[index] {
                let end = seen.succeeded[&format!("n{up}")];
                assert!(end < at, "{id} was made at {at}, before n{up} had succeeded at {end}");
            }
        }
        assert!(seen.gangs.values().all(|uids| uids.len() == 1), "a node was claimed twice");
        assert!(kills >= 20, "the run was over after {kills} kills: it says little");
    });
}

#[test]
fn twenty_workflows_do_not_notice_a_restart_of_the_api_server() {
    cases(|world| async move {
        world.namespace("restart").await;
        for i in 0..20 {
            let nodes = json!([
                node("a", 1, 1500, &[]),
                node("b", 2, 1500, &["a"]),
                node("c", 1, 1000, &["a"]),
                node("d", 1, 300, &["b", "c"]),
            ]);
            world.submit("restart", &format!("wf{i}"), nodes, json!({})).await;
        }
        until("some have begun", || async {
            let pods = world.pods("restart").list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            if pods.items.len() >= 10 { Ok(()) } else { Err(format!("{} pods", pods.items.len())) }
        })
        .await;
        world.testbed.restart_apiserver().await.unwrap();
        let ends = (0..20).map(|i| {
            let name = format!("wf{i}");
            async move { Ok::<_, ()>(world.reaches("restart", &name, WorkflowPhase::Succeeded).await) }
        });
        let done: Vec<_> = futures::stream::iter(ends).buffer_unordered(20).try_collect().await.unwrap();
        assert_eq!(done.len(), 20);
        let pods = world.pods("restart").list(&ListParams::default()).await.unwrap().items;
        assert_eq!(pods.len(), 20 * 5, "every member ran once");
    });
}

#[test]
fn a_paused_leader_changes_nothing_when_it_resumes() {
    cases(|world| async move {
        world.namespace("pause").await;
        let seen = watch(world, "pause");
        let nodes = json!([node("a", 2, 1500, &[]), node("b", 2, 1500, &["a"]), node("c", 1, 300, &["b"])]);
        world.submit("pause", "wf", nodes, json!({})).await;
        world.runs("pause", "wf", "a", 2).await;
        let testbed = world.testbed;
        testbed.pause(CONTROLLER).unwrap();
        let (listen, webhook) = (testbed.network().at(11091), testbed.network().at(11092));
        world.installation.start_controller("standby", listen, webhook).await.unwrap();
        world.runs("pause", "wf", "b", 2).await;
        testbed.resume(CONTROLLER).unwrap();
        world.reaches("pause", "wf", WorkflowPhase::Succeeded).await;
        testbed.kill("standby").unwrap();
        let seen = seen.lock().unwrap();
        assert_eq!(seen.pods.len(), 5);
        assert!(seen.pods.values().all(|uids| uids.len() == 1), "a member was made twice");
        assert!(seen.gangs.values().all(|uids| uids.len() == 1), "a node was claimed twice");
    });
}
