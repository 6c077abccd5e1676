//! What the demo prints at its end: where every gang stood, the critical path, and placement latency as Prometheus sees it.

use anyhow::Result;
use flowforge_api::names::label;
use flowforge_api::workflow::{Dependency, NodeStatus};
use flowforge_api::{Gang, Workflow};
use flowforge_tests::{Installation, Scrape};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Api, api::ListParams};
use std::collections::BTreeMap;

/// Name of the placement histogram, seconds.
const PLACEMENT: &str = "flowforge_gang_placement_duration_seconds";

/// Prints the report of the workflows.
///
/// # Errors
/// When the cluster or the scheduler's metrics cannot be read.
pub(crate) async fn print(installation: &Installation<'_>, namespace: &str, names: &[&str]) -> Result<()> {
    let client = installation.testbed.client().clone();
    let workflows: Api<Workflow> = Api::namespaced(client.clone(), namespace);
    let gangs: Api<Gang> = Api::namespaced(client, namespace);

    for name in names {
        let workflow = workflows.get(name).await?;
        let params = ListParams::default().labels(&format!("{}={name}", label::WORKFLOW));
        print_workflow(&workflow, &gangs.list(&params).await?.items);
    }
    let scrape = Scrape::of(installation.scheduler).await?;
    println!("\nplacement latency from /metrics (last needed member seen -> last Binding acknowledged)");
    for part in ["", "queue", "plan", "prepare", "bind"] {
        let metric = if part.is_empty() { PLACEMENT.to_owned() } else { PLACEMENT.replace("placement", part) };
        if let (Some(p50), Some(p99)) = (scrape.quantile(&metric, 0.5), scrape.quantile(&metric, 0.99)) {
            println!("  {metric:<46} p50 {:>7.1} ms   p99 {:>7.1} ms", p50 * 1e3, p99 * 1e3);
        }
    }
    Ok(())
}

/// One line a node, in the order of the spec: when it was bound and how long it ran, both in the whole seconds that the
/// API keeps, and where; then what the end waited for.
fn print_workflow(workflow: &Workflow, gangs: &[Gang]) {
    let status = workflow.status.clone().unwrap_or_default();
    let name = workflow.metadata.name.as_deref().unwrap_or_default();
    println!("\nworkflow {name}");
    println!("  {:<12} {:>4} {:>8} {:>6}  {:<22} NODES", "NODE", "PODS", "WAITED", "RAN", "DOMAIN");
    for node in &status.nodes {
        let labels = |gang: &Gang| gang.metadata.labels.as_ref().and_then(|l| l.get(label::NODE)) == Some(&node.id);
        let gang = gangs.iter().find(|gang| labels(gang));
        let placement = gang.and_then(|gang| gang.status.clone()?.placement).unwrap_or_default();
        let waited = span(node.released_at.as_ref(), node.scheduled_at.as_ref());
        let ran = span(node.started_at.as_ref(), node.finished_at.as_ref());
        let domain = placement.domain.as_deref().unwrap_or("-");
        let places = placement.nodes.join(" ");
        println!("  {:<12} {:>4} {waited:>8} {ran:>6}  {domain:<22} {places}", node.id, placement.bound);
    }
    let (path, seconds) = critical_path(&workflow.spec.nodes, &status.nodes);
    println!("  critical path: {} = {seconds:.0} s", path.join(" -> "));
}

/// `3 s`; a dash where one of the two did not happen.
fn span(from: Option<&Time>, to: Option<&Time>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => format!("{:.0} s", to.0.duration_since(from.0).as_secs_f64()),
        _ => "-".to_owned(),
    }
}

/// The chain of nodes that the workflow's end waited for: backwards from the last to end, always over the dependency that
/// ended last; with the seconds from the chain's release to its end.
fn critical_path(spec: &[flowforge_api::workflow::WorkflowNode], status: &[NodeStatus]) -> (Vec<String>, f64) {
    let ends: BTreeMap<&str, (&Time, Option<&Time>)> = status
        .iter()
        .filter_map(|n| Some((n.id.as_str(), (n.finished_at.as_ref()?, n.released_at.as_ref()))))
        .collect();
    let depends: BTreeMap<&str, &[Dependency]> =
        spec.iter().map(|n| (n.id.as_str(), n.depends_on.as_slice())).collect();
    let mut path = Vec::new();
    let mut at = ends.iter().max_by_key(|(_, (end, _))| *end).map(|(id, _)| *id);
    let (mut first, mut last) = (None, None);
    while let Some(id) = at {
        let Some((end, released)) = ends.get(id) else { break };
        path.push(id.to_owned());
        last = last.or(Some(end.0));
        first = released.map(|t| t.0).or(first);
        let upstream = depends.get(id).copied().unwrap_or_default();
        at = upstream.iter().map(Dependency::node).filter(|u| ends.contains_key(u)).max_by_key(|u| ends[u].0);
    }
    path.reverse();
    let seconds = first.zip(last).map_or(0.0, |(a, b)| b.duration_since(a).as_secs_f64());
    (path, seconds)
}
