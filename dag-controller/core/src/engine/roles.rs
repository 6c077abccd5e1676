//! The members of a gang, counted by role: whether enough of them are bound and run, whether the gang has done its work, and
//! whether it can not go on. The rules are those of [`crate::role`]. Every answer follows from the counts alone, so that it does
//! not matter in which order they came about, or who counted.

use crate::command::MemberOutcome;
use crate::dag::{MemberLost, NodeSpec};
use crate::role::{Failure, Role, Success, WORKER};
use smol_str::{SmolStr, format_smolstr};
use std::sync::Arc;

use super::member::{Member, flag};

/// One role and the counts of its members.
#[derive(Clone, Debug, PartialEq)]
struct Standing {
    /// The rank after its last.
    end: u32,
    replicas: u32,
    min: u32,
    success: Success,
    failure: Failure,
    bound: u32,
    ran: u32,
    succeeded: u32,
    /// Left out, or the failure of the gang.
    failed: u32,
}

impl Standing {
    fn of(replicas: u32, min: u32, success: Success, failure: Failure) -> Self {
        Self { end: 0, replicas, min, success, failure, bound: 0, ran: 0, succeeded: 0, failed: 0 }
    }

    /// Members that are live, are being made, or have succeeded.
    const fn left(&self) -> u32 {
        self.replicas.saturating_sub(self.failed)
    }

    /// A role that counts for the success can not do its work without members.
    fn needed(&self) -> u32 {
        if self.success == Success::Ignore { self.min } else { self.min.max(1) }
    }

    fn is_done(&self) -> bool {
        match self.success {
            Success::All => self.succeeded > 0 && self.succeeded == self.left(),
            Success::Any => self.succeeded > 0,
            Success::Ignore => true,
        }
    }
}

/// See the module.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Roles {
    all: Vec<Standing>,
    spec: Option<Arc<[Role]>>,
}

impl Roles {
    pub(super) fn new(spec: &NodeSpec) -> Self {
        let failure = match spec.member_lost {
            MemberLost::Fail => Failure::FailGang,
            MemberLost::Replace => Failure::ReplaceLost,
        };
        let one = || vec![Standing::of(spec.replicas, spec.replicas, Success::All, failure)];
        let standing = |role: &Role| Standing::of(role.replicas, role.min, role.success, role.failure);
        let mut all: Vec<Standing> = spec.roles.as_ref().map_or_else(one, |roles| roles.iter().map(standing).collect());
        let mut end = 0u32;
        for role in &mut all {
            end = end.saturating_add(role.replicas);
            role.end = end;
        }
        Self { all, spec: spec.roles.clone() }
    }

    fn of_mut(&mut self, rank: u32) -> Option<&mut Standing> {
        self.all.iter_mut().find(|role| rank < role.end)
    }

    fn of(&self, rank: u32) -> Option<&Standing> {
        self.all.iter().find(|role| rank < role.end)
    }

    /// A member is counted as it is.
    pub(super) fn add(&mut self, rank: u32, member: Member) {
        self.each(rank, member, |count| *count += 1);
    }

    /// A member is not counted any more as it was.
    pub(super) fn take(&mut self, rank: u32, member: Member) {
        self.each(rank, member, |count| *count -= 1);
    }

    fn each(&mut self, rank: u32, member: Member, change: impl Fn(&mut u32)) {
        let Some(role) = self.of_mut(rank) else { return };
        if member.has(flag::BOUND) {
            change(&mut role.bound);
        }
        if member.has(flag::RAN) {
            change(&mut role.ran);
        }
        match member.outcome {
            Some(MemberOutcome::Succeeded) => change(&mut role.succeeded),
            Some(MemberOutcome::Failed) => change(&mut role.failed),
            _ => {}
        }
    }

    /// What a failure or loss of this member means.
    pub(super) fn failure(&self, rank: u32) -> Failure {
        self.of(rank).map_or(Failure::FailGang, |role| role.failure)
    }

    /// All members that are needed are bound.
    pub(super) fn are_bound(&self) -> bool {
        self.have(|role| role.bound)
    }

    /// All members that are needed run, or ran.
    pub(super) fn have_run(&self) -> bool {
        self.have(|role| role.ran)
    }

    fn have(&self, count: impl Fn(&Standing) -> u32) -> bool {
        self.all.iter().all(|role| count(role) >= role.min) && self.all.iter().any(|role| count(role) > 0)
    }

    /// The gang has done its work.
    pub(super) fn have_succeeded(&self) -> bool {
        self.all.iter().all(Standing::is_done)
    }

    /// The gang can not go on without this member, which has failed and is counted.
    pub(super) fn fail_without(&self, rank: u32) -> bool {
        self.of(rank).is_none_or(|role| match role.failure {
            Failure::FailGang | Failure::ReplaceLost => true,
            Failure::ReplaceMember | Failure::Ignore => role.left() < role.needed(),
        })
    }

    /// What a person should know besides of the member that the gang can not go on without; empty when that says it all.
    pub(super) fn shortfall(&self, rank: u32) -> SmolStr {
        let Some(role) = self.of(rank).filter(|role| role.left() < role.needed() && self.all.len() > 1) else {
            return SmolStr::default();
        };
        let at = self.all.iter().position(|other| other.end == role.end).unwrap_or(0);
        let name = self.spec.as_ref().and_then(|roles| roles.get(at)).map_or(WORKER, |role| role.name.as_str());
        format_smolstr!("role {name} has {} members left and needs {}", role.left(), role.needed())
    }
}
