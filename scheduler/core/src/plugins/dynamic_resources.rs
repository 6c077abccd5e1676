//! DynamicResources, the part that is known here: ResourceClaims are not allocated by this scheduler. A pod that has some is
//! refused by name, because without its devices it would start and fail, or never start.

use super::Cures;

/// kube-scheduler's name.
pub const NAME: &str = "DynamicResources";
/// Reason text.
pub const REASON: &str = "pod has ResourceClaims, which this scheduler does not allocate yet";
/// What cures it.
pub const CURED_BY: Cures = Cures::POD_CHANGED;
/// Weight of the score.
pub const WEIGHT: i64 = 2;
