//! Gangs with roles, and what a node asks of its gang, on a real control plane.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dag;

use dag::{cases, phase_of, pod_phase, until, workflow};
use flowforge_api::Gang;
use flowforge_api::gang::GangPhase;
use flowforge_api::names::label;
use flowforge_api::workflow::{NodePhase, WorkflowPhase};
use kube::ResourceExt;
use kube::api::{DeleteParams, PostParams};
use serde_json::{Value, json};

/// A launcher and workers whose fake pods run until the test ends them.
fn mpi(launcher: Value, worker: Value) -> Value {
    let role = |name: &str, fields: Value| {
        let mut role = json!({"name": name});
        if let (Some(role), Value::Object(fields)) = (role.as_object_mut(), fields) {
            role.extend(fields);
        }
        role
    };
    json!([{
        "id": "mpi", "image": "example/work:1", "annotations": {"testbed.flowforge.dev/run-ms": "600000"},
        "resources": {"requests": {"cpu": "10m"}}, "roles": [role("launcher", launcher), role("worker", worker)],
    }])
}

async fn gang_of(world: &dag::World, namespace: &str) -> Gang {
    world.gangs(namespace).get("wf-mpi-1").await.unwrap()
}

/// Waits until the Gang carries the condition, or does not.
async fn is_degraded(world: &dag::World, namespace: &str, wanted: bool) -> Option<String> {
    until(&format!("degraded is {wanted}"), || async {
        let status = gang_of(world, namespace).await.status.unwrap_or_default();
        let found = status.conditions.iter().find(|c| c.type_ == "Degraded" && c.status == "True");
        let message = found.map(|c| c.message.clone());
        if message.is_some() == wanted { Ok(message) } else { Err(json!(status).to_string()) }
    })
    .await
}

#[test]
fn when_the_launcher_has_succeeded_its_workers_are_stopped_and_the_gang_has_succeeded() {
    cases(|world| async move {
        world.namespace("launcher").await;
        let worker = json!({"replicas": 2, "successPolicy": "Ignore", "env": [{"name": "IS", "value": "worker"}]});
        world.submit("launcher", "wf", mpi(json!({}), worker), json!({})).await;
        world.runs("launcher", "wf", "mpi", 3).await;
        let gang = gang_of(world, "launcher").await.spec;
        let roles: Vec<(&str, i32)> = gang.roles.iter().map(|r| (r.name.as_str(), r.replicas)).collect();
        assert_eq!((gang.min_member, roles), (3, vec![("launcher", 1), ("worker", 2)]));
        let pods = world.members("launcher", "wf", "mpi").await;
        for pod in &pods {
            let rank: u32 = pod.labels()[label::RANK].parse().unwrap();
            assert_eq!(pod.labels()[label::ROLE], if rank == 0 { "launcher" } else { "worker" });
            let env = pod.spec.as_ref().unwrap().containers[0].env.clone().unwrap();
            let value = |name: &str| env.iter().find(|e| e.name == name).and_then(|e| e.value.clone());
            assert_eq!(value("IS").as_deref(), (rank > 0).then_some("worker"));
            assert_eq!(value("FLOWFORGE_ROLES").as_deref(), Some("launcher=0,worker=1-2"));
            assert_eq!(value("NNODES").as_deref(), Some(if rank == 0 { "1" } else { "2" }));
        }
        world.end("launcher", "wf-mpi-1-0", 0).await;
        let done = world.reaches("launcher", "wf", WorkflowPhase::Succeeded).await;
        assert_eq!(phase_of(&done, "mpi"), NodePhase::Succeeded);
        let status = gang_of(world, "launcher").await.status.unwrap();
        assert_eq!(status.phase, Some(GangPhase::Succeeded));
        assert_eq!((status.succeeded_ranks.as_deref(), status.stopped_ranks.as_deref()), (Some("0"), Some("1-2")));
        assert_eq!(status.failed_ranks, None, "a stop after the success is no failure");
    });
}

#[test]
fn a_worker_that_fails_its_gang_stops_the_launcher() {
    cases(|world| async move {
        world.namespace("failgang").await;
        let worker = json!({"replicas": 2, "min": 1, "successPolicy": "Ignore"});
        world.submit("failgang", "wf", mpi(json!({}), worker), json!({})).await;
        world.runs("failgang", "wf", "mpi", 3).await;
        world.end("failgang", "wf-mpi-1-2", 3).await;
        let failed = world.reaches("failgang", "wf", WorkflowPhase::Failed).await;
        let message = failed.status.unwrap().message.unwrap_or_default();
        assert!(message.contains("member 2 exited with code 3"), "{message}");
        let status = gang_of(world, "failgang").await.status.unwrap();
        assert_eq!((status.failed_ranks.as_deref(), status.stopped_ranks.as_deref()), (Some("2"), Some("0-1")));
    });
}

#[test]
fn a_gang_goes_on_without_members_down_to_the_minimum_of_their_role() {
    cases(|world| async move {
        world.namespace("ignore").await;
        let worker = json!({"replicas": 3, "min": 2, "successPolicy": "Ignore", "failurePolicy": "Ignore"});
        world.submit("ignore", "wf", mpi(json!({}), worker), json!({})).await;
        world.runs("ignore", "wf", "mpi", 4).await;
        world.end("ignore", "wf-mpi-1-1", 3).await;
        let message = is_degraded(world, "ignore", true).await;
        assert_eq!(message.as_deref(), Some("3 of 4 members run or have succeeded"));
        let running = world.shows("ignore", "wf", "Degraded").await;
        assert_eq!(phase_of(&running, "mpi"), NodePhase::Running);
        world.end("ignore", "wf-mpi-1-3", 5).await;
        let failed = world.reaches("ignore", "wf", WorkflowPhase::Failed).await;
        let message = failed.status.unwrap().message.unwrap_or_default();
        assert!(message.contains("member 3 exited with code 5"), "{message}");
        assert!(message.contains("role worker has 1 members left and needs 2"), "{message}");
    });
}

#[test]
fn a_lost_worker_is_made_again_and_the_gang_is_degraded_until_it_runs() {
    cases(|world| async move {
        world.namespace("replace").await;
        // The one that is made again takes a while to start.
        let worker = json!({"replicas": 2, "failurePolicy": "ReplaceMember", "successPolicy": "Any",
            "annotations": {"testbed.flowforge.dev/start-ms": "4000"}});
        world.submit("replace", "wf", mpi(json!({"successPolicy": "Ignore"}), worker), json!({})).await;
        world.runs("replace", "wf", "mpi", 3).await;
        world.pods("replace").delete("wf-mpi-1-1", &DeleteParams::default()).await.unwrap();
        is_degraded(world, "replace", true).await;
        until("it is made again, and runs", || async {
            let pod = world.pods("replace").get_opt("wf-mpi-1-1r1").await.map_err(|e| e.to_string())?;
            pod.filter(|pod| pod_phase(pod) == "Running").map(drop).ok_or("not yet".to_owned())
        })
        .await;
        is_degraded(world, "replace", false).await;
        world.end("replace", "wf-mpi-1-2", 0).await;
        let done = world.reaches("replace", "wf", WorkflowPhase::Succeeded).await;
        assert_eq!(done.status.unwrap().nodes[0].attempt, 1, "in the same attempt");
        let status = gang_of(world, "replace").await.status.unwrap();
        assert_eq!(status.lost_ranks.get("0").map(String::as_str), Some("1"));
    });
}

#[test]
fn roles_that_make_no_sense_are_refused_by_name() {
    cases(|world| async move {
        world.namespace("refused").await;
        let mut nodes = mpi(json!({"successPolicy": "Ignore"}), json!({"replicas": 2, "successPolicy": "Ignore"}));
        nodes[0]["replicas"] = json!(3);
        let object = workflow("wf", nodes, json!({}));
        let refused = until("the webhook answers", || async {
            match world.workflows("refused").create(&PostParams::default(), &object).await {
                Err(kube::Error::Api(status)) if status.code < 500 => Ok(status.message.clone()),
                other => Err(format!("{other:?}")),
            }
        })
        .await;
        assert!(refused.contains("spec.nodes[0].replicas: has no meaning beside roles"), "{refused}");
        assert!(refused.contains("spec.nodes[0].roles: have successPolicy Ignore all of them"), "{refused}");
    });
}
