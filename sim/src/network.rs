//! Requests, responses and watches, each of which may be lost, late or doubled.

use crate::api::Change;
use crate::world::{Action, Subject, World};
use flowforge_scheduler_core::command::{Command, OpId};
use flowforge_scheduler_core::event::{
    BindResult, Event, JournalReadResult, Outcome, PrepareReadResult, ReadResult, RelistedKind, WriteResult,
};
use flowforge_scheduler_core::model::Millis;
use flowforge_scheduler_core::protocol::journal::Slot;
use flowforge_scheduler_core::volumes::{StorageFact, StorageKind};
use smol_str::SmolStr;

/// A client gives up on a request after this long.
const REQUEST_TIMEOUT_MS: Millis = 2_000;

impl World {
    /// A command goes out; what nobody answers is dropped here.
    pub(crate) fn send(&mut self, process: usize, command: Command) {
        let Some(unknown) = unanswered(&command) else { return };
        let life = self.processes[process].life;
        let epoch = self.processes[process].epoch.unwrap_or(0);
        self.say(|| format!("p{process} sends {}", show(&command)));
        let timeout = self.now + REQUEST_TIMEOUT_MS;
        if self.prng.per_mille(self.faults.request_lost) {
            self.say(|| format!("   lost: {}", show(&command)));
            self.at(timeout, Action::Hear { process, life, event: Box::new(Event::Outcome(unknown)) });
            return;
        }
        let latency = self.faults.latency_ms;
        let mut arrives = self.now + self.prng.between(1, latency);
        if self.prng.per_mille(self.faults.request_late) {
            arrives = timeout + self.prng.between(1, self.faults.late_ms);
        }
        if self.prng.per_mille(self.faults.request_doubled) {
            let again = arrives + self.prng.between(1, self.faults.late_ms);
            let command = Box::new(command.clone());
            self.at(again, Action::Arrive { process, life, epoch, command, reply: false });
        }
        let reply = arrives < timeout && !self.prng.per_mille(self.faults.response_lost);
        if !reply {
            self.at(timeout, Action::Hear { process, life, event: Box::new(Event::Outcome(unknown)) });
        }
        self.at(arrives, Action::Arrive { process, life, epoch, command: Box::new(command), reply });
    }

    /// A command reaches the server.
    pub(crate) fn arrive(&mut self, process: usize, life: u64, epoch: u64, command: &Command, reply: bool) {
        let delay = self.prng.between(1, self.faults.latency_ms);
        if self.outage {
            if let Some(unknown) = unanswered(command).filter(|_| reply) {
                self.answer(process, life, delay, unknown);
            }
            return;
        }
        let Some(outcome) = self.api.execute(command, self.now) else { return };
        self.say(|| format!("   api: p{process} e{epoch} {} -> {}", show(command), result(&outcome)));
        if let Command::Bind { pod, node, .. } = command
            && let Outcome::Bind { result: BindResult::Ok, .. } = outcome
        {
            self.note_bound(&pod.name);
            if epoch < self.epoch {
                // Not by a leader in office: the node may be taken twice, which the lease's margin keeps rare.
                self.api.disputed.insert(node.clone());
            }
        }
        if reply {
            self.answer(process, life, delay, outcome);
        }
    }

    fn note_bound(&mut self, pod: &SmolStr) {
        let Some(pod) = self.api.pods.get(pod) else { return };
        if let Some(workload) = pod.gang.as_ref().and_then(|gang| self.workloads.get_mut(&gang.name)) {
            workload.was_bound(pod);
        }
    }

    /// Tells every process what changed.
    pub(crate) fn serve_watches(&mut self) {
        for change in std::mem::take(&mut self.api.changes) {
            if watch_of(&change) > 0 && self.scenario.subject == Subject::Protocol {
                // It looks at pods alone.
                continue;
            }
            for process in 0..self.processes.len() {
                if !self.processes[process].dead {
                    self.serve_watch(process, &change);
                }
            }
        }
    }

    fn serve_watch(&mut self, process: usize, change: &Change) {
        let life = self.processes[process].life;
        let delay = self.prng.between(1, self.faults.watch_delay_ms);
        if self.prng.per_mille(self.faults.watch_lost) {
            let relist = delay + self.prng.between(500, 4_000);
            self.after(relist, Action::Relist { process, life });
            return;
        }
        let event = event_of(change);
        let reordered = self.prng.per_mille(self.faults.watch_reordered);
        let served_at = &mut self.processes[process].watch_at[watch_of(change)];
        let at = if reordered { self.now + 5 * delay } else { (self.now + delay).max(*served_at) };
        if !reordered {
            *served_at = at;
        }
        if self.prng.per_mille(self.faults.watch_doubled) {
            self.at(at, Action::Hear { process, life, event: Box::new(event.clone()) });
        }
        self.at(at, Action::Hear { process, life, event: Box::new(event) });
    }

    /// A full list, as after a broken watch: everything that is, and by that what is gone.
    pub(crate) fn relist(&mut self, process: usize, life: u64) {
        if self.processes[process].life == life && !self.processes[process].dead {
            for event in self.list() {
                self.hear(process, life, event);
            }
        }
    }

    /// Everything as a consistent list.
    pub(crate) fn list(&self) -> Vec<Event> {
        let nodes = self.api.nodes.values().map(|node| Event::NodeUpsert(Box::new(node.clone())));
        let gangs = self.api.gangs.values().map(|gang| Event::GangUpsert(Box::new(gang.clone())));
        let pods = self.api.pods.values().map(|pod| Event::PodUpsert(Box::new(pod.clone())));
        let relisted = [
            RelistedKind::Nodes(self.api.nodes.keys().cloned().collect()),
            RelistedKind::Gangs(self.api.gangs.values().map(|gang| gang.uid.clone()).collect()),
            RelistedKind::Pods(self.api.pods.values().map(|pod| pod.key.uid.clone()).collect()),
        ];
        let relisted = relisted.into_iter().map(Event::Relisted);
        let storage = self.api.list_storage();
        nodes.chain(gangs).chain(storage).chain(pods).chain(relisted).chain([Event::Synced]).collect()
    }
}

/// The watch that tells of a change; each keeps its own order.
fn watch_of(change: &Change) -> usize {
    match change {
        Change::Storage(fact) if matches!(**fact, StorageFact::Claim(_)) => 1,
        Change::StorageGone(StorageKind::Claim, _) => 1,
        Change::Storage(_) | Change::StorageGone(..) => 2,
        _ => 0,
    }
}

fn event_of(change: &Change) -> Event {
    match change {
        Change::Pod(pod) => Event::PodUpsert(pod.clone()),
        Change::PodGone(key) => Event::PodDelete(key.clone()),
        Change::Node(node) => Event::NodeUpsert(node.clone()),
        Change::NodeGone(name) => Event::NodeDelete { name: name.clone() },
        Change::Gang(gang) => Event::GangUpsert(gang.clone()),
        Change::GangGone(gang) => {
            Event::GangDelete { namespace: gang.namespace.clone(), name: gang.name.clone(), uid: gang.uid.clone() }
        }
        Change::Storage(fact) => Event::StorageUpsert(fact.clone()),
        Change::StorageGone(kind, name) => {
            let namespace = if *kind == StorageKind::Claim { "sim".into() } else { SmolStr::default() };
            Event::StorageDelete { kind: *kind, namespace, name: name.clone() }
        }
    }
}

/// What a client says of a request that was not answered; None for commands without an outcome.
fn unanswered(command: &Command) -> Option<Outcome> {
    let text = || "timeout".to_owned();
    let write = |op: OpId, outcome: fn(OpId, WriteResult) -> Outcome| outcome(op, WriteResult::Unknown(text()));
    Some(match command {
        Command::WriteJournal { op, .. } => write(*op, |op, result| Outcome::Journal { op, result }),
        Command::ReadJournal { op, .. } => Outcome::JournalRead { op: *op, result: JournalReadResult::Unknown(text()) },
        Command::Bind { op, .. } => Outcome::Bind { op: *op, result: BindResult::Unknown(text()) },
        Command::ReadPod { op, .. } => Outcome::Read { op: *op, result: ReadResult::Unknown(text()) },
        Command::ReadPrepared { op, .. } => {
            Outcome::PreparedRead { op: *op, result: PrepareReadResult::Unknown(text()) }
        }
        Command::Prepare { op, .. } => write(*op, |op, result| Outcome::Prepare { op, result }),
        Command::FencePod { op, .. } => write(*op, |op, result| Outcome::Fence { op, result }),
        Command::MarkRollback { op, .. } => write(*op, |op, result| Outcome::Mark { op, result }),
        Command::DeletePod { op, .. } => write(*op, |op, result| Outcome::Delete { op, result }),
        Command::Evict { op, .. } => write(*op, |op, result| Outcome::Evict { op, result }),
        Command::Nominate { .. }
        | Command::PodCondition { .. }
        | Command::PodEvent { .. }
        | Command::GangStatus { .. }
        | Command::Observe(_) => {
            return None;
        }
    })
}

/// A command for the transcript.
fn show(command: &Command) -> String {
    match command {
        Command::WriteJournal { slot, resource_version, payload, .. } => {
            format!("write slot {slot} @{resource_version} {}", parts(payload))
        }
        Command::ReadJournal { slot, .. } => format!("read slot {slot}"),
        Command::Bind { pod, resource_version, node, intent, .. } => {
            format!("bind {} @{resource_version} to {node} by {intent}", pod.name)
        }
        Command::ReadPod { pod, .. } => format!("read {}", pod.name),
        Command::FencePod { pod, resource_version, .. } => format!("fence {} @{resource_version:?}", pod.name),
        Command::MarkRollback { pod, .. } => format!("mark {}", pod.name),
        Command::DeletePod { pod, .. } => format!("delete {}", pod.name),
        Command::Evict { pod, .. } => format!("evict {}", pod.name),
        other => format!("{other:?}"),
    }
}

/// A payload for the transcript: each intent with its members' nodes.
fn parts(payload: &str) -> String {
    let slot = Slot::decode(payload).unwrap_or_default();
    let parts = slot.parts.iter().map(|part| {
        let node =
            |index: Option<u32>| index.and_then(|index| part.nodes.get(index as usize)).map_or("-", SmolStr::as_str);
        let members = part
            .members
            .iter()
            .map(|member| format!("{}>{}{}", member.p, node(member.n), if member.e { "!" } else { "" }));
        let state = part.head.as_ref().map_or("tail", |head| if head.rollback.is_some() { "ROLLBACK" } else { "open" });
        format!("{} {state} [{}]", part.id, members.collect::<Vec<_>>().join(" "))
    });
    parts.collect::<Vec<_>>().join(", ")
}

/// An outcome for the transcript.
fn result(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Journal { result, .. }
        | Outcome::Fence { result, .. }
        | Outcome::Prepare { result, .. }
        | Outcome::Mark { result, .. }
        | Outcome::Delete { result, .. }
        | Outcome::Evict { result, .. } => format!("{result:?}"),
        Outcome::JournalRead { .. } => "found".to_owned(),
        Outcome::PreparedRead { result, .. } => format!("{result:?}"),
        Outcome::Bind { result, .. } => format!("{result:?}"),
        Outcome::Read { result: ReadResult::Found(pod), .. } => format!(
            "{} @{} on {:?}{}",
            pod.key.uid,
            pod.resource_version,
            pod.node_name,
            if pod.deleting { " deleting" } else { "" }
        ),
        Outcome::Read { result, .. } => format!("{result:?}"),
    }
}
