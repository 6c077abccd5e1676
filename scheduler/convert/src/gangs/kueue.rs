//! Groups of plain pods in Kueue: label `kueue.x-k8s.io/pod-group-name`, annotation `kueue.x-k8s.io/pod-group-total-count`.
//!
//! Kueue creates no object that we need: the members say how many they are. It holds them with scheduling gates until the
//! whole group is admitted, and writes the flavour's and the topology's labels into their `nodeSelector` before it takes the
//! gates away; members that are gated do not count, and a pod's selector is read anew with every change, so that the
//! assignment is a constraint like any other. The name is that of the Workload that Kueue keeps for the group.

use super::{Convention, annotated, label, member, number, size};
use crate::types::Pod;
use flowforge_scheduler_core::model::GangMembership;

pub(super) const TOTAL_COUNT: &str = "kueue.x-k8s.io/pod-group-total-count";
const GROUP_NAME: &str = "kueue.x-k8s.io/pod-group-name";
const POD_INDEX: &str = "kueue.x-k8s.io/pod-group-pod-index";
const KIND: &str = "workload.kueue.x-k8s.io";

/// The convention.
pub(super) struct Kueue;

impl Convention for Kueue {
    fn declares(&self, pod: &Pod) -> Option<GangMembership> {
        let total = size(annotated(pod, TOTAL_COUNT).unwrap_or_default());
        let rank = number(label(pod, POD_INDEX));
        Some(GangMembership { size: Some(total), rank, ..member(KIND, label(pod, GROUP_NAME)?) })
    }
}
