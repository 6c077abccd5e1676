//! The cluster that everything here is measured on, and the clock.

use flowforge_scheduler_core::model::{GangMembership, NodeInfo, PodInfo, PodKey};
use rustix::time::{ClockId, clock_gettime};
use smol_str::{SmolStr, format_smolstr};

pub(crate) const HOST: &str = "kubernetes.io/hostname";
pub(crate) const ZONE: &str = "topology.kubernetes.io/zone";
const RACK: &str = "fabric.topograph.run/tier-0";
const BLOCK: &str = "fabric.topograph.run/tier-1";
pub(crate) const GPU: &str = "nvidia.com/gpu";

/// Racks of 32, blocks of 8 racks, zones of 4 blocks.
pub(crate) fn node(index: usize) -> NodeInfo {
    let name = format_smolstr!("node-{index:06}");
    let labels = [
        (HOST, name.clone()),
        (ZONE, format_smolstr!("zone-{}", index / 1_024)),
        (RACK, format_smolstr!("rack-{}", index / 32)),
        (BLOCK, format_smolstr!("block-{}", index / 256)),
    ];
    let has = [("cpu", 64_000), ("memory", 512 << 30), ("pods", 110), (GPU, 8)];
    NodeInfo {
        uid: format_smolstr!("uid-{name}"),
        name,
        labels: labels.map(|(key, value)| (SmolStr::new_static(key), value)).into(),
        allocatable: has.map(|(name, amount)| (SmolStr::new_static(name), amount)).into(),
        ..NodeInfo::default()
    }
}

/// A pod of ours that asks for little.
pub(crate) fn pod(name: SmolStr) -> PodInfo {
    PodInfo {
        key: PodKey { namespace: SmolStr::new_static("bench"), uid: format_smolstr!("uid-{name}"), name },
        ours: true,
        scheduler_name: SmolStr::new_static("flowforge"),
        labels: [(SmolStr::new_static("app"), SmolStr::new_static("load"))].into(),
        requests: [(SmolStr::new_static("cpu"), 100), (SmolStr::new_static("memory"), 128 << 20)].into(),
        scoring_requests: (100, 128 << 20),
        ..PodInfo::default()
    }
}

/// What makes it a member of a gang.
pub(crate) fn membership(gang: SmolStr, size: usize, rank: usize, required: Option<&'static str>) -> GangMembership {
    GangMembership {
        name: gang,
        uid: None,
        size: Some(Ok(u32::try_from(size).unwrap_or(u32::MAX))),
        role: SmolStr::new_static("worker"),
        rank: u32::try_from(rank).ok(),
        topology_required: required.map(SmolStr::new_static),
        topology_preferred: Vec::new(),
    }
}

/// CPU time of this thread, in nanoseconds.
pub(crate) fn cpu_nanos() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    u64::try_from(i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)).unwrap_or_default()
}

/// The middle one.
pub(crate) fn median(mut nanos: Vec<u64>) -> f64 {
    nanos.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    nanos.get(nanos.len() / 2).map_or(f64::NAN, |nanos| *nanos as f64)
}
