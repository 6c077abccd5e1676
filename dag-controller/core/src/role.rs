//! The roles of a gang: driver and workers, launcher, parameter servers. Members of a role are alike; their ranks follow each
//! other, the roles in the order of the spec.
//!
//! | `failurePolicy` | a member that fails or is lost |
//! |---|---|
//! | FailGang | fails the gang |
//! | ReplaceLost | a lost one is made again, a failed one fails the gang (`memberLostPolicy: ReplaceMember` of a node without roles) |
//! | ReplaceMember | is made again: a lost one always, a failed one up to the node's `retry.limit` times; then it is left out |
//! | Ignore | is left out |
//!
//! Whatever the policy, the gang fails when a role's members that are live or have succeeded become fewer than its minimum: those
//! that are not left out. A role that counts for the success needs one at least.
//!
//! | `successPolicy` | the role has done its work |
//! |---|---|
//! | All | when every member that is not left out has succeeded |
//! | Any | when one has succeeded |
//! | Ignore | always: it is not waited for |
//!
//! The gang succeeds when all of its roles have done their work; members that still run are stopped then.

use smol_str::SmolStr;
use std::ops::Range;

/// Name of the one role of a node without roles.
pub const WORKER: &str = "worker";

/// Members of a gang that are alike.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Role {
    /// Its name, unique in the node.
    pub name: SmolStr,
    /// Its members, at least 1.
    pub replicas: u32,
    /// Members that must be live, or have succeeded; at most `replicas`.
    pub min: u32,
    /// When it has done its work.
    pub success: Success,
    /// What a member means that fails or is lost.
    pub failure: Failure,
}

/// When a role has done its work.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Success {
    /// When all of its members have succeeded.
    #[default]
    All,
    /// When one of them has.
    Any,
    /// It is not waited for.
    Ignore,
}

/// What a member means that fails or is lost.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Failure {
    /// It fails the gang.
    #[default]
    FailGang,
    /// It is made again when the infrastructure took it; else it fails the gang.
    ReplaceLost,
    /// It is made again.
    ReplaceMember,
    /// The gang goes on without it.
    Ignore,
}

/// The ranks of each role.
pub fn ranks(roles: &[Role]) -> impl Iterator<Item = (&Role, Range<u32>)> {
    roles.iter().scan(0u32, |first, role| {
        let ranks = *first..first.saturating_add(role.replicas);
        *first = ranks.end;
        Some((role, ranks))
    })
}
