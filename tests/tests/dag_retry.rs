//! Attempts that follow failed ones, on a real control plane.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dag;

use dag::{Setup, World, in_turn, node, phase_of, until};
use flowforge_api::Gang;
use flowforge_api::names::annotation;
use flowforge_api::workflow::{NodePhase, Workflow, WorkflowPhase};
use flowforge_tests::install::CONTROLLER;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

/// They take turns, because one of them kills the controller.
fn cases<F, Fut>(test: F)
where
    F: FnOnce(&'static World) -> Fut,
    Fut: Future<Output = ()>,
{
    in_turn(Setup::default(), test);
}

/// A node that runs until the test ends it, and is tried again so.
fn retried(id: &str, replicas: i32, retry: Value) -> Value {
    let mut node = node(id, replicas, 600_000, &[]);
    node["retry"] = retry;
    node
}

/// The program's failures are tried again after a second, those of the infrastructure never.
fn user(limit: i32) -> Value {
    json!({"limit": limit, "infrastructureLimit": 0, "backoff": {"initialSeconds": 1}})
}

async fn gang(world: &World, namespace: &str, name: &str) -> Gang {
    until(&format!("Gang {name} is there"), || async {
        world.gangs(namespace).get_opt(name).await.map_err(|e| e.to_string())?.ok_or("it is not".to_owned())
    })
    .await
}

/// Waits until a pod runs, and ends it.
async fn end(world: &World, namespace: &str, pod: &str, exit_code: i32) {
    until(&format!("{pod} runs"), || async {
        let found = world.pods(namespace).get_opt(pod).await.map_err(|e| e.to_string())?;
        match found.as_ref().map(dag::pod_phase) {
            Some("Running") => Ok(()),
            other => Err(format!("it is {other:?}")),
        }
    })
    .await;
    world.end(namespace, pod, exit_code).await;
}

fn attempt_of(workflow: &Workflow, id: &str) -> i32 {
    workflow.status.as_ref().unwrap().nodes.iter().find(|n| n.id == id).unwrap().attempt
}

async fn gangs(world: &World, namespace: &str) -> Vec<String> {
    let mut names: Vec<String> =
        world.gangs(namespace).list(&ListParams::default()).await.unwrap().into_iter().map(|g| g.name_any()).collect();
    names.sort();
    names
}

#[test]
fn a_failed_gang_is_followed_by_another_attempt_that_replaces_it() {
    cases(|world| async move {
        world.namespace("again").await;
        let nodes = json!([retried("train", 2, user(1)), node("eval", 1, 200, &["train"])]);
        world.submit("again", "wf", nodes, json!({})).await;
        end(world, "again", "wf-train-1-1", 3).await;
        let second = gang(world, "again", "wf-train-2").await;
        let first = gang(world, "again", "wf-train-1").await;
        assert_eq!(second.spec.replaces, first.uid());
        assert_eq!(second.annotations()[annotation::CHARGED], "1+0");
        let failed_on = first.status.unwrap().results[0].node.clone().unwrap();
        assert_eq!(second.annotations()[annotation::AVOIDS], failed_on);
        for rank in 0..2 {
            end(world, "again", &format!("wf-train-2-{rank}"), 0).await;
        }
        let done = world.reaches("again", "wf", WorkflowPhase::Succeeded).await;
        assert_eq!((attempt_of(&done, "train"), attempt_of(&done, "eval")), (2, 1));
        let pod = world.pods("again").get("wf-train-2-0").await.unwrap();
        let affinity = pod.spec.unwrap().affinity.unwrap().node_affinity.unwrap();
        assert_eq!(affinity.preferred_during_scheduling_ignored_during_execution.unwrap().len(), 1);
    });
}

#[test]
fn the_budget_of_the_program_ends() {
    cases(|world| async move {
        world.namespace("budget").await;
        world.submit("budget", "wf", json!([retried("a", 1, user(1))]), json!({})).await;
        end(world, "budget", "wf-a-1-0", 3).await;
        end(world, "budget", "wf-a-2-0", 4).await;
        let done = world.reaches("budget", "wf", WorkflowPhase::Failed).await;
        assert_eq!((phase_of(&done, "a"), attempt_of(&done, "a")), (NodePhase::Failed, 2));
        let message = done.status.unwrap().message.unwrap_or_default();
        assert!(message.contains("exited with code 4"), "{message}");
        assert_eq!(gangs(world, "budget").await, ["wf-a-1", "wf-a-2"]);
    });
}

#[test]
fn an_exit_code_that_is_not_named_and_a_refused_pod_are_not_tried_again() {
    cases(|world| async move {
        world.namespace("once").await;
        let mut retry = user(5);
        retry["on"] = json!({"exitCodes": [75]});
        world.submit("once", "wf", json!([retried("a", 1, retry)]), json!({})).await;
        end(world, "once", "wf-a-1-0", 75).await;
        end(world, "once", "wf-a-2-0", 1).await;
        let done = world.reaches("once", "wf", WorkflowPhase::Failed).await;
        assert_eq!(attempt_of(&done, "a"), 2);
        let mut refused = retried("b", 1, json!({"limit": 5}));
        refused["resources"] = json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}});
        world.submit("once", "refused", json!([refused]), json!({})).await;
        let done = world.reaches("once", "refused", WorkflowPhase::Failed).await;
        assert_eq!(done.status.as_ref().unwrap().reason.as_deref(), Some("CreateInvalid"));
        assert_eq!(attempt_of(&done, "b"), 1);
    });
}

#[test]
fn a_pod_that_is_deleted_while_it_runs_is_a_failure_of_the_infrastructure() {
    cases(|world| async move {
        world.namespace("deleted").await;
        let retry = json!({"infrastructureLimit": 1, "backoff": {"initialSeconds": 0, "capSeconds": 0}});
        world.submit("deleted", "wf", json!([retried("a", 2, retry)]), json!({})).await;
        world.runs("deleted", "wf", "a", 2).await;
        world.pods("deleted").delete("wf-a-1-0", &DeleteParams::default()).await.unwrap();
        let second = gang(world, "deleted", "wf-a-2").await;
        assert_eq!(second.annotations()[annotation::CHARGED], "0+1");
        for rank in 0..2 {
            end(world, "deleted", &format!("wf-a-2-{rank}"), 0).await;
        }
        world.reaches("deleted", "wf", WorkflowPhase::Succeeded).await;
    });
}

#[test]
fn a_controller_that_dies_between_two_attempts_goes_on_with_the_same_budget() {
    cases(|world| async move {
        world.namespace("restart").await;
        let mut retry = user(1);
        retry["backoff"]["initialSeconds"] = json!(8);
        world.submit("restart", "wf", json!([retried("a", 1, retry)]), json!({})).await;
        end(world, "restart", "wf-a-1-0", 3).await;
        gang(world, "restart", "wf-a-2").await;
        world.testbed.kill(CONTROLLER).unwrap();
        world.testbed.respawn(CONTROLLER).unwrap();
        end(world, "restart", "wf-a-2-0", 3).await;
        let done = world.reaches("restart", "wf", WorkflowPhase::Failed).await;
        assert_eq!(attempt_of(&done, "a"), 2, "the budget was used before the restart");
        assert_eq!(gangs(world, "restart").await, ["wf-a-1", "wf-a-2"]);
    });
}
