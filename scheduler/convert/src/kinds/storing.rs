//! The kinds that say what storage there is. The engine takes them as they are.

use super::plain;
use crate::types::storage;
use crate::volumes as convert;
use flowforge_scheduler_core::event::{Event, RelistedKind};
use flowforge_scheduler_core::volumes::{StorageFact, StorageKind};
use smol_str::SmolStr;

/// A kind of storage objects.
macro_rules! storing {
    ($(#[$doc:meta])* $name:ident, $object:ty, $kind:ident, $plural:literal, $path:literal, $convert:path) => {
        plain!(
            $(#[$doc])*
            $name: $object, $plural, $path,
            upsert |object| Event::StorageUpsert(Box::new(StorageFact::$kind($convert(object)))),
            gone |namespace, name| Event::StorageDelete { kind: StorageKind::$kind, namespace, name },
            listed |names| RelistedKind::Storage(StorageKind::$kind, names)
        );
    };
}

storing!(
    /// PersistentVolumeClaims.
    Claims, storage::Claim, Claim, "persistentvolumeclaims", "/api/v1/persistentvolumeclaims", convert::claim
);
storing!(
    /// PersistentVolumes.
    Volumes, storage::PersistentVolume, Volume, "persistentvolumes", "/api/v1/persistentvolumes", convert::volume
);
storing!(
    /// StorageClasses.
    Classes, storage::StorageClass, Class, "storageclasses", "/apis/storage.k8s.io/v1/storageclasses", convert::class
);
storing!(
    /// CSINodes.
    CsiNodes, storage::CsiNode, CsiNode, "csinodes", "/apis/storage.k8s.io/v1/csinodes", convert::csi_node
);
storing!(
    /// CSIDrivers.
    CsiDrivers, storage::CsiDriver, Driver, "csidrivers", "/apis/storage.k8s.io/v1/csidrivers", convert::csi_driver
);
storing!(
    /// CSIStorageCapacities.
    Capacities, storage::StorageCapacity, Capacity, "csistoragecapacities",
    "/apis/storage.k8s.io/v1/csistoragecapacities", convert::capacity
);
storing!(
    /// VolumeAttachments.
    Attachments, storage::VolumeAttachment, Attachment, "volumeattachments",
    "/apis/storage.k8s.io/v1/volumeattachments", convert::attachment
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Plain as _;
    use serde_json::json;

    #[test]
    fn each_kind_becomes_a_fact_of_its_kind() {
        let claim = serde_json::from_value(json!({"metadata": {"name": "c", "namespace": "n"}})).expect("a claim");
        let event = Claims::upsert(&claim);
        let Event::StorageUpsert(fact) = event else { panic!("{event:?}") };
        assert!(matches!(*fact, StorageFact::Claim(claim) if claim.key() == ("n".into(), "c".into())));
        assert!(
            matches!(CsiNodes::gone("".into(), "x".into()), Event::StorageDelete { kind: StorageKind::CsiNode, name, .. } if name == "x")
        );
    }
}
