//! Groups of a LeaderWorkerSet: a leader and its workers, as labels and annotations of their pods say.
//!
//! Each group is a gang of its own. Workers of a set with `startupPolicy: LeaderReady` are not created before their leader
//! runs, so that its pods must not wait for each other: they are annotated `flowforge.dev/adopt: "false"`.

use super::{Convention, annotated, label, member, number, size};
use crate::types::Pod;
use flowforge_scheduler_core::model::GangMembership;
use smol_str::format_smolstr;

pub(super) const SIZE: &str = "leaderworkerset.sigs.k8s.io/size";
const NAME: &str = "leaderworkerset.sigs.k8s.io/name";
const GROUP_INDEX: &str = "leaderworkerset.sigs.k8s.io/group-index";
const WORKER_INDEX: &str = "leaderworkerset.sigs.k8s.io/worker-index";
const KIND: &str = "leaderworkerset.leaderworkerset.x-k8s.io";

/// The convention.
pub(super) struct LeaderWorkerSet;

impl Convention for LeaderWorkerSet {
    fn declares(&self, pod: &Pod) -> Option<GangMembership> {
        let group = format_smolstr!("{}-{}", label(pod, NAME)?, label(pod, GROUP_INDEX)?);
        let size = size(annotated(pod, SIZE)?);
        Some(GangMembership { size: Some(size), rank: number(label(pod, WORKER_INDEX)), ..member(KIND, &group) })
    }
}
