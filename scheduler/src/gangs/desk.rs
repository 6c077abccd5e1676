//! The objects by which others declare gangs: which are ours to place, what the core knows of them, what is written on them.
//!
//! ```text
//!   object, pods, what stands beside ──> taken up? ──> GangUpsert / GangDelete
//!   told by the core, object changed ──> due ──> answer(object) ──differs──> one write, and not another for a moment
//! ```
//! An object is taken up when one of its pods asks for this scheduler, its owner does, or it is annotated
//! `flowforge.dev/adopt: "true"`; it then stays known to the core until it is gone. It is written to only as long as one of
//! these holds. A write that another writer overtook is simply lost: the news of the other write make the next one.

use crate::convert::Ours;
use crate::convert::gangs::beside::{BesideFact, Surroundings};
use crate::convert::gangs::members::{Key, Members};
use crate::convert::gangs::{Declaration, Standing};
use crate::dispatch::Outbox;
use flowforge_api::names::annotation;
use flowforge_scheduler_core::command::GangSchedulingStatus;
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::Event;
use flowforge_scheduler_core::model::{GangInfo, PodInfo};
use jiff::Timestamp;
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Pause between two writes to one object, so that two writers who disagree do not chase each other.
const PAUSE: Duration = Duration::from_millis(500);

/// News of an object of others.
#[derive(Debug)]
pub(crate) enum GroupFact {
    /// Added or changed.
    Seen(Box<dyn Declaration>),
    /// Gone.
    Gone(Key),
    /// All that a list of one kind found.
    Listed {
        /// The kind.
        kind: &'static str,
        /// Namespaces and names of their gangs.
        names: BTreeSet<Key>,
    },
    /// Something beside them.
    Beside(BesideFact),
}

#[derive(Debug)]
struct Entry {
    object: Box<dyn Declaration>,
    /// As the core knows it; None: it is not taken up.
    gang: Option<GangInfo>,
    told: Option<GangSchedulingStatus>,
    /// Not written before.
    not_before: Option<Instant>,
}

/// All of them.
#[derive(Debug)]
pub(crate) struct Desk {
    around: Surroundings,
    objects: BTreeMap<Key, Entry>,
    members: Members,
    /// Whose status may not be as it should be.
    due: BTreeSet<Key>,
}

impl Desk {
    /// A desk without objects.
    pub(crate) fn new(ours: Ours) -> Self {
        Self {
            around: Surroundings::new(ours),
            objects: BTreeMap::new(),
            members: Members::default(),
            due: BTreeSet::new(),
        }
    }

    /// Takes news of objects in; answers what the core has to know.
    pub(crate) fn take(&mut self, fact: GroupFact) -> Vec<Event> {
        match fact {
            GroupFact::Seen(object) => self.see(object),
            GroupFact::Gone(key) => self.drop_object(&key).into_iter().collect(),
            GroupFact::Listed { kind, names } => {
                let of_kind = |key: &Key| key.1.strip_prefix(kind).is_some_and(|rest| rest.starts_with('/'));
                let absent = self.objects.keys().filter(|key| of_kind(key) && !names.contains(key));
                let absent: Vec<Key> = absent.cloned().collect();
                absent.iter().filter_map(|key| self.drop_object(key)).collect()
            }
            GroupFact::Beside(fact) => {
                if !self.around.take(fact) {
                    return Vec::new();
                }
                let all: Vec<Key> = self.objects.keys().cloned().collect();
                all.iter().filter_map(|key| self.refresh(key)).collect()
            }
        }
    }

    fn see(&mut self, object: Box<dyn Declaration>) -> Vec<Event> {
        let key = (object.meta().namespace.clone(), object.name());
        let mut events = Vec::new();
        if self.objects.get(&key).is_some_and(|entry| entry.object.meta().uid != object.meta().uid) {
            events.extend(self.drop_object(&key));
        }
        match self.objects.get_mut(&key) {
            Some(entry) => entry.object = object,
            None => {
                self.objects.insert(key.clone(), Entry { object, gang: None, told: None, not_before: None });
            }
        }
        events.extend(self.refresh(&key));
        events
    }

    fn drop_object(&mut self, key: &Key) -> Option<Event> {
        self.due.remove(key);
        let gang = self.objects.remove(key)?.gang?;
        Some(Event::GangDelete { namespace: gang.namespace, name: gang.name, uid: gang.uid })
    }

    /// A pod was seen; answers what the core has to know before it: pods say nothing of an object that it knows already.
    pub(crate) fn see_pod(&mut self, pod: &PodInfo) -> Vec<Event> {
        let mut events = Vec::new();
        for key in self.members.see(pod) {
            match self.objects.get(&key) {
                Some(entry) if entry.gang.is_none() => events.extend(self.refresh(&key)),
                Some(_) => {
                    self.due.insert(key);
                }
                None => {}
            }
        }
        events
    }

    /// A pod is gone.
    pub(crate) fn forget_pod(&mut self, uid: &SmolStr) {
        self.due.extend(self.members.forget(uid));
    }

    /// Only these pods are left.
    pub(crate) fn retain_pods(&mut self, listed: &BTreeSet<&SmolStr>) {
        self.due.extend(self.members.retain(listed));
    }

    /// UIDs of the objects that the core knows.
    pub(crate) fn known(&self) -> impl Iterator<Item = &SmolStr> {
        self.objects.values().filter_map(|entry| entry.gang.as_ref()).map(|gang| &gang.uid)
    }

    /// What the core says of a gang.
    pub(crate) fn tell(&mut self, namespace: SmolStr, name: SmolStr, uid: &SmolStr, status: GangSchedulingStatus) {
        let key = (namespace, name);
        let Some(entry) = self.objects.get_mut(&key).filter(|entry| entry.object.meta().uid == *uid) else { return };
        entry.told = Some(status);
        self.due.insert(key);
    }

    fn is_taken_up(&self, key: &Key, object: &dyn Declaration) -> bool {
        let asked = object.meta().annotations.get(annotation::ADOPT).map(|adopt| adopt.trim());
        asked == Some("true") || self.members.any(key) || object.has_our_owner(&self.around)
    }

    /// Looks at an object again; answers what the core has to know.
    fn refresh(&mut self, key: &Key) -> Option<Event> {
        let object = &self.objects.get(key)?.object;
        if !self.is_taken_up(key, object.as_ref()) {
            return None;
        }
        let gang = object.gang(&self.around);
        self.due.insert(key.clone());
        let entry = self.objects.get_mut(key)?;
        if entry.gang.as_ref() == Some(&gang) {
            return None;
        }
        entry.gang = Some(gang.clone());
        Some(Event::GangUpsert(Box::new(gang)))
    }

    /// Hands on the statuses that are not as they should be.
    pub(crate) fn answer(&mut self, engine: &Engine, outbox: &Outbox) {
        if self.due.is_empty() || !engine.is_planning() {
            return;
        }
        let (now, at) = (Instant::now(), Timestamp::now());
        let capacity = |resource: &str| engine.snapshot().cluster().total(resource);
        for key in std::mem::take(&mut self.due) {
            let Some(entry) = self.objects.get(&key) else { continue };
            if entry.not_before.is_some_and(|pause| now < pause) {
                self.due.insert(key);
                continue;
            }
            if !self.is_taken_up(&key, entry.object.as_ref()) {
                continue;
            }
            let Some(gang) = &entry.gang else { continue };
            let told = entry.told.as_ref();
            let standing = Standing { told, pods: self.members.tally(&key), gang, capacity: &capacity, now: at };
            let Some(write) = entry.object.answer(&standing) else { continue };
            let room = outbox.write_group(write);
            if let Some(entry) = self.objects.get_mut(&key) {
                entry.not_before = Some(now + PAUSE);
            }
            if !room {
                self.due.insert(key);
            }
        }
    }
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
