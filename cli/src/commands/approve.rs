//! `flowforge approve WORKFLOW NODE`: what a person says about a node that waits for that.

use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::json;

use flowforge_api::names::field_manager;
use flowforge_api::workflow::{Approval, Workflow};

use crate::args::ApproveArgs;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::plain::plain;

pub(crate) async fn run(args: &ApproveArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let workflow = cluster.workflow(&args.workflow).await?;
    // A node of a template or a `for` is known by the id that its status shows.
    check(args, &plain(workflow.clone()))?;
    let by = user(cluster).await?;
    let mut approvals = workflow.spec.approvals.clone();
    approvals.push(Approval { node: args.node.clone(), approved: !args.deny, by: by.clone(), at: Some(now()) });
    // The resourceVersion makes sure that nobody decides in between.
    let metadata = json!({ "uid": workflow.metadata.uid, "resourceVersion": workflow.metadata.resource_version });
    let patch = json!({ "metadata": metadata, "spec": { "approvals": approvals } });
    let params = PatchParams { field_manager: Some(field_manager::CLI.into()), ..PatchParams::default() };
    let done = cluster.workflows().patch(&args.workflow, &params, &Patch::Merge(patch)).await;
    let path = cluster.path(&args.workflow);
    done.map_err(|error| Failure::of_request(&format!("decide about node {} of workflow {path}", args.node), &error))?;
    let verb = if args.deny { "denied" } else { "approved" };
    out.line(&format!("workflow {path}: node {} {verb} by {by}", args.node))?;
    Ok(Exit::Success)
}

/// The node is there, waits for a person, and nobody has decided.
fn check(args: &ApproveArgs, workflow: &Workflow) -> Result<(), Failure> {
    let node = workflow.spec.nodes.iter().find(|n| n.id == args.node);
    let Some(node) = node else {
        return Err(Failure::new(format!("workflow {} has no node {:?}", args.workflow, args.node)));
    };
    if !node.approval {
        return Err(Failure::new(format!("node {:?} waits for no approval", args.node)));
    }
    match workflow.spec.approvals.iter().find(|a| a.node == args.node) {
        None => Ok(()),
        Some(known) => {
            let verb = if known.approved { "approved" } else { "denied" };
            Err(Failure::new(format!("node {:?} was {verb} by {}", args.node, known.by)))
        }
    }
}

/// The name under which the API server knows us.
async fn user(cluster: &Cluster) -> Result<String, Failure> {
    let reviews: Api<SelfSubjectReview> = Api::all(cluster.workflows().into_client());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await;
    let review = review.map_err(|error| Failure::of_request("ask who you are", &error))?;
    let info = review.status.and_then(|s| s.user_info).and_then(|u| u.username);
    info.ok_or_else(|| Failure::new("the API server does not say who you are"))
}

fn now() -> k8s_openapi::apimachinery::pkg::apis::meta::v1::Time {
    k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(jiff::Timestamp::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_asked_about_by_the_id_of_the_status() {
        let workflow = json!({
            "apiVersion": "flowforge.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": "wf"},
            "spec": {
                "nodes": [{"id": "gate", "approval": true, "for": {"count": 2}}],
                "approvals": [{"node": "gate-1", "approved": false, "by": "eve"}],
            },
        });
        let workflow = plain(serde_json::from_value(workflow).expect("a workflow"));
        let check = |node: &str| {
            let args = ApproveArgs { workflow: "wf".into(), node: node.into(), deny: false };
            check(&args, &workflow).map_err(|failure| failure.text())
        };
        assert_eq!(check("gate-0"), Ok(()));
        assert_eq!(check("gate-1"), Err("error: node \"gate-1\" was denied by eve\n".to_owned()));
        assert_eq!(check("gate"), Err("error: workflow wf has no node \"gate\"\n".to_owned()));
    }
}
