//! What would become of a gang if it were tried now, and nothing of it done.
//!
//! ```text
//!   engine ──asks itself, as when the gang's turn comes──> planner ──┬─ a place for everyone: seats, and what that costs
//!                                                                    └─ none: level by level what is missing, who holds it,
//!                                                                       and whom preemption would choose
//! ```
//! What is told here is told by the same decisions that bind ([`crate::engine::Engine::rehearse`]), in transactions that are
//! rolled back: a snapshot of the same facts gives the answer that the scheduler gives. It is read by people and programs, so
//! that everything has a name instead of an id.

mod lack;
mod pace;

pub(crate) use lack::{holder, lacks, name_of, unit};
pub(crate) use pace::pace;

use crate::model::Millis;
use crate::snapshot::{Cluster, NodeId, PodId};
use serde::Serialize;
use smol_str::SmolStr;

/// What would become of a gang.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rehearsal {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// Priority by which it queues and evicts: the lowest of its members that wait.
    pub priority: i32,
    /// Level that all must share.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required: Option<String>,
    /// Resource that is counted in `units`: the devices that members ask for, else what is short, else CPU.
    pub resource: SmolStr,
    /// Members that wait for a place.
    pub waiting: u32,
    /// Members that have one, in rank order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub standing: Vec<Seat>,
    /// What comes of those that wait.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// What comes of the members that wait.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "outcome", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Outcome {
    /// Nobody waits.
    Stands {
        /// What the places that it has cost.
        #[serde(skip_serializing_if = "Option::is_none")]
        pace: Option<Pace>,
    },
    /// There is a place for them.
    Fits {
        /// The places, in rank order.
        seats: Vec<Seat>,
        /// Narrowest domain that holds all of them and those that stand already.
        domain: String,
        /// Members above the minimum that find no place with them.
        left: u32,
        /// What the places cost; None where members have no whole devices.
        #[serde(skip_serializing_if = "Option::is_none")]
        pace: Option<Pace>,
    },
    /// Something else comes first: nodes are not looked at.
    Waits {
        /// Reason of the condition.
        reason: String,
        /// Its message.
        message: String,
    },
    /// There is none.
    Refused {
        /// Reason of the condition.
        reason: String,
        /// Its message.
        message: String,
        /// Level by level what is missing, wide to narrow.
        levels: Vec<Lack>,
        /// What would free enough.
        room: Outlook,
    },
}

/// The place of a member.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Seat {
    /// Name of the pod.
    pub pod: SmolStr,
    /// Its role.
    pub role: SmolStr,
    /// Its rank, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rank: Option<u32>,
    /// Name of the node.
    pub node: SmolStr,
    /// Domains of the node, `level/name`, wide to narrow, its own host left out.
    pub path: Vec<String>,
    /// Whole devices that it takes.
    pub devices: u64,
}

/// What a placement costs, in the terms of [`flowforge_topology_core::cost`].
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pace {
    /// Estimated seconds for each GiB that is all-reduced over all devices.
    pub seconds_per_gib: f64,
    /// Bandwidth of the slowest hop in GB/s, one direction; None where nothing is sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gb_per_s: Option<f64>,
    /// Devices that take part, and the hosts that they are on.
    pub devices: usize,
    /// Hosts.
    pub hosts: usize,
    /// Level at which the slowest hop is: that of the narrowest domain that holds both of its ends; `device` where nothing is sent.
    pub level: String,
    /// What the slowest hop is, for people.
    pub bottleneck: String,
}

/// What is missing at one level.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lack {
    /// Name of the level; `cluster` for everything together.
    pub level: String,
    /// Whether all members must share a domain of it.
    pub required: bool,
    /// How many domains it has.
    pub domains: u32,
    /// How many of them have room for every member by count.
    pub enough: u32,
    /// Units that a domain must have free.
    pub need: i64,
    /// The domain that most members would fit into, then the one with most units free.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best: Option<DomainRoom>,
}

/// What a domain has for a gang.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct DomainRoom {
    /// `level/name`, or `cluster`.
    pub domain: String,
    /// Members that fit at most, each shape taken by itself.
    pub fit: u32,
    /// Units free on nodes that may take a member.
    pub free: i64,
    /// Units that those nodes have.
    pub total: i64,
    /// Nodes with units free, most first; at most so many as [`NAMED`].
    pub nodes: Vec<NodeRoom>,
    /// Nodes with units free beyond those.
    pub more_nodes: u32,
    /// Nodes that take no member whatever is free on them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub closed: Vec<Closed>,
    /// Who holds units on the nodes that may take a member, most first; at most so many as [`NAMED`].
    pub holders: Vec<Holder>,
    /// Holders beyond those.
    pub more_holders: u32,
}

/// What a node has for a gang.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeRoom {
    /// Name.
    pub name: SmolStr,
    /// Units free.
    pub free: i64,
    /// Members that fit.
    pub fit: u32,
}

/// Nodes that take no member for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Closed {
    /// The reason, in kube-scheduler's words.
    pub reason: String,
    /// Nodes.
    pub nodes: u32,
    /// Units that are free on them.
    pub free: i64,
}

/// A gang, or a pod on its own, that holds something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    /// `gang` or `pod`.
    pub kind: &'static str,
    /// `namespace/name`.
    pub name: String,
    /// Its priority: the highest of its pods here.
    pub priority: i32,
    /// Pods.
    pub pods: u32,
    /// Units.
    pub units: i64,
    /// Since when the first of them runs, in milliseconds since the epoch; None: none has started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since_ms: Option<Millis>,
    /// Whether it is less important than the gang that asks.
    pub less_important: bool,
    /// Whether all of these pods are going already.
    pub leaving: bool,
}

/// What would free enough.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outlook {
    /// In the words of preemption; empty where there is nothing to say.
    pub message: String,
    /// Whom preemption would choose.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub victims: Vec<Holder>,
    /// Where the members would stand then, in rank order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub seats: Vec<Seat>,
}

/// Nodes and holders of a domain that are named.
pub const NAMED: usize = 16;

/// The seats of members on their nodes.
pub(crate) fn seats(cluster: &Cluster, places: &[(PodId, NodeId)]) -> Vec<Seat> {
    places.iter().filter_map(|(pod, node)| seat(cluster, *pod, *node)).collect()
}

fn seat(cluster: &Cluster, pod: PodId, node: NodeId) -> Option<Seat> {
    let tree = cluster.tree();
    let membership = cluster.info(pod).and_then(|info| info.gang.as_ref());
    let name = cluster.node_name(node);
    let own = format!("/{name}");
    let mut path: Vec<String> =
        tree.leaf(node.dense()).into_iter().flat_map(|leaf| tree.ancestors(leaf)).map(|d| tree.describe(d)).collect();
    path.retain(|domain| domain != "cluster" && !domain.ends_with(&own));
    path.reverse();
    Some(Seat {
        pod: cluster.pod(pod)?.key.name.clone(),
        role: membership.map(|m| m.role.clone()).unwrap_or_default(),
        rank: membership.and_then(|m| m.rank),
        node: name,
        path,
        devices: cluster.devices_of(pod),
    })
}

/// The narrowest domain that holds all of these nodes, as [`flowforge_topology_core::Tree::describe`] names it.
pub(crate) fn domain_of(cluster: &Cluster, nodes: impl IntoIterator<Item = NodeId>) -> String {
    let tree = cluster.tree();
    let leaves = nodes.into_iter().filter_map(|node| tree.leaf(node.dense()));
    leaves.reduce(|a, b| tree.common(a, b)).map_or_else(|| "cluster".to_owned(), |domain| tree.describe(domain))
}
