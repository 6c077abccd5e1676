//! FlowForge's side: the scheduler's own conversion, snapshot and rules.

use anyhow::{Context as _, Result};
use flowforge_scheduler::config;
use flowforge_scheduler::convert::types::storage;
use flowforge_scheduler::convert::{self, device_types, types, volumes};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::cycle;
use flowforge_scheduler_core::devices::{ClassInfo, DeviceFact};
use flowforge_scheduler_core::explain::{Reason, VolumeReason};
use flowforge_scheduler_core::model::PodInfo;
use flowforge_scheduler_core::opinion::opinions;
use flowforge_scheduler_core::relations::SelectorKind;
use flowforge_scheduler_core::snapshot::{PodId, Snapshot};
use flowforge_scheduler_core::volumes::{StorageFact, StorageKind};
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const OURS: &str = "flowforge";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Case {
    pod: types::Pod,
    nodes: Vec<types::Node>,
    pods: Vec<types::Pod>,
    namespaces: Vec<types::Namespace>,
    services: Vec<types::LabelOwner>,
    replication_controllers: Vec<types::LabelOwner>,
    replica_sets: Vec<types::SelectorOwner>,
    stateful_sets: Vec<types::SelectorOwner>,
    configuration: Option<Value>,
    persistent_volumes: Vec<storage::PersistentVolume>,
    persistent_volume_claims: Vec<storage::Claim>,
    storage_classes: Vec<storage::StorageClass>,
    csi_nodes: Vec<storage::CsiNode>,
    csi_drivers: Vec<storage::CsiDriver>,
    csi_storage_capacities: Vec<storage::StorageCapacity>,
    volume_attachments: Vec<storage::VolumeAttachment>,
    resource_slices: Vec<device_types::ResourceSlice>,
    device_classes: Vec<device_types::DeviceClass>,
    resource_claims: Vec<device_types::ResourceClaim>,
    device_taint_rules: Vec<device_types::DeviceTaintRule>,
}

/// What FlowForge says about a case.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// The message when no node is feasible.
    pub(crate) message: String,
    /// The node that is picked.
    pub(crate) picked: Option<String>,
    /// By name.
    pub(crate) nodes: BTreeMap<String, Node>,
    /// Errors of claims, classes and selectors, for which kube-scheduler has no opinion.
    pub(crate) errors: Vec<String>,
}

/// What it says about a node.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Node {
    /// The plugin that refuses first and its reasons; empty where feasible.
    pub(crate) plugin: &'static str,
    pub(crate) reasons: Vec<String>,
    pub(crate) scores: BTreeMap<&'static str, i64>,
}

/// FlowForge's answer to a case.
///
/// The cluster gets there by detours, and is looked at on the way: some pods come before their nodes, nodes have other
/// facts first, and nodes and pods come that leave again. What is remembered of them must not show in the answer.
pub(crate) fn ask(case: &Value) -> Result<Answer> {
    let case = Case::deserialize(case).context("FlowForge cannot read the case")?;
    let mut snapshot = Snapshot::new(&configured(&case)?);
    let id = snapshot.upsert_pod(pod(&case.pod)).context("the pod is nobody's concern")?.id;
    snapshot.cluster().pod(id).and_then(|pod| pod.shape).context("the pod has no shape")?;
    selectors(&case, &mut snapshot);
    let (first, later): (Vec<_>, Vec<_>) = stored(&case).into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    first.into_iter().for_each(|(_, fact)| drop(snapshot.set_storage(fact)));
    let (early, late) = case.nodes.split_at(case.nodes.len() / 2);
    for (node, other) in early.iter().zip(case.nodes.iter().rev()) {
        snapshot.upsert_node(convert::node(&posing_as(node, other)));
    }
    devices(&case, &mut snapshot, id);
    look(&mut snapshot, id);
    for placed in &case.pods {
        snapshot.upsert_pod(pod(placed));
        let mut twin = placed.clone();
        twin.metadata.uid = format!("twin of {}", placed.metadata.uid).into();
        if let Some(elsewhere) = case.nodes.iter().find(|node| node.metadata.name != placed.spec.node_name) {
            twin.spec.node_name = elsewhere.metadata.name.clone();
        }
        snapshot.upsert_pod(pod(&twin));
        // Seen or not, the twin leaves.
        if placed.metadata.name.ends_with('0') {
            look(&mut snapshot, id);
        }
        if let Some(id) = snapshot.cluster().find_pod(&twin.metadata.uid) {
            snapshot.delete_pod(id);
        }
    }
    look(&mut snapshot, id);
    for node in late.iter().chain(early) {
        let mut passing = node.clone();
        passing.metadata.name = format!("passing {}", node.metadata.name).into();
        snapshot.upsert_node(convert::node(&passing));
        snapshot.upsert_node(convert::node(node));
        look(&mut snapshot, id);
        snapshot.delete_node(&passing.metadata.name);
    }
    later.into_iter().for_each(|(_, fact)| drop(snapshot.set_storage(fact)));
    detour(&case, &mut snapshot, id);
    // Namespaces come last: whom they select is counted again.
    for namespace in &case.namespaces {
        snapshot.set_namespace(&namespace.metadata.name, Some(namespace.metadata.labels.clone()));
    }
    Ok(answer(&mut snapshot, id))
}

/// Parameters of the core, by way of the configuration file.
fn configured(case: &Case) -> Result<Config> {
    let Some(configuration) = &case.configuration else { return Ok(Config::default()) };
    let config = config::Config::parse(&configuration.to_string(), "configuration")?;
    Ok(config.core(Duration::from_secs(5)))
}

/// Everything about storage.
fn stored(case: &Case) -> Vec<StorageFact> {
    let classes = case.storage_classes.iter().map(|class| StorageFact::Class(volumes::class(class)));
    let claims = case.persistent_volume_claims.iter().map(|claim| StorageFact::Claim(volumes::claim(claim)));
    let all = case.persistent_volumes.iter().map(|volume| StorageFact::Volume(volumes::volume(volume)));
    let nodes = case.csi_nodes.iter().map(|node| StorageFact::CsiNode(volumes::csi_node(node)));
    let drivers = case.csi_drivers.iter().map(|driver| StorageFact::Driver(volumes::csi_driver(driver)));
    let capacities = case.csi_storage_capacities.iter().map(|one| StorageFact::Capacity(volumes::capacity(one)));
    let attachments = case.volume_attachments.iter().map(|one| StorageFact::Attachment(volumes::attachment(one)));
    claims.chain(all).chain(classes).chain(nodes).chain(drivers).chain(capacities).chain(attachments).collect()
}

/// The pod is placed on trial and taken back, and volumes and CSINodes go and come again.
fn detour(case: &Case, snapshot: &mut Snapshot, id: PodId) {
    if let Ok(node) = cycle::find(snapshot, id) {
        snapshot.assume(id, node);
        look(snapshot, id);
        snapshot.forget(id);
    }
    for volume in &case.persistent_volumes {
        snapshot.remove_storage(StorageKind::Volume, &volume.metadata.namespace, &volume.metadata.name);
        look(snapshot, id);
        snapshot.set_storage(StorageFact::Volume(volumes::volume(volume)));
    }
    for node in &case.csi_nodes {
        snapshot.remove_storage(StorageKind::CsiNode, &node.metadata.namespace, &node.metadata.name);
        look(snapshot, id);
        snapshot.set_storage(StorageFact::CsiNode(volumes::csi_node(node)));
    }
}

/// Devices; each slice and claim is another one's first, and classes stand for nothing else at first.
fn devices(case: &Case, snapshot: &mut Snapshot, id: PodId) {
    let facts = |turned: bool| {
        let slices = case.resource_slices.iter().zip(case.resource_slices.iter().rev()).map(|(slice, other)| {
            let mut posing = if turned { other.clone() } else { slice.clone() };
            posing.metadata.name = slice.metadata.name.clone();
            DeviceFact::Slice(convert::devices::slice(&posing))
        });
        let claims = case.resource_claims.iter().zip(case.resource_claims.iter().rev()).map(|(claim, other)| {
            let mut posing = if turned { other.clone() } else { claim.clone() };
            posing.metadata = claim.metadata.clone();
            DeviceFact::Claim(convert::devices::claim(&posing))
        });
        let rules = case.device_taint_rules.iter().map(|rule| DeviceFact::Rule(convert::devices::taint_rule(rule)));
        let classes = case.device_classes.iter().map(|class| {
            let class = convert::devices::class(class);
            let extended_resource = class.extended_resource.clone().filter(|_| !turned);
            DeviceFact::Class(ClassInfo { extended_resource, ..class })
        });
        rules.chain(slices).chain(classes).chain(claims).collect::<Vec<DeviceFact>>()
    };
    for turned in [true, false] {
        for fact in facts(turned) {
            snapshot.note_device(fact);
        }
        if turned {
            look(snapshot, id);
        }
    }
}

/// Services and controllers.
fn selectors(case: &Case, snapshot: &mut Snapshot) {
    let labels = |kind| move |owner| convert::selecting_labels(kind, owner);
    let pods = |kind| move |owner| convert::selecting_pods(kind, owner);
    let services = case.services.iter().map(labels(SelectorKind::Service));
    let replicas = case.replication_controllers.iter().map(labels(SelectorKind::ReplicationController));
    let sets = case.replica_sets.iter().map(pods(SelectorKind::ReplicaSet));
    let stateful = case.stateful_sets.iter().map(pods(SelectorKind::StatefulSet));
    services.chain(replicas).chain(sets).chain(stateful).for_each(|info| snapshot.set_selector(info));
}

/// A pod as the core sees it.
pub(crate) fn pod(pod: &types::Pod) -> PodInfo {
    convert::pod(pod, |name| name == OURS)
}

/// The pod is looked at, so that everything about it is known and has to be kept up to date.
fn look(snapshot: &mut Snapshot, id: PodId) {
    let _ = cycle::find(snapshot, id);
}

/// A node with another one's facts.
fn posing_as(node: &types::Node, other: &types::Node) -> types::Node {
    let mut posing = other.clone();
    posing.metadata.name = node.metadata.name.clone();
    posing.metadata.uid = node.metadata.uid.clone();
    posing
}

/// Whether kube-scheduler fails the whole cycle for it.
fn is_error(reason: &Reason) -> bool {
    matches!(reason, Reason::DeviceError(_) | Reason::Volume(VolumeReason::LimitClaimNotOwned(..)))
}

fn answer(snapshot: &mut Snapshot, id: PodId) -> Answer {
    let mut answer = Answer::default();
    for opinion in opinions(snapshot, id) {
        let errors = opinion.reasons.iter().filter(|reason| is_error(reason));
        answer.errors.extend(errors.map(ToString::to_string));
        let plugin = opinion.reasons.first().map_or("", |reason| reason.plugin());
        let reasons = opinion.reasons.iter().map(ToString::to_string).collect();
        let scores = opinion.scores.into_iter().collect();
        answer.nodes.insert(opinion.node.to_string(), Node { plugin, reasons, scores });
    }
    match cycle::find(snapshot, id) {
        Ok(node) => answer.picked = Some(snapshot.cluster().node_name(node).to_string()),
        Err(refusal) => answer.message = refusal.message(),
    }
    answer
}
