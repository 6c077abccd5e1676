//! The engine: facts in, decisions out. It owns the snapshot, the queue, the gangs and the binding protocol.
//!
//! ```text
//!   Event ──apply──> snapshot, gangs, queue ──run──> plans ──> protocol ──> Vec<Command>
//!                          ^                                      |
//!                          +──── assume, confirm, forget, replan ─+
//! ```
//! One thread calls it. `apply` is cheap: it takes in facts and the protocol's next step. `run` plans what is ready. Only a
//! leader whose journal is fenced plans; a follower keeps the facts and decides nothing.
//!
//! Invariants: a pod is in at most one of the queue, an open intent, or bound; every assumption belongs to an open intent
//! and ends confirmed or forgotten; after `Follow` nothing is assumed and nothing is commanded.

mod binding;
mod facts;
mod freeing;
mod gangs;
mod making_room;
mod planning;
mod preempting;
mod rehearsing;
mod report;
mod reserving;
mod stats;
#[cfg(test)]
mod tests;
mod topology;

use freeing::{Freeing, is_of_freeing};
use preempting::{Evictions, Moment};
pub use report::Unsaid;
use reserving::Reserving;
pub use stats::{Stats, Waiting};

use crate::command::{Command, GangSchedulingStatus};
use crate::config::Config;
use crate::event::{Event, Outcome};
use crate::explain::Refusal;
use crate::gang::{Ask, GangId, Gangs};
use crate::model::Millis;
use crate::plugins::Cures;
use crate::protocol::{Effects, GangKey, Protocol};
use crate::queue::{Delays, Entity, Queue};
use crate::shape::ShapeId;
use crate::snapshot::{PodId, Snapshot};
use hashbrown::HashMap;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// The scheduler without IO.
#[derive(Debug)]
pub struct Engine {
    config: Config,
    snapshot: Snapshot,
    gangs: Gangs,
    queue: Queue,
    protocol: Protocol,
    fx: Effects,
    /// All first lists are in.
    synced: bool,
    /// A journal slot could not be read in this term: partial gangs may be ours.
    journal_lost: bool,
    /// The epoch of the other leader that ended this term.
    fenced_by: Option<u64>,
    /// What happened since the last run that can cure refusals.
    cures: Cures,
    /// Pods whose claims changed since.
    claimants: BTreeSet<PodId>,
    /// What is being bound, by the protocol's key.
    flights: BTreeMap<GangKey, Flight>,
    /// What is remembered of a gang between looks.
    notes: BTreeMap<GangId, Note>,
    /// Gangs that wait a moment for further members.
    settling: BTreeSet<(Millis, GangId)>,
    /// When a pod was first ready to be placed.
    first_ready: HashMap<PodId, Millis, foldhash::fast::FixedState>,
    /// Refusals of this run: pods of one shape, priority and preemption policy get one answer while nothing changes.
    refused: BTreeMap<(ShapeId, i32, bool), (Moment, Arc<Refusal>)>,
    /// Who is evicted for whom.
    evictions: Evictions,
    /// Claims that are given up for refused pods.
    freeing: Freeing,
    /// Room in time for gangs that find none.
    reserving: Reserving,
    /// Members that wait although their gang is in no queue.
    outside: usize,
    /// Pods whose object is gone while their place is kept for a replacement.
    vacant: BTreeMap<SmolStr, PodId>,
}

/// An open intent, as the engine sees it.
#[derive(Clone, Debug, Default)]
struct Flight {
    entity: Option<Entity>,
    members: BTreeSet<PodId>,
    /// Whether the gang was live before: then its status does not change with the intent.
    replacing: bool,
}

/// What was asked of the planner, and the shapes of the members.
type Asked = (Ask, Vec<Option<ShapeId>>);

/// What is remembered of a gang between looks.
#[derive(Clone, Debug, Default)]
struct Note {
    /// What was asked when it was refused last, and for which shapes; the same is not asked again before something cures
    /// it.
    asked: Option<Asked>,
    /// Any of this would make it go on.
    would_do: Vec<Ask>,
    /// Whether the last refusal is certain without a search.
    proven: bool,
    /// Why its members wait although it is in no queue.
    waiting: Option<Arc<Refusal>>,
    /// The status written last.
    status: Option<GangSchedulingStatus>,
    settling_until: Option<Millis>,
    /// Members that wait although the gang is in no queue.
    outside: usize,
}

impl Engine {
    /// An empty engine; it plans nothing until [`Event::Lead`] and [`Event::Synced`] came.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let delays = Delays {
            initial_ms: config.backoff_initial_ms,
            max_ms: config.backoff_max_ms,
            flush_ms: config.unschedulable_flush_ms,
        };
        Self {
            snapshot: Snapshot::new(&config),
            gangs: Gangs::default(),
            queue: Queue::new(delays),
            protocol: Protocol::new(config.protocol.clone()),
            config,
            fx: Effects::default(),
            synced: false,
            journal_lost: false,
            fenced_by: None,
            cures: Cures::NONE,
            claimants: BTreeSet::new(),
            flights: BTreeMap::new(),
            notes: BTreeMap::new(),
            settling: BTreeSet::new(),
            first_ready: HashMap::default(),
            refused: BTreeMap::new(),
            evictions: Evictions::default(),
            freeing: Freeing::default(),
            reserving: Reserving::default(),
            outside: 0,
            vacant: BTreeMap::new(),
        }
    }

    /// The cluster as it is known and assumed.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Whether it plans: it leads, the journal is fenced, and all first lists are in.
    #[must_use]
    pub fn is_planning(&self) -> bool {
        self.synced && (self.protocol.is_ready() || !self.config.bind)
    }

    /// Why the server refuses to write the journal, where it does: no gang is bound meanwhile.
    #[must_use]
    pub fn journal_refusal(&self) -> Option<&str> {
        self.protocol.journal_refusal()
    }

    /// The epoch of another leader that ended the last term, which the next one of this process must exceed.
    #[must_use]
    pub fn fenced_by(&self) -> Option<u64> {
        self.fenced_by
    }

    /// Takes in one fact; commands of the binding protocol that follow from it are appended to `out`.
    pub fn apply(&mut self, event: Event, now: Millis, out: &mut Vec<Command>) {
        self.snapshot.reservations_mut().set_now(now);
        match event {
            Event::NodeUpsert(node) => self.on_node(*node),
            Event::NodeDelete { name } => self.on_node_gone(&name, now),
            Event::PodUpsert(pod) => self.on_pod(*pod, now),
            Event::PodDelete(key) => self.on_pod_gone(&key, now),
            Event::GangUpsert(gang) => self.on_gang(*gang, now),
            Event::GangDelete { namespace, name, uid } => self.on_gang_gone(&namespace, &name, &uid, now),
            Event::NamespaceUpsert { name, labels } => self.on_namespace(&name, Some(labels)),
            Event::Device(fact) => self.on_device(*fact, now),
            Event::NamespaceDelete { name } => self.on_namespace(&name, None),
            Event::SelectorUpsert(info) => self.snapshot.set_selector(*info),
            Event::SelectorDelete { kind, namespace, name } => self.snapshot.remove_selector(kind, &namespace, &name),
            Event::BudgetUpsert(budget) => self.snapshot.budgets_mut().set(*budget),
            Event::BudgetDelete { namespace, name } => self.snapshot.budgets_mut().remove(&namespace, &name),
            Event::Topology(levels) => self.on_topology(levels, now),
            Event::StorageUpsert(fact) => self.on_storage(*fact, now),
            Event::StorageDelete { kind, namespace, name } => self.on_storage_gone(kind, &namespace, &name, now),
            Event::Relisted(kind) => self.on_relisted(kind, now),
            Event::Synced => {
                self.synced = true;
                self.gangs.touch_all();
            }
            Event::Lead { epoch, slots } => {
                self.on_follow(now);
                self.fenced_by = None;
                self.protocol.lead(epoch, slots, now, &mut self.fx);
            }
            Event::Follow => self.on_follow(now),
            Event::Outcome(Outcome::Evict { op, result }) => self.on_evicted(op, &result, now, out),
            Event::Outcome(Outcome::Prepare { op, result }) if is_of_freeing(op) => {
                self.on_freed(op, &result, now, out);
            }
            Event::Outcome(outcome) => self.protocol.on_outcome(outcome, now, &mut self.fx),
        }
        self.settle(now, out);
    }

    /// Plans what is ready and appends the commands; call it after a batch of events and at [`Self::next_wakeup`].
    pub fn run(&mut self, now: Millis, out: &mut Vec<Command>) {
        // 1. What is due in the protocol happens first: it may free or need places.
        self.protocol.tick(now, &mut self.fx);
        self.settle(now, out);
        if !self.is_planning() {
            return;
        }
        self.snapshot.reservations_mut().set_now(now);
        // 2. What waited long enough, and what events may have cured, is active again.
        self.queue.advance(now);
        self.look_after_evictions(now, out);
        self.wake_cured(now);
        // 3. Gangs whose members changed, or whose moment has passed, are looked at.
        self.look_at_gangs(now, out);
        // 4. The first in the queue is planned, then the next.
        for _ in 0..self.config.attempts_per_run {
            let Some(entity) = self.queue.pop() else { break };
            match entity {
                Entity::Pod(pod) => self.try_pod(pod, now, out),
                Entity::Gang(gang) => self.try_gang(gang, now, out),
            }
        }
        self.refused.clear();
        // 5. Room in time is reserved for the first gangs that found none.
        self.look_after_reservations(now, out);
        // 6. Everything planned shares one journal write.
        self.protocol.flush(now, &mut self.fx);
        self.settle(now, out);
        self.snapshot.trim();
    }

    /// When [`Self::run`] has something to do even if no event comes; never later than that. 0: at once.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        let protocol = self.protocol.next_wakeup();
        if !self.is_planning() {
            return protocol;
        }
        if self.queue.any_active() || self.gangs.any_dirty() || !self.cures.is_empty() {
            return Some(0);
        }
        let settled = self.settling.first().map(|(at, _)| *at);
        let reserving = self.reserving.next_wakeup();
        [protocol, self.queue.next_due(), settled, self.evictions.next_wakeup(), reserving].into_iter().flatten().min()
    }
}
