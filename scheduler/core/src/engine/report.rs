//! What is told to people: conditions, events, gang statuses, observations. Nothing unchanged is written again.

use super::Engine;
use crate::command::{AttemptResult, Command, EventKind, GangSchedulingStatus, Observation};
use crate::explain::Refusal;
use crate::gang::{Assessment, GangId};
use crate::snapshot::PodId;
use flowforge_topology_core::DomainId;
use smol_str::SmolStr;

/// Members of a refused gang that get an event each; the condition is on all of them.
const EVENTS_PER_GANG: usize = 8;

/// What was to be told and could not be taken on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unsaid {
    /// The condition of a pod.
    Condition {
        /// UID of the pod.
        uid: SmolStr,
    },
    /// The status of a gang.
    GangStatus {
        /// Namespace of the gang.
        namespace: SmolStr,
        /// Name of the gang.
        name: SmolStr,
    },
}

impl Engine {
    /// A report was dropped: when there is something to say about its pod or gang again, it is said even if it is the same.
    pub fn unsaid(&mut self, report: &Unsaid) {
        match report {
            Unsaid::Condition { uid } => {
                let pod = self.snapshot.cluster().find_pod(uid);
                if let Some(info) = pod.and_then(|id| self.snapshot.info_mut(id)) {
                    info.scheduled_condition = None;
                }
            }
            Unsaid::GangStatus { namespace, name } => {
                let gang = self.gangs.find(namespace, name);
                if let Some(note) = gang.and_then(|id| self.notes.get_mut(&id)) {
                    note.status = None;
                }
            }
        }
    }

    /// Sets the condition of refused pods, with an event where it changed.
    pub(super) fn report(&mut self, pods: &[PodId], refusal: &Refusal, out: &mut Vec<Command>) {
        let (reason, message) = (SmolStr::new_static(refusal.condition_reason()), refusal.message());
        let mut events = 0;
        for &id in pods {
            let Some(info) = self.snapshot.info_mut(id) else { continue };
            if info.scheduled_condition.as_ref().is_some_and(|(r, m)| *r == reason && *m == message) {
                continue;
            }
            info.scheduled_condition = Some((reason.clone(), message.clone()));
            let pod = info.key.clone();
            out.push(Command::PodCondition { pod: pod.clone(), reason: reason.clone(), message: message.clone() });
            if events < EVENTS_PER_GANG {
                out.push(Command::PodEvent { pod, kind: EventKind::FailedScheduling, note: message.clone() });
                events += 1;
            }
        }
    }

    /// Sets the status of a declared gang that is refused or waits.
    pub(super) fn report_gang(&mut self, id: GangId, seen: &Assessment, refusal: &Refusal, out: &mut Vec<Command>) {
        let live = seen.missing.total == 0 && seen.missing.roles.is_empty() && !seen.bound.is_empty();
        if live {
            return;
        }
        let status = GangSchedulingStatus {
            scheduled: false,
            reason: SmolStr::new_static(refusal.condition_reason()),
            message: refusal.message(),
            bound: u32::try_from(seen.bound.len()).unwrap_or(u32::MAX),
            domain: None,
            nodes: Vec::new(),
        };
        self.write_gang_status(id, status, out);
    }

    /// Sets the status of a declared gang whose members are bound.
    pub(super) fn report_live(&mut self, id: GangId, now: crate::model::Millis, out: &mut Vec<Command>) {
        let Some(seen) = self.assessment(id, now) else { return };
        let mut bound = seen.bound;
        bound.sort_by_key(|pod| {
            self.snapshot.cluster().info(*pod).map(|p| (p.gang.as_ref().and_then(|g| g.rank), p.key.name.clone()))
        });
        let nodes = self.nodes_of(&bound);
        let tree = self.snapshot.cluster().tree();
        let domain = nodes.iter().filter_map(|n| tree.leaf(n.dense())).reduce(|a, b| tree.common(a, b));
        let status = GangSchedulingStatus {
            scheduled: true,
            reason: SmolStr::new_static("Scheduled"),
            message: format!("{} members are bound", nodes.len()),
            bound: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
            domain: domain.filter(|d| *d != DomainId::ROOT).map(|d| tree.describe(d)),
            nodes: nodes.iter().map(|n| self.snapshot.cluster().node_name(*n)).collect(),
        };
        self.write_gang_status(id, status, out);
    }

    pub(super) fn write_gang_status(&mut self, id: GangId, status: GangSchedulingStatus, out: &mut Vec<Command>) {
        let Some(declared) = self.gangs.get(id).and_then(|g| g.declared.as_ref()) else { return };
        let (namespace, name, uid) = (declared.namespace.clone(), declared.name.clone(), declared.uid.clone());
        let note = self.note(id);
        if note.status.as_ref() != Some(&status) {
            note.status = Some(status.clone());
            out.push(Command::GangStatus { namespace, name, uid, status });
        }
    }

    pub(super) fn observe_attempt(&self, pod: PodId, result: AttemptResult, out: &mut Vec<Command>) {
        let profile = self.snapshot.cluster().info(pod).map(|p| p.scheduler_name.clone()).unwrap_or_default();
        out.push(Command::Observe(Observation::Attempt { profile, result }));
    }
}
