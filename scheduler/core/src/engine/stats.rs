//! The gauges, and the list of what waits.

use super::Engine;
use crate::queue::{Entity, Entry, IncomingCounts, Place};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// What an operator wants to see of the engine at a glance; every field is a gauge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Pods ready to be tried.
    pub active: usize,
    /// Pods waiting for their backoff.
    pub backoff: usize,
    /// Pods that fit nowhere.
    pub unschedulable: usize,
    /// Pods with scheduling gates.
    pub gated: usize,
    /// Members of gangs that are not complete, or that their gang has no place for.
    pub incomplete: usize,
    /// Pods whose binding is under way.
    pub pending: usize,
    /// Unschedulable pods by the plugin that refused them (a plugin that refused some nodes counts) and their profile.
    pub unschedulable_by_plugin: BTreeMap<(&'static str, SmolStr), usize>,
    /// Open intents of the protocol.
    pub open_intents: usize,
    /// Intents whose claims and volumes are being prepared.
    pub preparing: usize,
    /// Gangs that are partly live and can neither be completed nor rolled back.
    pub gangs_held_partial: usize,
    /// Gangs that room in time is reserved for.
    pub reservations: usize,
    /// Since when the gang waits that waits longest of those, in milliseconds of the engine's clock.
    pub head_waits_since_ms: Option<u64>,
    /// Nodes, placeholders not counted.
    pub nodes: usize,
    /// Pods, terminal ones not counted.
    pub pods: usize,
    /// Pods assumed on a node and not confirmed yet.
    pub assumed: usize,
    /// Gangs that are declared or have members.
    pub gangs: usize,
    /// Node classes.
    pub classes: usize,
    /// Pod shapes with a cache.
    pub shapes: usize,
    /// Bytes of the shape caches.
    pub shape_bytes: usize,
}

/// Why an entity waits, for `explain` and `/debug/state`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name of the pod or gang.
    pub name: SmolStr,
    /// Whether it is a gang.
    pub gang: bool,
    /// Where it waits: `active`, `backoff`, `unschedulable`, `incomplete` or `binding`.
    pub queue: &'static str,
    /// Message of the last refusal.
    pub message: String,
    /// What can cure that.
    pub cures: Vec<&'static str>,
}

impl Engine {
    /// The gauges. `O(shapes + open intents)`.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let counts = self.queue.counts();
        let protocol = self.protocol.stats();
        let cluster = self.snapshot.cluster();
        let (shapes, shape_bytes) = self.snapshot.cache_size();
        Stats {
            active: counts.active,
            backoff: counts.backoff,
            unschedulable: counts.parked,
            gated: self.snapshot.gated(),
            incomplete: self.outside,
            pending: counts.in_flight,
            unschedulable_by_plugin: self.unschedulable_by_plugin(),
            open_intents: protocol.open_intents,
            preparing: protocol.preparing,
            gangs_held_partial: protocol.held_partial,
            reservations: self.reservations().count(),
            head_waits_since_ms: self.reservations().map(|reservation| reservation.since_ms).min(),
            nodes: cluster.node_count(),
            pods: cluster.pod_count() - cluster.ended_count(),
            assumed: cluster.assumed_count(),
            gangs: self.gangs.len(),
            classes: cluster.class_count(),
            shapes,
            shape_bytes,
        }
    }

    fn unschedulable_by_plugin(&self) -> BTreeMap<(&'static str, SmolStr), usize> {
        let names: Vec<&SmolStr> = self.config.profiles.iter().map(|profile| &profile.name).collect();
        let named = |profile: usize| names.get(profile).map(|name| (*name).clone()).unwrap_or_default();
        self.queue.by_plugin().iter().map(|((plugin, profile), pods)| ((*plugin, named(*profile)), *pods)).collect()
    }

    /// What entered which queue since this was last asked, by (queue, event).
    pub fn take_incoming(&mut self) -> IncomingCounts {
        self.queue.take_incoming()
    }

    /// Everything that waits, at most `limit` entries: the queue, then gangs that are in none.
    #[must_use]
    pub fn waiting(&self, limit: usize) -> Vec<Waiting> {
        let queued = self.queue.iter().filter_map(|(entity, entry)| self.waiting_entry(entity, entry));
        let outside = self.gangs.iter().filter(|(id, _)| self.queue.get(Entity::Gang(*id)).is_none());
        let incomplete = outside.filter_map(|(id, gang)| {
            let refusal = self.notes.get(&id)?.waiting.as_ref()?;
            Some(Waiting {
                namespace: gang.namespace.clone(),
                name: gang.name.clone(),
                gang: true,
                queue: "incomplete",
                message: refusal.message(),
                cures: refusal.cures().words(),
            })
        });
        queued.chain(incomplete).take(limit).collect()
    }

    fn waiting_entry(&self, entity: Entity, entry: &Entry) -> Option<Waiting> {
        let (namespace, name) = match entity {
            Entity::Pod(id) => {
                let key = &self.snapshot.cluster().pod(id)?.key;
                (key.namespace.clone(), key.name.clone())
            }
            Entity::Gang(id) => {
                let gang = self.gangs.get(id)?;
                (gang.namespace.clone(), gang.name.clone())
            }
        };
        Some(Waiting {
            namespace,
            name,
            gang: matches!(entity, Entity::Gang(_)),
            queue: match entry.place {
                Place::Active => "active",
                Place::Backoff(_) => "backoff",
                Place::Parked(_) => "unschedulable",
                Place::InFlight => "binding",
            },
            message: entry.refusal.as_ref().map(|r| r.message()).unwrap_or_default(),
            cures: entry.refusal.as_ref().map(|r| r.cures().words()).unwrap_or_default(),
        })
    }
}
