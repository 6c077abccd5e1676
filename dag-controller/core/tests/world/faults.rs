//! What happens to pods by itself and by misfortune: the kubelet, users, lost nodes, rollbacks, a dying controller.

use super::{GangObject, Thing, World, may_step, recorded_member, runs};
use flowforge_dag_controller_core::event::{Disruption, MainContainer, PodPhase};
use flowforge_dag_controller_core::{
    AttemptKey, Cause, Class, Command, Event, GangFacts, MemberKey, NodePhase, Observed, ObservedGang, PodFacts,
    RecordedNode, State, rebuild,
};
use std::collections::BTreeSet;
use std::sync::Arc;

/// What goes wrong, in per cent of steps or of objects.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults {
    /// Nodes of which a member exits non-zero.
    pub(crate) failing_nodes: u64,
    /// A pod is deleted, evicted, or its node lost.
    pub(crate) lost_pods: u64,
    /// A member of a gang that is not whole is rolled back.
    pub(crate) rollbacks: u64,
    /// The controller dies.
    pub(crate) crashes: u64,
    /// A create of a dead controller lands later.
    pub(crate) late_creates: bool,
    /// Events come twice.
    pub(crate) duplicates: u64,
    /// Any former event comes again.
    pub(crate) replays: u64,
    /// `spec.cancel`.
    pub(crate) cancel: u64,
    /// The workflow is deleted.
    pub(crate) delete: u64,
    /// A Gang is deleted by a user.
    pub(crate) gang_deletions: u64,
    /// A name is taken for a while.
    pub(crate) taken_names: u64,
    /// Most nodes that are open at a time.
    pub(crate) parallelism: Option<u32>,
    /// Most pods that exist at a time.
    pub(crate) quota: Option<usize>,
}

/// What a member says when it ends by itself: another incarnation says something else.
pub(super) fn said(key: MemberKey) -> String {
    format!(r#"{{"rank": {}, "incarnation": {}, "noise": "x"}}"#, key.rank, key.incarnation)
}

impl World {
    /// One step of some pod's life.
    fn live_one(&mut self) -> bool {
        let ready = |(k, f): &(&MemberKey, &PodFacts)| may_step(f) && (f.node.is_some() || self.may_bind(k));
        let keys: Vec<MemberKey> = self.pods.iter().filter(ready).map(|(k, _)| *k).collect();
        if keys.is_empty() {
            return false;
        }
        let key = keys[self.rng.below(keys.len())];
        self.now_ms += 1 + self.rng.next() % 50;
        let now_ms = self.now_ms;
        let stubborn = self.failing.contains(&key.node) && key.attempt <= 1 + key.node.0 % 3;
        let fails = stubborn && (key.rank == 0 || self.rng.chance(20));
        let sidecar = self.rng.chance(20);
        let clean_exit = self.rng.chance(30);
        let asked = self.dag.node(key.node).outputs.as_ref().is_some_and(|outputs| outputs.asks(key.rank));
        let Some(pod) = self.pods.get_mut(&key) else { return false };
        let ended = |exit_code: i32| MainContainer::Ended { exit_code, reason: "".into(), finished_at_ms: now_ms };
        match (pod.deletion_requested_at_ms.is_some(), pod.node.is_some(), &pod.main) {
            (true, _, MainContainer::Running) => {
                let exit_code = if clean_exit { 0 } else { 143 };
                pod.main = ended(exit_code);
                pod.phase = if clean_exit { PodPhase::Succeeded } else { PodPhase::Failed };
            }
            (true, _, MainContainer::Ended { exit_code, .. }) => {
                pod.phase = if *exit_code == 0 { PodPhase::Succeeded } else { PodPhase::Failed };
                pod.others_running = false;
            }
            (true, _, MainContainer::Waiting) => pod.phase = PodPhase::Failed,
            (false, false, _) => pod.node = Some("n1".into()),
            (false, true, MainContainer::Waiting) => {
                (pod.main, pod.phase) = (MainContainer::Running, PodPhase::Running);
                self.ran.insert(key);
                self.ever_ran.insert((key.node, key.rank));
                let overlaps = |k: &MemberKey| k.node == key.node && (k.rank == key.rank || k.attempt != key.attempt);
                let mates = self.pods.iter().filter(|(k, f)| overlaps(k) && runs(f)).count();
                assert!(mates == 1 || !self.faults_keep_order(), "attempts or incarnations of {key:?} overlap");
            }
            (false, true, MainContainer::Running) => {
                pod.main = ended(if fails { 1 } else { 0 });
                if asked {
                    pod.message = said(key).into();
                }
                pod.others_running = sidecar;
                if !sidecar {
                    pod.phase = if fails { PodPhase::Failed } else { PodPhase::Succeeded };
                }
            }
            (false, true, MainContainer::Ended { .. }) => {}
        }
        self.reap(key);
        self.tell_pod(key);
        true
    }

    /// Under a quota the scheduler is ours: it binds no member of a gang that does not exist as a whole.
    fn may_bind(&self, key: &MemberKey) -> bool {
        let exists = |f: &PodFacts| f.deletion_requested_at_ms.is_none();
        let ended = self.gang_of(key.node).into_iter().flat_map(|g| g.results.keys());
        let mates: BTreeSet<u32> = self
            .pods
            .iter()
            .filter(|(k, f)| k.node == key.node && exists(f))
            .map(|(k, _)| k)
            .chain(ended)
            .map(|k| k.rank)
            .collect();
        self.faults.quota.is_none() || mates.len() >= self.dag.node(key.node).replicas as usize
    }

    fn fault(&mut self) {
        let faults = self.faults.clone();
        if self.rng.chance(faults.lost_pods) {
            self.lose_a_pod();
        }
        if self.rng.chance(faults.rollbacks) {
            self.roll_a_pod_back();
        }
        if self.rng.chance(faults.gang_deletions) {
            self.delete_a_gang();
        }
        if self.rng.chance(faults.replays) && !self.history.is_empty() {
            let event = self.history[self.rng.below(self.history.len())].clone();
            self.apply(event);
        }
        if self.rng.chance(faults.cancel) && !self.cancel {
            self.cancel = true;
            self.tell(Thing::Workflow, Event::Cancel);
        }
        if self.rng.chance(faults.delete) && !self.delete {
            self.delete = true;
            self.tell(Thing::Workflow, Event::Delete);
        }
        if self.rng.chance(faults.crashes) {
            self.crash();
        }
    }

    fn lose_a_pod(&mut self) {
        let keys: Vec<MemberKey> = self.pods.keys().copied().collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.rng.below(keys.len())];
        self.now_ms += 1;
        let (now_ms, how) = (self.now_ms, self.rng.below(4));
        let Some(pod) = self.pods.get_mut(&key) else { return };
        match how {
            0 => _ = pod.deletion_requested_at_ms.get_or_insert(now_ms),
            1 => {
                pod.disruption.get_or_insert(Disruption::NodeLost);
                pod.deletion_requested_at_ms.get_or_insert(now_ms);
            }
            2 if pod.node.is_some() && pod.phase != PodPhase::Succeeded && pod.phase != PodPhase::Failed => {
                (pod.phase, pod.reason) = (PodPhase::Failed, "Evicted".into());
                if pod.main == MainContainer::Running {
                    pod.main = MainContainer::Ended { exit_code: 137, reason: "".into(), finished_at_ms: now_ms };
                }
            }
            3 if pod.node.is_some() => {
                // The pod garbage collector, after the Node object went.
                pod.node_gone = true;
                if !matches!(pod.phase, PodPhase::Succeeded | PodPhase::Failed) {
                    pod.phase = PodPhase::Failed;
                }
                pod.disruption.get_or_insert(Disruption::NodeLost);
                pod.deletion_requested_at_ms.get_or_insert(now_ms);
            }
            _ => {}
        }
        self.reap(key);
        self.tell_pod(key);
    }

    fn roll_a_pod_back(&mut self) {
        let whole = |w: &Self, key: &MemberKey| {
            let replicas = w.dag.node(key.node).replicas as usize;
            w.pods.iter().filter(|(k, f)| k.node == key.node && f.node.is_some()).count() >= replicas
        };
        let keys: Vec<MemberKey> = self
            .pods
            .iter()
            .filter(|(k, f)| f.node.is_some() && !whole(self, k) && !matches!(f.main, MainContainer::Ended { .. }))
            .map(|(k, _)| *k)
            .collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.rng.below(keys.len())];
        let now_ms = self.now_ms;
        if let Some(pod) = self.pods.get_mut(&key)
            && pod.deletion_requested_at_ms.is_none()
        {
            pod.disruption = Some(Disruption::GangRollback);
            pod.deletion_requested_at_ms = Some(now_ms);
            self.tell_pod(key);
        }
    }

    /// A user deletes a Gang that the written status knows of; its pods are collected with it.
    fn delete_a_gang(&mut self) {
        let known = |w: &Self, key: &AttemptKey| w.written.nodes.get(key.node.at()).is_some_and(|n| n.gang.is_some());
        let keys: Vec<AttemptKey> = self.gangs.keys().filter(|k| known(self, k)).copied().collect();
        if keys.is_empty() {
            return;
        }
        let key = keys[self.rng.below(keys.len())];
        let ended = self.gangs.remove(&key).and_then(|g| g.ended);
        // Of an ended gang the written status must tell, or one may take it for lost.
        if let Some(end) = ended
            && self.written.nodes.get(key.node.at()).is_none_or(|n| !n.phase.is_over())
        {
            self.gangs.insert(key, GangObject { ended: Some(end), ..GangObject::default() });
            return;
        }
        self.lost_gangs.insert(key);
        self.tell_gang(key);
        let now_ms = self.now_ms;
        let pods: Vec<MemberKey> = self.pods.keys().filter(|k| k.attempt_key() == key).copied().collect();
        for pod in pods {
            if let Some(facts) = self.pods.get_mut(&pod) {
                facts.deletion_requested_at_ms.get_or_insert(now_ms);
            }
            self.reap(pod);
            self.tell_pod(pod);
        }
    }

    /// The controller dies: what it had sent may land, may not, or may land late; what it had heard is lost.
    pub(crate) fn crash(&mut self) {
        self.crashes += 1;
        for command in std::mem::take(&mut self.todo) {
            match self.rng.below(3) {
                0 => self.execute(command),
                1 if self.faults.late_creates && matches!(command, Command::CreateGang(..) | Command::CreatePod(_)) => {
                    self.late.push(command);
                }
                _ => {}
            }
        }
        self.inbox.clear();
        self.history.clear();
        self.todo.clear();
        self.wake_at_ms = None;
        if self.rng.chance(30) {
            let stopped = |n: &RecordedNode| n.cause.as_ref().is_some_and(|c| c.reason.class() != Class::Skipped);
            let told = self.written.nodes.iter().position(|n| n.phase == NodePhase::Skipped && stopped(n));
            let packed = self.written.nodes.iter_mut().enumerate().filter(|(at, _)| Some(*at) != told);
            packed.for_each(|(_, node)| pack(node));
        }
        let mut out = Vec::new();
        self.state = self.rebuilt(&mut out);
        if self.trace {
            println!("{} crash -> {out:?}", self.now_ms);
        }
        self.take(out);
    }

    /// A state from what a list finds now.
    pub(crate) fn rebuilt(&self, out: &mut Vec<Command>) -> State {
        let gangs = self.gangs.iter().map(|(key, g)| ObservedGang {
            key: *key,
            facts: GangFacts { ended: g.ended.clone(), deleting: g.deleting, plan: g.plan.clone() },
            service: g.service,
            phase: g.phase,
            scheduled_at_ms: g.scheduled_at_ms,
            started_at_ms: g.started_at_ms,
            results: g.results.iter().map(|(key, end)| recorded_member(*key, end)).collect(),
        });
        let observed = Observed {
            gangs: gangs.collect(),
            pods: self.pods.iter().map(|(k, f)| (*k, f.clone())).collect(),
            hold: None,
            decisions: self.decisions.clone().into_iter().collect(),
            terminate: false,
            suspend: false,
            cancel: self.cancel,
            delete: self.delete,
        };
        rebuild(Arc::clone(&self.dag), self.config.clone(), observed, &self.written, self.now_ms, out)
    }

    fn ring(&mut self) {
        if self.wake_at_ms.is_some_and(|at_ms| at_ms <= self.now_ms) {
            self.wake_at_ms = None;
            self.apply(Event::Timer);
        }
    }

    /// `steps` steps of everything, faults included.
    pub(crate) fn run(&mut self, steps: usize) {
        for _ in 0..steps {
            self.now_ms += self.rng.next() % 20;
            match self.rng.below(10) {
                0..=3 => _ = self.deliver_one(),
                4..=6 => _ = self.execute_one(),
                7 if self.rng.chance(20) => _ = self.decide_one(),
                7..=8 => _ = self.live_one(),
                _ if self.rng.chance(30) => self.now_ms += self.rng.next() % 20_000,
                _ => {
                    if !self.late.is_empty() && self.rng.chance(20) {
                        let late = self.late.remove(0);
                        self.execute(late);
                    }
                }
            }
            self.ring();
            self.fault();
        }
    }

    /// Everything that is under way arrives; nothing new happens to pods.
    pub(crate) fn drain(&mut self) {
        let mut steps = 0;
        while self.deliver_one() || self.execute_one() {
            self.ring();
            steps += 1;
            assert!(steps < 1_000_000, "it never comes to rest");
        }
    }

    /// The faults stop: all must end. Counts the steps.
    pub(crate) fn heal(&mut self) -> usize {
        self.faults = Faults { quota: self.faults.quota, parallelism: self.faults.parallelism, ..Faults::default() };
        for late in std::mem::take(&mut self.late) {
            self.execute(late);
        }
        for step in 0..2_000_000 {
            self.ring();
            let moved = match self.rng.below(3) {
                0 => self.deliver_one() || self.execute_one() || self.live_one(),
                1 => self.execute_one() || self.live_one() || self.deliver_one(),
                _ => self.live_one() || self.deliver_one() || self.execute_one(),
            };
            if !moved && !self.decide_one() {
                match self.wake_at_ms {
                    Some(at_ms) => self.now_ms = self.now_ms.max(at_ms),
                    None => return step,
                }
            }
        }
        unreachable!("heals_when_faults_stop: still busy after two million steps");
    }
}

/// What the status of a workflow that is too large for every node keeps of most: the phase; of failures all.
fn pack(node: &mut RecordedNode) {
    // The sets say which nodes were skipped by their own conditions.
    let by_condition = node.cause.as_ref().map(|c| c.reason).filter(|r| r.class() == Class::Skipped);
    let unclaimed = node.phase == NodePhase::Scheduling && node.gang.is_none();
    if node.cause.as_ref().is_some_and(|c| node.phase == NodePhase::Failed && c.reason.class() != Class::Stopped) {
        return;
    }
    let phase = if unclaimed { NodePhase::Pending } else { node.phase };
    let claimed = !matches!(phase, NodePhase::Pending | NodePhase::Skipped);
    *node = RecordedNode {
        node: node.node,
        phase,
        attempt: u32::from(claimed),
        gang: node.gang.filter(|_| claimed),
        cause: by_condition.map(Cause::of),
        tally: (0, 0),
        released_at_ms: None,
        scheduled_at_ms: None,
        started_at_ms: None,
        finished_at_ms: None,
    };
}
