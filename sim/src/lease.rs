//! Who leads: the lease passes on while the former leader may still be at work, paused, or dead.

use crate::process::Process;
use crate::world::{Action, World};
use flowforge_scheduler_core::event::Event;
use flowforge_scheduler_core::protocol::journal::epoch_to_lead;

impl World {
    /// Gives the lease to a process; the former holder notices some time later.
    pub(crate) fn promote(&mut self, process: usize) {
        self.epoch += 1;
        let epoch = self.epoch;
        if self.faults.blow_every_ms > 0 && self.fate.per_mille(100) {
            self.say(|| "* the lease was deleted and is made again".to_owned());
            self.transitions = 0;
        }
        self.transitions += 1;
        for former in 0..self.processes.len() {
            if let Some(lost) = self.processes[former].epoch {
                let life = self.processes[former].life;
                let notices = if self.faults.blow_every_ms > 0 { self.prng.between(1, 8_000) } else { 1 };
                self.after(notices, Action::Demote { process: former, life, epoch: lost });
            }
        }
        let life = self.processes[process].life;
        let delay = self.prng.between(1, 300);
        self.after(delay, Action::Promote { process, life, epoch });
    }

    /// The process learns that it leads: it lists everything consistently and reads the journal.
    pub(crate) fn take_lease(&mut self, process: usize, life: u64, epoch: u64) {
        let subject = &mut self.processes[process];
        if subject.life != life || !subject.is_up() || epoch < self.epoch {
            return;
        }
        subject.epoch = Some(epoch);
        self.say(|| format!("p{process} leads with epoch {epoch}"));
        for event in self.list() {
            self.hear(process, life, event);
        }
        let slots = self.api.read_slots();
        // As the shell does: the Lease holds the epoch before anyone leads with it.
        self.transitions = epoch_to_lead(self.transitions, 0, 1_000 + epoch, &slots);
        self.hear(process, life, Event::Lead { epoch: self.transitions, slots });
    }

    /// The process learns that it does not lead any more.
    pub(crate) fn lose_lease(&mut self, process: usize, life: u64, epoch: u64) {
        let subject = &mut self.processes[process];
        if subject.life == life && subject.epoch == Some(epoch) && !subject.dead {
            subject.epoch = None;
            self.say(|| format!("p{process} follows, was {epoch}"));
            self.hear(process, life, Event::Follow);
        }
    }

    /// A paused process goes on, still believing what it believed.
    pub(crate) fn resume(&mut self, process: usize) {
        let subject = &mut self.processes[process];
        subject.paused = false;
        let life = subject.life;
        self.say(|| format!("p{process} goes on"));
        for event in std::mem::take(&mut self.processes[process].inbox) {
            self.hear(process, life, event);
        }
        self.after(0, Action::Wake { process, life });
    }

    /// A dead process starts its next life.
    pub(crate) fn start(&mut self, process: usize) {
        let life = self.processes[process].life + 1;
        let brain = self.new_brain();
        self.processes[process] = Process { life, ..Process::new(brain) };
        self.say(|| format!("p{process} starts"));
        self.after(1, Action::Relist { process, life });
        if !self.has_leader() {
            self.promote(process);
        }
    }

    /// Whether the holder of the lease is alive (it may be paused).
    pub(crate) fn has_leader(&self) -> bool {
        self.processes.iter().any(|process| !process.dead && process.epoch == Some(self.epoch))
    }

    /// A process that can lead, other than the given one.
    pub(crate) fn other_than(&mut self, leader: Option<usize>) -> Option<usize> {
        let up = |index: &usize| self.processes[*index].is_up() && Some(*index) != leader;
        let candidates: Vec<usize> = (0..self.processes.len()).filter(up).collect();
        self.prng.pick(&candidates).copied()
    }

    /// The process that holds the lease.
    pub(crate) fn leader(&self) -> Option<usize> {
        self.processes.iter().position(|process| process.epoch == Some(self.epoch))
    }
}
