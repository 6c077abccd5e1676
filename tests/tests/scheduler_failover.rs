//! The scheduler dies, is paused or is starved while it binds: no gang stays partial, and no late write changes anything.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_api::PlacementJournal;
use flowforge_api::names::annotation;
use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::{NAMESPACE, SCHEDULER};
use flowforge_tests::metrics::Scrape;
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::api::{Api, ListParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use scheduler::{
    Random, assert_no_overcommit, bound, create, delete, gang, install, install_with_short_lease, is_live, members,
    namespace, open_intents, until,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Few bindings at once, so that a gang takes long enough to be met in the middle.
const CONFIG: &str = "binding: {repairDeadlineMs: 5000, parallelRequests: 4}\n";
const STANDBY: &str = "flowforge-scheduler-standby";
const STANDBY_PORT: u16 = 11082;
/// Within this of the new leader's lease a gang has healed: the promise.
const PROMISE: Duration = Duration::from_secs(10);
/// Nine in ten keep the promise, also on a machine that does something else meanwhile; this one all keep.
const HEAL_LIMIT: Duration = Duration::from_secs(60);
const LEASE_LIMIT: Duration = Duration::from_secs(60);
/// The tests of this file measure time: each has the machine for itself.
static ALONE: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

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

/// How many live members a gang has, and how many pods that are not on their way out.
async fn live(testbed: &Testbed, namespace: &str, name: &str) -> (usize, usize) {
    let found = members(testbed, namespace, name).await;
    let staying = found.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).count();
    (found.iter().filter(|pod| is_live(pod)).count(), staying)
}

/// Waits until no intent is open and a gang is whole, or has no live member and can get none, because pods of it went;
/// answers whether it is whole.
async fn healed(testbed: &Testbed, namespace: &str, name: &str, size: usize, limit: Duration) -> bool {
    until(&format!("gang {name} is whole or unbound"), limit, || async {
        // The journal first: an intent that closes after the pods were read may have moved some of them since.
        let open = open_intents(testbed).await;
        match live(testbed, namespace, name).await {
            (live, _) if open == 0 && live == size => Ok(true),
            (0, pods) if open == 0 && pods < size => Ok(false),
            (live, pods) => Err(format!("{live} of {pods} pods are live, {size} wanted; {open} intents are open")),
        }
    })
    .await
}

/// What was ever seen of a pod.
#[derive(Default)]
struct Seen {
    name: String,
    /// Nodes that it was bound to.
    nodes: BTreeSet<String>,
    /// The intent under which it was bound.
    intent: Option<String>,
}

/// All that the watches saw.
#[derive(Default)]
struct Record {
    /// By UID.
    pods: BTreeMap<String, Seen>,
    /// Nodes that the journal ever gave a pod under an intent: (intent, UID) -> nodes.
    planned: BTreeMap<(String, String), BTreeSet<String>>,
    /// Gangs with an open intent in each slot, by its name.
    open: BTreeMap<String, Vec<String>>,
}

impl Record {
    fn pod(&mut self, pod: &Pod) {
        let Some(node) = scheduler::node_of(pod) else { return };
        let seen = self.pods.entry(pod.metadata.uid.clone().unwrap_or_default()).or_default();
        seen.name = pod.metadata.name.clone().unwrap_or_default();
        seen.nodes.insert(node.to_owned());
        seen.intent = pod.metadata.annotations.as_ref().and_then(|known| known.get(annotation::INTENT).cloned());
    }

    fn slot(&mut self, slot: &PlacementJournal) {
        let open = self.open.entry(slot.metadata.name.clone().unwrap_or_default()).or_default();
        open.clear();
        // An empty payload is a fresh slot.
        let payload: Value = serde_json::from_str(&slot.spec.payload).unwrap_or_default();
        for part in payload["parts"].as_array().into_iter().flatten() {
            open.extend(part["head"]["gang"]["Gang"]["name"].as_str().map(str::to_owned));
            let intent = part["id"].as_str().unwrap();
            for member in part["members"].as_array().into_iter().flatten() {
                let Some(index) = member["n"].as_u64() else { continue };
                let node = part["nodes"][usize::try_from(index).unwrap()].as_str().unwrap();
                let key = (intent.to_owned(), member["u"].as_str().unwrap().to_owned());
                self.planned.entry(key).or_default().insert(node.to_owned());
            }
        }
    }

    /// Whether the intent of a gang is open.
    fn is_open(&self, gang: &str) -> bool {
        self.open.values().flatten().any(|open| open == gang)
    }

    /// Members of a gang that were seen bound.
    fn bound(&self, gang: &str) -> usize {
        let is_member = |name: &str| name.rsplit_once('-').is_some_and(|(of, _)| of == gang);
        self.pods.values().filter(|seen| is_member(&seen.name)).count()
    }
}

/// Watches what is bound, and every revision of the journal, from the beginning to the end of a test.
struct BindWatch {
    record: Arc<Mutex<Record>>,
    news: Arc<Notify>,
    tasks: [tokio::task::JoinHandle<()>; 2],
}

impl BindWatch {
    fn start(testbed: &Testbed) -> Self {
        let pods: Api<Pod> = Api::all(testbed.client().clone());
        let slots: Api<PlacementJournal> = Api::namespaced(testbed.client().clone(), NAMESPACE);
        let (record, news): (Arc<Mutex<Record>>, Arc<Notify>) = Default::default();
        let follow_pods = follow(pods, record.clone(), news.clone(), Record::pod);
        let follow_slots = follow(slots, record.clone(), news.clone(), Record::slot);
        Self { record, news, tasks: [tokio::spawn(follow_pods), tokio::spawn(follow_slots)] }
    }

    /// Waits until a gang's intent is open and so many of its members are bound; answers false where it came too late.
    async fn in_the_middle(&self, gang: &str, members: usize, size: usize) -> bool {
        let start = Instant::now();
        loop {
            let (open, bound) = {
                let record = self.record.lock().unwrap();
                (record.is_open(gang), record.bound(gang))
            };
            if (open && bound >= members) || bound == size {
                return open;
            }
            assert!(start.elapsed() < HEAL_LIMIT, "{gang}: {bound} of {members} bound, intent open: {open}");
            // A time limit, because the news may have come while nobody listened.
            let _ = tokio::time::timeout(Duration::from_millis(20), self.news.notified()).await;
        }
    }

    /// Checks that nothing was ever bound twice or off plan, and that the watch saw all, the `last` gang of `size` included.
    async fn finish(self, last: &str, size: usize) {
        until("the watch has seen the last gang", Duration::from_secs(60), || async {
            let record = self.record.lock().unwrap();
            let (bound, open) = (record.bound(last), record.is_open(last));
            if bound == size && !open { Ok(()) } else { Err(format!("{bound} of {size}; its intent is open: {open}")) }
        })
        .await;
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
        let record = self.record.lock().unwrap();
        for (uid, Seen { name, nodes, intent }) in &record.pods {
            assert_eq!(nodes.len(), 1, "pod {name} was bound to {nodes:?}");
            let intent = intent.clone().unwrap_or_else(|| panic!("pod {name} was bound without an intent"));
            let planned = record.planned.get(&(intent.clone(), uid.clone()));
            assert!(
                planned.is_some_and(|planned| planned.is_superset(nodes)),
                "pod {name} was bound to {nodes:?} under {intent}; the journal says {planned:?}"
            );
        }
        println!("{} bindings, all as the journal says", record.pods.len());
    }
}

/// Hands every object that a watch shows to the record; an error of the watch is a pause, not its end.
async fn follow<K>(api: Api<K>, record: Arc<Mutex<Record>>, news: Arc<Notify>, note: fn(&mut Record, &K))
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let mut events = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
    while let Some(event) = events.next().await {
        match event {
            Ok(object) => note(&mut record.lock().unwrap(), &object),
            Err(error) => println!("a watch goes on after {error}"),
        }
        news.notify_waiters();
    }
}

/// What the kills between intent and commit came to.
#[derive(Default)]
struct Kills {
    /// Some but not all members were bound then.
    partial: usize,
    whole: usize,
    /// From the new leader's lease until all was whole or unbound.
    heals: Vec<Duration>,
}

impl Kills {
    fn assert(&self) {
        let mut sorted = self.heals.clone();
        sorted.sort();
        let (kills, kept) = (sorted.len(), sorted.iter().filter(|took| **took <= PROMISE).count());
        println!(
            "{kills} kills between intent and commit, {} of them in the middle of binding: {} whole, {} unbound; healed \
             after the new leader's lease: median {:?}, slowest {:?}, {kept} within {PROMISE:?}",
            self.partial,
            self.whole,
            kills - self.whole,
            sorted[kills / 2],
            sorted[kills - 1],
        );
        assert!(self.partial * 10 >= kills * 7, "only {} of {kills} kills met a partial gang", self.partial);
        assert!(kept * 10 >= kills * 9, "only {kept} of {kills} gangs healed within {PROMISE:?}: {sorted:?}");
    }
}

/// A gang whose last member is made only when it is its turn: that lets it be prepared during the wait for a lease.
fn all_but_the_last(name: &str, size: usize) -> (Vec<Value>, Vec<Value>) {
    let mut first = gang(name, size, "8");
    let last = first.split_off(size - 1);
    (first, last)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_gang_is_whole_or_unbound_however_often_the_scheduler_is_killed() {
    const SIZE: usize = 256;
    let _alone = ALONE.lock().await;
    let kills = std::env::var("FLOWFORGE_TEST_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(50);
    let testbed = scheduler::testbed(Profile::DgxH100, 512).await;
    install_with_short_lease(&testbed, CONFIG).await;
    namespace(&testbed, "large").await;
    let binds = BindWatch::start(&testbed);
    let mut random = Random::new(1);
    let mut outcome = Kills::default();
    let (first, mut last) = all_but_the_last("large-0", SIZE);
    create(&testbed, "large", first).await;
    let mut round = 0;
    while outcome.heals.len() < kills {
        assert!(round < 2 * kills, "only {} of {round} gangs were met in the middle", outcome.heals.len());
        let (name, next) = (format!("large-{round}"), format!("large-{}", round + 1));
        create(&testbed, "large", last).await;
        // Anywhere between the intent and the commit, as far as the bindings have come.
        let members = usize::try_from(random.below(SIZE as u64)).unwrap();
        let in_time = binds.in_the_middle(&name, members, SIZE).await;
        let mut before = 0;
        let (mut open, mut caught) = (0, SIZE);
        if in_time {
            testbed.kill(SCHEDULER).unwrap();
            before = epoch(&testbed).await.unwrap_or_default();
            // Nobody writes now: what the journal says is what the dead one left.
            open = open_intents(&testbed).await;
            caught = live(&testbed, "large", &name).await.0;
            testbed.respawn(SCHEDULER).unwrap();
        }
        // While the dead one's lease runs out: the gang before goes, the next one comes.
        if round > 0 {
            delete(&testbed, "large", &format!("flowforge.dev/gang=large-{}", round - 1)).await;
        }
        let (first, rest) = all_but_the_last(&next, SIZE);
        create(&testbed, "large", first).await;
        last = rest;
        if in_time {
            next_leader(&testbed, before).await;
        }
        let leading = Instant::now();
        let whole = healed(&testbed, "large", &name, SIZE, HEAL_LIMIT).await;
        let took = leading.elapsed();
        println!("gang {round}: {caught} bound when killed (at {members}), {open} open; whole: {whole}, {took:?}");
        // One that came after the commit shows nothing.
        if open > 0 {
            outcome.partial += usize::from((1..SIZE).contains(&caught));
            outcome.whole += usize::from(whole);
            outcome.heals.push(took);
        }
        round += 1;
    }
    outcome.assert();
    assert_no_overcommit(&testbed, "nvidia.com/gpu").await;
    // The next gang is bound as if nothing had happened.
    delete(&testbed, "large", &format!("flowforge.dev/gang=large-{}", round - 1)).await;
    create(&testbed, "large", last).await;
    let next = format!("large-{round}");
    bound(&testbed, "large", &next, SIZE, Duration::from_secs(60)).await;
    binds.finish(&next, SIZE).await;
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
    let _alone = ALONE.lock().await;
    let testbed = scheduler::testbed(Profile::DgxH100, 128).await;
    // One binding after the other, for these gangs are small.
    let config = "binding: {repairDeadlineMs: 5000, parallelRequests: 1}\n";
    let installation = install_with_short_lease(&testbed, config).await;
    let standby = testbed.network().at(STANDBY_PORT);
    installation.start_scheduler(STANDBY, standby).await.unwrap();
    let addresses = [(SCHEDULER, installation.scheduler), (STANDBY, standby)];
    namespace(&testbed, "paused").await;
    let binds = BindWatch::start(&testbed);
    let mut random = Random::new(2);
    let (mut partial, mut last) = (0, String::new());
    for round in 0..ROUNDS {
        let (leader, address) = leader_of(&addresses).await;
        let name = format!("paused-{round}");
        create(&testbed, "paused", gang(&name, SIZE, "8")).await;
        binds.in_the_middle(&name, usize::try_from(random.below(SIZE as u64)).unwrap(), SIZE).await;
        testbed.pause(leader).unwrap();
        let before = epoch(&testbed).await.unwrap_or_default();
        let (caught, _) = live(&testbed, "paused", &name).await;
        partial += u64::from((1..SIZE).contains(&caught) && open_intents(&testbed).await > 0);
        next_leader(&testbed, before).await;
        let leading = Instant::now();
        let is_whole = healed(&testbed, "paused", &name, SIZE, HEAL_LIMIT).await;
        let took = leading.elapsed();
        // Let the paused one go on in the middle of its work, and look whether anything changes.
        let placed = placement(&testbed, &name).await;
        assert_eq!(placed.len(), if is_whole { SIZE } else { 0 }, "round {round}");
        testbed.resume(leader).unwrap();
        until("the paused one knows that it leads no longer", LEASE_LIMIT, || async {
            let scrape = Scrape::of(address).await.map_err(|error| format!("{error:#}"))?;
            if scrape.sum("flowforge_leader", "") == 0.0 { Ok(()) } else { Err("it leads".to_owned()) }
        })
        .await;
        tokio::time::sleep(Duration::from_secs(2)).await;
        assert_eq!(placement(&testbed, &name).await, placed, "round {round}: a late write changed the gang");
        println!("round {round}: {leader} paused with {caught} bound; whole: {is_whole} {took:?} after the next lease");
        assert_no_overcommit(&testbed, "nvidia.com/gpu").await;
        if round + 1 < ROUNDS {
            delete(&testbed, "paused", "").await;
        }
        last = name;
    }
    println!("{partial} of {ROUNDS} pauses met a partial gang");
    assert!(partial * 2 >= ROUNDS, "only {partial} of {ROUNDS} pauses met a partial gang");
    // A rolled-back gang is no witness that the watch was there to the end.
    if placement(&testbed, &last).await.len() < SIZE {
        last = "paused-after".to_owned();
        create(&testbed, "paused", gang(&last, SIZE, "8")).await;
        bound(&testbed, "paused", &last, SIZE, Duration::from_secs(60)).await;
    }
    binds.finish(&last, SIZE).await;
    for name in [SCHEDULER, STANDBY] {
        let log = testbed.logs(name).text();
        assert!(!log.contains("panicked"), "{name}: {log}");
    }
}

/// The one of these processes that leads.
async fn leader_of<'n>(addresses: &[(&'n str, SocketAddr)]) -> (&'n str, SocketAddr) {
    until("one of them leads", LEASE_LIMIT, || async {
        for (name, address) in addresses {
            if leads(*address).await {
                return Ok((*name, *address));
            }
        }
        Err("none".to_owned())
    })
    .await
}

/// Node of each live member.
async fn placement(testbed: &Testbed, name: &str) -> BTreeMap<String, String> {
    let found = members(testbed, "paused", name).await;
    let live = found.iter().filter(|pod| is_live(pod));
    live.filter_map(|pod| Some((pod.metadata.name.clone()?, scheduler::node_of(pod)?.to_owned()))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_the_api_server_costs_neither_the_lease_nor_the_gangs() {
    let _alone = ALONE.lock().await;
    let testbed = scheduler::testbed(Profile::DgxH100, 32).await;
    // As in production, the lease included: that is what the flood must not cost.
    let installation = install(&testbed, "{}\n").await;
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
