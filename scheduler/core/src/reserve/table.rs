//! What the reservations hold back of each node, and for whom.
//!
//! Of a reserved node is held what the gang needs there and nobody who leaves by then gives back. It is kept up to date per node:
//! a look costs `O(reserved nodes)`, and `O(pods on it)` for each that changed since. Where nothing is reserved, one branch.

use super::{Reservation, RunTime};
use crate::explain::Reason;
use crate::gang::GangId;
use crate::model::Millis;
use crate::plugins::node_resources_fit;
use crate::shape::{ShapeSpec, verdict};
use crate::snapshot::{Cluster, NodeId, PODS_LANE, PodId, Snapshot};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Amounts of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts {
    /// Places for pods.
    pub(crate) pods: i64,
    /// By resource; nothing of what is not named.
    pub(crate) requests: BTreeMap<SmolStr, i64>,
}

impl Amounts {
    fn add(&mut self, pods: i64, requests: impl IntoIterator<Item = (SmolStr, i64)>) {
        self.pods = self.pods.saturating_add(pods);
        for (name, amount) in requests {
            let sum = self.requests.entry(name).or_default();
            *sum = sum.saturating_add(amount);
        }
    }

    /// What is left of it when this much comes; nothing is less than none.
    fn less(&self, other: &Self) -> Self {
        let left = |(name, amount): (&SmolStr, &i64)| {
            let left = amount.saturating_sub(other.requests.get(name).copied().unwrap_or(0));
            (left > 0).then(|| (name.clone(), left))
        };
        Self {
            pods: self.pods.saturating_sub(other.pods).max(0),
            requests: self.requests.iter().filter_map(left).collect(),
        }
    }

    fn is_nothing(&self) -> bool {
        self.pods == 0 && self.requests.is_empty()
    }
}

/// A reserved node.
#[derive(Clone, Debug)]
struct Room {
    needs: Amounts,
    held: Amounts,
    /// The node's generation when `held` was computed.
    seen: Option<u64>,
}

#[derive(Clone, Debug)]
struct Reserved {
    what: Reservation,
    rooms: BTreeMap<NodeId, Room>,
}

/// All reservations, the most important first.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reservations {
    list: Vec<Reserved>,
    now: Millis,
    version: u64,
    /// A transaction counts what is held as used already.
    applied: bool,
}

impl Reservations {
    /// The moment that everything is compared with.
    pub(crate) fn set_now(&mut self, now: Millis) {
        self.now = now;
    }

    pub(crate) fn now(&self) -> Millis {
        self.now
    }

    /// Changes with every reservation.
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether there are any, and no transaction counts them as used.
    pub(crate) fn in_force(&self) -> bool {
        !self.list.is_empty() && !self.applied
    }

    pub(crate) fn set_applied(&mut self, applied: bool) {
        self.applied = applied;
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Reservation> {
        self.list.iter().map(|reserved| &reserved.what)
    }

    pub(crate) fn of(&self, gang: GangId) -> Option<&Reservation> {
        self.iter().find(|reservation| reservation.gang == gang)
    }

    /// Takes all of them out; they are to be put back, or others, and [`Self::touch`] says whether anything is new.
    pub(crate) fn take(&mut self) -> Vec<Reservation> {
        self.list.drain(..).map(|reserved| reserved.what).collect()
    }

    pub(crate) fn touch(&mut self) {
        self.version += 1;
    }

    /// A gang needs none any more. Returns whether it had one.
    pub(crate) fn remove(&mut self, gang: GangId) -> bool {
        let before = self.list.len();
        self.list.retain(|reserved| reserved.what.gang != gang);
        let removed = self.list.len() < before;
        self.version += u64::from(removed);
        removed
    }
}

impl Cluster {
    /// Adds a reservation, less important than those that are there. `O(members)`.
    pub(crate) fn reserve(&mut self, what: Reservation) {
        let mut rooms: BTreeMap<NodeId, Room> = BTreeMap::new();
        for (pod, node) in &what.places {
            let Some(footprint) = self.footprint_of(*pod) else { continue };
            let room =
                rooms.entry(*node).or_insert(Room { needs: Amounts::default(), held: Amounts::default(), seen: None });
            room.needs.add(1, footprint.requests.iter().cloned());
        }
        self.reservations.list.push(Reserved { what, rooms });
    }

    /// Brings up to date what is held of reserved nodes.
    pub(crate) fn refresh_held(&mut self) {
        let mut list = std::mem::take(&mut self.reservations.list);
        for Reserved { what, rooms } in &mut list {
            for (node, room) in rooms {
                let Some(record) = self.node(*node) else {
                    room.held = Amounts::default();
                    continue;
                };
                if room.seen != Some(record.generation) {
                    room.seen = Some(record.generation);
                    room.held = room.needs.less(&self.given_back(*node, what.until_ms));
                }
            }
        }
        self.reservations.list = list;
    }

    /// What those give back who leave a node by then.
    fn given_back(&self, node: NodeId, until: Millis) -> Amounts {
        let now = self.reservations.now;
        let mut sum = Amounts::default();
        for pod in self.node(node).into_iter().flat_map(|node| node.pods()) {
            let leaves = self.expected_end(*pod, now).is_some_and(|end| end <= until);
            if let Some(footprint) = self.footprint_of(*pod).filter(|_| leaves) {
                sum.add(1, footprint.requests.iter().cloned());
            }
        }
        sum
    }

    /// The reservations that pods which are placed together have to respect; `ends`: when they are gone, as they declare.
    fn respected(&self, members: &[PodId], ends: Option<Millis>) -> impl Iterator<Item = &Reserved> {
        let priority = members.iter().filter_map(|pod| self.pod(*pod)).map(|pod| pod.standing.priority).min();
        let info = members.first().and_then(|pod| self.info(*pod));
        let list = &self.reservations.list;
        // Of those who have one, the more important goes first.
        let own = list.iter().position(|reserved| info.is_some_and(|pod| reserved.what.is_of(pod)));
        list.iter().take(own.unwrap_or(list.len())).filter(move |reserved| {
            priority.is_none_or(|priority| priority <= reserved.what.priority)
                && ends.is_none_or(|ends| ends > reserved.what.until_ms)
        })
    }

    /// What is held back of each node from pods that are placed together; the whole need of those who wait where `whole`, as
    /// if nobody left.
    pub(crate) fn held_from(&self, members: &[PodId], ends: Option<Millis>, whole: bool) -> Vec<(NodeId, Amounts)> {
        let mut held: BTreeMap<NodeId, Amounts> = BTreeMap::new();
        for (node, room) in self.respected(members, ends).flat_map(|reserved| &reserved.rooms) {
            let amounts = if whole { &room.needs } else { &room.held };
            if !amounts.is_nothing() && self.node(*node).is_some() {
                held.entry(*node).or_default().add(amounts.pods, amounts.requests.clone());
            }
        }
        held.into_iter().collect()
    }

    /// Counts amounts of a node as used, or no longer.
    pub(crate) fn hold(&mut self, node: NodeId, amounts: &Amounts, sign: i128) {
        for (name, amount) in &amounts.requests {
            if let Some(lane) = self.lanes.find(name) {
                self.lanes.add_used(lane, node.index(), sign * i128::from(*amount));
            }
        }
        self.lanes.add_used(PODS_LANE, node.index(), sign * i128::from(amounts.pods));
        self.touch(node);
    }

    /// Whether a pod fits on a node now, but not beside what is held there.
    fn is_held(&self, node: NodeId, spec: &ShapeSpec, held: &Amounts) -> bool {
        if !spec.runs(crate::profile::Filter::NodeResourcesFit) {
            return false;
        }
        let fits = |held: Option<&Amounts>| {
            let of = |name: &SmolStr| held.and_then(|held| held.requests.get(name)).copied().unwrap_or(0);
            let requests = spec.footprint.requests.iter().enumerate().filter(|(at, _)| !spec.ignores(*at));
            let wants = requests.map(|(_, (name, wanted))| {
                (*wanted, self.free(node, name).map_or(0, |free| free.saturating_sub(of(name))))
            });
            let places = self.free_pods(node.index()).saturating_sub(held.map_or(0, |held| held.pods));
            node_resources_fit::short(places, wants) == 0
        };
        !fits(Some(held)) && fits(None) && verdict(node, spec, self).is_feasible()
    }
}

impl Snapshot {
    /// The reservations.
    pub(crate) fn reservations(&self) -> &Reservations {
        &self.cluster.reservations
    }

    /// The reservations, to change them.
    pub(crate) fn reservations_mut(&mut self) -> &mut Reservations {
        &mut self.cluster.reservations
    }

    /// When pods that begin now are gone, as all of them declare; None where one does not.
    pub(crate) fn end_if_begun(&self, members: &[PodId]) -> Option<Millis> {
        let run = |pod: &PodId| self.shape(self.cluster.pod(*pod)?.shape?)?.spec.run_time.ms();
        let longest = members.iter().map(run).try_fold(0, |longest: Millis, run| Some(longest.max(run?)))?;
        Some(self.cluster.reservations.now.saturating_add(longest))
    }

    /// Adds the nodes that a pod on its own is kept off by reservations, and why.
    pub(crate) fn keep_off(&mut self, pod: PodId, found: &mut BTreeMap<u32, Vec<Reason>>) {
        if !self.cluster.reservations.in_force() {
            return;
        }
        self.cluster.refresh_held();
        let Some(shape) = self.cluster.pod(pod).and_then(|p| p.shape) else { return };
        let Some(spec) = self.shape(shape).map(|s| s.spec.clone()) else { return };
        let ends = self.end_if_begun(&[pod]);
        for (node, held) in self.cluster.held_from(&[pod], ends, false) {
            if self.cluster.is_held(node, &spec, &held)
                && let Some(reason) = self.cluster.keeper(&[pod], ends, node, spec.run_time)
            {
                found.entry(node.dense()).or_insert_with(|| vec![reason]);
            }
        }
    }

    /// For whom room is kept that a refused gang could not have; None where there is none.
    pub(crate) fn kept_from_gang(&mut self, members: &[PodId]) -> Option<String> {
        if !self.cluster.reservations.in_force() {
            return None;
        }
        self.cluster.refresh_held();
        let ends = self.end_if_begun(members);
        let mut respected = self.cluster.respected(members, ends);
        respected.find_map(|reserved| {
            let held = reserved.rooms.values().filter(|room| !room.held.is_nothing()).count();
            (held > 0).then(|| reserved.what.note(held))
        })
    }

    /// How many of these places are on nodes that are reserved for somebody else whom they must not delay: backfill.
    pub(crate) fn backfilled(&self, places: &[(PodId, NodeId)]) -> usize {
        if self.cluster.reservations.is_empty() {
            return 0;
        }
        let members: Vec<PodId> = places.iter().map(|(pod, _)| *pod).collect();
        let reserved: Vec<&Reserved> = self.cluster.respected(&members, None).collect();
        places.iter().filter(|(_, node)| reserved.iter().any(|r| r.rooms.contains_key(node))).count()
    }
}

impl Cluster {
    /// The most important one that holds something of a node.
    fn keeper(&self, members: &[PodId], ends: Option<Millis>, node: NodeId, run_time: RunTime) -> Option<Reason> {
        let holds = |reserved: &&Reserved| reserved.rooms.get(&node).is_some_and(|room| !room.held.is_nothing());
        self.respected(members, ends).find(holds).map(|reserved| reserved.what.reason(run_time))
    }
}
