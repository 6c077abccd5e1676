//! FlowForge's side: the scheduler's own conversion, snapshot and rules.

use anyhow::{Context as _, Result};
use flowforge_scheduler::convert::{self, types};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::cycle;
use flowforge_scheduler_core::opinion::opinions;
use flowforge_scheduler_core::snapshot::Snapshot;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

const OURS: &str = "flowforge";

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Case {
    pod: types::Pod,
    nodes: Vec<types::Node>,
    pods: Vec<types::Pod>,
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
/// The pods come before their nodes, and the asking pod first of all, so that caches have to follow changes.
pub(crate) fn ask(case: &Value) -> Result<Answer> {
    let case = Case::deserialize(case).context("FlowForge cannot read the case")?;
    let mut snapshot = Snapshot::new(&Config::default());
    let asking = convert::pod(&case.pod, |name| name == OURS);
    let id = snapshot.upsert_pod(asking).context("the pod is nobody's concern")?.id;
    let shape = snapshot.cluster().pod(id).and_then(|pod| pod.shape).context("the pod has no shape")?;
    let half = case.nodes.len() / 2;
    for node in &case.nodes[..half] {
        snapshot.upsert_node(convert::node(node));
    }
    let _ = snapshot.view(shape);
    for pod in &case.pods {
        snapshot.upsert_pod(convert::pod(pod, |name| name == OURS));
    }
    let _ = snapshot.view(shape);
    for node in &case.nodes[half..] {
        snapshot.upsert_node(convert::node(node));
    }
    let mut answer = Answer::default();
    for opinion in opinions(&mut snapshot, shape) {
        let plugin = opinion.reasons.first().map_or("", |reason| reason.plugin());
        let reasons = opinion.reasons.iter().map(ToString::to_string).collect();
        let scores = opinion.scores.into_iter().collect();
        answer.nodes.insert(opinion.node.to_string(), Node { plugin, reasons, scores });
    }
    match cycle::find(&mut snapshot, shape) {
        Ok(node) => answer.picked = Some(snapshot.cluster().node_name(node).to_string()),
        Err(refusal) => answer.message = refusal.message(),
    }
    Ok(answer)
}
