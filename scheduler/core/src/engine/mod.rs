//! The engine: facts in, decisions out. It owns the snapshot, the queue, the gangs and the binding protocol.
//!
//! ```text
//!   Event ──apply──> snapshot, gangs, queue ──run──> plans ──> protocol ──> Vec<Command>
//!                          ^                                      |
//!                          +──── assume, confirm, forget, replan ─+
//! ```
//! One thread calls it. `apply` is cheap and decides nothing but the protocol's next step; `run` plans what is ready.

use crate::command::Command;
use crate::config::Config;
use crate::event::Event;
use crate::model::Millis;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// The scheduler without IO.
#[derive(Debug)]
pub struct Engine {
    config: Config,
}

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
    /// Members of gangs that are not complete.
    pub incomplete: usize,
    /// Pods whose binding is under way.
    pub pending: usize,
    /// Unschedulable pods by the plugin that refused them (a plugin that refused some nodes counts).
    pub unschedulable_by_plugin: BTreeMap<&'static str, usize>,
    /// Open intents of the protocol.
    pub open_intents: usize,
    /// Gangs that are partly live and can neither be completed nor rolled back.
    pub gangs_held_partial: usize,
    /// Nodes, placeholders not counted.
    pub nodes: usize,
    /// Pods, terminal ones not counted.
    pub pods: usize,
    /// Pods assumed on a node and not confirmed yet.
    pub assumed: usize,
    /// Gangs with at least one member.
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
    /// Reason and message of the last refusal.
    pub message: String,
}

impl Engine {
    /// An empty engine; it plans nothing until [`Event::Lead`] and [`Event::Synced`] came.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// Takes in one fact; commands of the binding protocol that follow from it are appended to `out`.
    pub fn apply(&mut self, event: Event, now: Millis, out: &mut Vec<Command>) {
        let _ = (event, now, out, &self.config);
    }

    /// Plans what is ready and appends the commands; call it after a batch of events and at [`Self::next_wakeup`].
    pub fn run(&mut self, now: Millis, out: &mut Vec<Command>) {
        let _ = (now, out);
    }

    /// When [`Self::run`] has something to do even if no event comes; never later than that.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        None
    }

    /// The gauges. `O(plugins)`.
    #[must_use]
    pub fn stats(&self) -> Stats {
        Stats::default()
    }

    /// Everything that waits, at most `limit` entries, in queue order, for people.
    #[must_use]
    pub fn waiting(&self, limit: usize) -> Vec<Waiting> {
        let _ = limit;
        Vec::new()
    }
}
