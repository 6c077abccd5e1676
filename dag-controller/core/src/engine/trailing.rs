//! Pods that are no gang's current member any more but are not gone: older incarnations, and late ones of ended gangs.
//! They delay the end of the workflow while they may still run.

use crate::command::Command;
use crate::event::PodFacts;
use crate::ids::{AttemptKey, MemberKey};
use std::collections::BTreeMap;

use super::member::is_stopped;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Trail {
    /// It may still run.
    Stopping,
    /// It is stopped; RemoveFinalizer was commanded.
    Releasing,
    /// It was given up.
    Abandoned,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Trailing {
    pods: BTreeMap<MemberKey, Trail>,
    stopping: usize,
}

impl Trailing {
    /// Pods that may still run.
    pub(crate) const fn stopping(&self) -> usize {
        self.stopping
    }

    /// Whether a pod of an attempt before this one may still run. An older incarnation of a member of this one does not count:
    /// its successor waits for nothing, in the first attempt as in any other.
    pub(crate) fn is_stopping_before(&self, AttemptKey { node, attempt }: AttemptKey) -> bool {
        let first = |attempt| MemberKey { node, attempt, rank: 0, incarnation: 0 };
        let mut before = self.pods.range(first(0)..first(attempt));
        self.stopping > 0 && before.any(|(_, trail)| *trail == Trail::Stopping)
    }

    /// Asks again for the deletion of all that may still run.
    pub(crate) fn hasten(&self, out: &mut Vec<Command>) {
        let stopping = self.pods.iter().filter(|(_, trail)| **trail == Trail::Stopping);
        out.extend(stopping.map(|(key, _)| Command::DeletePod(*key)));
    }

    /// A pod that may run on where nobody can stop it: nothing waits for it any more.
    pub(crate) fn abandon(&mut self, key: MemberKey) {
        self.put(key, Some(Trail::Abandoned));
    }

    /// A stopped pod whose result needs no recording, or is recorded: its finalizer may go.
    pub(crate) fn release(&mut self, key: MemberKey, out: &mut Vec<Command>) {
        if self.put(key, Some(Trail::Releasing)) != Some(Trail::Releasing) {
            out.push(Command::RemoveFinalizer(key));
        }
    }

    /// A pod that may still run, and must not. Its deletion is asked for also when it is under way already: where the
    /// pod is long gone, and the facts were stale, the answer says so.
    pub(crate) fn stop(&mut self, key: MemberKey, out: &mut Vec<Command>) {
        if self.put(key, Some(Trail::Stopping)) != Some(Trail::Stopping) {
            out.push(Command::DeletePod(key));
        }
    }

    /// Facts about a pod that is no current member.
    pub(crate) fn observe(&mut self, key: MemberKey, facts: &PodFacts, out: &mut Vec<Command>) {
        match (is_stopped(facts), facts.finalizer) {
            (true, true) => self.release(key, out),
            (true, false) => self.forget(key),
            (false, _) if self.pods.get(&key) == Some(&Trail::Abandoned) => {}
            (false, _) => self.stop(key, out),
        }
    }

    /// The pod is gone, or free of our finalizer.
    pub(crate) fn forget(&mut self, key: MemberKey) {
        self.put(key, None);
    }

    fn put(&mut self, key: MemberKey, trail: Option<Trail>) -> Option<Trail> {
        let old = match trail {
            Some(trail) => self.pods.insert(key, trail),
            None => self.pods.remove(&key),
        };
        self.stopping -= usize::from(old == Some(Trail::Stopping));
        self.stopping += usize::from(trail == Some(Trail::Stopping));
        old
    }
}
