//! The scheduler dies, is paused or is starved while it binds: no gang stays partial, and no late write changes anything.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_api::PlacementJournal;
use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::{NAMESPACE, SCHEDULER};
use flowforge_tests::metrics::Scrape;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use scheduler::{
    Random, assert_no_overcommit, bound, create, delete, gang, install_with_short_lease, is_live, members, namespace,
    until,
};
use serde_json::json;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CONFIG: &str = "binding: {repairDeadlineMs: 5000}\n";
const STANDBY: &str = "flowforge-scheduler-standby";
const STANDBY_PORT: u16 = 11082;
/// The promise is 10 s after the new leader's lease; the test prints the slowest. What it asserts is that a gang heals at
/// all, with room for a machine that does something else meanwhile.
const HEAL_LIMIT: Duration = Duration::from_secs(60);
const LEASE_LIMIT: Duration = Duration::from_secs(20);

fn lease(testbed: &Testbed) -> Api<Lease> {
    Api::namespaced(testbed.client().clone(), NAMESPACE)
}

/// The holder's epoch, where someone holds the lease.
async fn epoch(testbed: &Testbed) -> Option<i32> {
    let spec = lease(testbed).get_opt(SCHEDULER).await.unwrap()?.spec?;
    spec.holder_identity.filter(|holder| !holder.is_empty())?;
    spec.lease_transitions
}

async fn next_leader(testbed: &Testbed, after: i32) -> i32 {
    until("another leader has the lease", LEASE_LIMIT, || async {
        let now = epoch(testbed).await.unwrap_or_default();
        if now > after { Ok(now) } else { Err(format!("epoch {now}")) }
    })
    .await
}

/// Intents that the journal holds open.
async fn open_intents(testbed: &Testbed) -> i32 {
    let slots: Api<PlacementJournal> = Api::namespaced(testbed.client().clone(), NAMESPACE);
    slots.list(&ListParams::default()).await.unwrap().items.iter().map(|slot| slot.spec.open).sum()
}

/// How many live members a gang has, and how many pods.
async fn live(testbed: &Testbed, namespace: &str, name: &str) -> (usize, usize) {
    let found = members(testbed, namespace, name).await;
    (found.iter().filter(|pod| is_live(pod)).count(), found.len())
}

/// Waits until a gang is whole or has no live member; answers whether it is whole.
async fn healed(testbed: &Testbed, namespace: &str, name: &str, size: usize, limit: Duration) -> bool {
    until(&format!("gang {name} is whole or unbound"), limit, || async {
        match live(testbed, namespace, name).await {
            (0, _) => Ok(false),
            (live, _) if live == size => Ok(true),
            (live, pods) => Err(format!("{live} of {pods} pods are live, {size} wanted")),
        }
    })
    .await
}

/// Every node that each pod was ever seen bound to: one at most, or it was bound twice.
struct BindWatch {
    nodes: Arc<Mutex<BTreeMap<String, Vec<String>>>>,
    task: tokio::task::JoinHandle<()>,
}

impl BindWatch {
    fn start(testbed: &Testbed) -> Self {
        let api: Api<Pod> = Api::all(testbed.client().clone());
        let nodes: Arc<Mutex<BTreeMap<String, Vec<String>>>> = Arc::default();
        let kept = nodes.clone();
        let task = tokio::spawn(async move {
            let mut events = watcher(api, watcher::Config::default()).applied_objects().boxed();
            while let Ok(Some(pod)) = events.try_next().await {
                let Some(node) = scheduler::node_of(&pod) else { continue };
                let mut kept = kept.lock().unwrap();
                let seen = kept.entry(pod.metadata.uid.clone().unwrap_or_default()).or_default();
                if !seen.iter().any(|known| known == node) {
                    seen.push(node.to_owned());
                }
            }
        });
        Self { nodes, task }
    }

    fn finish(self) {
        self.task.abort();
        for (uid, nodes) in self.nodes.lock().unwrap().iter() {
            assert_eq!(nodes.len(), 1, "pod {uid} was bound to {nodes:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_gang_is_whole_or_unbound_however_often_the_scheduler_is_killed() {
    const SIZE: usize = 256;
    let kills: u64 = std::env::var("FLOWFORGE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(50);
    let testbed = scheduler::testbed(Profile::DgxH100, 512).await;
    install_with_short_lease(&testbed, CONFIG).await;
    namespace(&testbed, "large").await;
    let binds = BindWatch::start(&testbed);
    let mut random = Random::new(1);
    let (mut whole, mut unbound, mut slowest) = (0, 0, Duration::ZERO);
    for kill in 0..kills {
        let name = format!("large-{kill}");
        create(&testbed, "large", gang(&name, SIZE, "8")).await;
        until("its intent is written, or it is whole", Duration::from_secs(60), || async {
            let (live, _) = live(&testbed, "large", &name).await;
            if live == SIZE || open_intents(&testbed).await > 0 { Ok(()) } else { Err("no intent".to_owned()) }
        })
        .await;
        // Somewhere between the intent and the commit.
        tokio::time::sleep(Duration::from_millis(random.below(900))).await;
        let before = epoch(&testbed).await.unwrap_or_default();
        testbed.kill(SCHEDULER).unwrap();
        let (caught, _) = live(&testbed, "large", &name).await;
        testbed.respawn(SCHEDULER).unwrap();
        next_leader(&testbed, before).await;
        let leading = Instant::now();
        let is_whole = healed(&testbed, "large", &name, SIZE, HEAL_LIMIT).await;
        slowest = slowest.max(leading.elapsed());
        println!("kill {kill}: {caught} bound when killed, whole: {is_whole}, {:?} after the lease", leading.elapsed());
        if is_whole {
            whole += 1;
        } else {
            unbound += 1;
        }
        delete(&testbed, "large", "").await;
    }
    println!("{kills} kills: {whole} whole, {unbound} unbound; slowest {slowest:?} after the new leader's lease");
    binds.finish();
    assert_no_overcommit(&testbed, "nvidia.com/gpu").await;
    // The next gang is bound as if nothing had happened.
    create(&testbed, "large", gang("after", SIZE, "8")).await;
    bound(&testbed, "large", "after", SIZE, Duration::from_secs(60)).await;
}

async fn leads(address: SocketAddr) -> bool {
    match tokio::time::timeout(Duration::from_secs(1), Scrape::of(address)).await {
        Ok(Ok(scrape)) => scrape.sum("flowforge_leader", "") == 1.0,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_leaders_late_writes_change_nothing() {
    const SIZE: usize = 64;
    const ROUNDS: u64 = 8;
    let testbed = scheduler::testbed(Profile::DgxH100, 128).await;
    let installation = install_with_short_lease(&testbed, CONFIG).await;
    let standby = testbed.network().at(STANDBY_PORT);
    installation.start_scheduler(STANDBY, standby).await.unwrap();
    namespace(&testbed, "paused").await;
    let binds = BindWatch::start(&testbed);
    let mut random = Random::new(2);
    for round in 0..ROUNDS {
        let leader = until("one of both leads", LEASE_LIMIT, || async {
            for (name, address) in [(SCHEDULER, installation.scheduler), (STANDBY, standby)] {
                if leads(address).await {
                    return Ok(name);
                }
            }
            Err("none".to_owned())
        })
        .await;
        let name = format!("paused-{round}");
        let before = epoch(&testbed).await.unwrap_or_default();
        create(&testbed, "paused", gang(&name, SIZE, "8")).await;
        tokio::time::sleep(Duration::from_millis(random.below(250))).await;
        testbed.pause(leader).unwrap();
        let (caught, _) = live(&testbed, "paused", &name).await;
        next_leader(&testbed, before).await;
        let leading = Instant::now();
        let is_whole = healed(&testbed, "paused", &name, SIZE, HEAL_LIMIT * 2).await;
        let took = leading.elapsed();
        // Let the paused one go on in the middle of its work, and look whether anything changes.
        let placed = placement(&testbed, &name).await;
        testbed.resume(leader).unwrap();
        tokio::time::sleep(Duration::from_secs(2)).await;
        if is_whole {
            assert_eq!(placement(&testbed, &name).await, placed, "round {round}: a late write changed the gang");
        } else {
            assert!(healed(&testbed, "paused", &name, SIZE, HEAL_LIMIT * 2).await || is_unbound(&testbed, &name).await);
        }
        println!("round {round}: {leader} paused with {caught} bound; whole: {is_whole} {took:?} after the next lease");
        assert_no_overcommit(&testbed, "nvidia.com/gpu").await;
        delete(&testbed, "paused", "").await;
    }
    binds.finish();
    for name in [SCHEDULER, STANDBY] {
        let log = testbed.logs(name).text();
        assert!(!log.contains("panicked"), "{name}: {log}");
    }
}

async fn is_unbound(testbed: &Testbed, name: &str) -> bool {
    live(testbed, "paused", name).await.0 == 0
}

/// Node of each live member.
async fn placement(testbed: &Testbed, name: &str) -> BTreeMap<String, String> {
    let found = members(testbed, "paused", name).await;
    let live = found.iter().filter(|pod| is_live(pod));
    live.filter_map(|pod| Some((pod.metadata.name.clone()?, scheduler::node_of(pod)?.to_owned()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_the_api_server_costs_neither_the_lease_nor_the_gangs() {
    let testbed = scheduler::testbed(Profile::DgxH100, 32).await;
    let installation = install_with_short_lease(&testbed, CONFIG).await;
    namespace(&testbed, "flooded").await;
    let flood = flood(&testbed).await;
    let before = epoch(&testbed).await.unwrap();
    let mut slowest = Duration::ZERO;
    for round in 0..10 {
        let name = format!("wave-{round}");
        create(&testbed, "flooded", gang(&name, 32, "8")).await;
        slowest = slowest.max(bound(&testbed, "flooded", &name, 32, Duration::from_secs(60)).await);
        delete(&testbed, "flooded", "").await;
    }
    let (answered, throttled) = flood.stop();
    println!("flood: {answered} answered, {throttled} throttled; slowest gang {slowest:?}");
    assert!(answered + throttled > 1_000, "that was no flood");
    assert_eq!(epoch(&testbed).await, Some(before), "the leader lost its lease");
    let scrape = Scrape::of(installation.scheduler).await.unwrap();
    assert_eq!(scrape.sum("flowforge_leader_terms_total", ""), 1.0);
}

struct Flood {
    tasks: Vec<tokio::task::JoinHandle<()>>,
    answered: Arc<Mutex<(u64, u64)>>,
}

impl Flood {
    fn stop(self) -> (u64, u64) {
        for task in self.tasks {
            task.abort();
        }
        *self.answered.lock().unwrap()
    }
}

/// Another ServiceAccount lists and writes as fast as it can, from many connections at once.
async fn flood(testbed: &Testbed) -> Flood {
    testbed
        .apply_yaml(
            "
apiVersion: v1
kind: ServiceAccount
metadata: {name: flooder, namespace: flooded}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: flooder}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: cluster-admin}
subjects: [{kind: ServiceAccount, name: flooder, namespace: flooded}]
",
        )
        .await
        .unwrap();
    let answered: Arc<Mutex<(u64, u64)>> = Arc::default();
    let mut tasks = Vec::new();
    let client = testbed.client_as("flooded", "flooder").await.unwrap();
    for worker in 0..48_u32 {
        let (client, answered) = (client.clone(), answered.clone());
        tasks.push(tokio::spawn(async move {
            let pods: Api<Pod> = Api::all(client.clone());
            let maps: Api<ConfigMap> = Api::namespaced(client, "flooded");
            for count in 0_u64.. {
                let throttled = if worker % 2 == 0 {
                    is_throttled(pods.list(&ListParams::default()).await.err())
                } else {
                    let name = format!("flood-{worker}-{count}");
                    let object = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
                    is_throttled(maps.create(&PostParams::default(), &object).await.err())
                };
                let mut answered = answered.lock().unwrap();
                if throttled {
                    answered.1 += 1;
                } else {
                    answered.0 += 1;
                }
            }
        }));
    }
    Flood { tasks, answered }
}

fn is_throttled(error: Option<kube::Error>) -> bool {
    matches!(error, Some(kube::Error::Api(status)) if status.code == 429)
}
