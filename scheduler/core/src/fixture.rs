//! Builders for tests: nodes and pods as short chains.

use crate::model::{GangInfo, GangMembership, GangRoleInfo, LayoutInfo, NodeInfo, PodInfo, PodKey, PodPhase, Terms};
use smol_str::SmolStr;

pub(crate) fn node(name: &str) -> NodeInfo {
    NodeInfo { name: name.into(), uid: format!("uid-{name}").into(), ..NodeInfo::default() }
        .label("kubernetes.io/hostname", name)
        .has("cpu", 64_000)
        .has("memory", 512 << 30)
        .has("pods", 110)
}

/// A DGX node: 8 GPUs, 2 NUMA nodes.
pub(crate) fn dgx(name: &str, block: &str, rack: &str) -> NodeInfo {
    node(name)
        .has("nvidia.com/gpu", 8)
        .label("flowforge.dev/numa-nodes", "2")
        .label("nvidia.com/gpu.product", "NVIDIA-H100-80GB-HBM3")
        .label("fabric.topograph.run/tier-1", block)
        .label("fabric.topograph.run/tier-0", rack)
}

pub(crate) trait NodeChain: Sized {
    fn has(self, resource: &str, amount: i64) -> Self;
    fn label(self, key: &str, value: &str) -> Self;
}

impl NodeChain for NodeInfo {
    fn has(mut self, resource: &str, amount: i64) -> Self {
        self.allocatable.insert(resource.into(), amount);
        self
    }

    fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }
}

pub(crate) fn pod(name: &str) -> PodInfo {
    PodInfo {
        key: PodKey { namespace: "ns".into(), name: name.into(), uid: format!("uid-{name}").into() },
        resource_version: "1".into(),
        ours: true,
        scheduler_name: "flowforge".into(),
        scoring_requests: (100, 200 << 20),
        ..PodInfo::default()
    }
}

/// A member of a plain gang.
pub(crate) fn member(gang: &str, rank: u32, size: u32) -> PodInfo {
    let membership = GangMembership {
        name: gang.into(),
        uid: None,
        size: Some(Ok(size)),
        role: "worker".into(),
        rank: Some(rank),
        topology_required: None,
        topology_preferred: Vec::new(),
    };
    PodInfo { gang: Some(membership), ..pod(&format!("{gang}-{rank}")) }
}

/// A member of a declared gang.
pub(crate) fn declared_member(gang: &GangInfo, role: &str, rank: u32) -> PodInfo {
    let membership = GangMembership {
        name: gang.name.clone(),
        uid: Some(gang.uid.clone()),
        size: None,
        role: role.into(),
        rank: Some(rank),
        topology_required: None,
        topology_preferred: Vec::new(),
    };
    PodInfo { gang: Some(membership), ..pod(&format!("{}-{role}-{rank}", gang.name)) }
}

/// A declared gang of roles (name, replicas, min).
pub(crate) fn gang(name: &str, roles: &[(&str, u32, u32)]) -> GangInfo {
    GangInfo {
        namespace: "ns".into(),
        name: name.into(),
        uid: format!("gang-{name}").into(),
        min_member: roles.iter().map(|(_, _, min)| min).sum(),
        roles: roles
            .iter()
            .map(|(n, replicas, min)| GangRoleInfo { name: (*n).into(), replicas: *replicas, min: *min })
            .collect(),
        topology_required: None,
        topology_preferred: Vec::new(),
        layout: LayoutInfo::default(),
        closed: false,
        replaces: None,
        hold_ms: 0,
        terms: Terms::default(),
    }
}

pub(crate) trait PodChain: Sized {
    fn asks(self, resource: &str, amount: i64) -> Self;
    fn on(self, node: &str) -> Self;
    fn phase(self, phase: PodPhase) -> Self;
    fn foreign(self) -> Self;
    fn within(self, level: &str) -> Self;
    fn uid(self, uid: &str) -> Self;
    fn priority(self, priority: i32) -> Self;
    fn labelled(self, key: &str, value: &str) -> Self;
}

impl PodChain for PodInfo {
    fn asks(mut self, resource: &str, amount: i64) -> Self {
        self.requests.insert(resource.into(), amount);
        match resource {
            "cpu" => self.scoring_requests.0 = amount,
            "memory" => self.scoring_requests.1 = amount,
            _ => {}
        }
        self
    }

    fn on(mut self, node: &str) -> Self {
        self.node_name = Some(node.into());
        self
    }

    fn phase(mut self, phase: PodPhase) -> Self {
        self.phase = phase;
        self
    }

    fn foreign(mut self) -> Self {
        self.ours = false;
        self.gang = None;
        self
    }

    fn within(mut self, level: &str) -> Self {
        if let Some(gang) = &mut self.gang {
            gang.topology_required = Some(level.into());
        }
        self
    }

    fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    fn labelled(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    fn uid(mut self, uid: &str) -> Self {
        self.key.uid = SmolStr::from(uid);
        self
    }
}
