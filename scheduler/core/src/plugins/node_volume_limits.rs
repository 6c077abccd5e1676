//! NodeVolumeLimits: volumes of a CSI driver on a node, those of pods and those that are attached, stay within what its
//! CSINode says; and a driver that asks for it must be on the node at all. Preemption can help, but not where a claim does not
//! exist or is somebody else's, which VolumeBinding says before it in most profiles.
//!
//! A volume counts once however many pods of the node mount it. A claim without a volume counts as one of its class's
//! driver. Disks of in-tree plugins count as the CSI volumes that they are on nodes with a CSINode. As upstream, a volume
//! that is attached and that no pod of the node mounts counts beside the same volume of the pod that asks.

use super::{Cures, volume_zone};

/// kube-scheduler's name.
pub const NAME: &str = "NodeVolumeLimits";
/// Reason text.
pub const REASON: &str = "node(s) exceed max volume count";
/// What cures it.
pub const CURED_BY: Cures =
    Cures::CSI_NODES.and(Cures::POD_GONE).and(Cures::CLAIMS).and(Cures::VOLUME_DETACHED).and(Cures::NODE_ADDED);

/// In-tree plugins whose volumes a CSI driver serves, and that driver.
const MIGRATED: [(&str, &str); 5] = [
    ("kubernetes.io/aws-ebs", "ebs.csi.aws.com"),
    ("kubernetes.io/azure-disk", "disk.csi.azure.com"),
    ("kubernetes.io/cinder", "cinder.csi.openstack.org"),
    ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io"),
    ("kubernetes.io/portworx-volume", "pxd.portworx.com"),
];
/// In-tree plugins whose volumes are never counted.
const UNCOUNTED: [&str; 2] = ["kubernetes.io/azure-file", "kubernetes.io/vsphere-volume"];

/// Reason text of a node without the driver.
#[must_use]
pub fn reason_no_driver(driver: &str) -> String {
    format!("{driver} CSI driver is not installed on the node")
}

/// Reason text of a claim that does not exist.
#[must_use]
pub fn reason_missing(namespace: &str, claim: &str) -> String {
    format!("looking up PVC {namespace}/{claim}: {}", volume_zone::not_found("persistentvolumeclaim", claim))
}

/// The driver that volumes of a provisioner count for on a node, with a CSINode or without one.
#[must_use]
pub fn driver_of(provisioner: &str, has_csi_node: bool) -> Option<&str> {
    match MIGRATED.iter().find(|(plugin, _)| *plugin == provisioner) {
        Some((_, driver)) => has_csi_node.then_some(driver),
        None => (!provisioner.is_empty() && !UNCOUNTED.contains(&provisioner)).then_some(provisioner),
    }
}

/// Whether so many more volumes of a driver still fit.
#[must_use]
pub fn fits(limit: Option<i64>, attached: usize, more: usize) -> bool {
    limit.is_none_or(|limit| i64::try_from(attached + more).is_ok_and(|count| count <= limit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_may_be_reached_and_not_passed() {
        assert!(fits(None, 1_000, 1) && fits(Some(3), 2, 1) && !fits(Some(3), 3, 1) && !fits(Some(0), 0, 1));
    }

    #[test]
    fn in_tree_provisioners_count_only_where_a_driver_took_over() {
        assert_eq!(driver_of("kubernetes.io/aws-ebs", true), Some("ebs.csi.aws.com"));
        assert_eq!(driver_of("kubernetes.io/aws-ebs", false), None);
        assert_eq!(driver_of("kubernetes.io/azure-file", true), None);
        assert_eq!(driver_of("csi.example", false), Some("csi.example"));
        assert_eq!(driver_of("", true), None);
    }
}
