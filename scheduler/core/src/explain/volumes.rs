//! Why volumes refuse a node or a pod.

use crate::plugins::volume_zone::ZoneUnknown;
use crate::plugins::{Cures, node_volume_limits, volume_binding, volume_restrictions, volume_zone};
use smol_str::SmolStr;
use std::fmt;

/// Why volumes refuse a node or a pod.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum VolumeReason {
    /// Another pod of the node mounts a disk that they cannot share.
    DiskConflict,
    /// Another pod uses a claim that serves only one.
    ReadWriteOncePod,
    /// A claim that the pod names does not exist.
    ClaimMissing(SmolStr),
    /// The same, said by VolumeBinding where VolumeRestrictions, which says it first, is off.
    BindingClaimMissing(SmolStr),
    /// A claim does not exist, said by NodeVolumeLimits where VolumeBinding, which says it first, is off: namespace, claim.
    LimitClaimMissing(SmolStr, SmolStr),
    /// The same of a claim that was not made for the pod: namespace, claim, pod.
    LimitClaimNotOwned(SmolStr, SmolStr, SmolStr),
    /// The node takes no more volumes of a driver.
    Limit,
    /// The node lacks a driver that must be there.
    DriverMissing(SmolStr),
    /// The claim of an ephemeral volume does not exist yet.
    EphemeralClaimMissing(SmolStr),
    /// The volume of a claim is gone: claim, volume.
    ClaimLost(SmolStr, SmolStr),
    /// A claim is being deleted.
    ClaimDeleting(SmolStr),
    /// A claim has the name of an ephemeral volume and was not made for it: namespace, claim, pod.
    ClaimNotOwned(SmolStr, SmolStr, SmolStr),
    /// The pod has unbound claims whose class does not wait for it.
    UnboundClaims,
    /// The node cannot reach a volume.
    Affinity,
    /// No volume is free for a claim, and none can be made.
    NoVolume,
    /// Too little storage is free.
    NoStorage,
    /// A claim is bound to a volume that does not exist.
    NoSuchVolume,
    /// A claim that the pod names is bound to a volume that does not exist.
    VolumeMissing(SmolStr),
    /// A claim has no volume yet and does not wait for the pod, or is not there, so that its zone is not known: said by
    /// VolumeZone where VolumeBinding, which says it first, is off.
    ZoneUnknown(ZoneUnknown),
    /// A volume is in another zone.
    Zone,
}

impl VolumeReason {
    /// The rule that speaks: its name, and the events that can cure what it refuses.
    fn rule(&self) -> (&'static str, Cures) {
        match self {
            Self::DiskConflict | Self::ReadWriteOncePod | Self::ClaimMissing(_) => {
                (volume_restrictions::NAME, volume_restrictions::CURED_BY)
            }
            Self::LimitClaimMissing(..) | Self::LimitClaimNotOwned(..) | Self::Limit | Self::DriverMissing(_) => {
                (node_volume_limits::NAME, node_volume_limits::CURED_BY)
            }
            Self::BindingClaimMissing(_)
            | Self::EphemeralClaimMissing(_)
            | Self::ClaimLost(..)
            | Self::ClaimDeleting(_)
            | Self::ClaimNotOwned(..)
            | Self::UnboundClaims
            | Self::Affinity
            | Self::NoVolume
            | Self::NoStorage
            | Self::NoSuchVolume => (volume_binding::NAME, volume_binding::CURED_BY),
            Self::VolumeMissing(_) | Self::ZoneUnknown(_) | Self::Zone => (volume_zone::NAME, volume_zone::CURED_BY),
        }
    }

    /// The plugin that speaks.
    #[must_use]
    pub fn plugin(&self) -> &'static str {
        self.rule().0
    }

    /// Whether it may end when pods leave the node; see [`super::Reason::ends_by_eviction`].
    #[must_use]
    pub fn ends_by_eviction(&self) -> bool {
        matches!(self, Self::DiskConflict | Self::ReadWriteOncePod | Self::Limit | Self::DriverMissing(_))
    }

    /// The events that can cure it.
    #[must_use]
    pub fn cures(&self) -> Cures {
        self.rule().1
    }
}

impl fmt::Display for VolumeReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::DiskConflict => f.write_str(volume_restrictions::REASON_DISK),
            Self::ReadWriteOncePod => f.write_str(volume_restrictions::REASON_ONE_POD),
            Self::ClaimMissing(claim) | Self::BindingClaimMissing(claim) => {
                f.write_str(&volume_restrictions::reason_missing(claim))
            }
            Self::LimitClaimMissing(namespace, claim) => {
                f.write_str(&node_volume_limits::reason_missing(namespace, claim))
            }
            Self::LimitClaimNotOwned(namespace, claim, pod) => {
                f.write_str(&volume_binding::reason_not_owned(namespace, claim, pod))
            }
            Self::Limit => f.write_str(node_volume_limits::REASON),
            Self::DriverMissing(driver) => f.write_str(&node_volume_limits::reason_no_driver(driver)),
            Self::EphemeralClaimMissing(claim) => f.write_str(&volume_binding::reason_ephemeral_missing(claim)),
            Self::ClaimLost(claim, volume) => f.write_str(&volume_binding::reason_lost(claim, volume)),
            Self::ClaimDeleting(claim) => f.write_str(&volume_binding::reason_deleting(claim)),
            Self::ClaimNotOwned(namespace, claim, pod) => {
                f.write_str(&volume_binding::reason_not_owned(namespace, claim, pod))
            }
            Self::UnboundClaims => f.write_str(volume_binding::REASON_UNBOUND),
            Self::Affinity => f.write_str(volume_binding::REASON_AFFINITY),
            Self::NoVolume => f.write_str(volume_binding::REASON_NO_VOLUME),
            Self::NoStorage => f.write_str(volume_binding::REASON_NO_SPACE),
            Self::NoSuchVolume => f.write_str(volume_binding::REASON_NO_SUCH_VOLUME),
            Self::VolumeMissing(volume) => f.write_str(&volume_zone::reason_missing(volume)),
            Self::ZoneUnknown(why) => why.fmt(f),
            Self::Zone => f.write_str(volume_zone::REASON),
        }
    }
}
