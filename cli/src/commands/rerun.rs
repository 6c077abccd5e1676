//! `flowforge rerun WORKFLOW`: runs an ended workflow again, as a new one that takes over what had succeeded.

use flowforge_dag_controller_core::ranks::pack;
use kube::ResourceExt as _;
use kube::api::{ObjectMeta, PostParams};
use std::collections::{BTreeMap, BTreeSet};

use flowforge_api::names::field_manager;
use flowforge_api::workflow::{NodePhase, RerunOf, Workflow, WorkflowNode, WorkflowPhase};

use crate::args::RerunArgs;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::plain::plain;
use crate::render::tree::View;

pub(crate) async fn run(args: &RerunArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let old = cluster.workflow(&args.workflow).await?;
    let new = again(&old, &args.from, args.name.as_deref())?;
    let params = PostParams { field_manager: Some(field_manager::CLI.into()), ..PostParams::default() };
    let name = new.name_any();
    let stored = cluster.workflows().create(&params, &new).await;
    stored.map_err(|error| Failure::of_request(&format!("submit workflow {}", cluster.path(&name)), &error))?;
    let taken = new.spec.rerun_of.map(|rerun| rerun.succeeded).unwrap_or_default();
    let note = if taken.is_empty() { "from its beginning".to_owned() } else { format!("nodes {taken} are taken over") };
    out.line(&format!("workflow {} created; {note}", cluster.path(&name)))?;
    Ok(Exit::Success)
}

/// The workflow that runs `old` again, from these nodes on, or from what did not succeed.
fn again(old: &Workflow, from: &[String], name: Option<&str>) -> Result<Workflow, Failure> {
    let phase = old.status.as_ref().and_then(|status| status.phase).unwrap_or_default();
    if matches!(phase, WorkflowPhase::Pending | WorkflowPhase::Running) {
        return Err(
            Failure::new(format!("workflow {} has not ended", old.name_any())).fix("cancel it, or wait for its end")
        );
    }
    // Places are those of the nodes that run, of which a template or a `for` stands for several.
    let view = View { workflow: plain(old.clone()), gangs: BTreeMap::new() };
    let succeeded: BTreeSet<&str> = view
        .nodes()
        .into_iter()
        .filter(|(node, status)| status.phase == NodePhase::Succeeded && !node.finally)
        .map(|(node, _)| node.id.as_str())
        .collect();
    let nodes = &view.workflow.spec.nodes;
    if let Some(unknown) = from.iter().find(|id| nodes.iter().all(|n| n.id != **id)) {
        return Err(Failure::new(format!("workflow {} has no node {unknown:?}", old.name_any())));
    }
    let again = below(nodes, from);
    let is_kept = |id: &str| succeeded.contains(id) && !again.contains(id);
    if let Some(source) = nodes.iter().find(|n| !n.outputs.is_empty() && is_kept(&n.id))
        && below(nodes, std::slice::from_ref(&source.id)).into_iter().any(|id| !is_kept(id))
    {
        let problem =
            format!("the outputs of node {} are not taken over, and what runs again may read them", source.id);
        return Err(Failure::new(problem).fix(format!("run it again too: --from {}", source.id)));
    }
    let kept = (0u32..).zip(nodes).filter(|(_, n)| is_kept(&n.id));
    let mut spec = old.spec.clone();
    spec.rerun_of = Some(RerunOf {
        name: old.name_any(),
        uid: old.metadata.uid.clone(),
        succeeded: pack(&kept.map(|(place, _)| place).collect()),
    });
    (spec.cancel, spec.terminate, spec.suspend) = (false, false, None);
    spec.approvals.clear();
    let metadata = ObjectMeta {
        name: Some(name.map_or_else(|| next_name(&old.name_any()), str::to_owned)),
        namespace: old.metadata.namespace.clone(),
        labels: old.metadata.labels.clone(),
        ..ObjectMeta::default()
    };
    Ok(Workflow { metadata, spec, status: None })
}

/// These nodes and all that wait for them, over any number of edges.
fn below<'a>(nodes: &'a [WorkflowNode], from: &'a [String]) -> BTreeSet<&'a str> {
    let mut down: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        for dependency in &node.depends_on {
            down.entry(dependency.node()).or_default().push(&node.id);
        }
    }
    let mut found = BTreeSet::new();
    let mut next: Vec<&str> = from.iter().map(String::as_str).collect();
    while let Some(id) = next.pop() {
        if found.insert(id) {
            next.extend(down.get(id).into_iter().flatten());
        }
    }
    found
}

/// `train` is run again as `train-r1`, and that as `train-r2`.
fn next_name(name: &str) -> String {
    let numbered = name.rsplit_once("-r").and_then(|(base, number)| Some((base, number.parse::<u32>().ok()?)));
    match numbered {
        Some((base, number)) => format!("{base}-r{}", number.saturating_add(1)),
        None => format!("{name}-r1"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::workflow;
    use flowforge_api::workflow::NodeStatus;

    fn night() -> Workflow {
        workflow("night")
            .phase("Failed", "3/4")
            .node("prepare", 1, &[], "Succeeded")
            .node("train", 4, &["prepare"], "Failed")
            .node("check", 1, &["prepare"], "Succeeded")
            .node("eval", 1, &["train"], "Skipped")
            .build()
    }

    #[test]
    fn what_succeeded_is_taken_over_and_the_rest_runs() {
        let mut old = night();
        old.spec.cancel = true;
        let new = again(&old, &[], None).unwrap();
        assert_eq!((new.name_any().as_str(), new.spec.cancel, new.status.is_none()), ("night-r1", false, true));
        let rerun = new.spec.rerun_of.as_ref().unwrap();
        assert_eq!((rerun.name.as_str(), rerun.succeeded.as_str()), ("night", "0,2"));
        assert_eq!(new.spec.nodes, old.spec.nodes);
        assert_eq!(next_name("night-r1"), "night-r2");
    }

    #[test]
    fn from_a_node_it_and_all_below_run_again() {
        let from = |id: &str| again(&night(), &[id.to_owned()], Some("x")).map(|w| w.spec.rerun_of.unwrap().succeeded);
        assert_eq!(from("check").unwrap(), "0");
        assert_eq!(from("prepare").unwrap(), "", "everything waits for it");
        assert!(from("nobody").is_err());
    }

    #[test]
    fn places_are_those_of_the_instances_of_a_for() {
        let mut old = night();
        old.spec.nodes.iter_mut().for_each(|node| node.image = Some("i".to_owned()));
        old.spec.nodes[0].items = Some(serde_json::from_value(serde_json::json!({"count": 2})).unwrap());
        let nodes = &mut old.status.as_mut().unwrap().nodes;
        nodes[0].id = "prepare-0".to_owned();
        nodes.push(NodeStatus { id: "prepare-1".to_owned(), ..nodes[0].clone() });
        let new = again(&old, &[], None).unwrap();
        assert_eq!(new.spec.rerun_of.unwrap().succeeded, "0-1,3", "prepare-0, prepare-1, train, check, eval");
        assert_eq!(new.spec.nodes, old.spec.nodes, "what is submitted is what was written");
    }

    #[test]
    fn outputs_that_may_be_read_again_are_made_again() {
        let mut old = night();
        old.spec.nodes[0].outputs = serde_json::from_value(serde_json::json!([{"name": "shards"}])).unwrap();
        let refused = again(&old, &[], None).unwrap_err().text();
        assert!(refused.contains("the outputs of node prepare are not taken over"), "{refused}");
        assert_eq!(again(&old, &["prepare".to_owned()], None).unwrap().spec.rerun_of.unwrap().succeeded, "");
    }

    #[test]
    fn what_runs_is_not_run_again() {
        let running = workflow("night").phase("Running", "0/1").node("a", 1, &[], "Running").build();
        assert!(again(&running, &[], None).is_err());
    }
}
