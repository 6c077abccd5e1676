//! What goes on beside the schedulers: owners create, recreate and end workloads, kubelets start and stop pods, the garbage
//! collector removes pods of lost nodes, and a lease that nobody uses is taken.

use crate::owners::{Claims, OwnerKind, Workload};
use crate::world::{Action, Subject, World};
use flowforge_scheduler_core::model::{Millis, PodInfo, PodKey, PodPhase};
use smol_str::{SmolStr, ToSmolStr};
use std::collections::BTreeMap;

/// How often they look around.
const PERIOD_MS: Millis = 100;

impl World {
    /// Everyone looks around once.
    pub(crate) fn tend(&mut self) {
        self.watch_the_lease();
        if self.faults.blow_every_ms > 0 {
            self.fill_up();
        }
        for name in self.workloads.keys().cloned().collect::<Vec<_>>() {
            self.tend_workload(&name);
        }
        for name in self.api.pods.keys().cloned().collect::<Vec<_>>() {
            self.tend_pod(&name);
        }
        self.tend_claims();
        self.after(PERIOD_MS, Action::Tend);
    }

    fn watch_the_lease(&mut self) {
        let leads = self.leader().is_some_and(|leader| self.processes[leader].is_up());
        if !leads
            && self.prng.per_mille(60)
            && let Some(next) = self.other_than(None)
        {
            self.promote(next);
        }
    }

    /// Creates workloads up to what the scenario wants.
    fn fill_up(&mut self) {
        let gangs = self.workloads.values().filter(|workload| workload.size > 0).count();
        let singles = self.workloads.len() - gangs;
        if gangs < self.scenario.gangs && self.prng.per_mille(100) {
            let size = u32::try_from(self.prng.between(2, self.scenario.largest_gang)).unwrap_or(2);
            let kinds = [OwnerKind::Gang, OwnerKind::Gang, OwnerKind::Gang, OwnerKind::Job, OwnerKind::Bare];
            let owner = self.prng.pick(&kinds).copied().unwrap_or(OwnerKind::Gang);
            self.create_workload("g", size, owner);
        }
        if singles < self.scenario.singles && self.prng.per_mille(50) {
            self.create_workload("s", 0, OwnerKind::Bare);
        }
    }

    /// Whether the pods of a new workload have claims; devices only the protocol's own engine knows of. Small slots have no room
    /// for the claims of a large gang.
    fn some_claims(&mut self, size: u32) -> Claims {
        let room = size <= 4 || self.scenario.slot_limit_bytes > 4_096;
        if !room || !self.storage.per_mille(400) {
            return Claims::None;
        }
        let volumes = self.storage.per_mille(500) || self.scenario.subject == Subject::Engine;
        if volumes { Claims::Volumes } else { Claims::Devices }
    }

    /// Creates a workload with all of its pods; 0 members is a pod on its own.
    pub fn create_workload(&mut self, prefix: &str, size: u32, owner: OwnerKind) {
        self.created += 1;
        let name = format!("{prefix}{}", self.created).to_smolstr();
        let workload = Workload {
            name: name.clone(),
            size,
            owner,
            closed: false,
            was_whole: false,
            bound: BTreeMap::new(),
            incarnations: self.created,
            claims: self.some_claims(size),
        };
        if let Some(gang) = workload.gang() {
            self.api.put_gang(gang);
        }
        for rank in 0..size.max(1) {
            let gated = self.faults.blow_every_ms > 0 && self.prng.per_mille(100);
            self.api.create_pod(PodInfo { created_at_ms: self.now, ..workload.pod(rank, gated) });
        }
        self.workloads.insert(name, workload);
    }

    /// Ends a workload: no more pods are made for it, and those that are go.
    pub(crate) fn close_workload(&mut self, name: &SmolStr) {
        let Some(workload) = self.workloads.get_mut(name) else { return };
        workload.closed = true;
        if let Some(gang) = workload.gang() {
            self.api.put_gang(gang);
        }
    }

    /// Pods of a workload.
    #[must_use]
    pub fn pods_of(&self, workload: &Workload) -> Vec<&PodInfo> {
        let prefix = format!("{}-", workload.name);
        let from = self.api.pods.range(SmolStr::from(prefix.as_str())..);
        from.take_while(|(name, _)| name.starts_with(&prefix)).map(|(_, pod)| pod).collect()
    }

    fn tend_workload(&mut self, name: &SmolStr) {
        let Some(workload) = self.workloads.get(name).cloned() else { return };
        let pods: Vec<PodInfo> = self.pods_of(&workload).into_iter().cloned().collect();
        if workload.closed {
            for pod in pods.iter().filter(|pod| !pod.deleting) {
                self.api.delete_pod(&pod.key);
            }
            if pods.is_empty() {
                self.workloads.remove(name);
                self.api.remove_gang(name);
            }
            return;
        }
        let live = pods.iter().filter(|pod| is_live(pod)).count();
        if live == workload.size.max(1) as usize {
            self.change_workload(name, |workload| workload.was_whole = true);
            if self.faults.blow_every_ms > 0 && self.prng.per_mille(15) {
                self.finish_some(&pods);
            }
        } else if pods.iter().any(|pod| pod.phase == PodPhase::Succeeded) {
            self.finish_some(&pods);
        }
        if !pods.is_empty() && pods.iter().all(|pod| pod.phase == PodPhase::Succeeded) {
            self.close_workload(name);
        } else if workload.owner == OwnerKind::Bare {
            // Its user cleans up after a failure.
            if pods.is_empty() || pods.iter().any(|pod| pod.phase == PodPhase::Failed) {
                self.close_workload(name);
            }
        } else {
            self.recreate_missing(&workload, &pods);
        }
    }

    fn finish_some(&mut self, pods: &[PodInfo]) {
        for pod in pods.iter().filter(|pod| is_live(pod)) {
            if self.prng.per_mille(400) {
                self.api.update_pod(&pod.key, |pod| pod.phase = PodPhase::Succeeded);
            }
        }
    }

    /// The owner makes a new pod for each rank without one, under a new name.
    fn recreate_missing(&mut self, workload: &Workload, pods: &[PodInfo]) {
        for rank in 0..workload.size {
            let of_rank = |pod: &&PodInfo| pod.gang.as_ref().and_then(|gang| gang.rank) == Some(rank);
            let there = pods.iter().filter(of_rank).any(|pod| !pod.deleting && pod.phase != PodPhase::Failed);
            if !there && self.prng.per_mille(200) {
                for pod in pods.iter().filter(of_rank) {
                    self.api.delete_pod(&pod.key);
                }
                self.created += 1;
                let incarnation = self.created;
                self.change_workload(&workload.name, |workload| workload.incarnations = incarnation);
                let pod = Workload { incarnations: incarnation, ..workload.clone() }.pod(rank, false);
                self.say(|| format!("* {} is made", pod.key.name));
                self.api.create_pod(PodInfo { created_at_ms: self.now, ..pod });
            }
        }
    }

    fn change_workload(&mut self, name: &SmolStr, change: impl FnOnce(&mut Workload)) {
        if let Some(workload) = self.workloads.get_mut(name) {
            change(workload);
        }
    }

    /// Kubelet and garbage collector.
    fn tend_pod(&mut self, name: &SmolStr) {
        let Some(pod) = self.api.pods.get(name).cloned() else { return };
        let faulty = self.faults.blow_every_ms > 0;
        if pod.gated {
            if !faulty || self.prng.per_mille(100) {
                self.api.update_pod(&pod.key, |pod| pod.gated = false);
            }
            return;
        }
        let Some(node) = &pod.node_name else { return };
        if !self.api.nodes.contains_key(node) {
            let collects = if faulty { 10 } else { 100 };
            if self.prng.per_mille(collects) {
                self.api.remove_pod(&pod.key);
            }
        } else if pod.deleting {
            if self.prng.per_mille(200) {
                self.remove_soon(pod.key);
            }
        } else if pod.phase == PodPhase::Pending && self.prng.per_mille(500) {
            // The kubelet starts it, or in rare cases refuses it (OutOfcpu, UnexpectedAdmissionError).
            let phase = if faulty && self.prng.per_mille(10) { PodPhase::Failed } else { PodPhase::Running };
            self.api.update_pod(&pod.key, |pod| pod.phase = phase);
        }
    }

    fn remove_soon(&mut self, pod: PodKey) {
        let grace = self.prng.between(1, 50);
        self.after(grace, Action::Remove { pod });
    }
}

/// Bound, not deleting, not ended.
#[must_use]
pub(crate) fn is_live(pod: &PodInfo) -> bool {
    pod.node_name.is_some() && !pod.deleting && !pod.phase.is_terminal()
}
