//! Volumes that FlowForge adds: the workflow's storage claims, and a memory volume at /dev/shm.

use flowforge_api::workflow::Storage;
use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, PersistentVolumeClaimVolumeSource, PodSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

const SHM_VOLUME: &str = "flowforge-shm";
const SHM_PATH: &str = "/dev/shm";

/// Mounts every claim into every container, init containers included. A container that mounts something of its own at
/// the same path keeps it; a claim named twice is one volume.
pub(super) fn mount_storage(spec: &mut PodSpec, storage: &[Storage]) {
    for (i, s) in storage.iter().enumerate() {
        let first = storage.iter().position(|o| o.claim_ref == s.claim_ref).unwrap_or(i);
        let volume = format!("flowforge-storage-{first}");
        if first == i {
            spec.volumes.get_or_insert_default().push(claim_volume(&volume, &s.claim_ref));
        }
        let mount = VolumeMount {
            name: volume,
            mount_path: s.mount_path.clone(),
            sub_path: s.sub_path.clone(),
            read_only: s.read_only.then_some(true),
            ..VolumeMount::default()
        };
        let inits = spec.init_containers.iter_mut().flatten();
        for container in inits.chain(spec.containers.iter_mut()) {
            mount_unless_taken(container, mount.clone());
        }
    }
}

// `readOnly` stays a property of the mount: one claim may be mounted both ways.
fn claim_volume(name: &str, claim: &str) -> Volume {
    Volume {
        name: name.to_owned(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: claim.to_owned(),
            read_only: None,
        }),
        ..Volume::default()
    }
}

/// Gives the main container a memory volume of `size` at /dev/shm, unless it mounts something there already.
pub(super) fn mount_shm(spec: &mut PodSpec, main: &mut Container, size: &Quantity) {
    if is_mounted(main, SHM_PATH) {
        return;
    }
    spec.volumes.get_or_insert_default().push(Volume {
        name: SHM_VOLUME.to_owned(),
        empty_dir: Some(EmptyDirVolumeSource {
            medium: Some("Memory".to_owned()),
            size_limit: Some(size.clone()),
            ..EmptyDirVolumeSource::default()
        }),
        ..Volume::default()
    });
    main.volume_mounts.get_or_insert_default().push(VolumeMount {
        name: SHM_VOLUME.to_owned(),
        mount_path: SHM_PATH.to_owned(),
        ..VolumeMount::default()
    });
}

fn is_mounted(container: &Container, path: &str) -> bool {
    container.volume_mounts.iter().flatten().any(|m| m.mount_path.trim_end_matches('/') == path.trim_end_matches('/'))
}

fn mount_unless_taken(container: &mut Container, mount: VolumeMount) {
    if !is_mounted(container, &mount.mount_path) {
        container.volume_mounts.get_or_insert_default().push(mount);
    }
}
