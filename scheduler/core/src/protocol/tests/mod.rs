//! One file per function of the protocol: what is told to it, and what it answers.
//!
//! [`Scene`] keeps a transcript: one line per call (`>`), command and effect (indented). Commands are answered by the words
//! they are shown with, so a test reads as the conversation between the engine, the protocol and the API server.

mod bind;
mod follow;
mod group_commit;
mod hold;
mod lead;
mod lose_node;
mod prepare;
mod replace;
mod roll_back;
mod single;
mod special;
mod split;
mod take_back;

use super::journal::Slot;
use super::*;
use crate::command::Command;
use crate::event::{JournalReadResult, ReadResult, WriteResult};
use crate::model::{GangMembership, Owner, PodPhase};
use crate::preparation::{ObjectFacts, Preparation, PrepareWrite, PreparedObject};
use expect_test::Expect;

/// A pod of gang `ns/g`, owned by its Gang object.
fn pod(name: &str) -> PodInfo {
    let gang = GangMembership {
        name: "g".into(),
        uid: Some("gang-uid".into()),
        size: None,
        role: "worker".into(),
        rank: name.rsplit('-').next().and_then(|rank| rank.parse().ok()),
        topology_required: None,
        topology_preferred: Vec::new(),
    };
    let owner = Owner {
        api_version: "flowforge.dev/v1alpha1".into(),
        kind: "Gang".into(),
        name: "g".into(),
        uid: "gang-uid".into(),
    };
    PodInfo { gang: Some(gang), owner: Some(owner), ..lone_pod(name) }
}

/// The same, owned by a Job.
fn job_pod(name: &str) -> PodInfo {
    let owner = Owner { api_version: "batch/v1".into(), kind: "Job".into(), name: "j".into(), uid: "job-uid".into() };
    PodInfo { owner: Some(owner), ..pod(name) }
}

/// A pod without gang and owner.
fn lone_pod(name: &str) -> PodInfo {
    PodInfo {
        key: PodKey { namespace: "ns".into(), name: name.into(), uid: format!("{name}-uid").into() },
        resource_version: "10".into(),
        ours: true,
        ..PodInfo::default()
    }
}

fn on(node: &str, pod: PodInfo) -> PodInfo {
    PodInfo { node_name: Some(node.into()), ..pod }
}

fn version(resource_version: &str, pod: PodInfo) -> PodInfo {
    PodInfo { resource_version: resource_version.into(), ..pod }
}

fn gang() -> GangKey {
    GangKey::Gang { namespace: "ns".into(), name: "g".into(), uid: Some("gang-uid".into()) }
}

/// A gang of two, `g-0` on n0 and `g-1` on n1.
fn pair() -> Plan {
    plan_of(&[(pod("g-0"), "n0"), (pod("g-1"), "n1")])
}

fn plan_of(members: &[(PodInfo, &str)]) -> Plan {
    Plan {
        gang: GangKey::of(&members[0].0),
        quorum: Quorum::all(u32::try_from(members.len()).unwrap()),
        members: members.iter().map(|(pod, node)| Placement::new(pod, *node)).collect(),
        ready_at_ms: 0,
        planned_at_ms: 0,
    }
}

fn place(pod: &PodKey, node: &str, preparations: Vec<Preparation>) -> NewPlace {
    NewPlace { pod: pod.clone(), node: node.into(), preparations, patience: Patience::default() }
}

/// A pair under another gang's name.
fn plan_named(name: &str) -> Plan {
    let mut plan = pair();
    plan.gang = GangKey::Gang { namespace: "ns".into(), name: name.into(), uid: None };
    for (rank, member) in plan.members.iter_mut().enumerate() {
        member.pod = PodKey {
            namespace: "ns".into(),
            name: format!("{name}-{rank}").into(),
            uid: format!("{name}-{rank}-uid").into(),
        };
    }
    plan
}

fn fresh_slots(count: u32) -> Vec<JournalSlotRead> {
    (0..count).map(|slot| slot_read(slot, "1", "")).collect()
}

fn slot_read(slot: u32, resource_version: &str, payload: &str) -> JournalSlotRead {
    JournalSlotRead { slot, resource_version: resource_version.into(), payload: payload.into() }
}

/// A protocol and the transcript of all that was said.
struct Scene {
    protocol: Protocol,
    now: Millis,
    transcript: String,
    /// Commands without an answer, by the words that they are shown with.
    open: Vec<(String, OpId)>,
    /// Last payload written per slot.
    payloads: BTreeMap<u32, String>,
    writes: u32,
}

impl Scene {
    /// A follower.
    fn new() -> Self {
        Self::with(ProtocolConfig::default())
    }

    fn with(config: ProtocolConfig) -> Self {
        Self {
            protocol: Protocol::new(config),
            now: 1_000,
            transcript: String::new(),
            open: Vec::new(),
            payloads: BTreeMap::new(),
            writes: 1,
        }
    }

    /// Leads with epoch 1 and one fenced slot; the transcript starts after that.
    fn leading() -> Self {
        let mut scene = Self::new();
        scene.lead(1, fresh_slots(1));
        scene.journal_ok(0);
        scene.transcript.clear();
        scene
    }

    /// A gang of two whose intent is in the journal: both Bindings are out.
    fn binding() -> Self {
        let mut scene = Self::leading();
        scene.begin(pair());
        scene.journal_ok(0);
        scene.transcript.clear();
        scene
    }

    fn call(&mut self, title: &str, call: impl FnOnce(&mut Protocol, Millis, &mut Effects)) {
        let mut fx = Effects::default();
        call(&mut self.protocol, self.now, &mut fx);
        self.transcript.push_str(&format!("> {title}\n"));
        for effect in &fx.effects {
            self.transcript.push_str(&format!("  {}\n", show_effect(effect)));
        }
        for command in &fx.commands {
            let words = show_command(command);
            self.transcript.push_str(&format!("  {words}\n"));
            if let Command::WriteJournal { slot, payload, .. } = command {
                self.payloads.insert(*slot, payload.clone());
            }
            if let Some(op) = op_of(command) {
                self.open.push((words, op));
            }
        }
        check_tallies(&self.protocol);
    }

    fn lead(&mut self, epoch: u64, slots: Vec<JournalSlotRead>) {
        self.call(&format!("lead {epoch}"), |protocol, now, fx| protocol.lead(epoch, slots, now, fx));
    }

    /// The lists show these pods of the recovered gang.
    fn recovered(&mut self, listed: &[PodInfo]) {
        let pods: Vec<&PodInfo> = listed.iter().collect();
        self.call("recovered", |protocol, now, fx| protocol.recovered(&gang(), &pods, now, fx));
    }

    fn begin(&mut self, plan: Plan) {
        let title = format!("begin {}", plan.gang);
        self.call(&title, |protocol, now, fx| {
            protocol.begin(plan, now, fx).unwrap();
            protocol.flush(now, fx);
        });
    }

    fn pod(&mut self, title: &str, pod: &PodInfo) {
        self.call(title, |protocol, now, fx| protocol.on_pod(pod, now, fx));
    }

    fn pod_gone(&mut self, pod: &PodInfo) {
        self.call(&format!("{} is gone", pod.key.name), |protocol, now, fx| protocol.on_pod_gone(&pod.key, now, fx));
    }

    fn node_gone(&mut self, node: &str) {
        self.call(&format!("node {node} is gone"), |protocol, now, fx| protocol.on_node_gone(node, now, fx));
    }

    fn placed(&mut self, places: &[(&str, &str)]) {
        let places = places.iter().map(|(name, node)| place(&pod(name).key, node, Vec::new())).collect();
        self.call("placed", |protocol, now, fx| protocol.replanned(&gang(), Replanned::Placed(places), now, fx));
    }

    fn no_place(&mut self, why: &str) {
        let answer = Replanned::Refused(why.to_owned());
        self.call("no place", |protocol, now, fx| protocol.replanned(&gang(), answer, now, fx));
    }

    fn wait(&mut self, ms: Millis) {
        self.now += ms;
        self.call(&format!("{ms} ms later"), |protocol, now, fx| protocol.tick(now, fx));
    }

    /// The latest unanswered command that is shown with these words at its start.
    fn take(&mut self, words: &str) -> OpId {
        let index = self.open.iter().rposition(|(shown, _)| shown.starts_with(words));
        let index = index.unwrap_or_else(|| panic!("no open command {words:?} in {:#?}", self.open));
        self.open.remove(index).1
    }

    fn outcome(&mut self, title: &str, outcome: Outcome) {
        self.call(title, |protocol, now, fx| protocol.on_outcome(outcome, now, fx));
    }

    fn journal_ok(&mut self, slot: u32) {
        self.writes += 1;
        let result = WriteResult::Ok(self.writes.to_string().into());
        self.journal(slot, "ok", result);
    }

    fn journal(&mut self, slot: u32, title: &str, result: WriteResult) {
        let op = self.take(&format!("write slot {slot}"));
        self.outcome(&format!("slot {slot}: {title}"), Outcome::Journal { op, result });
    }

    fn journal_read(&mut self, slot: u32, resource_version: &str, payload: &str) {
        let op = self.take(&format!("read slot {slot}"));
        let result =
            JournalReadResult::Found { resource_version: resource_version.into(), payload: payload.to_owned() };
        self.outcome(&format!("slot {slot} is read"), Outcome::JournalRead { op, result });
    }

    fn bind(&mut self, name: &str, title: &str, result: BindResult) {
        let op = self.take(&format!("bind {name} "));
        self.outcome(&format!("bind {name}: {title}"), Outcome::Bind { op, result });
    }

    fn bind_ok(&mut self, name: &str) {
        self.bind(name, "ok", BindResult::Ok);
    }

    fn bind_unknown(&mut self, name: &str) {
        self.bind(name, "unknown", BindResult::Unknown("timeout".to_owned()));
    }

    fn bind_conflict(&mut self, name: &str) {
        self.bind(name, "conflict", BindResult::Conflict("409".to_owned()));
    }

    fn read(&mut self, name: &str, title: &str, result: ReadResult) {
        let op = self.take(&format!("read {name}"));
        self.outcome(&format!("read {name}: {title}"), Outcome::Read { op, result });
    }

    fn found(&mut self, title: &str, pod: PodInfo) {
        let name = pod.key.name.clone();
        self.read(&name, title, ReadResult::Found(Box::new(pod)));
    }

    fn fence(&mut self, name: &str, title: &str, result: WriteResult) {
        let op = self.take(&format!("fence {name} "));
        self.outcome(&format!("fence {name}: {title}"), Outcome::Fence { op, result });
    }

    fn fence_ok(&mut self, name: &str, resource_version: &str) {
        self.fence(name, "ok", WriteResult::Ok(resource_version.into()));
    }

    fn mark(&mut self, name: &str, title: &str, result: WriteResult) {
        let op = self.take(&format!("mark {name}"));
        self.outcome(&format!("mark {name}: {title}"), Outcome::Mark { op, result });
    }

    fn mark_ok(&mut self, name: &str) {
        self.mark(name, "ok", WriteResult::Ok("90".into()));
    }

    fn delete(&mut self, name: &str, title: &str, result: WriteResult) {
        let op = self.take(&format!("delete {name}"));
        self.outcome(&format!("delete {name}: {title}"), Outcome::Delete { op, result });
    }

    fn delete_ok(&mut self, name: &str) {
        self.delete(name, "ok", WriteResult::Ok("91".into()));
    }

    /// Compares what was said since the last check.
    fn check(&mut self, expected: &Expect) {
        expected.assert_eq(&self.transcript);
        self.transcript.clear();
    }

    /// What a new leader finds in the slots.
    fn journal_found(&self) -> Vec<JournalSlotRead> {
        self.payloads.iter().map(|(slot, payload)| slot_read(*slot, "77", payload)).collect()
    }
}

/// The tally of every intent is that of its members.
fn check_tallies(protocol: &Protocol) {
    for intent in protocol.intents.values() {
        assert_eq!(intent.tally, intent.counted(), "{}", intent.gang);
    }
}

fn op_of(command: &Command) -> Option<OpId> {
    match command {
        Command::WriteJournal { op, .. }
        | Command::ReadJournal { op, .. }
        | Command::Bind { op, .. }
        | Command::ReadPod { op, .. }
        | Command::FencePod { op, .. }
        | Command::MarkRollback { op, .. }
        | Command::ReadPrepared { op, .. }
        | Command::Prepare { op, .. }
        | Command::DeletePod { op, .. } => Some(*op),
        _ => None,
    }
}

fn show_command(command: &Command) -> String {
    match command {
        Command::WriteJournal { slot, resource_version, payload, .. } => {
            format!("write slot {slot} @{resource_version}: {}", show_payload(payload))
        }
        Command::ReadJournal { slot, .. } => format!("read slot {slot}"),
        Command::Bind { pod, resource_version, node, intent, .. } => {
            format!("bind {} @{resource_version} to {node} ({intent})", pod.name)
        }
        Command::ReadPod { pod, .. } => format!("read {}", pod.name),
        Command::ReadPrepared { object, .. } => format!("read {}", show_object(object)),
        Command::Prepare { write, .. } => show_prepare(write),
        Command::FencePod { pod, resource_version, .. } => {
            format!("fence {} @{}", pod.name, resource_version.as_deref().unwrap_or("any"))
        }
        Command::MarkRollback { pod, message, .. } => format!("mark {}: {message}", pod.name),
        Command::DeletePod { pod, .. } => format!("delete {}", pod.name),
        Command::PodEvent { pod, kind, note } => format!("event {} {kind:?}: {note}", pod.name),
        Command::Observe(observation) => format!("observe {observation:?}"),
        other => format!("{other:?}"),
    }
}

fn show_object(object: &PreparedObject) -> String {
    match object {
        PreparedObject::Volume { name } => format!("volume {name}"),
        PreparedObject::VolumeClaim { name, .. } => format!("pvc {name}"),
        PreparedObject::ResourceClaim { name, .. } => format!("claim {name}"),
        PreparedObject::Pod { name, .. } => format!("status of {name}"),
    }
}

fn show_prepare(write: &PrepareWrite) -> String {
    match write {
        PrepareWrite::ClaimVolume { volume, resource_version, claim, .. } => {
            format!("give volume {volume} @{resource_version} to {}", claim.name)
        }
        PrepareWrite::SelectNode { claim, resource_version, node } => {
            format!("select {} for pvc {} @{resource_version}", node.as_deref().unwrap_or("no node"), claim.name)
        }
        PrepareWrite::FinalizeClaim { claim, resource_version } => {
            format!("finalize claim {} @{resource_version}", claim.name)
        }
        PrepareWrite::ReserveClaim { claim, resource_version, allocation, pod } => {
            let what = if allocation.is_some() { "allocate and reserve" } else { "reserve" };
            format!("{what} claim {} @{resource_version} for {}", claim.name, pod.name)
        }
        PrepareWrite::UnreserveClaim { claim, resource_version, pod, deallocate } => {
            let what = if *deallocate { "deallocate" } else { "unreserve" };
            format!("{what} claim {} @{resource_version} for {}", claim.name, pod.name)
        }
        PrepareWrite::CreateClaim { claim, .. } => format!("create claim {}", claim.name),
        PrepareWrite::NameClaim { pod, claim, .. } => format!("name claim {claim} in {}", pod.name),
        PrepareWrite::ReleaseClaim { claim, resource_version } => {
            format!("release claim {} @{resource_version}", claim.name)
        }
        PrepareWrite::DeleteClaim { claim, resource_version } => {
            format!("delete claim {} ({}) @{resource_version}", claim.name, claim.uid)
        }
        PrepareWrite::FenceClaim { object, resource_version, .. } => {
            format!("fence {} @{resource_version}", show_object(object))
        }
    }
}

/// A payload as `epoch/write: intent.part gang [member@node ...]`.
fn show_payload(payload: &str) -> String {
    let slot = Slot::decode(payload).unwrap();
    let mut text = format!("{}/{}", slot.epoch, slot.write);
    for part in &slot.parts {
        text.push_str(&format!(" {}.{}", part.id, part.part));
        match part.head.as_ref().map(|head| &head.rollback) {
            Some(None) => text.push_str(" open"),
            Some(Some(_)) => text.push_str(" ROLLING-BACK"),
            None => text.push_str(" tail"),
        }
        let members = part.members.iter().map(|member| {
            let node = member.n.map_or("-", |index| part.nodes[index as usize].as_str());
            let evict = if member.e { "!" } else { "" };
            let prepared: String = member.c.iter().map(|task| format!("+{}:{}{}", task.k, task.c, task.v)).collect();
            format!("{}@{node}{evict}{prepared}", if member.u.is_empty() { "?" } else { member.p.as_str() })
        });
        text.push_str(&format!(" [{}]", members.collect::<Vec<_>>().join(" ")));
    }
    text
}

fn show_effect(effect: &Effect) -> String {
    match effect {
        Effect::Ready => "READY".to_owned(),
        Effect::Fenced { by_epoch } => format!("FENCED by {by_epoch}"),
        Effect::Recovered { gang, members } => {
            let members = members.iter().map(|(pod, node)| format!("{}@{}", pod.name, node.as_deref().unwrap_or("-")));
            format!("RECOVERED {gang} [{}]", members.collect::<Vec<_>>().join(" "))
        }
        Effect::Confirm { pod, node } => format!("CONFIRM {} on {node}", pod.name),
        Effect::Prepared { pod, node } => format!("PREPARED {} on {node}", pod.name),
        Effect::Release { pod } => format!("RELEASE {}", pod.name),
        Effect::ForeignBound { pod, node, .. } => format!("FOREIGN {} on {node}", pod.name),
        Effect::Replan { members, .. } => {
            let members = members.iter().map(|member| {
                let takes = member.takes_slot_of.as_ref().map(|old| format!(" for {}", old.uid)).unwrap_or_default();
                format!("{} (was {}){takes}", member.pod.name, member.prior.as_deref().unwrap_or("-"))
            });
            format!("REPLAN {}", members.collect::<Vec<_>>().join(", "))
        }
        Effect::MemberLost { pod, role, rank, .. } => {
            format!(
                "LOST {} {role} {}",
                if pod.uid.is_empty() { "?" } else { &pod.name },
                rank.map_or("-".into(), |rank| rank.to_string())
            )
        }
        Effect::HeldPartial { bound, missing, message, .. } => {
            format!("HELD {bound} bound {missing} missing: {message}")
        }
        Effect::WriteRefused { gang, message } => {
            format!("REFUSED {}: {message}", gang.as_ref().map_or("journal".to_owned(), ToString::to_string))
        }
        Effect::JournalUnreadable { slot, .. } => format!("UNREADABLE slot {slot}"),
        Effect::Closed { outcome, timings, .. } => {
            let ending = match outcome {
                Ending::Bound { left_out } if left_out.is_empty() => "bound".to_owned(),
                Ending::Bound { left_out } => {
                    format!(
                        "bound without {}",
                        left_out.iter().map(|pod| pod.name.as_str()).collect::<Vec<_>>().join(" ")
                    )
                }
                Ending::Undone { cause } => format!("undone: {cause:?}"),
            };
            format!("CLOSED {ending}{}", if timings.repaired { ", repaired" } else { "" })
        }
    }
}

fn lost(pod: PodInfo) -> PodInfo {
    PodInfo { phase: PodPhase::Failed, ..pod }
}
