//! Control flow on a real control plane: what waits for what, and what a failure means to the others.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dag;

use dag::{cases, condition, node, phase_of};
use flowforge_api::Workflow;
use flowforge_api::workflow::{NodePhase, WorkflowPhase};
use kube::api::{ListParams, PostParams};
use serde_json::{Value, json};

/// A node with further fields.
fn with(mut node: Value, fields: Value) -> Value {
    if let (Some(node), Value::Object(fields)) = (node.as_object_mut(), fields) {
        node.extend(fields);
    }
    node
}

/// A node that fails at once.
fn failing(id: &str, fields: Value) -> Value {
    let mut node = with(node(id, 1, 100, &[]), fields);
    node["annotations"]["testbed.flowforge.dev/exit-code"] = json!("3");
    node
}

fn on(id: &str, what: &str) -> Value {
    json!([{"node": id, "on": what}])
}

fn reason_of<'a>(workflow: &'a Workflow, id: &str) -> Option<&'a str> {
    let status = workflow.status.as_ref()?;
    status.nodes.iter().find(|n| n.id == id)?.reason.as_deref()
}

#[test]
fn a_node_runs_on_what_it_waits_for_and_is_skipped_when_that_can_not_happen() {
    cases(|world| async move {
        world.namespace("depends").await;
        let nodes = json!([
            failing("train", json!({})),
            with(node("rescue", 1, 200, &[]), json!({"dependsOn": on("train", "Failed")})),
            with(node("report", 1, 200, &[]), json!({"dependsOn": on("train", "Completed")})),
            node("publish", 1, 200, &["train"]),
            with(node("instead", 1, 200, &[]), json!({"dependsOn": on("publish", "Skipped")})),
            with(node("either", 1, 200, &["train", "rescue"]), json!({"dependsMode": "Any"})),
            node("after", 1, 200, &["publish"]),
        ]);
        world.submit("depends", "wf", nodes, json!({})).await;
        let done = world.reaches("depends", "wf", WorkflowPhase::Failed).await;
        for id in ["rescue", "report", "instead", "either"] {
            assert_eq!(phase_of(&done, id), NodePhase::Succeeded, "{id}");
        }
        for id in ["publish", "after"] {
            assert_eq!(
                (phase_of(&done, id), reason_of(&done, id)),
                (NodePhase::Skipped, Some("Unsatisfiable")),
                "{id}"
            );
            assert_eq!(world.members("depends", "wf", id).await.len(), 0);
        }
        assert_eq!(done.status.as_ref().unwrap().reason.as_deref(), Some("MemberFailed"), "train is the cause");
    });
}

#[test]
fn a_node_that_waits_for_running_starts_while_its_upstream_runs() {
    cases(|world| async move {
        world.namespace("running").await;
        let nodes = json!([
            node("server", 2, 600_000, &[]),
            with(node("client", 1, 200, &[]), json!({"dependsOn": on("server", "Running")})),
        ]);
        world.submit("running", "wf", nodes, json!({})).await;
        dag::until("the client has ended", || async {
            let workflow = world.workflows("running").get("wf").await.map_err(|e| e.to_string())?;
            let phase = workflow.status.is_some().then(|| phase_of(&workflow, "client"));
            if phase == Some(NodePhase::Succeeded) { Ok(()) } else { Err(format!("it is {phase:?}")) }
        })
        .await;
        world.runs("running", "wf", "server", 2).await;
        for pod in ["wf-server-1-0", "wf-server-1-1"] {
            world.end("running", pod, 0).await;
        }
        world.reaches("running", "wf", WorkflowPhase::Succeeded).await;
    });
}

#[test]
fn a_failure_that_is_to_be_no_matter_leaves_the_workflow_succeeded_and_degraded() {
    cases(|world| async move {
        world.namespace("continue").await;
        let nodes = json!([failing("lint", json!({"onFailure": "Continue"})), node("train", 1, 200, &["lint"])]);
        world.submit("continue", "wf", nodes, json!({})).await;
        let done = world.reaches("continue", "wf", WorkflowPhase::Succeeded).await;
        assert_eq!((phase_of(&done, "lint"), phase_of(&done, "train")), (NodePhase::Failed, NodePhase::Succeeded));
        assert_eq!((condition(&done, "Degraded"), condition(&done, "Succeeded")), (Some("True"), Some("True")));
        let gangs = world.gangs("continue").list(&ListParams::default()).await.unwrap();
        assert_eq!(gangs.items.len(), 2);
    });
}

#[test]
fn a_failure_that_skips_only_what_waits_for_it_lets_other_branches_end() {
    cases(|world| async move {
        world.namespace("branches").await;
        let nodes = json!([
            failing("a", json!({"onFailure": "SkipDownstream"})),
            node("a-after", 1, 200, &["a"]),
            node("b", 1, 2_000, &[]),
            node("b-after", 1, 200, &["b"]),
        ]);
        world.submit("branches", "wf", nodes, json!({})).await;
        let done = world.reaches("branches", "wf", WorkflowPhase::Failed).await;
        let phases = ["a", "a-after", "b", "b-after"].map(|id| phase_of(&done, id));
        use NodePhase::{Failed, Skipped, Succeeded};
        assert_eq!(phases, [Failed, Skipped, Succeeded, Succeeded]);
        assert_eq!(condition(&done, "Degraded"), None);
    });
}

#[test]
fn what_can_never_run_or_is_no_dependency_is_refused_with_its_place() {
    cases(|world| async move {
        world.namespace("refused").await;
        for (place, nodes) in [
            (
                "spec.nodes[0].onFailure",
                json!([
                    failing("a", json!({"onFailure": "Fail"})),
                    with(node("b", 1, 1, &[]), json!({"dependsOn": on("a", "Failed")})),
                ]),
            ),
            (
                "spec.nodes[1].dependsOn[0].on",
                json!([node("a", 1, 1, &[]), with(node("b", 1, 1, &[]), json!({"dependsOn": on("a", "Finished")})),]),
            ),
            ("spec.nodes[0].dependsOn[0]", json!([with(node("a", 1, 1, &[]), json!({"dependsOn": [7]}))])),
        ] {
            let object = dag::workflow("bad", nodes.clone(), json!({}));
            let refused = world.workflows("refused").create(&PostParams::default(), &object).await.unwrap_err();
            assert!(refused.to_string().contains(place), "{place}: {refused}");
            // Where the webhook is not asked, the controller says the same, and its watches go on.
            let name = format!("slipped-{}", place.len());
            let object = dag::workflow(&name, nodes, json!({}));
            world.workflows("kube-system").create(&PostParams::default(), &object).await.unwrap();
            let done = world.reaches("kube-system", &name, WorkflowPhase::Failed).await;
            let status = done.status.unwrap();
            assert_eq!(status.reason.as_deref(), Some("InvalidSpec"));
            assert!(status.message.unwrap_or_default().contains(place), "{place}");
        }
    });
}

#[test]
fn finally_nodes_run_after_all_others_whatever_their_end() {
    cases(|world| async move {
        world.namespace("finally").await;
        let nodes = json!([
            failing("train", json!({})),
            node("long", 1, 600_000, &[]),
            node("publish", 1, 200, &["train"]),
            with(node("clean", 1, 200, &[]), json!({"finally": true})),
            with(node("tell", 1, 200, &["clean"]), json!({"finally": true})),
        ]);
        world.submit("finally", "wf", nodes, json!({})).await;
        let done = world.reaches("finally", "wf", WorkflowPhase::Failed).await;
        use NodePhase::{Failed, Skipped, Succeeded};
        assert_eq!(["publish", "clean", "tell"].map(|id| phase_of(&done, id)), [Skipped, Succeeded, Succeeded]);
        assert_eq!(phase_of(&done, "train"), Failed);
        let status = done.status.unwrap();
        let at = |id: &str| status.nodes.iter().find(|n| n.id == id).unwrap();
        let ended = at("long").finished_at.as_ref().unwrap().0;
        assert!(at("clean").released_at.as_ref().unwrap().0 >= ended, "what ran was stopped before");
    });
}

#[test]
fn a_canceled_workflow_runs_its_finally_nodes_and_a_failing_one_fails_it() {
    cases(|world| async move {
        world.namespace("canceled").await;
        let last = |nodes: Value| world.submit("canceled", "wf", nodes, json!({}));
        last(json!([node("train", 1, 600_000, &[]), with(node("clean", 1, 200, &[]), json!({"finally": true})),]))
            .await;
        world.runs("canceled", "wf", "train", 1).await;
        let patch = kube::api::Patch::Merge(json!({"spec": {"cancel": true}}));
        world.workflows("canceled").patch("wf", &kube::api::PatchParams::default(), &patch).await.unwrap();
        let done = world.reaches("canceled", "wf", WorkflowPhase::Canceled).await;
        assert_eq!(phase_of(&done, "clean"), NodePhase::Succeeded);
        let nodes = json!([node("a", 1, 200, &[]), failing("clean", json!({"finally": true}))]);
        world.submit("canceled", "bad-end", nodes, json!({})).await;
        let done = world.reaches("canceled", "bad-end", WorkflowPhase::Failed).await;
        assert_eq!((phase_of(&done, "a"), phase_of(&done, "clean")), (NodePhase::Succeeded, NodePhase::Failed));
    });
}
