//! DynamicResources: every ResourceClaim of the pod is allocated on the node, or can be. Weight 2: alternatives that stand
//! earlier in a request are worth more. How devices are chosen: [`crate::devices`].
//!
//! Extended resources that a DeviceClass stands for, and that the node's device plugins do not offer, become a claim like the
//! others.
//!
//! As upstream: a claim that is missing, deleted, not the pod's own or being allocated for another pod refuses it whatever the
//! nodes have; a claim that is allocated for other nodes speaks only where the rest could be allocated.

use super::Cures;
use smol_str::SmolStr;

/// kube-scheduler's name.
pub const NAME: &str = "DynamicResources";
/// Reason text: the node has no devices for the claims.
pub const REASON_NONE: &str = "cannot allocate all claims";
/// Reason text: a claim is allocated for other nodes.
pub const REASON_ELSEWHERE: &str = "resourceclaim not available on the node";
/// Reason text: there are no devices, and pools contradict themselves.
pub const REASON_INVALID: &str = "invalid resource pools were encountered";
/// Reason text: a special claim is left over from an attempt that failed.
pub const REASON_LEFTOVER: &str = "cannot schedule extended resource claim";
/// Reason text: the node has nothing of a resource that no class stands for.
pub const REASON_NO_RESOURCE: &str = "cannot fit resource";
/// Text: as many as can have reserved the claim.
pub const IN_USE: &str = "resourceclaim in use";
/// Text: the claim is not made from its template yet.
pub const NOT_CREATED: &str = "ResourceClaim not created yet";
/// Text: the pod names its claim in a way that is not known here.
pub const UNSUPPORTED: &str = "none of the supported fields are set";
/// What cures a refusal whatever the nodes have: the claim is there, is allocated or free; a pod that was assumed with it left.
pub const CLAIM_CURED_BY: Cures = Cures::CLAIMS.and(Cures::POD_CHANGED).and(Cures::POD_GONE).and(Cures::DEVICE_CLASSES);
/// What cures the refusal of a node.
pub const CURED_BY: Cures =
    CLAIM_CURED_BY.and(Cures::NODE_ADDED).and(Cures::NODE_LABELS).and(Cures::NODE_ALLOCATABLE).and(Cures::DEVICES);
/// Weight of the score.
pub const WEIGHT: i64 = 2;

/// Text: there is no such claim.
#[must_use]
pub fn not_found(namespace: &SmolStr, name: &SmolStr) -> String {
    format!("could not find ResourceClaim \"{namespace}/{name}\"")
}
