//! Storage: what pods mount, and the objects that say what there is of it.

use super::types::storage::{self as types, Volume, annotation};
use super::types::{self as all, Meta};
use super::{migration, relations};
use flowforge_scheduler_core::model::NodeSelectorTerm;
use flowforge_scheduler_core::volumes::{
    AttachmentInfo, CapacityInfo, ClaimInfo, ClaimRef, ClassInfo, CsiDriverInfo, CsiHandle, CsiNodeInfo, Disk,
    ExclusiveDisk, PodVolume, StorageSize, VolumeInfo, VolumeSource,
};
use smol_str::{SmolStr, format_smolstr};

const STORAGE: &str = "storage";

/// What a pod mounts, in the order of its spec.
pub(super) fn mounted(pod: &all::Pod) -> Vec<PodVolume> {
    pod.spec.volumes.iter().filter_map(|volume| one(volume, &pod.metadata.name)).collect()
}

fn one(volume: &Volume, pod: &str) -> Option<PodVolume> {
    if let Some(claim) = &volume.persistent_volume_claim {
        return Some(PodVolume::Claim(claim.claim_name.clone()));
    }
    if volume.ephemeral.is_some() {
        return Some(PodVolume::Ephemeral(format_smolstr!("{pod}-{}", volume.name)));
    }
    let disk = Disk { exclusive: exclusive(volume), migrated: migration::inline(volume) };
    (disk.exclusive.is_some() || disk.migrated.is_some()).then_some(PodVolume::Disk(disk))
}

fn exclusive(volume: &Volume) -> Option<ExclusiveDisk> {
    if let Some(disk) = &volume.gce_persistent_disk {
        return Some(ExclusiveDisk::Gce { name: disk.pd_name.clone(), read_only: disk.read_only });
    }
    if let Some(disk) = &volume.aws_elastic_block_store {
        return Some(ExclusiveDisk::Ebs { id: disk.volume_id.clone() });
    }
    if let Some(target) = &volume.iscsi {
        return Some(ExclusiveDisk::Iscsi { iqn: target.iqn.clone(), read_only: target.read_only });
    }
    volume.rbd.as_ref().map(|image| ExclusiveDisk::Rbd {
        monitors: image.monitors.clone(),
        pool: image.pool.clone(),
        image: image.image.clone(),
        read_only: image.read_only,
    })
}

fn annotated(meta: &Meta, key: &str) -> Option<SmolStr> {
    meta.annotations.get(key).map(SmolStr::from)
}

/// A PersistentVolumeClaim.
#[must_use]
pub fn claim(claim: &types::Claim) -> ClaimInfo {
    let types::Claim { metadata: meta, spec, status } = claim;
    ClaimInfo {
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        volume: super::some(&spec.volume_name),
        bind_completed: meta.annotations.contains_key(annotation::BIND_COMPLETED),
        lost: status.phase == "Lost",
        deleting: meta.deletion_timestamp,
        class: annotated(meta, annotation::CLASS).or_else(|| spec.storage_class_name.clone()).unwrap_or_default(),
        selected_node: annotated(meta, annotation::SELECTED_NODE),
        modes: spec.access_modes.clone(),
        request: spec.resources.requests.get(STORAGE).map(|request| StorageSize(request.nanos())),
        block: spec.volume_mode == "Block",
        selector: spec.selector.as_ref().map(relations::selector),
        attributes_class: spec.volume_attributes_class_name.clone(),
        owner: meta.owner_references.iter().find(|owner| owner.controller).map(|owner| owner.uid.clone()),
    }
}

/// A PersistentVolume.
#[must_use]
pub fn volume(volume: &types::PersistentVolume) -> VolumeInfo {
    let types::PersistentVolume { metadata: meta, spec, status } = volume;
    let affinity = spec.node_affinity.as_ref().and_then(|affinity| affinity.required.as_ref());
    let affinity: Option<Vec<NodeSelectorTerm>> =
        affinity.map(|required| required.node_selector_terms.iter().map(super::term).collect());
    VolumeInfo {
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        labels: meta.labels.clone(),
        capacity: spec.capacity.get(STORAGE).map(|has| StorageSize(has.nanos())).unwrap_or_default(),
        modes: spec.access_modes.clone(),
        block: spec.volume_mode == "Block",
        class: annotated(meta, annotation::CLASS).unwrap_or_else(|| spec.storage_class_name.clone()),
        attributes_class: spec.volume_attributes_class_name.clone(),
        claim: spec.claim_ref.as_ref().map(|claim| ClaimRef {
            namespace: claim.namespace.clone(),
            name: claim.name.clone(),
            uid: claim.uid.clone(),
        }),
        available: status.phase == "Available",
        deleting: meta.deletion_timestamp,
        source: source(volume, affinity.as_deref()),
        affinity,
    }
}

fn source(volume: &types::PersistentVolume, affinity: Option<&[NodeSelectorTerm]>) -> VolumeSource {
    match &volume.spec.csi {
        Some(csi) => VolumeSource::Csi(CsiHandle { driver: csi.driver.clone(), handle: csi.volume_handle.clone() }),
        None => migration::persistent(volume, affinity).map_or(VolumeSource::Other, VolumeSource::InTree),
    }
}

/// A StorageClass.
#[must_use]
pub fn class(class: &types::StorageClass) -> ClassInfo {
    let term = |term: &types::TopologyTerm| {
        term.match_label_expressions.iter().map(|r| (r.key.clone(), r.values.clone())).collect()
    };
    ClassInfo {
        name: class.metadata.name.clone(),
        provisioner: class.provisioner.clone(),
        waits: class.volume_binding_mode == "WaitForFirstConsumer",
        topologies: class.allowed_topologies.iter().map(term).collect(),
    }
}

/// A CSINode.
#[must_use]
pub fn csi_node(node: &types::CsiNode) -> CsiNodeInfo {
    let migrated = node.metadata.annotations.get(annotation::MIGRATED).map(String::as_str).unwrap_or_default();
    CsiNodeInfo {
        name: node.metadata.name.clone(),
        drivers: node.spec.drivers.iter().map(|driver| (driver.name.clone(), driver.allocatable.count)).collect(),
        migrated: migrated.split(',').filter(|plugin| !plugin.is_empty()).map(SmolStr::from).collect(),
    }
}

/// A CSIDriver.
#[must_use]
pub fn csi_driver(driver: &types::CsiDriver) -> CsiDriverInfo {
    CsiDriverInfo {
        name: driver.metadata.name.clone(),
        storage_capacity: driver.spec.storage_capacity,
        needed_on_node: driver.spec.prevent_pod_scheduling_if_missing,
    }
}

/// A CSIStorageCapacity.
#[must_use]
pub fn capacity(capacity: &types::StorageCapacity) -> CapacityInfo {
    let free = capacity.capacity.map(super::quantity::Quantity::value);
    CapacityInfo {
        namespace: capacity.metadata.namespace.clone(),
        name: capacity.metadata.name.clone(),
        class: capacity.storage_class_name.clone(),
        topology: capacity.node_topology.as_ref().map(relations::selector),
        limit: capacity.maximum_volume_size.map(super::quantity::Quantity::value).or(free),
        capacity: free,
    }
}

/// A VolumeAttachment.
#[must_use]
pub fn attachment(attachment: &types::VolumeAttachment) -> AttachmentInfo {
    AttachmentInfo {
        name: attachment.metadata.name.clone(),
        node: attachment.spec.node_name.clone(),
        attacher: attachment.spec.attacher.clone(),
        volume: attachment.spec.source.persistent_volume_name.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn a_claim_keeps_what_the_volume_controller_and_the_provisioner_write() {
        let object = json!({
            "metadata": {"name": "c", "namespace": "n", "uid": "u", "resourceVersion": "7", "annotations": {
                "pv.kubernetes.io/bind-completed": "yes", "volume.kubernetes.io/selected-node": "node-1", "other": "x",
            }, "ownerReferences": [{"uid": "p", "controller": true}]},
            "spec": {"volumeName": "v", "storageClassName": "fast", "accessModes": ["ReadWriteOncePod"],
                "resources": {"requests": {"storage": "1Gi"}}, "volumeMode": "Block"},
            "status": {"phase": "Lost"},
        });
        let info = claim(&serde_json::from_value(object).expect("a claim"));
        assert_eq!(info.selected_node.as_deref(), Some("node-1"));
        assert!(info.is_bound() && info.lost && info.block);
        assert_eq!((info.class.as_str(), info.owner.as_deref()), ("fast", Some("p")));
        assert_eq!(info.request.map(StorageSize::bytes), Some(1 << 30));
    }

    #[test]
    fn the_beta_annotation_names_the_class() {
        let meta = json!({"name": "c", "annotations": {"volume.beta.kubernetes.io/storage-class": "old"}});
        let spec = json!({"storageClassName": "new"});
        let of = |object: Value| claim(&serde_json::from_value(object).expect("a claim")).class;
        assert_eq!(of(json!({"metadata": meta, "spec": spec})), "old");
        assert_eq!(of(json!({"metadata": {"name": "c"}, "spec": spec})), "new");
        let object = json!({"metadata": meta, "spec": spec});
        assert_eq!(volume(&serde_json::from_value(object).expect("a volume")).class, "old");
    }

    #[test]
    fn a_pod_mounts_claims_and_disks_and_nothing_else_counts() {
        let pod: all::Pod = serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": {"volumes": [
            {"name": "a", "persistentVolumeClaim": {"claimName": "data"}},
            {"name": "b", "ephemeral": {"volumeClaimTemplate": {}}},
            {"name": "c", "emptyDir": {}},
            {"name": "d", "gcePersistentDisk": {"pdName": "disk", "readOnly": true}},
            {"name": "e", "rbd": {"monitors": ["m"], "pool": "rbd", "image": "i"}},
        ]}}))
        .expect("a pod");
        let rbd =
            ExclusiveDisk::Rbd { monitors: vec!["m".into()], pool: "rbd".into(), image: "i".into(), read_only: false };
        let csi = CsiHandle {
            driver: "pd.csi.storage.gke.io".into(),
            handle: "projects/UNSPECIFIED/zones/UNSPECIFIED/disks/disk".into(),
        };
        let gce = ExclusiveDisk::Gce { name: "disk".into(), read_only: true };
        let expected = [
            PodVolume::Claim("data".into()),
            PodVolume::Ephemeral("p-b".into()),
            PodVolume::Disk(Disk { exclusive: Some(gce), migrated: Some(csi) }),
            PodVolume::Disk(Disk { exclusive: Some(rbd), migrated: None }),
        ];
        assert_eq!(mounted(&pod), expected);
    }

    #[test]
    fn the_largest_volume_limits_before_the_capacity_does() {
        let of = |object: Value| capacity(&serde_json::from_value(object).expect("a capacity"));
        let both = of(json!({"metadata": {"name": "c"}, "capacity": "10Gi", "maximumVolumeSize": "1Gi"}));
        assert_eq!((both.limit, both.capacity), (Some(1 << 30), Some(10 << 30)));
        assert_eq!(of(json!({"metadata": {"name": "c"}, "capacity": "10Gi"})).limit, Some(10 << 30));
    }
}
