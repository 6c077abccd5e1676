//! A small world for the engine: objects, a kubelet, a shell that executes commands, and faults; driven by a seed.
//!
//! ```text
//!   State ──commands──> todo ──(any order, per object in turn)──> gangs, pods ──facts──> inbox ──(any order)──> State
//!                                                                  ^ kubelet, users, node loss, rollbacks
//!   crash: inbox lost, todo executed, dropped or late; rebuild from gangs, pods and the written status
//! ```
//! What must always hold is asserted where it can first be violated, so that a failure names the step.

#![allow(dead_code, reason = "each test binary uses a part of it")]

mod checks;
mod faults;
mod graphs;
pub(crate) mod reference;

pub(crate) use faults::Faults;
use flowforge_dag_controller_core::event::{Disruption, MainContainer, Object, PodPhase, Refusal, RefusalKind};
use flowforge_dag_controller_core::retry::Plan;
use flowforge_dag_controller_core::{
    AttemptKey, Cause, Class, Command, Config, Dag, Decision, Event, GangEnd, GangFacts, GangPhase, Judgement,
    MemberEnd, MemberKey, MemberOutcome, NodeIx, NodePhase, NodeView, Observed, PodFacts, Reason, Recorded,
    RecordedMember, RecordedNode, State, apply, rebuild,
};
pub(crate) use graphs::{conditional_dag, random_dag, with_roles};
use reference::{Fact, Fate, Outcome, fates};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// splitmix64 (Steele, Lea, Flood).
#[derive(Clone, Debug)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() % (bound.max(1) as u64)).unwrap_or(0)
    }

    /// True `percent` times in a hundred.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.next() % 100 < percent
    }
}

#[derive(Clone, Debug, Default)]
struct GangObject {
    plan: Option<Box<Plan>>,
    ended: Option<GangEnd>,
    deleting: bool,
    service: bool,
    phase: GangPhase,
    scheduled_at_ms: Option<u64>,
    started_at_ms: Option<u64>,
    results: BTreeMap<MemberKey, MemberEnd>,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Thing {
    Gang(AttemptKey),
    Service(AttemptKey),
    Pod(MemberKey),
    When(NodeIx),
    Workflow,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) now_ms: u64,
    pub(crate) dag: Arc<Dag>,
    pub(crate) state: State,
    pub(crate) faults: Faults,
    in_order: bool,
    config: Config,
    gangs: BTreeMap<AttemptKey, GangObject>,
    lost_gangs: BTreeSet<AttemptKey>,
    pods: BTreeMap<MemberKey, PodFacts>,
    ran: BTreeSet<MemberKey>,
    ever_ran: BTreeSet<(NodeIx, u32)>,
    failing: BTreeSet<NodeIx>,
    /// Nodes whose `when` is false, and those whose `when` is broken.
    shut: BTreeSet<NodeIx>,
    broken: BTreeSet<NodeIx>,
    decisions: BTreeMap<NodeIx, Decision>,
    written: Recorded,
    cancel: bool,
    delete: bool,
    inbox: BTreeMap<Thing, VecDeque<Event>>,
    history: Vec<Event>,
    todo: Vec<Command>,
    late: Vec<Command>,
    wake_at_ms: Option<u64>,
    /// Prints what happens.
    pub(crate) trace: bool,
    pub(crate) crashes: usize,
    pub(crate) replaced: usize,
    pub(crate) refused: usize,
}

impl World {
    pub(crate) fn new(seed: u64, dag: Arc<Dag>, faults: Faults) -> Self {
        let mut rng = Rng(seed);
        let failing = dag.ids().filter(|_| rng.chance(faults.failing_nodes)).collect();
        let mut some = |percent| dag.ids().filter(|n| dag.node(*n).gated && rng.chance(percent)).collect();
        let (shut, broken): (BTreeSet<NodeIx>, BTreeSet<NodeIx>) = (some(40), some(5));
        let config = Config { seed, parallelism: faults.parallelism, ..Config::default() };
        let (now_ms, mut todo) = (1_000_000, Vec::new());
        let state =
            rebuild(Arc::clone(&dag), config.clone(), Observed::default(), &Recorded::default(), now_ms, &mut todo);
        let in_order = faults.replays == 0 && !faults.late_creates;
        let mut world = Self {
            rng,
            now_ms,
            dag,
            state,
            faults,
            in_order,
            config,
            gangs: BTreeMap::new(),
            lost_gangs: BTreeSet::new(),
            pods: BTreeMap::new(),
            ran: BTreeSet::new(),
            ever_ran: BTreeSet::new(),
            failing,
            shut,
            broken,
            decisions: BTreeMap::new(),
            written: Recorded::default(),
            cancel: false,
            delete: false,
            inbox: BTreeMap::new(),
            history: Vec::new(),
            todo: Vec::new(),
            late: Vec::new(),
            wake_at_ms: None,
            trace: false,
            crashes: 0,
            replaced: 0,
            refused: 0,
        };
        world.take(todo);
        world
    }

    // ---- the engine's side -------------------------------------------------------------------------------------------

    pub(crate) fn apply(&mut self, event: Event) {
        let mut out = Vec::new();
        if self.trace {
            println!("{} event {event:?}", self.now_ms);
        }
        apply(&mut self.state, event, self.now_ms, &mut out);
        if self.trace {
            println!("      -> {out:?}");
        }
        self.take(out);
    }

    /// Takes commands over, checking what must never be commanded.
    fn take(&mut self, commands: Vec<Command>) {
        for command in &commands {
            match command {
                Command::CreateGang(key, plan) => {
                    let spec = self.dag.node(key.node);
                    assert!(!spec.approval && !spec.taken_over, "{key:?} makes no pods");
                    // A later attempt has the right of the first one, also where an approval that let it run is not told yet.
                    let fate = self.fates_as_seen()[key.node.at()];
                    if key.attempt == 1 && fate != Fate::Runs {
                        let fate = self.fates()[key.node.at()];
                        assert_eq!(fate, Fate::Runs, "no_node_before_its_upstream: {key:?}");
                    }
                    self.check_claim(*key, plan.as_deref());
                    let is_open = |phase| matches!(phase, NodePhase::Scheduling | NodePhase::Running);
                    let open = self.state.nodes().filter(|n| is_open(n.phase)).count();
                    assert!(self.config.parallelism.is_none_or(|most| open <= most as usize), "{open} are open");
                    assert!(!self.lost_gangs.contains(key), "finished_never_reruns: {key:?} was deleted, not undone");
                }
                Command::CreatePod(key) => {
                    let over = self.gangs.get(&key.attempt_key()).is_some_and(|g| g.ended.is_some());
                    assert!(!over, "finished_never_reruns: {key:?} after the end of its gang");
                    self.replaced += usize::from(key.incarnation > 0);
                }
                _ => {}
            }
        }
        self.todo.extend(commands);
    }

    fn has_succeeded(&self, node: NodeIx) -> bool {
        let recorded = self.written.nodes.get(node.at()).is_some_and(|n| n.phase == NodePhase::Succeeded);
        recorded || self.gang_of(node).and_then(|g| g.ended.as_ref()).is_some_and(|end| end.succeeded)
    }

    /// What the reference says of every node, from the ends of those that were claimed.
    pub(crate) fn fates(&self) -> Vec<Fate> {
        fates(&self.dag, |node| {
            // A run that only lasted until the next loss may have been seen, or not.
            let once = reference::needed(self.dag.node(node)).all(|(ranks, min)| {
                ranks.filter(|rank| self.ever_ran.contains(&(node, *rank))).count() >= min as usize
            });
            Fact { reached: once || self.fact(node).reached, ..self.fact(node) }
        })
    }

    /// The same by what the engine has seen of members that run.
    pub(crate) fn fates_as_seen(&self) -> Vec<Fate> {
        fates(&self.dag, |node| self.fact(node))
    }

    fn fact(&self, node: NodeIx) -> Fact {
        let view = self.state.node(node);
        let spec = self.dag.node(node);
        let approved = (spec.approval || spec.taken_over) && view.phase == NodePhase::Succeeded;
        let succeeded = (approved || self.has_succeeded(node)).then_some((true, None));
        // Whether a failed attempt is the last one, the engine says.
        let failed = (view.phase == NodePhase::Failed).then_some((false, view.cause));
        let (end, started) = (succeeded.or(failed), self.state.has_run(node));
        let skipped = view.phase == NodePhase::Skipped;
        Fact {
            end: end.filter(|_| !skipped).map(|(succeeded, cause)| {
                let own = cause.is_some_and(|c| c.reason.class() != Class::Stopped);
                Outcome { succeeded, own }
            }),
            reached: started,
            shut: self.shut.contains(&node),
            swept: skipped && view.cause.is_none_or(|c| c.reason.class() != Class::Skipped),
        }
    }

    /// No success is run again, no attempt is skipped, and no more of them are made than the budgets allow.
    fn check_claim(&self, key: AttemptKey, plan: Option<&Plan>) {
        let ended: Vec<&GangEnd> = self.gangs_of(key.node).filter_map(|(_, g)| g.ended.as_ref()).collect();
        assert!(ended.iter().all(|end| !end.succeeded), "finished_never_reruns: {key:?} is claimed again");
        let attempts = self.gangs_of(key.node).filter(|(k, _)| k.attempt < key.attempt).count();
        assert_eq!(ended.len() + 1, key.attempt as usize, "{key:?} is claimed after {attempts} attempts");
        let Some(plan) = plan else { return assert_eq!(key.attempt, 1) };
        let Some(retry) = self.dag.node(key.node).retry.as_deref() else { unreachable!("{key:?} is not tried again") };
        let charged = |class: Class| ended.iter().filter(|end| end.cause.reason.class() == class).count() as u32;
        assert_eq!((plan.user, plan.infrastructure), (charged(Class::User), charged(Class::Infrastructure)));
        assert!(plan.user <= retry.limit && plan.infrastructure <= retry.infrastructure_limit, "retry_within_budget");
    }

    fn gangs_of(&self, node: NodeIx) -> impl DoubleEndedIterator<Item = (&AttemptKey, &GangObject)> {
        self.gangs.range(AttemptKey { node, attempt: 0 }..=AttemptKey { node, attempt: u32::MAX })
    }

    /// The newest.
    fn gang_of(&self, node: NodeIx) -> Option<&GangObject> {
        self.gangs_of(node).next_back().map(|(_, gang)| gang)
    }

    // ---- the shell's side --------------------------------------------------------------------------------------------

    fn tell(&mut self, thing: Thing, event: Event) {
        let queue = self.inbox.entry(thing).or_default();
        // A watch may skip what was overtaken; an outcome is never skipped.
        if let (Some(Event::Pod(..)), Event::Pod(..)) = (queue.back(), &event)
            && self.rng.chance(30)
        {
            queue.pop_back();
        }
        queue.push_back(event);
    }

    fn tell_pod(&mut self, key: MemberKey) {
        let event = match self.pods.get(&key) {
            Some(facts) => Event::Pod(key, facts.clone()),
            None => Event::PodGone(key),
        };
        self.tell(Thing::Pod(key), event);
    }

    fn tell_gang(&mut self, key: AttemptKey) {
        let event = match self.gangs.get(&key) {
            Some(g) => {
                Event::Gang(key, GangFacts { ended: g.ended.clone(), deleting: g.deleting, plan: g.plan.clone() })
            }
            None => Event::GangGone(key),
        };
        self.tell(Thing::Gang(key), event);
    }

    fn refuse(&mut self, object: Object, kind: RefusalKind) {
        self.refused += 1;
        let thing = match object {
            Object::Gang(key) => Thing::Gang(key),
            Object::Service(key) => Thing::Service(key),
            Object::Pod(key) => Thing::Pod(key),
        };
        self.tell(thing, Event::Refused(object, Refusal { kind, message: "refused".into() }));
    }

    fn thing_of(command: &Command) -> Option<Thing> {
        Some(match command {
            Command::CreateGang(k, _) | Command::UpdateGang(k) | Command::FinishGang(k, _) => Thing::Gang(*k),
            Command::Judge(node) => Thing::When(*node),
            Command::RecordResult(k, _) => Thing::Gang(k.attempt_key()),
            Command::CreateService(k) => Thing::Service(*k),
            Command::CreatePod(k) | Command::DeletePod(k) | Command::RemoveFinalizer(k) => Thing::Pod(*k),
            _ => return None,
        })
    }

    /// Executes one command: any, but for one object in turn.
    fn execute_one(&mut self) -> bool {
        if self.todo.is_empty() {
            return false;
        }
        let pick = self.rng.below(self.todo.len());
        let thing = Self::thing_of(&self.todo[pick]);
        let first = match thing {
            Some(_) => self.todo.iter().position(|c| Self::thing_of(c) == thing).unwrap_or(pick),
            None => pick,
        };
        let command = self.todo.remove(first);
        self.execute(command);
        true
    }

    fn execute(&mut self, command: Command) {
        self.now_ms += 1;
        if self.trace {
            println!("{} execute {command:?}", self.now_ms);
        }
        match command {
            Command::CreateGang(key, plan) => {
                if !self.gangs.contains_key(&key) && self.rng.chance(self.faults.taken_names) {
                    return self.refuse(Object::Gang(key), RefusalKind::NameTaken);
                }
                if !self.lost_gangs.contains(&key) {
                    self.gangs.entry(key).or_insert_with(|| GangObject { plan, ..GangObject::default() });
                }
                self.tell_gang(key);
            }
            Command::CreateService(key) => {
                if self.rng.chance(self.faults.taken_names) {
                    return self.refuse(Object::Service(key), RefusalKind::NameTaken);
                }
                if let Some(gang) = self.gangs.get_mut(&key) {
                    gang.service = true;
                }
                self.tell(Thing::Service(key), Event::Service(key, true));
            }
            Command::CreatePod(key) => self.create_pod(key),
            Command::DeletePod(key) => {
                let now_ms = self.now_ms;
                if let Some(pod) = self.pods.get_mut(&key) {
                    pod.deletion_requested_at_ms.get_or_insert(now_ms);
                }
                self.reap(key);
                self.tell_pod(key);
            }
            Command::RemoveFinalizer(key) => {
                self.check_recorded(key);
                if let Some(pod) = self.pods.get_mut(&key) {
                    pod.finalizer = false;
                }
                self.reap(key);
                self.tell_pod(key);
            }
            Command::RecordResult(key, end) => match self.gangs.get_mut(&key.attempt_key()) {
                Some(gang) => {
                    gang.results.entry(key).or_insert(*end);
                    self.tell(Thing::Gang(key.attempt_key()), Event::Recorded(vec![key]));
                }
                None => self.tell_gang(key.attempt_key()),
            },
            Command::DropCreates(key) => self.drop_creates(key),
            Command::UpdateGang(key) => self.update_gang(key),
            Command::FinishGang(key, end) => {
                if let Some(gang) = self.gangs.get_mut(&key) {
                    gang.ended.get_or_insert(*end);
                    gang.phase = if gang.ended.as_ref().is_some_and(|e| e.succeeded) {
                        GangPhase::Succeeded
                    } else {
                        GangPhase::Failed
                    };
                }
                self.tell_gang(key);
            }
            Command::Judge(node) => self.judge(node),
            Command::WriteStatus { .. } => self.write_status(),
            Command::WakeAt { at_ms } => self.wake_at_ms = Some(at_ms),
            Command::DeleteWorkflow | Command::Announce(_) => {}
        }
    }

    fn judge(&mut self, node: NodeIx) {
        let judgement = match (self.broken.contains(&node), self.shut.contains(&node)) {
            (true, _) => Judgement::Fail(Box::new(Cause::of(Reason::WhenInvalid))),
            (false, true) => Judgement::Skip,
            (false, false) => Judgement::Run,
        };
        self.tell(Thing::When(node), Event::Judged(node, judgement));
    }

    fn create_pod(&mut self, key: MemberKey) {
        let counted = |f: &PodFacts| {
            !matches!(f.phase, PodPhase::Succeeded | PodPhase::Failed)
                && (f.deletion_requested_at_ms.is_none() || f.node.is_some())
        };
        let live = self.pods.values().filter(|f| counted(f)).count();
        if !self.gangs.contains_key(&key.attempt_key()) {
            return self.refuse(Object::Pod(key), RefusalKind::Invalid);
        }
        if !self.pods.contains_key(&key) {
            if self.faults.quota.is_some_and(|quota| live >= quota) {
                return self.refuse(Object::Pod(key), RefusalKind::Quota);
            }
            if self.rng.chance(self.faults.taken_names) {
                return self.refuse(Object::Pod(key), RefusalKind::NameTaken);
            }
            self.ran.remove(&key);
            self.pods.insert(key, PodFacts { finalizer: true, ..PodFacts::default() });
        }
        self.tell_pod(key);
    }

    /// Some creates of an ending attempt were not sent yet.
    fn drop_creates(&mut self, attempt: AttemptKey) {
        for command in std::mem::take(&mut self.todo) {
            let object = match command {
                Command::CreateGang(key, _) if key == attempt => Some(Object::Gang(key)),
                Command::CreateService(key) if key == attempt => Some(Object::Service(key)),
                Command::CreatePod(key) if key.attempt_key() == attempt => Some(Object::Pod(key)),
                _ => None,
            };
            match object {
                Some(object) if self.rng.chance(50) => self.refuse(object, RefusalKind::Dropped),
                _ => self.todo.push(command),
            }
        }
    }

    /// A result is durable before the finalizer goes: of every pod that ran, unless its gang is over or it was undone.
    fn check_recorded(&self, key: MemberKey) {
        let Some(facts) = self.pods.get(&key) else { return };
        let Some(gang) = self.gangs.get(&key.attempt_key()) else { return };
        let undone = facts.disruption == Some(Disruption::GangRollback)
            || self.faults.quota.is_some()
            || !self.faults_keep_order();
        if self.ran.contains(&key) && gang.ended.is_none() && !undone {
            assert!(gang.results.contains_key(&key), "{key:?} loses its finalizer unrecorded: {facts:?}");
        }
    }

    /// Whether the shell kept its promises: nothing stale, nothing late.
    fn faults_keep_order(&self) -> bool {
        self.in_order
    }

    fn update_gang(&mut self, key: AttemptKey) {
        let view = self.state.node(key.node);
        let (phase, scheduled_at_ms, started_at_ms) = (view.gang, view.scheduled_at_ms, view.started_at_ms);
        match (self.gangs.get_mut(&key), phase) {
            (Some(gang), Some(phase)) if gang.ended.is_none() && phase <= GangPhase::Running => {
                assert!(phase >= gang.phase, "status_is_monotonic: {key:?} {:?} -> {phase:?}", gang.phase);
                (gang.phase, gang.scheduled_at_ms, gang.started_at_ms) = (phase, scheduled_at_ms, started_at_ms);
            }
            (None, _) => self.tell_gang(key),
            _ => {}
        }
    }

    fn write_status(&mut self) {
        let new = record(&self.state);
        assert!(
            new.phase == self.written.phase || !self.written.phase.is_over() && new.phase > self.written.phase,
            "status_is_monotonic: workflow {:?} -> {:?}",
            self.written.phase,
            new.phase
        );
        for (old, new) in self.written.nodes.iter().zip(&new.nodes) {
            let again = new.attempt > old.attempt && !old.phase.is_over();
            let forward = again || new.phase == old.phase || !old.phase.is_over() && new.phase > old.phase;
            assert!(forward, "status_is_monotonic: {} {:?} -> {:?}", old.node, old.phase, new.phase);
        }
        if new.phase.is_over() && self.faults_keep_order() {
            let running: Vec<_> = self.pods.iter().filter(|(_, f)| runs(f)).collect();
            assert!(running.is_empty(), "over, while pods run: {running:?}");
        }
        self.written = new;
    }

    /// Deleted, stopped and free of finalizers: gone.
    fn reap(&mut self, key: MemberKey) {
        let gone =
            self.pods.get(&key).is_some_and(|f| f.deletion_requested_at_ms.is_some() && !f.finalizer && !runs(f));
        if gone {
            self.pods.remove(&key);
        }
    }

    /// A person decides about a node that waits for that.
    fn decide_one(&mut self) -> bool {
        let waits = |n: &NodeView<'_>| n.cause.is_some_and(|c| c.reason == Reason::WaitingForApproval);
        let waiting: Vec<NodeIx> =
            self.state.nodes().filter(waits).map(|n| n.node).filter(|n| !self.decisions.contains_key(n)).collect();
        let Some(&node) = waiting.get(self.rng.below(waiting.len())) else { return false };
        let decision = Decision { approved: self.rng.chance(70), by: "somebody".into() };
        self.decisions.insert(node, decision.clone());
        self.tell(Thing::When(node), Event::Decided(node, decision));
        true
    }

    /// Delivers the next event about some object.
    fn deliver_one(&mut self) -> bool {
        let things: Vec<Thing> = self.inbox.keys().copied().collect();
        if things.is_empty() {
            return false;
        }
        let thing = things[self.rng.below(things.len())];
        let Some(queue) = self.inbox.get_mut(&thing) else { return false };
        let event = queue.pop_front();
        if queue.is_empty() {
            self.inbox.remove(&thing);
        }
        let Some(event) = event else { return false };
        self.history.push(event.clone());
        if self.rng.chance(self.faults.duplicates) {
            self.apply(event.clone());
        }
        self.apply(event);
        true
    }
}

fn runs(f: &PodFacts) -> bool {
    f.node.is_some() && !f.node_gone && !matches!(f.phase, PodPhase::Succeeded | PodPhase::Failed)
}

/// Whether anything is left to happen to a pod by itself.
fn may_step(f: &PodFacts) -> bool {
    match (f.phase, f.deletion_requested_at_ms, &f.main) {
        (PodPhase::Succeeded | PodPhase::Failed, _, _) => false,
        (_, Some(_), _) => f.node.is_some(),
        (_, None, MainContainer::Ended { .. }) => false,
        (_, None, _) => true,
    }
}

fn recorded_member(key: MemberKey, end: &MemberEnd) -> RecordedMember {
    // As the packed rank sets do: of members that succeeded or were stopped only the rank is known.
    let packed = matches!(end.outcome, MemberOutcome::Succeeded | MemberOutcome::Stopped);
    RecordedMember { rank: key.rank, incarnation: (!packed).then_some(key.incarnation), end: end.clone() }
}

/// The status as the shell would write it.
pub(crate) fn record(state: &State) -> Recorded {
    let nodes = state.nodes().map(|n| RecordedNode {
        node: n.node,
        phase: n.phase,
        attempt: n.attempt,
        gang: n.gang,
        cause: n.cause.cloned(),
        tally: (n.members.succeeded, n.members.failed),
        released_at_ms: n.released_at_ms,
        scheduled_at_ms: n.scheduled_at_ms,
        started_at_ms: n.started_at_ms,
        finished_at_ms: n.finished_at_ms,
    });
    Recorded {
        phase: state.phase(),
        started_at_ms: state.started_at_ms(),
        finished_at_ms: state.finished_at_ms(),
        nodes: nodes.collect(),
    }
}
