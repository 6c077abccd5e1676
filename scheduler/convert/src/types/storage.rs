//! Claims, volumes and what drivers say of nodes, as the API server sends them.

use super::super::quantity::{Quantity, QuantityMap};
use super::{LabelSelector, Meta, NodeSelector};
use serde::Deserialize;
use serde::de::IgnoredAny;
use smol_str::SmolStr;

/// Names of annotations that are kept besides our own.
pub mod annotation {
    /// On a claim: the volume controller is done with it.
    pub const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
    /// On a claim: the node that its volume is made for.
    pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
    /// On claims and volumes: the class, before there was a field.
    pub const CLASS: &str = "volume.beta.kubernetes.io/storage-class";
    /// On a CSINode: in-tree plugins that CSI drivers took over.
    pub const MIGRATED: &str = "storage.alpha.kubernetes.io/migrated-plugins";
    /// All of them.
    pub const KEPT: [&str; 4] = [BIND_COMPLETED, SELECTED_NODE, CLASS, MIGRATED];
}

/// A volume of a pod; only what names a claim, an image or a disk.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Volume {
    /// Name.
    pub name: SmolStr,
    /// A claim by name.
    pub persistent_volume_claim: Option<ClaimSource>,
    /// A claim made for the pod, named `POD-VOLUME`.
    pub ephemeral: Option<IgnoredAny>,
    /// An image.
    pub image: Option<ImageSource>,
    /// A GCE persistent disk.
    pub gce_persistent_disk: Option<GceDisk>,
    /// An EBS volume.
    pub aws_elastic_block_store: Option<DiskById>,
    /// An iSCSI target.
    pub iscsi: Option<IscsiTarget>,
    /// A Ceph image.
    pub rbd: Option<CephImage>,
    /// An Azure disk.
    pub azure_disk: Option<AzureDisk>,
    /// A Cinder volume.
    pub cinder: Option<DiskById>,
    /// A Portworx volume.
    pub portworx_volume: Option<DiskById>,
}

/// An image by reference.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ImageSource {
    /// Its reference.
    pub reference: SmolStr,
}

/// A claim by name.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSource {
    /// Its name.
    pub claim_name: SmolStr,
}

/// A GCE persistent disk.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct GceDisk {
    /// Name.
    pub pd_name: SmolStr,
    /// Only read.
    pub read_only: bool,
}

/// A disk of a cloud that is known by an ID.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct DiskById {
    /// The ID.
    #[serde(rename = "volumeID")]
    pub volume_id: SmolStr,
}

/// An iSCSI target.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct IscsiTarget {
    /// Qualified name.
    pub iqn: SmolStr,
    /// Only read.
    pub read_only: bool,
}

/// A Ceph image.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CephImage {
    /// Monitors.
    pub monitors: Vec<SmolStr>,
    /// Pool.
    pub pool: SmolStr,
    /// Image.
    pub image: SmolStr,
    /// Only read.
    pub read_only: bool,
}

/// An Azure disk.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct AzureDisk {
    /// URI.
    #[serde(rename = "diskURI")]
    pub disk_uri: SmolStr,
    /// `Shared`, `Dedicated` or `Managed`.
    pub kind: Option<SmolStr>,
}

/// A PersistentVolumeClaim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Claim {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: ClaimSpec,
    /// Status.
    pub status: Phase,
}

/// Spec of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ClaimSpec {
    /// Volume that it is bound to.
    pub volume_name: SmolStr,
    /// Class.
    pub storage_class_name: Option<SmolStr>,
    /// Access modes.
    pub access_modes: Vec<SmolStr>,
    /// Resources.
    pub resources: ClaimResources,
    /// `Filesystem` or `Block`.
    pub volume_mode: SmolStr,
    /// Which volumes it may be bound to.
    pub selector: Option<LabelSelector>,
    /// VolumeAttributesClass.
    pub volume_attributes_class_name: SmolStr,
}

/// Resources of a claim.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimResources {
    /// Requests.
    pub requests: QuantityMap,
}

/// A phase.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Phase {
    /// Phase.
    pub phase: SmolStr,
}

/// A PersistentVolume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct PersistentVolume {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: PersistentVolumeSpec,
    /// Status.
    pub status: Phase,
}

/// Spec of a volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct PersistentVolumeSpec {
    /// Capacity.
    pub capacity: QuantityMap,
    /// Access modes.
    pub access_modes: Vec<SmolStr>,
    /// `Filesystem` or `Block`.
    pub volume_mode: SmolStr,
    /// Class.
    pub storage_class_name: SmolStr,
    /// VolumeAttributesClass.
    pub volume_attributes_class_name: SmolStr,
    /// Claim that it is bound to or kept for.
    pub claim_ref: Option<ClaimReference>,
    /// Nodes that reach it.
    pub node_affinity: Option<VolumeNodeAffinity>,
    /// A CSI volume.
    pub csi: Option<CsiVolume>,
    /// A GCE persistent disk.
    pub gce_persistent_disk: Option<GceDisk>,
    /// An EBS volume.
    pub aws_elastic_block_store: Option<DiskById>,
    /// An Azure disk.
    pub azure_disk: Option<AzureDisk>,
    /// A Cinder volume.
    pub cinder: Option<DiskById>,
    /// A Portworx volume.
    pub portworx_volume: Option<DiskById>,
}

/// A claim that a volume names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ClaimReference {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// UID.
    pub uid: SmolStr,
}

/// Nodes that reach a volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeNodeAffinity {
    /// Required terms.
    pub required: Option<NodeSelector>,
}

/// A CSI volume.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiVolume {
    /// Driver.
    pub driver: SmolStr,
    /// The driver's name for it.
    pub volume_handle: SmolStr,
}

/// A StorageClass.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageClass {
    /// Metadata.
    pub metadata: Meta,
    /// Provisioner.
    pub provisioner: SmolStr,
    /// `Immediate` or `WaitForFirstConsumer`.
    pub volume_binding_mode: SmolStr,
    /// Where its volumes may be.
    pub allowed_topologies: Vec<TopologyTerm>,
}

/// ANDed requirements on labels.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TopologyTerm {
    /// The requirements.
    pub match_label_expressions: Vec<TopologyRequirement>,
}

/// A label must have one of these values.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct TopologyRequirement {
    /// Key.
    pub key: SmolStr,
    /// Values.
    pub values: Vec<SmolStr>,
}

/// A CSINode.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiNode {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: CsiNodeSpec,
}

/// Spec of a CSINode.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiNodeSpec {
    /// Drivers on the node.
    pub drivers: Vec<CsiNodeDriver>,
}

/// A driver on a node.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiNodeDriver {
    /// Name.
    pub name: SmolStr,
    /// What the node takes of it.
    pub allocatable: VolumeCount,
}

/// How many volumes a node takes.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeCount {
    /// Number; None for any.
    pub count: Option<i64>,
}

/// A CSIDriver.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct CsiDriver {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: CsiDriverSpec,
}

/// Spec of a CSIDriver.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct CsiDriverSpec {
    /// Whether it publishes capacity.
    pub storage_capacity: bool,
    /// Whether it must be on the node.
    pub prevent_pod_scheduling_if_missing: bool,
}

/// A CSIStorageCapacity.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct StorageCapacity {
    /// Metadata.
    pub metadata: Meta,
    /// Class.
    pub storage_class_name: SmolStr,
    /// Nodes that reach it.
    pub node_topology: Option<LabelSelector>,
    /// Free capacity.
    pub capacity: Option<Quantity>,
    /// Largest volume.
    pub maximum_volume_size: Option<Quantity>,
}

/// A VolumeAttachment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct VolumeAttachment {
    /// Metadata.
    pub metadata: Meta,
    /// Spec.
    pub spec: VolumeAttachmentSpec,
}

/// Spec of a VolumeAttachment.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct VolumeAttachmentSpec {
    /// Driver.
    pub attacher: SmolStr,
    /// Node.
    pub node_name: SmolStr,
    /// What is attached.
    pub source: AttachedVolume,
}

/// What is attached.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct AttachedVolume {
    /// A volume by name.
    pub persistent_volume_name: Option<SmolStr>,
}
