//! Plain facts about storage, and what a pod mounts of it; only the fields that scheduling uses.

use crate::labels::{LabelSelector, Labels};
use crate::model::NodeSelectorTerm;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// Namespace and name; the namespace is empty for what has none.
pub type ObjectName = (SmolStr, SmolStr);

/// The access mode that allows one pod in the whole cluster.
pub const READ_WRITE_ONCE_POD: &str = "ReadWriteOncePod";

/// An amount of storage in billionths of a byte, as exact as Kubernetes' Quantity.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StorageSize(#[serde(with = "as_text")] pub i128);

/// JSON's numbers are too small for what a disk has.
mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de};

    pub(super) fn serialize<S: Serializer>(nanos: &i128, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(nanos)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i128, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl StorageSize {
    /// Whole bytes, rounded up.
    #[must_use]
    pub fn bytes(self) -> i64 {
        const NANOS: i128 = 1_000_000_000;
        let whole = self.0.div_euclid(NANOS) + i128::from(self.0.rem_euclid(NANOS) != 0);
        i64::try_from(whole).unwrap_or(if whole < 0 { i64::MIN } else { i64::MAX })
    }
}

/// A volume of a pod, where scheduling has anything to do with it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum PodVolume {
    /// The claim of this name in the pod's namespace.
    Claim(SmolStr),
    /// A generic ephemeral volume: the claim of this name (`POD-VOLUME`), which must belong to the pod.
    Ephemeral(SmolStr),
    /// A disk that the pod names itself.
    Disk(Disk),
}

impl PodVolume {
    /// The claim that it mounts, and whether that must belong to the pod.
    #[must_use]
    pub fn claim(&self) -> Option<(&SmolStr, bool)> {
        match self {
            Self::Claim(name) => Some((name, false)),
            Self::Ephemeral(name) => Some((name, true)),
            Self::Disk(_) => None,
        }
    }
}

/// A disk that a pod names itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Disk {
    /// Whom it shares a node with.
    pub exclusive: Option<ExclusiveDisk>,
    /// The CSI volume that it is on nodes with a CSINode.
    pub migrated: Option<CsiHandle>,
}

/// A disk that two pods of one node may not mount both, or only read.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ExclusiveDisk {
    /// A GCE persistent disk; readers share it.
    Gce {
        /// Name of the disk.
        name: SmolStr,
        /// Only read.
        read_only: bool,
    },
    /// An EBS volume; nobody shares it.
    Ebs {
        /// Its ID.
        id: SmolStr,
    },
    /// An iSCSI target; readers share it.
    Iscsi {
        /// Qualified name.
        iqn: SmolStr,
        /// Only read.
        read_only: bool,
    },
    /// A Ceph image; the same where a monitor, the pool and the name are. Readers share it.
    Rbd {
        /// Monitors.
        monitors: Vec<SmolStr>,
        /// Pool.
        pool: SmolStr,
        /// Image.
        image: SmolStr,
        /// Only read.
        read_only: bool,
    },
}

/// A volume as its CSI driver knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct CsiHandle {
    /// Name of the driver.
    pub driver: SmolStr,
    /// The driver's name for the volume.
    pub handle: SmolStr,
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ClaimInfo {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// UID.
    pub uid: SmolStr,
    /// resourceVersion.
    pub resource_version: SmolStr,
    /// `spec.volumeName`, where there is one.
    pub volume: Option<SmolStr>,
    /// Annotation `pv.kubernetes.io/bind-completed`.
    pub bind_completed: bool,
    /// Phase Lost: its volume is gone.
    pub lost: bool,
    /// Whether a deletion timestamp is set.
    pub deleting: bool,
    /// Its class, by the beta annotation or the spec; empty for none.
    pub class: SmolStr,
    /// Annotation `volume.kubernetes.io/selected-node`.
    pub selected_node: Option<SmolStr>,
    /// Access modes.
    pub modes: Vec<SmolStr>,
    /// Requested storage; None where nothing is requested.
    pub request: Option<StorageSize>,
    /// Volume mode Block.
    pub block: bool,
    /// Which volumes may be bound to it by hand; None for any.
    pub selector: Option<LabelSelector>,
    /// `spec.volumeAttributesClassName`; empty for none.
    pub attributes_class: SmolStr,
    /// UID of its controller.
    pub owner: Option<SmolStr>,
}

impl ClaimInfo {
    /// Namespace and name.
    #[must_use]
    pub fn key(&self) -> ObjectName {
        (self.namespace.clone(), self.name.clone())
    }

    /// Whether the volume controller is done with it.
    #[must_use]
    pub fn is_bound(&self) -> bool {
        self.volume.is_some() && self.bind_completed
    }
}

/// The claim that a volume is bound to, or kept for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClaimRef {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// UID; empty where an administrator did not write it.
    pub uid: SmolStr,
}

impl ClaimRef {
    /// Whether it means this claim.
    #[must_use]
    pub fn is(&self, claim: &ClaimInfo) -> bool {
        self.namespace == claim.namespace && self.name == claim.name && (self.uid.is_empty() || self.uid == claim.uid)
    }
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VolumeInfo {
    /// Name.
    pub name: SmolStr,
    /// UID.
    pub uid: SmolStr,
    /// resourceVersion.
    pub resource_version: SmolStr,
    /// Labels.
    pub labels: Labels,
    /// Storage that it has.
    pub capacity: StorageSize,
    /// Access modes.
    pub modes: Vec<SmolStr>,
    /// Volume mode Block.
    pub block: bool,
    /// Its class, by the beta annotation or the spec; empty for none.
    pub class: SmolStr,
    /// `spec.volumeAttributesClassName`; empty for none.
    pub attributes_class: SmolStr,
    /// `spec.claimRef`.
    pub claim: Option<ClaimRef>,
    /// Phase Available.
    pub available: bool,
    /// Whether a deletion timestamp is set.
    pub deleting: bool,
    /// Required node affinity; None where it is everywhere.
    pub affinity: Option<Vec<NodeSelectorTerm>>,
    /// What it is.
    pub source: VolumeSource,
}

/// What a PersistentVolume is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub enum VolumeSource {
    /// Nothing that is counted.
    #[default]
    Other,
    /// A CSI volume.
    Csi(CsiHandle),
    /// A volume of a plugin that a CSI driver took over.
    InTree(InTreeVolume),
}

/// A volume of a plugin that a CSI driver took over.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct InTreeVolume {
    /// Name of the plugin, such as `kubernetes.io/aws-ebs`.
    pub plugin: SmolStr,
    /// The volume as the driver knows it; None where it cannot be translated.
    pub csi: Option<CsiHandle>,
    /// Required node affinity on nodes where the driver has taken over.
    pub affinity: Option<Vec<NodeSelectorTerm>>,
}

/// One way to be in a class's topology: every key has one of its values.
pub type TopologyTerm = Vec<(SmolStr, Vec<SmolStr>)>;

/// A StorageClass.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassInfo {
    /// Name.
    pub name: SmolStr,
    /// Provisioner.
    pub provisioner: SmolStr,
    /// Binding mode WaitForFirstConsumer.
    pub waits: bool,
    /// ORed terms; none: everywhere.
    pub topologies: Vec<TopologyTerm>,
}

/// A CSINode.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsiNodeInfo {
    /// Name of the node.
    pub name: SmolStr,
    /// Drivers, and how many volumes of each the node takes; None for any number.
    pub drivers: BTreeMap<SmolStr, Option<i64>>,
    /// In-tree plugins that a CSI driver took over on this node.
    pub migrated: BTreeSet<SmolStr>,
}

/// A CSIDriver.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CsiDriverInfo {
    /// Name.
    pub name: SmolStr,
    /// Whether its free capacity is published and counts.
    pub storage_capacity: bool,
    /// Whether nodes without the driver take no pod with its volumes.
    pub needed_on_node: bool,
}

/// A CSIStorageCapacity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CapacityInfo {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// Class that it is for.
    pub class: SmolStr,
    /// Nodes that reach it; None for none.
    pub topology: Option<LabelSelector>,
    /// Largest volume in bytes: `maximumVolumeSize`, or else the capacity.
    pub limit: Option<i64>,
    /// Free bytes.
    pub capacity: Option<i64>,
}

/// A VolumeAttachment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentInfo {
    /// Name.
    pub name: SmolStr,
    /// Node.
    pub node: SmolStr,
    /// Driver that attaches.
    pub attacher: SmolStr,
    /// PersistentVolume, where it names one.
    pub volume: Option<SmolStr>,
}

/// A storage object as it is now.
#[derive(Clone, Debug, PartialEq)]
pub enum StorageFact {
    /// A PersistentVolumeClaim.
    Claim(ClaimInfo),
    /// A PersistentVolume.
    Volume(VolumeInfo),
    /// A StorageClass.
    Class(ClassInfo),
    /// A CSINode.
    CsiNode(CsiNodeInfo),
    /// A CSIDriver.
    Driver(CsiDriverInfo),
    /// A CSIStorageCapacity.
    Capacity(CapacityInfo),
    /// A VolumeAttachment.
    Attachment(AttachmentInfo),
}

/// Kinds of storage objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StorageKind {
    /// PersistentVolumeClaims.
    Claim,
    /// PersistentVolumes.
    Volume,
    /// StorageClasses.
    Class,
    /// CSINodes.
    CsiNode,
    /// CSIDrivers.
    Driver,
    /// CSIStorageCapacities.
    Capacity,
    /// VolumeAttachments.
    Attachment,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_byte_is_a_byte() {
        let bytes = |nanos| StorageSize(nanos).bytes();
        assert_eq!([bytes(0), bytes(1), bytes(1_000_000_000), bytes(1_000_000_001)], [0, 1, 1, 2]);
        assert_eq!(bytes(i128::MAX), i64::MAX);
    }

    #[test]
    fn a_size_of_any_disk_survives_json() {
        let size = StorageSize(1 << 100);
        let shown = serde_json::to_value(size).unwrap();
        assert_eq!(serde_json::from_value::<StorageSize>(shown).unwrap(), size);
    }

    #[test]
    fn a_reference_without_a_uid_means_any_claim_of_the_name() {
        let claim = ClaimInfo { namespace: "n".into(), name: "c".into(), uid: "u".into(), ..ClaimInfo::default() };
        let of = |uid: &str| ClaimRef { namespace: "n".into(), name: "c".into(), uid: uid.into() };
        assert!(of("").is(&claim) && of("u").is(&claim) && !of("other").is(&claim));
    }
}
