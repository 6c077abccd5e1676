//! The engine from events to commands, against a script that answers every command as a server without faults would.

mod devices;
mod extended;
mod making_room;
mod preempting;
mod properties;
mod rehearsing;
mod related;
mod reserving;
mod retries;
mod storage;
mod stories;
mod topology;

use super::*;
use crate::command::{AttemptResult, EventKind, Observation};
use crate::event::{BindResult, JournalReadResult, JournalSlotRead, Outcome, ReadResult, RelistedKind, WriteResult};
use crate::fixture::{PodChain, declared_member, dgx, gang, member, node, pod};
use crate::model::{GangInfo, NodeInfo, PodInfo, PodPhase};
use crate::volumes::{ClaimInfo, PodVolume, StorageFact, VolumeInfo};
use devices::Claims;
use storage::Storage;

/// An engine and what the server holds.
struct Scene {
    engine: Engine,
    now: Millis,
    pods: BTreeMap<SmolStr, PodInfo>,
    journal: (u64, String),
    /// Why journal writes are refused, where they are.
    journal_refusal: Option<String>,
    observations: Vec<Observation>,
    /// Commands that are not to be answered yet.
    hold_binds: bool,
    held: Vec<Command>,
    conditions: BTreeMap<SmolStr, (SmolStr, String)>,
    condition_writes: usize,
    gang_status: BTreeMap<SmolStr, GangSchedulingStatus>,
    events: Vec<(SmolStr, EventKind, String)>,
    binds: usize,
    /// Names of the pods that were evicted, in order.
    evicted: Vec<SmolStr>,
    /// Whether the server answers evictions with an error.
    evictions_fail: bool,
    nominated: BTreeMap<SmolStr, Option<SmolStr>>,
    storage: Storage,
    claims: Claims,
}

impl Scene {
    fn new() -> Self {
        let mut scene = Self::follower();
        scene.lead(1);
        scene
    }

    fn follower() -> Self {
        let config = Config { device_resources: vec!["nvidia.com/gpu".into()], ..Config::default() };
        let mut scene = Self {
            engine: Engine::new(config),
            now: 1_000,
            pods: BTreeMap::new(),
            journal: (1, String::new()),
            journal_refusal: None,
            observations: Vec::new(),
            hold_binds: false,
            held: Vec::new(),
            conditions: BTreeMap::new(),
            condition_writes: 0,
            gang_status: BTreeMap::new(),
            events: Vec::new(),
            binds: 0,
            evicted: Vec::new(),
            evictions_fail: false,
            nominated: BTreeMap::new(),
            storage: Storage::default(),
            claims: Claims::default(),
        };
        scene.see(Event::Synced);
        scene
    }

    fn lead(&mut self, epoch: u64) {
        let slot = JournalSlotRead {
            slot: 0,
            resource_version: self.journal.0.to_string().into(),
            payload: self.journal.1.clone(),
        };
        self.see(Event::Lead { epoch, slots: vec![slot] });
        self.run();
    }

    fn see(&mut self, event: Event) {
        let mut out = Vec::new();
        self.engine.apply(event, self.now, &mut out);
        self.answer(out);
    }

    fn nodes(&mut self, nodes: impl IntoIterator<Item = NodeInfo>) {
        nodes.into_iter().for_each(|n| self.see(Event::NodeUpsert(Box::new(n))));
    }

    fn create(&mut self, pod: PodInfo) {
        self.pods.insert(pod.key.uid.clone(), pod.clone());
        self.see(Event::PodUpsert(Box::new(pod)));
    }

    fn delete(&mut self, name: &str) {
        let uid = SmolStr::from(format!("uid-{name}"));
        let pod = self.pods.remove(&uid).unwrap();
        self.see(Event::PodDelete(pod.key));
    }

    fn end(&mut self, name: &str) {
        let uid = SmolStr::from(format!("uid-{name}"));
        let pod = self.pods.remove(&uid).unwrap().phase(PodPhase::Succeeded);
        self.see(Event::PodUpsert(Box::new(pod)));
    }

    fn gang(&mut self, name: &str, size: u32, gpus: i64) {
        (0..size).for_each(|r| self.create(member(name, r, size).asks("nvidia.com/gpu", gpus)));
    }

    /// Runs until the engine has nothing to do at this moment.
    fn run(&mut self) {
        for _ in 0..100 {
            let mut out = Vec::new();
            self.engine.run(self.now, &mut out);
            let quiet = out.is_empty() && self.engine.next_wakeup().is_none_or(|at| at > self.now);
            self.answer(out);
            if quiet {
                return;
            }
        }
        panic!("the engine does not come to rest");
    }

    fn pass(&mut self, ms: Millis) {
        self.now += ms;
        self.run();
    }

    fn release_held(&mut self) {
        self.hold_binds = false;
        let held = std::mem::take(&mut self.held);
        self.answer(held);
        self.run();
    }

    fn answer(&mut self, commands: Vec<Command>) {
        for command in commands {
            self.answer_one(command);
        }
    }

    fn answer_one(&mut self, command: Command) {
        match command {
            Command::WriteJournal { op, .. } if self.journal_refusal.is_some() => {
                let result = WriteResult::Refused(self.journal_refusal.clone().unwrap_or_default());
                self.see(Event::Outcome(Outcome::Journal { op, result }));
            }
            Command::WriteJournal { op, payload, resource_version, .. } => {
                assert_eq!(resource_version, self.journal.0.to_string());
                self.journal = (self.journal.0 + 1, payload);
                let result = WriteResult::Ok(self.journal.0.to_string().into());
                self.see(Event::Outcome(Outcome::Journal { op, result }));
            }
            Command::ReadJournal { op, .. } => {
                let (rv, payload) = self.journal.clone();
                let result = JournalReadResult::Found { resource_version: rv.to_string().into(), payload };
                self.see(Event::Outcome(Outcome::JournalRead { op, result }));
            }
            bind @ Command::Bind { .. } if self.hold_binds => self.held.push(bind),
            Command::Bind { op, pod, node, intent, .. } => self.bind(op, &pod.uid, node, intent),
            Command::ReadPod { op, pod } => {
                let result =
                    self.pods.get(&pod.uid).map_or(ReadResult::NotFound, |p| ReadResult::Found(Box::new(p.clone())));
                self.see(Event::Outcome(Outcome::Read { op, result }));
            }
            Command::ReadPrepared { op, object } => self.read_prepared(op, &object),
            Command::Prepare { op, write } => self.prepare(op, write),
            Command::FencePod { op, pod, .. } => {
                let result = match self.pods.get_mut(&pod.uid) {
                    Some(p) if p.node_name.is_some() => WriteResult::Conflict,
                    Some(p) => {
                        p.resource_version = format!("{}f", p.resource_version).into();
                        WriteResult::Ok(p.resource_version.clone())
                    }
                    None => WriteResult::NotFound,
                };
                self.see(Event::Outcome(Outcome::Fence { op, result }));
            }
            Command::MarkRollback { op, .. } => {
                self.see(Event::Outcome(Outcome::Mark { op, result: WriteResult::Ok("".into()) }));
            }
            Command::DeletePod { op, pod } => {
                self.see(Event::Outcome(Outcome::Delete { op, result: WriteResult::Ok("".into()) }));
                if let Some(gone) = self.pods.remove(&pod.uid) {
                    self.see(Event::PodDelete(gone.key));
                }
            }
            Command::Evict { op, pod, message } => self.evict(op, &pod.uid, &message),
            Command::Nominate { pod, node } => {
                self.nominated.insert(pod.name, node);
            }
            Command::PodCondition { pod, reason, message } => {
                self.condition_writes += 1;
                self.conditions.insert(pod.name.clone(), (reason.clone(), message.clone()));
                if let Some(p) = self.pods.get_mut(&pod.uid) {
                    p.scheduled_condition = Some((reason, message));
                    p.resource_version = format!("{}c", p.resource_version).into();
                    let p = p.clone();
                    self.see(Event::PodUpsert(Box::new(p)));
                }
            }
            Command::PodEvent { pod, kind, note } => self.events.push((pod.name, kind, note)),
            Command::GangStatus { name, status, .. } => {
                self.gang_status.insert(name, status);
            }
            Command::Observe(observation) => self.observations.push(observation),
        }
    }

    fn bind(&mut self, op: crate::command::OpId, uid: &SmolStr, node: SmolStr, intent: SmolStr) {
        let Some(pod) = self.pods.get_mut(uid) else {
            return self.see(Event::Outcome(Outcome::Bind { op, result: BindResult::NotFound }));
        };
        assert_eq!(pod.node_name, None, "no_double_bind");
        pod.node_name = Some(node);
        pod.intent = Some(intent);
        self.binds += 1;
        let pod = pod.clone();
        self.see(Event::Outcome(Outcome::Bind { op, result: BindResult::Ok }));
        self.see(Event::PodUpsert(Box::new(pod)));
    }

    /// The pod begins to end; [`Self::delete`] ends it.
    fn evict(&mut self, op: crate::command::OpId, uid: &SmolStr, message: &str) {
        assert_eq!(message, "flowforge: preempting to accommodate a higher priority pod");
        if self.evictions_fail {
            let result = WriteResult::Unknown("connection reset".to_owned());
            return self.see(Event::Outcome(Outcome::Evict { op, result }));
        }
        let Some(pod) = self.pods.get_mut(uid) else {
            return self.see(Event::Outcome(Outcome::Evict { op, result: WriteResult::NotFound }));
        };
        assert!(!pod.deleting, "{} is evicted twice", pod.key.name);
        (pod.deleting, pod.preempted) = (true, true);
        self.evicted.push(pod.key.name.clone());
        let pod = pod.clone();
        self.see(Event::Outcome(Outcome::Evict { op, result: WriteResult::Ok("".into()) }));
        self.see(Event::PodUpsert(Box::new(pod)));
    }

    fn node_of(&self, name: &str) -> Option<&str> {
        self.pods.get(&SmolStr::from(format!("uid-{name}")))?.node_name.as_deref()
    }

    fn bound_of(&self, gang: &str) -> usize {
        let of = |p: &&PodInfo| p.gang.as_ref().is_some_and(|g| g.name == gang) && p.node_name.is_some();
        self.pods.values().filter(of).count()
    }

    fn message(&self, name: &str) -> (&str, &str) {
        self.conditions.get(name).map(|(r, m)| (r.as_str(), m.as_str())).unwrap_or_default()
    }
}
