//! The `PodGroup` of the coscheduling plugin (`scheduling.x-k8s.io/v1alpha1`, kubernetes-sigs/scheduler-plugins).
//!
//! Pods name it with label `scheduling.x-k8s.io/pod-group`. `minResources` and `scheduleTimeoutSeconds` bound how long pods
//! that have a place wait for the others; a gang of ours is given all of its places at once, so that there is nothing to bound.
//! The status is the one that the plugin's controller keeps from its pods: `Pending` below `minMember` pods, `Scheduling` until
//! that many run, `Running`, and for ever `Finished` or `Failed`. Where that controller runs, too, it writes the same.

use super::beside::Surroundings;
use super::{Convention, Declaration, Declared, GroupWrite, Standing, at_least, gang_name, label, member_of_job};
use crate::types::{Meta, Pod};
use flowforge_scheduler_core::model::{GangInfo, GangMembership};
use serde::Deserialize;
use serde_json::json;
use smol_str::SmolStr;

const GROUP_LABEL: &str = "scheduling.x-k8s.io/pod-group";

/// The convention.
pub(super) struct Coscheduling;

impl Convention for Coscheduling {
    fn declares(&self, pod: &Pod) -> Option<GangMembership> {
        Some(member_of_job(PodGroup::KIND, label(pod, GROUP_LABEL)?, pod))
    }
}

/// The object.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PodGroup {
    metadata: Meta,
    spec: Spec,
    status: Status,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    min_member: i32,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase", default)]
struct Status {
    phase: SmolStr,
    running: u32,
    succeeded: u32,
    failed: u32,
    schedule_start_time: Option<String>,
}

impl Declaration for PodGroup {
    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn name(&self) -> SmolStr {
        gang_name(Self::KIND, &self.metadata.name)
    }

    fn gang(&self, _around: &Surroundings) -> GangInfo {
        at_least(&self.metadata, self.name(), self.spec.min_member)
    }

    fn answer(&self, standing: &Standing<'_>) -> Option<GroupWrite> {
        let have = &self.status;
        if matches!(have.phase.as_str(), "Finished" | "Failed") {
            return None;
        }
        let (pods, need) = (standing.pods, standing.gang.min_member);
        let there = pods.running + pods.succeeded;
        let phase = if pods.succeeded >= need {
            "Finished"
        } else if pods.failed > 0 && pods.failed + there >= need {
            "Failed"
        } else if pods.all < need {
            "Pending"
        } else if there < need {
            "Scheduling"
        } else {
            "Running"
        };
        let started = || crate::gangs::seconds(standing.now);
        let wanted = Status {
            phase: phase.into(),
            running: pods.running,
            succeeded: pods.succeeded,
            failed: pods.failed,
            schedule_start_time: have.schedule_start_time.clone().or_else(|| (phase != "Pending").then(started)),
        };
        if wanted == *have {
            return None;
        }
        let status = json!({
            "phase": wanted.phase, "running": wanted.running, "succeeded": wanted.succeeded, "failed": wanted.failed,
            "scheduleStartTime": wanted.schedule_start_time,
        });
        Some(GroupWrite::merge_status(&self.metadata, Self::PATH, &status))
    }
}

impl Declared for PodGroup {
    const KIND: &'static str = "podgroup.scheduling.x-k8s.io";
    const PLURAL: &'static str = "podgroups.scheduling.x-k8s.io";
    const PATH: &'static str = "/apis/scheduling.x-k8s.io/v1alpha1/podgroups";
}
