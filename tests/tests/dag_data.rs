//! Conditions, outputs and loops on a real control plane.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dag;

use dag::{Setup, in_turn, node, on_testbed, phase_of, until, workflow};
use flowforge_api::workflow::{NodePhase, Workflow, WorkflowPhase};
use flowforge_tests::install::CONTROLLER;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::{Value, json};

fn with(mut node: Value, fields: Value) -> Value {
    if let (Some(node), Value::Object(fields)) = (node.as_object_mut(), fields) {
        node.extend(fields);
    }
    node
}

fn reason_of<'a>(workflow: &'a Workflow, id: &str) -> Option<&'a str> {
    workflow.status.as_ref().unwrap().nodes.iter().find(|n| n.id == id).unwrap().reason.as_deref()
}

/// Ends a fake pod as a kubelet does whose container wrote a termination message.
async fn end_saying(world: &dag::World, namespace: &str, pod: &str, message: &Value) {
    let at = "2026-01-01T00:00:00Z";
    let patch = json!({"status": {"phase": "Succeeded", "containerStatuses": [{
        "name": "main", "image": "example/work:1", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": {"exitCode": 0, "reason": "Completed", "message": message.to_string(),
            "startedAt": at, "finishedAt": at}},
    }]}});
    until("the pod has said it", || async {
        let api = world.pods(namespace);
        api.patch_status(pod, &PatchParams::default(), &Patch::Merge(&patch)).await.map(drop).map_err(|e| e.to_string())
    })
    .await;
}

#[test]
fn outputs_survive_the_pod_and_the_controller_and_decide_what_runs() {
    in_turn(Setup::default(), |world| async move {
        world.namespace("outputs").await;
        let outputs = json!({"outputs": [{"name": "loss", "type": "float"}, {"name": "rank", "type": "int", "collect": "worker"}]});
        let nodes = json!([
            with(node("train", 2, 600_000, &[]), outputs),
            with(
                node("good", 1, 100, &["train"]),
                json!({
                "when": "outputs.train.loss < params.best && size(outputs.train.rank) == 2",
                "args": ["${{ outputs.train.loss }}", "${{ outputs.train.rank }}", "${{ phases.train }}"]})
            ),
            with(node("bad", 1, 100, &["train"]), json!({"when": "outputs.train.loss >= params.best"})),
            node("after", 1, 100, &["bad", "good"]),
        ]);
        let parameters = json!({"parameters": [{"name": "best", "type": "float", "value": 0.5}]});
        world.submit("outputs", "wf", nodes, parameters).await;
        world.runs("outputs", "wf", "train", 2).await;
        end_saying(world, "outputs", "wf-train-1-0", &json!({"loss": 0.25, "rank": 0, "noise": "x"})).await;
        until("its output is recorded in the Gang", || async {
            let gang = world.gangs("outputs").get("wf-train-1").await.map_err(|e| e.to_string())?;
            let said = gang.status.unwrap_or_default().said;
            if said.contains_key("0") { Ok(()) } else { Err(format!("{said:?}")) }
        })
        .await;
        // The pod goes, and so does the controller that heard it.
        world.testbed.kill(CONTROLLER).unwrap();
        world.testbed.respawn(CONTROLLER).unwrap();
        end_saying(world, "outputs", "wf-train-1-1", &json!({"rank": 1})).await;
        let done = world.reaches("outputs", "wf", WorkflowPhase::Succeeded).await;
        let gang = world.gangs("outputs").get("wf-train-1").await.unwrap().status.unwrap();
        assert_eq!(gang.outputs, Some(json!({"loss": 0.25, "rank": [0, 1]})));
        assert_eq!((phase_of(&done, "good"), phase_of(&done, "bad")), (NodePhase::Succeeded, NodePhase::Skipped));
        assert_eq!(reason_of(&done, "bad"), Some("WhenFalse"));
        assert_eq!(phase_of(&done, "after"), NodePhase::Succeeded, "what was passed over holds up nobody");
        let pod = &world.members("outputs", "wf", "good").await[0];
        let args = pod.spec.as_ref().unwrap().containers[0].args.clone().unwrap();
        assert_eq!(args, ["0.25", "[0,1]", "Succeeded"]);
        world.assert_nothing_was_forbidden();
    });
}

#[test]
fn a_missing_output_fails_its_node_and_a_broken_condition_its_own() {
    on_testbed(Setup::default(), |world| async move {
        world.namespace("missing").await;
        let declared = |more: Value| json!({"outputs": [with(json!({"name": "loss", "type": "float"}), more)]});
        let nodes = json!([with(node("train", 1, 100, &[]), declared(json!({}))), node("after", 1, 100, &["train"])]);
        world.submit("missing", "needed", nodes, json!({})).await;
        let failed = world.reaches("missing", "needed", WorkflowPhase::Failed).await;
        assert_eq!(reason_of(&failed, "train"), Some("OutputMissing"));
        let message = failed.status.as_ref().unwrap().message.clone().unwrap_or_default();
        assert!(message.contains("output loss is not in its termination message"), "{message}");
        // Optional, it is null, with which the condition can do nothing.
        let nodes = json!([
            with(node("train", 1, 100, &[]), declared(json!({"optional": true}))),
            with(node("after", 1, 100, &["train"]), json!({"when": "outputs.train.loss < 1.0"})),
        ]);
        world.submit("missing", "optional", nodes, json!({})).await;
        let failed = world.reaches("missing", "optional", WorkflowPhase::Failed).await;
        assert_eq!(
            (phase_of(&failed, "train"), reason_of(&failed, "after")),
            (NodePhase::Succeeded, Some("WhenInvalid"))
        );
        // What is known to be wrong before is refused.
        let nodes = json!([
            node("train", 1, 100, &[]),
            with(node("after", 1, 100, &["train"]), json!({"when": "outputs.train.loss < 1.0"}))
        ]);
        let refusal =
            world.workflows("missing").create(&PostParams::default(), &workflow("wf", nodes, json!({}))).await;
        let refusal = refusal.unwrap_err().to_string();
        assert!(refusal.contains("node train declares no output \"loss\"; declare it"), "{refusal}");
    });
}

#[test]
fn a_loop_runs_its_items_and_collects_what_they_put_out() {
    on_testbed(Setup::default(), |world| async move {
        world.namespace("loop").await;
        let nodes = json!([
            with(node("split", 1, 600_000, &[]), json!({"outputs": [{"name": "shards", "type": "list"}]})),
            with(
                node("work", 1, 600_000, &["split"]),
                json!({
                "for": {"items": "${{ outputs.split.shards }}", "limit": 3},
                "args": ["${{ item }}", "${{ index }}"], "outputs": [{"name": "lines", "type": "int"}]})
            ),
            with(node("join", 1, 100, &["work"]), json!({"args": ["${{ outputs.work.lines }}"]})),
        ]);
        world.submit("loop", "wf", nodes, json!({})).await;
        world.runs("loop", "wf", "split", 1).await;
        end_saying(world, "loop", "wf-split-1-0", &json!({"shards": ["a", "b"]})).await;
        for (id, pod, lines, args) in
            [("work-0", "wf-work--0-1-0", 10, ["a", "0"]), ("work-1", "wf-work--1-1-0", 20, ["b", "1"])]
        {
            world.runs("loop", "wf", id, 1).await;
            let members = world.members("loop", "wf", id).await;
            assert_eq!(members[0].spec.as_ref().unwrap().containers[0].args.clone().unwrap(), args);
            end_saying(world, "loop", pod, &json!({"lines": lines})).await;
        }
        let done = world.reaches("loop", "wf", WorkflowPhase::Succeeded).await;
        assert_eq!((phase_of(&done, "work-2"), reason_of(&done, "work-2")), (NodePhase::Skipped, Some("WhenFalse")));
        let join = &world.members("loop", "wf", "join").await[0];
        assert_eq!(join.spec.as_ref().unwrap().containers[0].args.clone().unwrap(), ["[10,20]"]);
    });
}
