//! VolumeRestrictions: two pods of a node may not mount one GCE, iSCSI or Ceph disk unless both only read, nor one EBS
//! volume at all; and a claim with access mode ReadWriteOncePod serves one pod of the whole cluster. Preemption can help.
//!
//! A claim that a pod names and that does not exist refuses the pod before any node is looked at.

use super::Cures;
use crate::volumes::ExclusiveDisk;

/// kube-scheduler's name.
pub const NAME: &str = "VolumeRestrictions";
/// Reason text of a disk that another pod of the node mounts.
pub const REASON_DISK: &str = "node(s) had no available disk";
/// Reason text of a claim that another pod uses alone.
pub const REASON_ONE_POD: &str =
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod";
/// What cures it.
pub const CURED_BY: Cures = Cures::POD_GONE.and(Cures::NODE_ADDED).and(Cures::CLAIMS);

/// Reason text of a claim that does not exist.
#[must_use]
pub fn reason_missing(claim: &str) -> String {
    format!("persistentvolumeclaim {claim:?} not found")
}

/// Whether two pods of one node may not mount both.
#[must_use]
pub fn conflict(a: &ExclusiveDisk, b: &ExclusiveDisk) -> bool {
    use ExclusiveDisk::{Ebs, Gce, Iscsi, Rbd};
    match (a, b) {
        (Gce { name, read_only }, Gce { name: other, read_only: reads })
        | (Iscsi { iqn: name, read_only }, Iscsi { iqn: other, read_only: reads }) => {
            name == other && !(*read_only && *reads)
        }
        (Ebs { id }, Ebs { id: other }) => id == other,
        (
            Rbd { monitors, pool, image, read_only },
            Rbd { monitors: others, pool: other_pool, image: other_image, read_only: reads },
        ) => {
            let share = monitors.iter().any(|monitor| others.contains(monitor));
            share && pool == other_pool && image == other_image && !(*read_only && *reads)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_share_all_disks_but_ebs() {
        let gce = |read_only| ExclusiveDisk::Gce { name: "d".into(), read_only };
        let iscsi = |read_only| ExclusiveDisk::Iscsi { iqn: "d".into(), read_only };
        let ebs = || ExclusiveDisk::Ebs { id: "d".into() };
        assert!(!conflict(&gce(true), &gce(true)) && conflict(&gce(true), &gce(false)));
        assert!(!conflict(&iscsi(true), &iscsi(true)) && conflict(&iscsi(false), &iscsi(true)));
        assert!(conflict(&ebs(), &ebs()));
        assert!(!conflict(&gce(false), &iscsi(false)));
    }

    #[test]
    fn a_ceph_image_is_the_same_where_a_monitor_is() {
        let rbd = |monitors: &[&str], pool: &str| ExclusiveDisk::Rbd {
            monitors: monitors.iter().map(|m| (*m).into()).collect(),
            pool: pool.into(),
            image: "i".into(),
            read_only: false,
        };
        assert!(conflict(&rbd(&["a", "b"], "p"), &rbd(&["b", "c"], "p")));
        assert!(!conflict(&rbd(&["a"], "p"), &rbd(&["b"], "p")) && !conflict(&rbd(&["a"], "p"), &rbd(&["a"], "q")));
        assert!(!conflict(&rbd(&[], "p"), &rbd(&[], "p")));
    }
}
