//! The blows: what happens to processes, nodes, pods and the server while faults are on, and how they end.

use crate::faults::Faults;
use crate::world::{Action, Subject, World, node};
use smol_str::SmolStr;

impl World {
    /// Strikes, and plans the next blow.
    pub(crate) fn blow(&mut self) {
        if self.faults.blow_every_ms == 0 {
            return;
        }
        match self.prng.below(12) {
            0 => self.pass_the_lease(),
            1 | 2 => self.pause_leader(),
            3 => self.kill_leader(),
            4 | 5 => self.delete_some_pod(),
            6 => self.lose_some_node(),
            7 => self.bind_some_pod_foreignly(),
            8 => self.cut_the_server_off(),
            9 => self.touch_some_pod(),
            10 => self.refuse_some_bindings(),
            _ => self.cancel_some_workload(),
        }
        let next = self.prng.between(1, 2 * self.faults.blow_every_ms);
        self.after(next, Action::Blow);
    }

    fn pass_the_lease(&mut self) {
        let leader = self.leader();
        if let Some(next) = self.other_than(leader) {
            self.say(|| format!("* the lease passes to p{next}"));
            self.promote(next);
        }
    }

    fn pause_leader(&mut self) {
        let Some(leader) = self.leader().filter(|leader| self.processes[*leader].is_up()) else { return };
        self.say(|| format!("* p{leader} is paused"));
        self.processes[leader].paused = true;
        let pause = self.prng.between(200, 9_000);
        self.after(pause, Action::Resume { process: leader });
        if pause > 3_000 || self.prng.per_mille(500) {
            self.pass_the_lease();
        }
    }

    fn kill_leader(&mut self) {
        let Some(leader) = self.leader() else { return };
        self.say(|| format!("* p{leader} is killed"));
        self.processes[leader].dead = true;
        self.processes[leader].paused = false;
        self.processes[leader].epoch = None;
        let restart = self.prng.between(100, 5_000);
        self.after(restart, Action::Start { process: leader });
        self.pass_the_lease();
    }

    fn some_pod(&mut self, filter: impl Fn(&flowforge_scheduler_core::model::PodInfo) -> bool) -> Option<SmolStr> {
        let names: Vec<_> = self.api.pods.values().filter(|pod| filter(pod)).map(|pod| pod.key.name.clone()).collect();
        self.prng.pick(&names).cloned()
    }

    fn delete_some_pod(&mut self) {
        if let Some(name) = self.some_pod(|pod| !pod.deleting) {
            self.say(|| format!("* {name} is deleted"));
            let key = self.api.pods[&name].key.clone();
            self.api.delete_pod(&key);
        }
    }

    fn lose_some_node(&mut self) {
        let names: Vec<_> = self.api.nodes.keys().cloned().collect();
        if names.len() < 2 {
            return;
        }
        if let Some(name) = self.prng.pick(&names).cloned() {
            self.say(|| format!("* node {name} is lost"));
            self.api.remove_node(&name);
            let back = self.prng.between(1_000, 15_000);
            self.after(back, Action::NodeBack { node: name });
        }
    }

    pub(crate) fn node_back(&mut self, name: &SmolStr) {
        if !self.api.nodes.contains_key(name) {
            self.created += 1;
            self.api.create_node(node(name, self.created));
        }
    }

    fn bind_some_pod_foreignly(&mut self) {
        let names: Vec<_> = self.api.nodes.keys().cloned().collect();
        let Some(node) = self.prng.pick(&names).cloned() else { return };
        if let Some(name) = self.some_pod(|pod| pod.node_name.is_none() && !pod.gated && !pod.deleting) {
            self.say(|| format!("* {name} is bound to {node} by someone else"));
            let key = self.api.pods[&name].key.clone();
            self.api.disputed.insert(node.clone());
            self.api.update_pod(&key, |pod| pod.node_name = Some(node));
        }
    }

    fn cut_the_server_off(&mut self) {
        if !self.outage {
            self.say(|| "* the server does not answer".to_owned());
            self.outage = true;
            let outage = self.prng.between(300, 8_000);
            self.after(outage, Action::Outage { over: true });
        }
    }

    /// A write by someone else: the resourceVersion moves.
    fn touch_some_pod(&mut self) {
        if let Some(name) = self.some_pod(|pod| pod.node_name.is_none()) {
            self.say(|| format!("* {name} is changed"));
            let key = self.api.pods[&name].key.clone();
            self.api.update_pod(&key, |_| {});
        }
    }

    fn refuse_some_bindings(&mut self) {
        if let Some(name) = self.some_pod(|pod| pod.node_name.is_none()) {
            self.say(|| format!("* Bindings of {name} are refused"));
            let until = self.now + self.prng.between(100, 6_000);
            self.api.refused_until.insert(name, until);
        }
    }

    fn cancel_some_workload(&mut self) {
        let names: Vec<_> = self.workloads.keys().cloned().collect();
        if let Some(name) = self.prng.pick(&names).cloned() {
            self.say(|| format!("* {name} is canceled"));
            self.close_workload(&name);
        }
    }

    /// The faults stop: from here on all must heal.
    pub(crate) fn calm_down(&mut self) {
        self.say(|| "=== the faults stop".to_owned());
        self.faults = Faults::none();
        self.outage = false;
        self.api.refused_until.clear();
        for process in 0..self.processes.len() {
            if self.processes[process].paused {
                self.resume(process);
            }
            if self.processes[process].dead {
                self.start(process);
            }
            // What a watch lost before is found by a last list.
            let life = self.processes[process].life;
            self.after(5_000, Action::Relist { process, life });
        }
        // The real engine's volumes tie pods to one of two zones.
        let more = if self.scenario.subject == Subject::Engine { 13 } else { 5 };
        for index in 0..self.scenario.nodes + more {
            // Room for everything, so that what stays unbound does so by a fault of ours.
            self.node_back(&SmolStr::from(format!("n{index}")));
        }
        let leader = self.leader().or_else(|| self.other_than(None)).unwrap_or(0);
        self.promote(leader);
    }
}
