//! A scheduler process: an engine that can be paused, resumed, killed and started again.

use crate::toy::Toy;
use flowforge_scheduler_core::command::Command;
use flowforge_scheduler_core::engine::Engine;
use flowforge_scheduler_core::event::Event;
use flowforge_scheduler_core::model::Millis;

/// What decides inside a process.
#[derive(Debug)]
pub enum Brain {
    /// The protocol with the smallest engine around it.
    Toy(Box<Toy>),
    /// The real engine.
    Engine(Box<Engine>),
}

impl Brain {
    /// Takes in one fact.
    pub fn apply(&mut self, event: Event, now: Millis, out: &mut Vec<Command>) {
        match self {
            Self::Toy(toy) => toy.apply(event, now, out),
            Self::Engine(engine) => engine.apply(event, now, out),
        }
    }

    /// Plans what is ready.
    pub fn run(&mut self, now: Millis, out: &mut Vec<Command>) {
        match self {
            Self::Toy(toy) => toy.run(now, out),
            Self::Engine(engine) => engine.run(now, out),
        }
    }

    /// When it wants to run again.
    #[must_use]
    pub fn next_wakeup(&self) -> Option<Millis> {
        match self {
            Self::Toy(toy) => toy.next_wakeup(),
            Self::Engine(engine) => engine.next_wakeup(),
        }
    }
}

/// One process.
#[derive(Debug)]
pub struct Process {
    /// Its engine.
    pub brain: Brain,
    /// How often it was started; what was meant for an earlier life is lost.
    pub life: u64,
    /// Stopped: it does nothing, and what comes in waits.
    pub paused: bool,
    /// Dead until it is started again.
    pub dead: bool,
    /// The epoch in which it believes to lead.
    pub epoch: Option<u64>,
    /// What came in while it was paused.
    pub inbox: Vec<Event>,
    /// When its watches (of pods, nodes and gangs; claims; volumes) were last served, so that events of one keep their order.
    pub watch_at: [Millis; 3],
    /// The wakeup that is on the agenda.
    pub wake_at: Option<Millis>,
}

impl Process {
    /// A process in its first life.
    #[must_use]
    pub fn new(brain: Brain) -> Self {
        Self {
            brain,
            life: 0,
            paused: false,
            dead: false,
            epoch: None,
            inbox: Vec::new(),
            watch_at: [0; 3],
            wake_at: None,
        }
    }

    /// Whether it works.
    #[must_use]
    pub fn is_up(&self) -> bool {
        !self.paused && !self.dead
    }
}
