//! Who makes pods: gangs of several kinds of owners, and pods on their own. They recreate what is deleted, as theirs do.

use crate::claims;
use flowforge_scheduler_core::model::{
    GangInfo, GangMembership, GangRoleInfo, LayoutInfo, Owner, PodInfo, PodKey, Terms,
};
use smol_str::{SmolStr, ToSmolStr};
use std::collections::{BTreeMap, BTreeSet};

/// Kind of a gang's owner.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OwnerKind {
    /// Our DAG controller: tolerates a rollback and recreates the member.
    Gang,
    /// A Job: does not tolerate it, and recreates the member.
    Job,
    /// Nobody: tolerates it, and recreates nothing.
    Bare,
}

/// A gang, or a pod on its own (`size` 1 and no gang).
#[derive(Clone, Debug)]
pub struct Workload {
    /// Name.
    pub name: SmolStr,
    /// Members; 0 for a pod on its own.
    pub size: u32,
    /// Owner.
    pub owner: OwnerKind,
    /// Canceled or finished: its pods go and no more come.
    pub closed: bool,
    /// Had all members live at once, as far as a scheduler could tell.
    pub was_whole: bool,
    /// Ranks that each intent bound.
    pub bound: BTreeMap<SmolStr, BTreeSet<u32>>,
    /// A member was recreated, or not, so often.
    pub incarnations: u64,
    /// What its pods claim.
    pub claims: Claims,
}

/// What the pods of a workload claim.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Claims {
    /// Nothing.
    None,
    /// A volume each, made for it.
    Volumes,
    /// Devices that all share.
    Devices,
}

impl Workload {
    /// Whether the gang may be partial for long: an owner that does not tolerate a rollback, or a later loss.
    #[must_use]
    pub fn may_be_partial(&self) -> bool {
        self.owner == OwnerKind::Job || self.was_whole || self.closed
    }

    /// One of its pods was bound. When an intent has bound every rank the scheduler closes it as whole, even if a member was
    /// deleted meanwhile: that is a later loss.
    pub fn was_bound(&mut self, pod: &PodInfo) {
        let rank = pod.gang.as_ref().and_then(|gang| gang.rank);
        if let (Some(intent), Some(rank)) = (&pod.intent, rank) {
            let ranks = self.bound.entry(intent.clone()).or_default();
            ranks.insert(rank);
            self.was_whole |= ranks.len() == self.size as usize;
        }
    }

    /// The `Gang` object; None for a pod on its own.
    #[must_use]
    pub fn gang(&self) -> Option<GangInfo> {
        (self.size > 0).then(|| GangInfo {
            namespace: "sim".into(),
            name: self.name.clone(),
            uid: uid_of(&self.name),
            min_member: self.size,
            roles: vec![GangRoleInfo { name: "worker".into(), replicas: self.size, min: self.size }],
            topology_required: None,
            topology_preferred: Vec::new(),
            layout: LayoutInfo::default(),
            closed: self.closed,
            replaces: None,
            hold_ms: 0,
            terms: Terms::default(),
        })
    }

    /// The pod of a rank, in its present incarnation.
    #[must_use]
    pub fn pod(&self, rank: u32, gated: bool) -> PodInfo {
        let name = format!("{}-{rank}-{}", self.name, self.incarnations).to_smolstr();
        let membership = GangMembership {
            name: self.name.clone(),
            uid: Some(uid_of(&self.name)),
            size: None,
            role: "worker".into(),
            rank: Some(rank),
            topology_required: None,
            topology_preferred: Vec::new(),
        };
        let owner = |api_version: &str, kind: &str| Owner {
            api_version: api_version.into(),
            kind: kind.into(),
            name: self.name.clone(),
            uid: uid_of(&self.name),
        };
        let mut pod = PodInfo {
            key: PodKey { namespace: "sim".into(), uid: format!("{name}-uid").into(), name },
            ours: true,
            scheduler_name: "flowforge".into(),
            gated,
            requests: [("nvidia.com/gpu".into(), 1)].into(),
            gang: (self.size > 0).then_some(membership),
            owner: match self.owner {
                OwnerKind::Gang => Some(owner("flowforge.dev/v1alpha1", "Gang")),
                OwnerKind::Job => Some(owner("batch/v1", "Job")),
                OwnerKind::Bare => None,
            },
            ..PodInfo::default()
        };
        if self.claims != Claims::None {
            claims::attach(&mut pod, &self.name, self.claims == Claims::Devices);
        }
        pod
    }
}

fn uid_of(gang: &str) -> SmolStr {
    format!("{gang}-gang").into()
}
