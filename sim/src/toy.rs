//! The smallest engine that can drive the protocol: nodes with slots, first fit, no topology.
//!
//! It maps the protocol's effects on its assumptions as the real engine does on its snapshot, so that a fault found here is
//! the protocol's. Its view follows the watch; a pod once gone, or once seen with a larger resourceVersion, does not come back.

use crate::claims::preparations;
use flowforge_scheduler_core::command::Command;
use flowforge_scheduler_core::event::{Event, RelistedKind};
use flowforge_scheduler_core::model::{GangInfo, Millis, NodeInfo, PodInfo, PodKey, PodPhase};
use flowforge_scheduler_core::protocol::{
    Check, Effect, Effects, Ending, GangKey, NewPlace, PartialGang, Patience, Placement, Plan, Protocol,
    ProtocolConfig, Quorum, ReplanMember, Replanned,
};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// Pods that fit on a node, in the world that the toy knows.
pub const SLOTS_PER_NODE: i64 = 4;

/// How long a gang must look partial before a repair is opened, so that a watch that lags is not mistaken for one.
const PARTIAL_GRACE_MS: Millis = 1_000;

/// The engine.
#[derive(Debug)]
pub struct Toy {
    protocol: Protocol,
    nodes: BTreeMap<SmolStr, NodeInfo>,
    /// Pods by UID.
    pods: BTreeMap<SmolStr, PodInfo>,
    gone: BTreeSet<SmolStr>,
    gangs: BTreeMap<SmolStr, GangInfo>,
    /// Pods assumed on a node: UID -> node.
    assumed: BTreeMap<SmolStr, SmolStr>,
    retry_at: BTreeMap<GangKey, Millis>,
    partial_since: BTreeMap<GangKey, Millis>,
    /// Gangs that were whole once, as far as this process closed them.
    whole: BTreeSet<GangKey>,
    held: u64,
}

impl Toy {
    /// A follower that knows nothing.
    #[must_use]
    pub fn new(config: ProtocolConfig) -> Self {
        Self {
            protocol: Protocol::new(config),
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            gone: BTreeSet::new(),
            gangs: BTreeMap::new(),
            assumed: BTreeMap::new(),
            retry_at: BTreeMap::new(),
            partial_since: BTreeMap::new(),
            whole: BTreeSet::new(),
            held: 0,
        }
    }

    /// Takes in one fact.
    pub fn apply(&mut self, event: Event, now: Millis, out: &mut Vec<Command>) {
        let mut fx = Effects::default();
        match event {
            Event::NodeUpsert(node) => {
                self.nodes.insert(node.name.clone(), *node);
            }
            Event::NodeDelete { name } => {
                self.nodes.remove(&name);
                self.protocol.on_node_gone(&name, now, &mut fx);
            }
            Event::PodUpsert(pod) => self.see_pod(*pod, now, &mut fx),
            Event::PodDelete(key) => self.lose_pod(&key, now, &mut fx),
            Event::GangUpsert(gang) => {
                if gang.closed {
                    self.protocol.abort(&key_of(&gang), "the gang ended", now, &mut fx);
                }
                self.gangs.insert(gang.name.clone(), *gang);
            }
            Event::GangDelete { name, .. } => {
                self.gangs.remove(&name);
            }
            Event::Relisted(RelistedKind::Pods(uids)) => {
                let listed: BTreeSet<_> = uids.into_iter().collect();
                let absent = self.pods.values().filter(|pod| !listed.contains(&pod.key.uid));
                for key in absent.map(|pod| pod.key.clone()).collect::<Vec<_>>() {
                    self.lose_pod(&key, now, &mut fx);
                }
            }
            Event::Relisted(RelistedKind::Nodes(names)) => {
                let absent: Vec<_> = self.nodes.keys().filter(|name| !names.contains(name)).cloned().collect();
                for name in absent {
                    self.nodes.remove(&name);
                    self.protocol.on_node_gone(&name, now, &mut fx);
                }
            }
            // Its pods matter to nobody, stand anywhere and mount nothing.
            Event::Relisted(
                RelistedKind::Gangs(_)
                | RelistedKind::Namespaces(_)
                | RelistedKind::Selectors(..)
                | RelistedKind::Budgets(_)
                | RelistedKind::Storage(..)
                | RelistedKind::Devices(_),
            )
            | Event::BudgetUpsert(_)
            | Event::BudgetDelete { .. }
            | Event::StorageUpsert(_)
            | Event::StorageDelete { .. }
            | Event::NamespaceUpsert { .. }
            | Event::NamespaceDelete { .. }
            | Event::Device(_)
            | Event::SelectorUpsert(_)
            | Event::SelectorDelete { .. }
            | Event::Topology(_)
            | Event::Synced => {}
            Event::Lead { epoch, slots } => {
                self.assumed.clear();
                self.protocol.lead(epoch, slots, now, &mut fx);
            }
            Event::Follow => {
                self.assumed.clear();
                self.protocol.follow();
            }
            Event::Outcome(outcome) => self.protocol.on_outcome(outcome, now, &mut fx),
        }
        self.settle(fx, now, out);
    }

    /// Lets time pass and plans what is ready.
    pub fn run(&mut self, now: Millis, out: &mut Vec<Command>) {
        let mut fx = Effects::default();
        self.protocol.tick(now, &mut fx);
        self.settle(fx, now, out);
        if !self.protocol.is_ready() {
            return;
        }
        let mut fx = Effects::default();
        for pod in self.pods.values().filter(|pod| pod.gang.is_none() && is_waiting(pod)).cloned().collect::<Vec<_>>() {
            self.plan(GangKey::Pod(pod.key.clone()), &[&pod], now, &mut fx);
        }
        for gang in self.gangs.values().filter(|gang| !gang.closed).cloned().collect::<Vec<_>>() {
            self.plan_gang(&gang, now, &mut fx);
        }
        self.protocol.flush(now, &mut fx);
        self.settle(fx, now, out);
        self.retry_at.retain(|_, at| now < *at);
    }

    /// When the protocol wants to be called, or a backoff ends.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        let partial = self.partial_since.values().map(|since| since + PARTIAL_GRACE_MS);
        let backoff = self.retry_at.values().copied();
        self.protocol.next_wakeup().into_iter().chain(partial).chain(backoff).min()
    }

    /// Assumed pods that no open intent answers for.
    pub fn orphaned_assumptions(&self) -> impl Iterator<Item = &SmolStr> {
        self.assumed.keys().filter(|uid| {
            let pod = self.pods.get(*uid).map(|pod| pod.key.clone());
            let key = pod.unwrap_or_else(|| PodKey { uid: (*uid).clone(), ..PodKey::default() });
            !self.protocol.is_member(&key)
        })
    }

    /// Whether nothing is open and nothing awaited.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let stats = self.protocol.stats();
        stats.open_intents == 0 && stats.open_singles == 0 && stats.awaited == 0 && self.assumed.is_empty()
    }

    /// Times that a gang was reported as held partial.
    #[must_use]
    pub fn held(&self) -> u64 {
        self.held
    }

    fn see_pod(&mut self, mut pod: PodInfo, now: Millis, fx: &mut Effects) {
        self.protocol.on_pod(&pod, now, fx);
        let version = |pod: &PodInfo| pod.resource_version.parse::<u64>().unwrap_or(0);
        let known = self.pods.get(&pod.key.uid);
        if self.gone.contains(&pod.key.uid) || known.is_some_and(|known| version(known) >= version(&pod)) {
            return;
        }
        // A watch event without a node never takes back what an answer confirmed.
        pod.node_name = pod.node_name.or_else(|| known.and_then(|known| known.node_name.clone()));
        if pod.node_name.is_some() {
            self.assumed.remove(&pod.key.uid);
        }
        self.pods.insert(pod.key.uid.clone(), pod);
    }

    fn lose_pod(&mut self, key: &PodKey, now: Millis, fx: &mut Effects) {
        self.protocol.on_pod_gone(key, now, fx);
        self.gone.insert(key.uid.clone());
        self.pods.remove(&key.uid);
        self.assumed.remove(&key.uid);
    }

    /// Handles effects until there are none, collecting the commands.
    fn settle(&mut self, mut fx: Effects, now: Millis, out: &mut Vec<Command>) {
        loop {
            out.append(&mut fx.commands);
            if fx.effects.is_empty() {
                return;
            }
            let mut next = Effects::default();
            for effect in std::mem::take(&mut fx.effects) {
                self.handle(effect, now, &mut next);
            }
            fx = next;
        }
    }

    fn handle(&mut self, effect: Effect, now: Millis, fx: &mut Effects) {
        match effect {
            Effect::Confirm { pod, node } | Effect::ForeignBound { pod, node, .. } => {
                self.assumed.remove(&pod.uid);
                // Known before the watch tells: the place is taken.
                if let Some(pod) = self.pods.get_mut(&pod.uid) {
                    pod.node_name = Some(node);
                }
            }
            Effect::Prepared { pod, .. } => self.protocol.checked(&pod, Check::Sound, now, fx),
            Effect::Release { pod } => {
                self.assumed.remove(&pod.uid);
            }
            Effect::Replan { gang, members } => {
                let answer = self.replan(&members);
                self.protocol.replanned(&gang, answer, now, fx);
            }
            Effect::MemberLost { gang, pod, .. } => {
                self.assumed.remove(&pod.uid);
                for pod in self.pods.values().filter(|pod| GangKey::of(pod) == gang) {
                    self.protocol.on_pod(pod, now, fx);
                }
            }
            Effect::Recovered { gang, members } => {
                if self.gangs.values().any(|known| known.closed && key_of(known) == gang) {
                    self.protocol.abort(&gang, "the gang ended", now, fx);
                }
                for (pod, node) in members {
                    let Some(node) = node else { continue };
                    let bound = self.pods.get(&pod.uid).is_some_and(|pod| pod.node_name.is_some());
                    if !self.nodes.contains_key(&node) {
                        self.protocol.on_node_gone(&node, now, fx);
                    } else if !bound && self.pods.contains_key(&pod.uid) {
                        self.assumed.insert(pod.uid, node);
                    }
                }
                let pods: Vec<&PodInfo> = self.pods.values().filter(|pod| GangKey::of(pod) == gang).collect();
                self.protocol.recovered(&gang, &pods, now, fx);
            }
            Effect::Fenced { .. } => self.assumed.clear(),
            Effect::HeldPartial { .. } => self.held += 1,
            Effect::Closed { gang, outcome, .. } => match outcome {
                Ending::Bound { .. } => {
                    self.whole.insert(gang);
                }
                Ending::Undone { .. } => {
                    self.retry_at.insert(gang, now + 200);
                }
            },
            Effect::Ready | Effect::WriteRefused { .. } | Effect::JournalUnreadable { .. } => {}
        }
    }

    fn replan(&mut self, members: &[ReplanMember]) -> Replanned {
        for member in members {
            self.assumed.remove(&member.pod.uid);
        }
        let mut places = Vec::new();
        for member in members {
            match self.first_fit() {
                Some(node) => {
                    self.assumed.insert(member.pod.uid.clone(), node.clone());
                    let pod = self.pods.get(&member.pod.uid);
                    let preparations = pod.map(|pod| preparations(pod, &node)).unwrap_or_default();
                    let patience = Patience::default();
                    places.push(NewPlace { pod: member.pod.clone(), node, preparations, patience });
                }
                None => break,
            }
        }
        if places.is_empty() { Replanned::Refused("no node has room".to_owned()) } else { Replanned::Placed(places) }
    }

    fn first_fit(&self) -> Option<SmolStr> {
        let taken = |name: &SmolStr| {
            let holds = |pod: &&PodInfo| !pod.phase.is_terminal() && pod.node_name.as_ref() == Some(name);
            let bound = self.pods.values().filter(holds).count();
            let assumed = self.assumed.values().filter(|node| *node == name).count();
            i64::try_from(bound + assumed).unwrap_or(i64::MAX)
        };
        self.nodes.keys().find(|name| taken(name) < SLOTS_PER_NODE).cloned()
    }

    fn plan_gang(&mut self, gang: &GangInfo, now: Millis, fx: &mut Effects) {
        let key = key_of(gang);
        let of_gang = |pod: &&PodInfo| pod.gang.as_ref().is_some_and(|membership| membership.name == gang.name);
        let counts = |pod: &&PodInfo| of_gang(pod) && !pod.deleting && pod.phase != PodPhase::Failed;
        let members = one_per_rank(self.pods.values().filter(counts));
        let done = members.iter().filter(|pod| pod.phase == PodPhase::Succeeded).count();
        let live: Vec<&PodInfo> = members.iter().filter(|pod| !pod.phase.is_terminal()).collect();
        let bound = live.iter().filter(|pod| pod.node_name.is_some()).count();
        let size = gang.min_member as usize;
        if bound == 0 {
            self.partial_since.remove(&key);
            if live.len() + done == size && !live.is_empty() && live.iter().all(|pod| is_waiting(pod)) {
                self.plan(key, &live, now, fx);
            }
        } else if bound + done < size && !self.protocol.is_open(&key) {
            let since = *self.partial_since.entry(key.clone()).or_insert(now);
            if now >= since + PARTIAL_GRACE_MS {
                self.partial_since.remove(&key);
                self.adopt(key, size - done, &live, now, fx);
            }
        } else {
            self.partial_since.remove(&key);
        }
    }

    fn plan(&mut self, gang: GangKey, pods: &[&PodInfo], now: Millis, fx: &mut Effects) {
        if self.protocol.is_open(&gang) || self.retry_at.get(&gang).is_some_and(|at| now < *at) {
            return;
        }
        let mut members = Vec::new();
        for pod in pods {
            let Some(node) = self.first_fit() else { break };
            self.assumed.insert(pod.key.uid.clone(), node.clone());
            let preparations = preparations(pod, &node);
            members.push(Placement { preparations, ..Placement::new(pod, node) });
        }
        let size = u32::try_from(pods.len()).unwrap_or(u32::MAX);
        let whole = members.len() == pods.len();
        let plan =
            Plan { gang: gang.clone(), members, quorum: Quorum::all(size), ready_at_ms: now, planned_at_ms: now };
        if !whole || self.protocol.begin(plan, now, fx).is_err() {
            pods.iter().for_each(|pod| drop(self.assumed.remove(&pod.key.uid)));
            self.retry_at.insert(gang, now + 500);
        }
    }

    fn adopt(&mut self, gang: GangKey, needed: usize, live: &[&PodInfo], now: Millis, fx: &mut Effects) {
        let members: Vec<_> = live.iter().map(|pod| Placement::found(pod)).collect();
        let role = SmolStr::new_static("worker");
        let vacant = vec![(role, None, None); needed.saturating_sub(members.len())];
        let quorum = Quorum::all(u32::try_from(needed).unwrap_or(u32::MAX));
        let may_roll_back = !self.whole.contains(&gang);
        let found = PartialGang { gang, members, vacant, quorum, may_roll_back };
        // An error means that it is open already, or that the journal is full: the next run looks again.
        let _ = self.protocol.adopt(found, now, fx);
    }
}

/// Of several pods of one rank the bound one counts, else the youngest: the others are about to go.
fn one_per_rank<'a>(pods: impl Iterator<Item = &'a PodInfo>) -> Vec<PodInfo> {
    let mut of_rank: BTreeMap<Option<u32>, &PodInfo> = BTreeMap::new();
    for pod in pods {
        let precedes = |pod: &PodInfo| (pod.node_name.is_some(), pod.created_at_ms, pod.key.uid.clone());
        let held = of_rank.entry(pod.gang.as_ref().and_then(|gang| gang.rank)).or_insert(pod);
        if precedes(pod) > precedes(held) {
            *held = pod;
        }
    }
    of_rank.into_values().cloned().collect()
}

fn key_of(gang: &GangInfo) -> GangKey {
    GangKey::Gang { namespace: gang.namespace.clone(), name: gang.name.clone(), uid: Some(gang.uid.clone()) }
}

fn is_waiting(pod: &PodInfo) -> bool {
    pod.node_name.is_none() && !pod.gated && !pod.deleting && !pod.phase.is_terminal()
}
