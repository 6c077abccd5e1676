//! VolumeBinding, the part that is known here: a pod whose PersistentVolumeClaims are unbound cannot be planned, whatever
//! the nodes have (upstream refuses it in PreFilter).

use super::Cures;

/// kube-scheduler's name.
pub const NAME: &str = "VolumeBinding";
/// Reason text.
pub const REASON: &str = "pod has unbound immediate PersistentVolumeClaims";
/// What cures it: the shell reports the pod again when a claim of it is bound.
pub const CURED_BY: Cures = Cures::POD_CHANGED;
