//! A JobSet (`jobset.x-k8s.io/v1alpha2`): all pods of all its Jobs, each replicated Job a role.
//!
//! Labels of the pods say the set, the replicated Job and the indices; how many there will be stands in the object. A set
//! that starts its Jobs in an order (`startupPolicy: InOrder`, `dependsOn`) creates the later ones only when the earlier
//! ones run: its pods are placed as they come. Nothing is written: all of its status is the JobSet controller's.

use super::beside::Surroundings;
use super::{COMPLETION_INDEX, Convention, Declaration, Declared, at_least, gang_name, label, member, number, role};
use crate::types::{Meta, Pod};
use flowforge_scheduler_core::model::{GangInfo, GangMembership};
use serde::Deserialize;
use serde::de::IgnoredAny;
use smol_str::SmolStr;

const SET_NAME: &str = "jobset.sigs.k8s.io/jobset-name";
const REPLICATED_JOB: &str = "jobset.sigs.k8s.io/replicatedjob-name";
const JOB_INDEX: &str = "jobset.sigs.k8s.io/job-index";
/// More pods than an indexed Job may have at once: ranks count Jobs in these steps.
const PODS_OF_JOB: u32 = 100_000;

/// The convention.
pub(super) struct JobSets;

impl Convention for JobSets {
    fn declares(&self, pod: &Pod) -> Option<GangMembership> {
        let mut member = member(JobSet::KIND, label(pod, SET_NAME)?);
        member.role = label(pod, REPLICATED_JOB)?.clone();
        let index = number(label(pod, COMPLETION_INDEX));
        member.rank = number(label(pod, JOB_INDEX))
            .zip(index)
            .and_then(|(job, pod)| job.checked_mul(PODS_OF_JOB)?.checked_add(pod));
        Some(member)
    }
}

/// The object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct JobSet {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    replicated_jobs: Vec<ReplicatedJob>,
    startup_policy: StartupPolicy,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct StartupPolicy {
    startup_policy_order: SmolStr,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ReplicatedJob {
    name: SmolStr,
    #[serde(default = "one")]
    replicas: i32,
    #[serde(default)]
    template: JobTemplate,
    #[serde(default)]
    depends_on: Vec<IgnoredAny>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct JobTemplate {
    spec: JobSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct JobSpec {
    parallelism: Option<i32>,
    completions: Option<i32>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    terminal_state: SmolStr,
}

fn one() -> i32 {
    1
}

impl ReplicatedJob {
    /// Pods that run at once.
    fn pods(&self) -> u32 {
        let spec = &self.template.spec;
        let at_once = spec.parallelism.unwrap_or(1).min(spec.completions.unwrap_or(i32::MAX));
        u32::try_from(self.replicas).unwrap_or_default().saturating_mul(u32::try_from(at_once).unwrap_or_default())
    }
}

impl Declaration for JobSet {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn name(&self) -> SmolStr {
        gang_name(Self::KIND, &self.metadata.name)
    }

    fn gang(&self, _around: &Surroundings) -> GangInfo {
        let spec = &self.spec;
        let mut gang = at_least(&self.metadata, self.name(), 1);
        gang.closed |= !self.status.terminal_state.is_empty();
        let in_order = spec.startup_policy.startup_policy_order == "InOrder";
        if in_order || spec.replicated_jobs.iter().any(|job| !job.depends_on.is_empty()) {
            return gang;
        }
        // A Job with more completions than it runs at once makes a pod for each that ended: none of them is surplus.
        gang.roles = spec.replicated_jobs.iter().map(|job| role(&job.name, job.pods())).collect();
        gang.min_member = gang.roles.iter().map(|role| role.min).fold(0, u32::saturating_add).max(1);
        gang
    }
}

impl Declared for JobSet {
    const KIND: &'static str = "jobset.jobset.x-k8s.io";
    const PLURAL: &'static str = "jobsets.jobset.x-k8s.io";
    const PATH: &'static str = "/apis/jobset.x-k8s.io/v1alpha2/jobsets";
}
