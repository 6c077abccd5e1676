//! Time limits, parallelism, suspension, termination, approvals and reruns on a real control plane.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dag;

use dag::{World, cases, node, phase_of};
use flowforge_api::workflow::{NodePhase, WorkflowPhase};
use k8s_openapi::api::authentication::v1::SelfSubjectReview;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::time::Duration;

fn limited(id: &str, timeouts: Value) -> Value {
    let mut node = node(id, 1, 600_000, &[]);
    node["timeouts"] = timeouts;
    node
}

async fn patch(world: &World, namespace: &str, spec: Value) {
    let patch = Patch::Merge(json!({"spec": spec}));
    world.workflows(namespace).patch("wf", &PatchParams::default(), &patch).await.unwrap();
}

#[test]
fn a_wait_for_a_place_and_a_run_end_when_their_time_is_over() {
    cases(|world| async move {
        world.namespace("limits").await;
        let mut nowhere = limited("nowhere", json!({"queueSeconds": 2}));
        nowhere["nodeSelector"] = json!({"no-such": "machine"});
        nowhere["onFailure"] = json!("SkipDownstream");
        let mut long = limited("long", json!({"runSeconds": 2}));
        long["onFailure"] = json!("SkipDownstream");
        world.submit("limits", "wf", json!([nowhere, long, node("ok", 1, 200, &[])]), json!({})).await;
        let done = world.reaches("limits", "wf", WorkflowPhase::Failed).await;
        let reason = |id: &str| {
            let nodes = &done.status.as_ref().unwrap().nodes;
            nodes.iter().find(|n| n.id == id).and_then(|n| n.reason.clone()).unwrap_or_default()
        };
        assert_eq!(["nowhere", "long"].map(reason), ["QueueTimeout", "RunTimeout"]);
        assert_eq!(phase_of(&done, "ok"), NodePhase::Succeeded, "within its time");
    });
}

#[test]
fn a_workflow_whose_time_is_over_fails_after_its_finally_nodes() {
    cases(|world| async move {
        world.namespace("whole").await;
        let mut clean = node("clean", 1, 3_000, &[]);
        clean["finally"] = json!(true);
        let nodes = json!([node("train", 1, 600_000, &[]), node("after", 1, 100, &["train"]), clean]);
        world.submit("whole", "wf", nodes, json!({"timeoutSeconds": 2})).await;
        let done = world.reaches("whole", "wf", WorkflowPhase::Failed).await;
        assert_eq!(done.status.as_ref().unwrap().reason.as_deref(), Some("WorkflowTimeout"));
        assert_eq!(["after", "clean"].map(|id| phase_of(&done, id)), [NodePhase::Skipped, NodePhase::Succeeded]);
    });
}

#[test]
fn no_more_nodes_run_than_wished_and_a_suspended_workflow_releases_none() {
    cases(|world| async move {
        world.namespace("few").await;
        let nodes: Vec<Value> = ["a", "b", "c"].iter().map(|id| node(id, 1, 600_000, &[])).collect();
        world.submit("few", "wf", json!(nodes), json!({"parallelism": 1})).await;
        world.runs("few", "wf", "a", 1).await;
        assert_eq!(world.members("few", "wf", "b").await.len(), 0);
        patch(world, "few", json!({"suspend": "Hold"})).await;
        world.shows("few", "wf", "Suspended").await;
        world.end("few", "wf-a-1-0", 0).await;
        dag::until("a has ended", || async {
            let workflow = world.workflows("few").get("wf").await.map_err(|e| e.to_string())?;
            let phase = phase_of(&workflow, "a");
            if phase == NodePhase::Succeeded { Ok(()) } else { Err(format!("{phase:?}")) }
        })
        .await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(world.members("few", "wf", "b").await.len(), 0, "it is suspended");
        patch(world, "few", json!({"suspend": null, "parallelism": 2})).await;
        world.runs("few", "wf", "b", 1).await;
        world.runs("few", "wf", "c", 1).await;
        for pod in ["wf-b-1-0", "wf-c-1-0"] {
            world.end("few", pod, 0).await;
        }
        world.reaches("few", "wf", WorkflowPhase::Succeeded).await;
    });
}

#[test]
fn a_termination_does_not_wait_for_grace_and_runs_nothing_more() {
    cases(|world| async move {
        world.namespace("terminate").await;
        let mut train = node("train", 1, 600_000, &[]);
        train["annotations"]["testbed.flowforge.dev/term-ms"] = json!("1000");
        let mut clean = node("clean", 1, 200, &[]);
        clean["finally"] = json!(true);
        world.submit("terminate", "wf", json!([train, clean]), json!({})).await;
        world.runs("terminate", "wf", "train", 1).await;
        patch(world, "terminate", json!({"terminate": true})).await;
        let done = world.reaches("terminate", "wf", WorkflowPhase::Canceled).await;
        assert_eq!(phase_of(&done, "clean"), NodePhase::Skipped);
        assert_eq!(done.status.as_ref().unwrap().reason.as_deref(), Some("Terminated"));
        let back = Patch::Merge(json!({"spec": {"terminate": false}}));
        assert!(world.workflows("terminate").patch("wf", &PatchParams::default(), &back).await.is_err());
    });
}

/// The name under which the API server knows the tests.
async fn me(world: &World) -> String {
    let reviews: Api<SelfSubjectReview> = Api::all(world.testbed.client().clone());
    let review = reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await.unwrap();
    review.status.unwrap().user_info.unwrap().username.unwrap()
}

#[test]
fn an_approval_node_waits_for_a_person_who_decides_in_his_own_name() {
    cases(|world| async move {
        world.namespace("approval").await;
        let nodes = json!([{"id": "ask", "approval": true}, node("go", 1, 200, &["ask"])]);
        world.submit("approval", "wf", nodes.clone(), json!({})).await;
        world.shows("approval", "wf", "WaitingForApproval").await;
        let decide = |approved: bool, by: &str| json!({"approvals": [{"node": "ask", "approved": approved, "by": by}]});
        let forged = Patch::Merge(json!({"spec": decide(true, "somebody-else")}));
        let refused = world.workflows("approval").patch("wf", &PatchParams::default(), &forged).await.unwrap_err();
        assert!(refused.to_string().contains("spec.approvals[0].by"), "{refused}");
        let me = me(world).await;
        patch(world, "approval", decide(true, &me)).await;
        let done = world.reaches("approval", "wf", WorkflowPhase::Succeeded).await;
        let status = done.status.unwrap();
        assert_eq!(status.nodes[0].reason.as_deref(), Some("Approved"));
        assert!(status.nodes[0].message.as_deref().unwrap_or_default().contains(&me));
        assert_eq!(world.members("approval", "wf", "ask").await.len(), 0);
        // Denied, it fails.
        world.namespace("denied").await;
        world.submit("denied", "wf", nodes, json!({})).await;
        world.shows("denied", "wf", "WaitingForApproval").await;
        patch(world, "denied", decide(false, &me)).await;
        let done = world.reaches("denied", "wf", WorkflowPhase::Failed).await;
        assert_eq!(phase_of(&done, "go"), NodePhase::Skipped);
        assert_eq!(done.status.unwrap().reason.as_deref(), Some("Denied"));
    });
}

#[test]
fn a_rerun_takes_over_what_had_succeeded() {
    cases(|world| async move {
        world.namespace("rerun").await;
        let nodes = json!([node("a", 1, 200, &[]), node("b", 1, 200, &["a"])]);
        let rerun = json!({"rerunOf": {"name": "before", "succeeded": "0"}});
        world.submit("rerun", "wf", nodes, rerun).await;
        let done = world.reaches("rerun", "wf", WorkflowPhase::Succeeded).await;
        let status = done.status.as_ref().unwrap();
        assert_eq!((status.nodes[0].reason.as_deref(), status.nodes[0].attempt), (Some("TakenOver"), 0));
        assert_eq!(world.members("rerun", "wf", "a").await.len(), 0);
        let other = Patch::Merge(json!({"spec": {"rerunOf": null}}));
        let refused = world.workflows("rerun").patch("wf", &PatchParams::default(), &other).await.unwrap_err();
        assert!(refused.to_string().contains("spec.rerunOf"), "{refused}");
    });
}
