//! The world: one agenda of what happens when, in virtual time, all of it determined by the seed.
//!
//! ```text
//!   process ──command──> network ──arrives (or not, late, twice)──> Api ──outcome──> network ──> process
//!                                                                    └──changes──> watch (late, lost, twice) ──> process
//!   lease, owners, kubelets and blows happen beside it; after every step the invariants look at all of it
//! ```

use crate::api::Api;
use crate::claims::{ZONE_LABEL, zone_of};
use crate::faults::Faults;
use crate::invariants::{self, Invariant, Violation};
use crate::owners::Workload;
use crate::prng::Prng;
use crate::process::{Brain, Process};
use crate::toy::{SLOTS_PER_NODE, Toy};
use flowforge_scheduler_core::command::Command;
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::{Event, Outcome};
use flowforge_scheduler_core::model::{Millis, NodeInfo, PodKey};
use flowforge_scheduler_core::protocol::ProtocolConfig;
use smol_str::SmolStr;
use std::collections::{BTreeMap, VecDeque};

/// Something on the agenda.
#[derive(Debug)]
pub(crate) enum Action {
    /// A command of a process reaches the server; the outcome is sent back where `reply` says so.
    Arrive { process: usize, life: u64, epoch: u64, command: Box<Command>, reply: bool },
    /// A process hears something.
    Hear { process: usize, life: u64, event: Box<Event> },
    /// A process wants to run.
    Wake { process: usize, life: u64 },
    /// A process gets a full list of everything.
    Relist { process: usize, life: u64 },
    /// A process gets the lease.
    Promote { process: usize, life: u64, epoch: u64 },
    /// A process notices that it lost the lease.
    Demote { process: usize, life: u64, epoch: u64 },
    /// A paused process goes on.
    Resume { process: usize },
    /// A dead process is started.
    Start { process: usize },
    /// Owners, kubelets and the garbage collector look around.
    Tend,
    /// A lost node comes back.
    NodeBack { node: SmolStr },
    /// A pod object goes away at the end of its grace.
    Remove { pod: PodKey },
    /// The server answers again.
    Outage { over: bool },
    /// Something bad happens.
    Blow,
}

/// Which engine the processes run.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Subject {
    /// The protocol with the smallest engine around it.
    Protocol,
    /// The real engine.
    Engine,
}

/// What a run looks like.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What is tested.
    pub subject: Subject,
    /// Scheduler processes.
    pub processes: usize,
    /// Nodes, of [`SLOTS_PER_NODE`] GPUs each.
    pub nodes: u64,
    /// Journal slots.
    pub slots: usize,
    /// Largest payload of a slot; small ones split gangs over slots.
    pub slot_limit_bytes: usize,
    /// Gangs that exist at once.
    pub gangs: usize,
    /// Pods on their own that exist at once.
    pub singles: usize,
    /// Largest gang.
    pub largest_gang: u64,
    /// Faults, until `calm_at_ms`.
    pub faults: Faults,
    /// When the faults stop.
    pub calm_at_ms: Millis,
    /// When the run ends and all must be well.
    pub end_at_ms: Millis,
}

impl Scenario {
    /// A scenario that the seed chooses: small worlds, because faults meet each other there.
    #[must_use]
    pub fn from_seed(seed: u64, subject: Subject) -> Self {
        let mut prng = Prng::new(seed ^ 0x5ce7_a210);
        let slots = 1 + 2 * usize::from(prng.per_mille(700));
        let faults = if subject == Subject::Engine { Faults::storm().in_order() } else { Faults::storm() };
        Self {
            subject,
            processes: 2 + usize::from(prng.per_mille(500)),
            nodes: prng.between(3, 7),
            slots,
            // Small slots split gangs: two or three parts for the larger ones.
            slot_limit_bytes: if slots == 3 && prng.per_mille(400) { 800 } else { 900 * 1024 },
            gangs: usize::try_from(prng.between(1, 4)).unwrap_or(1),
            singles: usize::try_from(prng.below(3)).unwrap_or(0),
            largest_gang: prng.between(2, 7),
            faults,
            calm_at_ms: 40_000,
            end_at_ms: 110_000,
        }
    }
}

/// The protocol's deadlines, shortened so that a run meets them.
#[must_use]
pub fn protocol_config(slot_limit_bytes: usize) -> ProtocolConfig {
    ProtocolConfig {
        repair_deadline_ms: 5_000,
        outcome_timeout_ms: 3_000,
        refused_retry_ms: 2_000,
        volume_bind_timeout_ms: 6_000,
        device_bind_timeout_ms: 6_000,
        prepare_read_interval_ms: 200,
        slot_limit_bytes,
        ..ProtocolConfig::default()
    }
}

/// Steps of the transcript that a failure shows.
const TRANSCRIPT_LINES: usize = 400;

/// The world.
#[derive(Debug)]
pub struct World {
    /// Virtual time.
    pub now: Millis,
    pub(crate) prng: Prng,
    agenda: BTreeMap<(Millis, u64), Action>,
    entries: u64,
    /// The API server.
    pub api: Api,
    /// The schedulers.
    pub processes: Vec<Process>,
    /// The gangs and pods that exist, by name.
    pub workloads: BTreeMap<SmolStr, Workload>,
    pub(crate) created: u64,
    pub(crate) scenario: Scenario,
    pub(crate) faults: Faults,
    /// The term that holds the lease: counts every change of hands.
    pub epoch: u64,
    /// `leaseTransitions`: starts anew when someone deletes the Lease.
    pub(crate) transitions: u64,
    /// Decides about deleted Leases.
    pub(crate) fate: Prng,
    /// Decides about claims.
    pub(crate) storage: Prng,
    /// Whether the server answers at all.
    pub outage: bool,
    invariants: Vec<Box<dyn Invariant>>,
    /// The last things that happened, when asked for.
    pub transcript: VecDeque<String>,
    pub(crate) verbose: bool,
}

impl World {
    /// A world with its first workloads and no leader yet.
    #[must_use]
    pub fn new(seed: u64, scenario: Scenario, verbose: bool) -> Self {
        let mut world = Self {
            now: 1,
            prng: Prng::new(seed),
            agenda: BTreeMap::new(),
            entries: 0,
            api: Api::new(scenario.slots),
            processes: Vec::new(),
            workloads: BTreeMap::new(),
            created: 0,
            faults: scenario.faults.clone(),
            epoch: 0,
            transitions: 0,
            fate: Prng::new(seed ^ 0x1ea5_e000),
            storage: Prng::new(seed ^ 0x57_04a9_e000),
            outage: false,
            invariants: invariants::all(),
            transcript: VecDeque::new(),
            verbose,
            scenario,
        };
        for index in 0..world.scenario.nodes {
            world.api.create_node(node(&format!("n{index}"), index));
        }
        for process in 0..world.scenario.processes {
            let brain = world.new_brain();
            world.processes.push(Process::new(brain));
            world.at(world.now, Action::Relist { process, life: 0 });
        }
        world.promote(0);
        world.at(1, Action::Tend);
        if world.faults.blow_every_ms > 0 {
            world.at(500, Action::Blow);
        }
        world
    }

    pub(crate) fn new_brain(&self) -> Brain {
        let config = protocol_config(self.scenario.slot_limit_bytes);
        match self.scenario.subject {
            Subject::Protocol => Brain::Toy(Box::new(Toy::new(config))),
            Subject::Engine => Brain::Engine(Box::new(Engine::new(Config { protocol: config, ..Config::default() }))),
        }
    }

    /// Runs to the end.
    ///
    /// # Errors
    /// The first invariant that does not hold.
    pub fn run(&mut self) -> Result<(), Violation> {
        while let Some(((at, _), action)) = self.agenda.pop_first() {
            if at > self.scenario.end_at_ms {
                break;
            }
            self.now = at;
            if self.faults.blow_every_ms > 0 && at >= self.scenario.calm_at_ms {
                self.calm_down();
            }
            self.happen(action);
            self.serve_watches();
            self.check()?;
        }
        let mut invariants = std::mem::take(&mut self.invariants);
        let healed = invariants.iter_mut().try_for_each(|invariant| {
            invariant.at_rest(self).map_err(|message| Violation {
                invariant: invariant.name(),
                at_ms: self.now,
                message,
            })
        });
        self.invariants = invariants;
        healed
    }

    fn check(&mut self) -> Result<(), Violation> {
        let landed = std::mem::take(&mut self.api.landed);
        let mut invariants = std::mem::take(&mut self.invariants);
        let held = invariants.iter_mut().try_for_each(|invariant| {
            landed
                .iter()
                .try_for_each(|landed| invariant.landed(self, landed))
                .and_then(|()| invariant.step(self))
                .map_err(|message| Violation { invariant: invariant.name(), at_ms: self.now, message })
        });
        self.invariants = invariants;
        held
    }

    pub(crate) fn at(&mut self, at: Millis, action: Action) {
        self.entries += 1;
        self.agenda.insert((at.max(self.now), self.entries), action);
    }

    /// In so many milliseconds.
    pub(crate) fn after(&mut self, delay_ms: Millis, action: Action) {
        self.at(self.now + delay_ms, action);
    }

    pub(crate) fn say(&mut self, line: impl FnOnce() -> String) {
        if self.verbose {
            if self.transcript.len() == TRANSCRIPT_LINES {
                self.transcript.pop_front();
            }
            let line = format!("{:>7} {}", self.now, line());
            self.transcript.push_back(line);
        }
    }

    fn happen(&mut self, action: Action) {
        match action {
            Action::Arrive { process, life, epoch, command, reply } => {
                self.arrive(process, life, epoch, &command, reply);
            }
            Action::Hear { process, life, event } => self.hear(process, life, *event),
            Action::Wake { process, life } => self.wake(process, life),
            Action::Relist { process, life } => self.relist(process, life),
            Action::Promote { process, life, epoch } => self.take_lease(process, life, epoch),
            Action::Demote { process, life, epoch } => self.lose_lease(process, life, epoch),
            Action::Resume { process } => self.resume(process),
            Action::Start { process } => self.start(process),
            Action::Tend => self.tend(),
            Action::NodeBack { node: name } => self.node_back(&name),
            Action::Remove { pod } => {
                self.api.remove_pod(&pod);
            }
            Action::Outage { over } => self.outage = !over,
            Action::Blow => self.blow(),
        }
    }

    /// A process hears an event now, or when it goes on.
    pub(crate) fn hear(&mut self, process: usize, life: u64, event: Event) {
        let subject = &mut self.processes[process];
        if subject.life != life || subject.dead {
            return;
        }
        if subject.paused {
            subject.inbox.push(event);
            return;
        }
        let mut commands = Vec::new();
        subject.brain.apply(event, self.now, &mut commands);
        self.dispatch(process, commands);
        // As the shell does: a batch of events, then one run.
        self.wake_at(process, self.now + 2);
    }

    fn wake(&mut self, process: usize, life: u64) {
        let subject = &mut self.processes[process];
        if subject.life != life {
            return;
        }
        if subject.wake_at.is_some_and(|at| at > self.now) {
            return;
        }
        subject.wake_at = None;
        if subject.is_up() {
            let mut commands = Vec::new();
            subject.brain.run(self.now, &mut commands);
            self.dispatch(process, commands);
        }
    }

    /// Sends what a process commands, and remembers when it wants to be called.
    pub(crate) fn dispatch(&mut self, process: usize, commands: Vec<Command>) {
        for command in commands {
            self.send(process, command);
        }
        let subject = &self.processes[process];
        if let Some(wakeup) = subject.brain.next_wakeup() {
            self.wake_at(process, wakeup.max(self.now + 1));
        }
    }

    fn wake_at(&mut self, process: usize, at: Millis) {
        let subject = &mut self.processes[process];
        if subject.wake_at.is_none_or(|planned| at < planned) {
            subject.wake_at = Some(at);
            let life = subject.life;
            self.at(at, Action::Wake { process, life });
        }
    }

    /// An outcome finds its way to the process.
    pub(crate) fn answer(&mut self, process: usize, life: u64, delay_ms: Millis, outcome: Outcome) {
        self.after(delay_ms, Action::Hear { process, life, event: Box::new(Event::Outcome(outcome)) });
    }
}

/// A node with a number of GPUs.
pub(crate) fn node(name: &str, incarnation: u64) -> NodeInfo {
    let amounts = [("cpu", 64_000), ("memory", 1 << 40), ("pods", 110), ("nvidia.com/gpu", SLOTS_PER_NODE)];
    NodeInfo {
        name: name.into(),
        uid: format!("{name}-{incarnation}").into(),
        labels: [("kubernetes.io/hostname".into(), name.into()), (ZONE_LABEL.into(), zone_of(name))].into(),
        allocatable: amounts.into_iter().map(|(name, amount)| (SmolStr::from(name), amount)).collect(),
        ..NodeInfo::default()
    }
}
