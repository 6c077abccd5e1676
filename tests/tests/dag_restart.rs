//! The controller is killed and paused while workflows run: everything is derived from what is stored.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dag;

use dag::seen::{Seen, Watch};
use dag::{STANDBY, Setup, World, in_turn, node, until};
use flowforge_api::names::label;
use flowforge_api::workflow::{NodePhase, Workflow, WorkflowPhase};
use flowforge_tests::Scrape;
use flowforge_tests::install::CONTROLLER;
use kube::ResourceExt;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// A lease of a second, so that fifty successors take over in good time.
const LEASE: [&str; 3] = ["--lease-duration-s=1", "--lease-renew-deadline-ms=800", "--lease-retry-period-ms=150"];

fn cases<F, Fut>(test: F)
where
    F: FnOnce(&'static World) -> Fut,
    Fut: Future<Output = ()>,
{
    in_turn(Setup { lease_args: &LEASE, ..Setup::default() }, test);
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

const KILLS: usize = 50;
const NODES: usize = 60;
/// Nodes of one layer of the DAG; what a node depends on is in layers above its own.
const WIDTH: usize = 2;

#[test]
fn a_controller_killed_fifty_times_runs_a_dag_of_sixty_nodes_once_and_in_order() {
    cases(|world| async move {
        let seed = std::process::id().into();
        println!("seed {seed}");
        let mut random = Random(seed);
        world.namespace("kills").await;
        let watch = Watch::start(world, "kills");
        let (nodes, upstream) = chain_with_shortcuts(&mut random);
        world.submit("kills", "wf", json!(nodes), json!({})).await;
        let kills = AtomicUsize::new(0);
        let ends = Random(random.next());
        let done = tokio::select! {
            done = kill_until_it_has_succeeded(world, random, &kills) => done,
            () = end_layers(world, ends, &kills) => unreachable!("it goes on for ever"),
        };
        let status = done.status.unwrap();
        assert_eq!(status.nodes.len(), NODES);
        assert!(status.nodes.iter().all(|n| n.phase == NodePhase::Succeeded && n.attempt == 1));
        let desired = status.nodes.iter().map(|n| usize::try_from(n.members.as_ref().unwrap().desired).unwrap());
        let seen = watch.caught_up(world, "kills", NODES, desired.sum()).await;
        seen.assert_once();
        assert_in_order(&seen, &upstream);
    });
}

/// A chain of thirty layers of two, with random shortcuts; the nodes, and what each depends on. Their pods run until the
/// test ends them.
fn chain_with_shortcuts(random: &mut Random) -> (Vec<Value>, Vec<Vec<usize>>) {
    let mut upstream: Vec<Vec<usize>> = Vec::new();
    let mut nodes: Vec<Value> = Vec::new();
    for i in 0..NODES {
        let mut up: Vec<usize> = if i < WIDTH { vec![] } else { vec![i - WIDTH] };
        if i > 4 {
            up.push(usize::try_from(random.below(u64::try_from(i - WIDTH).unwrap())).unwrap());
        }
        up.sort_unstable();
        up.dedup();
        let names: Vec<String> = up.iter().map(|u| format!("n{u}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let replicas = 1 + i32::try_from(random.below(2)).unwrap();
        nodes.push(node(&format!("n{i}"), replicas, 600_000, &names));
        upstream.push(up);
    }
    (nodes, upstream)
}

/// Kills the controller fifty times, which the run outlasts; then waits for its end.
async fn kill_until_it_has_succeeded(world: &World, mut random: Random, kills: &AtomicUsize) -> Workflow {
    for kill in 1..=KILLS {
        tokio::time::sleep(Duration::from_millis(600 + random.below(2000))).await;
        world.testbed.kill(CONTROLLER).unwrap();
        let status = world.workflows("kills").get("wf").await.unwrap().status.unwrap_or_default();
        let going = matches!(status.phase, None | Some(WorkflowPhase::Pending | WorkflowPhase::Running));
        assert!(going, "it was over before kill {kill}: {}", json!(status));
        world.testbed.respawn(CONTROLLER).unwrap();
        kills.store(kill, Ordering::Relaxed);
        if kill == KILLS {
            println!("{:?} nodes had ended at the last kill", status.progress);
        }
    }
    world.reaches("kills", "wf", WorkflowPhase::Succeeded).await
}

/// Ends pods at random moments, a layer for every few kills; those of the last layer run until the last kill.
async fn end_layers(world: &World, mut random: Random, kills: &AtomicUsize) {
    loop {
        tokio::time::sleep(Duration::from_millis(200)).await;
        let free = NODES / WIDTH * kills.load(Ordering::Relaxed) / KILLS;
        for pod in world.running("kills", "").await {
            let layer = index(&pod.labels()[label::NODE]) / WIDTH;
            if layer < free && random.below(4) == 0 {
                world.end("kills", &pod.name_any(), 0).await;
            }
        }
    }
}

/// Which one of the chain a node is.
fn index(id: &str) -> usize {
    id.trim_start_matches('n').parse().unwrap()
}

/// The store's own order: no pod was made before every upstream gang had succeeded.
fn assert_in_order(seen: &Seen, upstream: &[Vec<usize>]) {
    for (((workflow, id), _), uids) in &seen.pods {
        let at = *uids.values().next().unwrap();
        for up in &upstream[index(id)] {
            let end = seen.succeeded[&(workflow.clone(), format!("n{up}"))];
            assert!(end < at, "{id} was made at {at}, before n{up} had succeeded at {end}");
        }
    }
}

#[test]
fn a_paused_leader_changes_nothing_when_it_resumes() {
    cases(|world| async move {
        world.namespace("pause").await;
        let watch = Watch::start(world, "pause");
        let nodes = json!([node("a", 2, 600_000, &[]), node("b", 2, 600_000, &["a"]), node("c", 1, 300, &["b"])]);
        world.submit("pause", "wf", nodes, json!({})).await;
        world.runs("pause", "wf", "a", 2).await;
        let testbed = world.testbed;
        testbed.pause(CONTROLLER).unwrap();
        let (listen, webhook) = (testbed.network().at(11091), testbed.network().at(11092));
        world.installation.start_controller(STANDBY, listen, webhook).await.unwrap();
        end_node(world, "a").await;
        world.runs("pause", "wf", "b", 2).await;
        testbed.resume(CONTROLLER).unwrap();
        until("the old leader knows that it is none", || async {
            let scrape = Scrape::of(world.installation.controller).await.map_err(|e| format!("{e:#}"))?;
            if scrape.sum("flowforge_leader", "") == 0.0 { Ok(()) } else { Err("it leads".to_owned()) }
        })
        .await;
        end_node(world, "b").await;
        let done = world.reaches("pause", "wf", WorkflowPhase::Succeeded).await;
        assert!(done.status.unwrap().nodes.iter().all(|n| n.attempt == 1));
        watch.caught_up(world, "pause", 3, 5).await.assert_once();
    });
}

async fn end_node(world: &World, id: &str) {
    for rank in 0..2 {
        world.end("pause", &format!("wf-{id}-1-{rank}"), 0).await;
    }
}
