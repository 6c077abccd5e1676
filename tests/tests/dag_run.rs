//! Workflows on a real control plane: their ends, their waits and their refusals.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dag;

use dag::{cases, condition, node, phase_of, pod_phase, until, workflow};
use flowforge_api::Gang;
use flowforge_api::gang::GangPhase;
use flowforge_api::workflow::{NodePhase, WorkflowPhase};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::events::v1::Event;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

#[test]
fn a_diamond_of_gangs_succeeds_in_order() {
    cases(|world| async move {
        world.namespace("diamond").await;
        let nodes = json!([
            node("preprocess", 1, 300, &[]),
            node("train", 4, 800, &["preprocess"]),
            node("eval", 1, 300, &["train"]),
            node("publish", 1, 300, &["train"]),
        ]);
        world.submit("diamond", "wf", nodes, json!({})).await;
        let done = world.reaches("diamond", "wf", WorkflowPhase::Succeeded).await;
        for (kind, status) in [("Complete", "True"), ("Succeeded", "True"), ("Failed", "False"), ("Accepted", "True")] {
            assert_eq!(condition(&done, kind), Some(status), "{kind}");
        }
        assert_eq!(done.status.as_ref().unwrap().progress.as_deref(), Some("4/4"));
        let train = world.gangs("diamond").get("wf-train-1").await.unwrap();
        let status = train.status.unwrap();
        assert_eq!(status.phase, Some(GangPhase::Succeeded));
        assert_eq!(status.succeeded_ranks.as_deref(), Some("0-3"));
        let services: Api<Service> = Api::namespaced(world.testbed.client().clone(), "diamond");
        let names: Vec<String> =
            services.list(&ListParams::default()).await.unwrap().into_iter().filter_map(|s| s.metadata.name).collect();
        assert_eq!(names, ["wf-train-1"], "only a gang of several has a Service");
        assert_no_finalizer_left(&world.pods("diamond")).await;
        let members = world.members("diamond", "wf", "train").await;
        assert_eq!(members.len(), 4);
        let preprocess = world.gangs("diamond").get("wf-preprocess-1").await.unwrap();
        let upstream_end = preprocess.status.unwrap().finished_at.unwrap().0;
        for pod in &members {
            assert!(pod.metadata.creation_timestamp.as_ref().unwrap().0 >= upstream_end, "train began too early");
        }
        let events: Api<Event> = Api::namespaced(world.testbed.client().clone(), "diamond");
        until("the events are there", || async {
            let all = events.list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            let has = |kind: &str, reason: &str| {
                all.items.iter().any(|e| {
                    e.reason.as_deref() == Some(reason)
                        && e.regarding.as_ref().and_then(|r| r.kind.as_deref()) == Some(kind)
                })
            };
            let wanted =
                [("Workflow", "Released"), ("Workflow", "Succeeded"), ("Gang", "Running"), ("Gang", "NodeSucceeded")];
            match wanted.iter().find(|(kind, reason)| !has(kind, reason)) {
                None => Ok(()),
                Some(missing) => Err(format!("{missing:?} is missing")),
            }
        })
        .await;
    });
}

async fn assert_no_finalizer_left(pods: &Api<Pod>) {
    until("every result is recorded and every pod let go", || async {
        let left: Vec<String> = pods
            .list(&ListParams::default())
            .await
            .map_err(|e| e.to_string())?
            .into_iter()
            .filter(|p| p.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty()))
            .filter_map(|p| p.metadata.name)
            .collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

#[test]
fn one_failed_member_fails_its_gang_its_node_and_the_workflow_and_stops_the_rest() {
    cases(|world| async move {
        world.namespace("failure").await;
        let nodes =
            json!([node("train", 3, 600_000, &[]), node("other", 1, 600_000, &[]), node("after", 1, 100, &["train"]),]);
        world.submit("failure", "wf", nodes, json!({})).await;
        world.runs("failure", "wf", "train", 3).await;
        world.runs("failure", "wf", "other", 1).await;
        world.end("failure", "wf-train-1-1", 3).await;
        let done = world.reaches("failure", "wf", WorkflowPhase::Failed).await;
        assert_eq!(phase_of(&done, "train"), NodePhase::Failed);
        assert_eq!(phase_of(&done, "other"), NodePhase::Failed);
        assert_eq!(phase_of(&done, "after"), NodePhase::Skipped);
        let status = done.status.as_ref().unwrap();
        assert_eq!(status.reason.as_deref(), Some("MemberFailed"));
        assert!(status.message.as_deref().unwrap_or_default().contains("member 1 exited with code 3"), "{status:?}");
        assert_eq!(condition(&done, "Failed"), Some("True"));
        let gang = world.gangs("failure").get("wf-train-1").await.unwrap().status.unwrap();
        assert_eq!((gang.phase, gang.failed_ranks.as_deref()), (Some(GangPhase::Failed), Some("1")));
        assert_eq!(gang.results.first().and_then(|r| r.exit_code), Some(3), "the root cause comes first");
        // Nothing runs when the workflow has ended.
        let running: Vec<String> = world
            .pods("failure")
            .list(&ListParams::default())
            .await
            .unwrap()
            .into_iter()
            .filter(|p| pod_phase(p) == "Running")
            .filter_map(|p| p.metadata.name)
            .collect();
        assert_eq!(running, Vec::<String>::new());
        assert_eq!(world.members("failure", "wf", "after").await.len(), 0);
    });
}

#[test]
fn a_cancel_stops_what_runs_and_skips_the_rest() {
    cases(|world| async move {
        world.namespace("cancel").await;
        let nodes = json!([node("a", 2, 600_000, &[]), node("b", 1, 100, &["a"])]);
        world.submit("cancel", "wf", nodes, json!({})).await;
        world.runs("cancel", "wf", "a", 2).await;
        let patch = Patch::Merge(json!({"spec": {"cancel": true}}));
        world.workflows("cancel").patch("wf", &PatchParams::default(), &patch).await.unwrap();
        let done = world.reaches("cancel", "wf", WorkflowPhase::Canceled).await;
        assert_eq!(phase_of(&done, "b"), NodePhase::Skipped);
        assert_eq!(condition(&done, "Complete"), Some("True"));
        assert_eq!(condition(&done, "Succeeded"), Some("False"));
        assert_no_finalizer_left(&world.pods("cancel")).await;
        // Neither the cancel nor anything else of the spec can be taken back.
        let back = Patch::Merge(json!({"spec": {"cancel": false}}));
        assert!(world.workflows("cancel").patch("wf", &PatchParams::default(), &back).await.is_err());
        let other = Patch::Merge(json!({"spec": {"schedulerName": "x"}}));
        let refused = world.workflows("cancel").patch("wf", &PatchParams::default(), &other).await.unwrap_err();
        assert!(refused.to_string().contains("spec.schedulerName"), "{refused}");
    });
}

#[test]
fn the_api_server_itself_freezes_the_spec_and_a_changed_ttl_counts_at_once() {
    cases(|world| async move {
        // The webhook is not asked about this namespace: as when it was down.
        let api = world.workflows("kube-system");
        let more = json!({"defaults": {"labels": {"team": "a"}}});
        let object = workflow("frozen", json!([node("a", 1, 600_000, &[])]), more);
        api.create(&PostParams::default(), &object).await.unwrap();
        world.runs("kube-system", "frozen", "a", 1).await;
        let mut other = json!({"nodes": [node("a", 2, 600_000, &[]), node("b", 1, 100, &[])]});
        other["nodes"][1]["podTemplate"] = json!({"metadata": {"labels": {"x": "y"}}});
        let rows = [
            ("spec.nodes", other),
            ("spec.nodes", json!({"nodes": [node("a", 1, 500_000, &[])]})),
            ("spec.defaults", json!({"defaults": {"labels": {"team": "b"}}})),
            ("spec.defaults", json!({"defaults": null})),
            ("spec.storage", json!({"storage": [{"claimRef": "nas"}]})),
            ("spec.schedulerName", json!({"schedulerName": "other"})),
            ("spec.schedulerName", json!({"schedulerName": null})),
        ];
        for (field, spec) in rows {
            let patch = Patch::Merge(json!({"spec": spec}));
            let refused = api.patch("frozen", &PatchParams::default(), &patch).await.unwrap_err().to_string();
            assert!(refused.contains(field) && refused.contains("submit a new Workflow"), "{field}: {refused}");
            assert!(refused.len() < 2000, "{} bytes: {refused}", refused.len());
        }
        // A label is no change of the spec; nor does the restarted controller see another one.
        let patch = Patch::Merge(json!({"metadata": {"labels": {"seen": "yes"}}}));
        api.patch("frozen", &PatchParams::default(), &patch).await.unwrap();
        // It would be kept for ever; a second after its end it is not wanted any more.
        world.end("kube-system", "frozen-a-1-0", 0).await;
        world.reaches("kube-system", "frozen", WorkflowPhase::Succeeded).await;
        let patch = Patch::Merge(json!({"spec": {"ttlSecondsAfterFinished": 1}}));
        api.patch("frozen", &PatchParams::default(), &patch).await.unwrap();
        until("it has expired", || async {
            match api.get_opt("frozen").await.map_err(|e| e.to_string())? {
                None => Ok(()),
                Some(_) => Err("it is there".to_owned()),
            }
        })
        .await;
    });
}

#[test]
fn two_workflows_whose_names_run_together_do_not_meet() {
    cases(|world| async move {
        world.namespace("clash").await;
        world.submit("clash", "a", json!([node("b-c", 2, 200, &[])]), json!({})).await;
        world.submit("clash", "a-b", json!([node("c", 2, 200, &[])]), json!({})).await;
        for name in ["a", "a-b"] {
            world.reaches("clash", name, WorkflowPhase::Succeeded).await;
        }
        let mut gangs: Vec<String> = world
            .gangs("clash")
            .list(&ListParams::default())
            .await
            .unwrap()
            .into_iter()
            .filter_map(|g| g.metadata.name)
            .collect();
        gangs.sort();
        assert_eq!(gangs, ["a-b--c-1", "a-b-c-1"]);
    });
}

#[test]
fn a_deleted_workflow_takes_everything_with_it() {
    cases(|world| async move {
        world.namespace("delete").await;
        world.submit("delete", "wf", json!([node("a", 2, 600_000, &[])]), json!({})).await;
        world.runs("delete", "wf", "a", 2).await;
        world.workflows("delete").delete("wf", &DeleteParams::background()).await.unwrap();
        until("Gangs and pods are gone", || async {
            let pods = world.pods("delete").list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
            let gangs = world.gangs("delete").list(&ListParams::default()).await.map_err(|e| e.to_string())?.items;
            if pods.is_empty() && gangs.is_empty() {
                Ok(())
            } else {
                Err(format!("{} pods, {} gangs", pods.len(), gangs.len()))
            }
        })
        .await;
        // The same name can be used again at once.
        world.submit("delete", "wf", json!([node("a", 2, 200, &[])]), json!({})).await;
        world.reaches("delete", "wf", WorkflowPhase::Succeeded).await;
    });
}

#[test]
fn a_workflow_waits_for_its_claim_and_goes_on_when_it_is_bound() {
    cases(|world| async move {
        world.namespace("claims").await;
        let storage = json!({"storage": [{"claimRef": "nas", "mountPath": "/mnt"}]});
        world.submit("claims", "wf", json!([node("a", 2, 200, &[])]), storage).await;
        let waiting = world.shows("claims", "wf", "ClaimMissing").await;
        assert_eq!(condition(&waiting, "Accepted"), Some("False"));
        let claim = claim("nas", "claims-pv", "ReadWriteMany");
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.testbed.client().clone(), "claims");
        claims.create(&PostParams::default(), &claim).await.unwrap();
        world.shows("claims", "wf", "ClaimPending").await;
        assert_eq!(world.members("claims", "wf", "a").await.len(), 0, "nothing starts before the claim is bound");
        volume(world, "claims-pv", "claims", "nas", "ReadWriteMany").await;
        let done = world.reaches("claims", "wf", WorkflowPhase::Succeeded).await;
        assert_eq!(condition(&done, "Accepted"), Some("True"));
        let pods = world.members("claims", "wf", "a").await;
        for pod in pods {
            let spec = pod.spec.unwrap();
            let mounts = spec.containers[0].volume_mounts.as_ref().unwrap();
            assert!(mounts.iter().any(|m| m.mount_path == "/mnt"));
        }
    });
}

#[test]
fn a_claim_for_one_host_is_refused_under_a_gang_of_several() {
    cases(|world| async move {
        world.namespace("rwo").await;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(world.testbed.client().clone(), "rwo");
        claims.create(&PostParams::default(), &claim("disk", "rwo-pv", "ReadWriteOnce")).await.unwrap();
        volume(world, "rwo-pv", "rwo", "disk", "ReadWriteOnce").await;
        let storage = json!({"storage": [{"claimRef": "disk"}]});
        world.submit("rwo", "wide", json!([node("a", 2, 200, &[])]), storage.clone()).await;
        let refused = world.reaches("rwo", "wide", WorkflowPhase::Failed).await;
        let status = refused.status.as_ref().unwrap();
        assert_eq!(status.reason.as_deref(), Some("ClaimNotShared"));
        assert!(status.message.as_deref().unwrap_or_default().contains("ReadWriteMany"), "{status:?}");
        world.submit("rwo", "narrow", json!([node("a", 1, 200, &[])]), storage).await;
        world.reaches("rwo", "narrow", WorkflowPhase::Succeeded).await;
    });
}

fn claim(name: &str, volume: &str, mode: &str) -> PersistentVolumeClaim {
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": {
        "accessModes": [mode], "storageClassName": "", "volumeName": volume,
        "resources": {"requests": {"storage": "1Gi"}}}}))
    .unwrap()
}

async fn volume(world: &dag::World, name: &str, namespace: &str, claim: &str, mode: &str) {
    let volumes: Api<PersistentVolume> = Api::all(world.testbed.client().clone());
    let volume: PersistentVolume = serde_json::from_value(json!({"metadata": {"name": name}, "spec": {
        "accessModes": [mode], "capacity": {"storage": "1Gi"}, "storageClassName": "",
        "persistentVolumeReclaimPolicy": "Retain", "hostPath": {"path": "/tmp/none"},
        "claimRef": {"namespace": namespace, "name": claim}}}))
    .unwrap();
    volumes.create(&PostParams::default(), &volume).await.unwrap();
}

#[test]
fn a_strangers_object_is_not_adopted() {
    cases(|world| async move {
        world.namespace("stranger").await;
        let stranger: Gang = serde_json::from_value(json!({
            "metadata": {"name": "wf-a-1", "labels": {
                "app.kubernetes.io/managed-by": "flowforge-dag-controller", "flowforge.dev/workflow": "wf",
                "flowforge.dev/node": "a", "flowforge.dev/attempt": "1"}},
            "spec": {"minMember": 1, "roles": [{"name": "worker", "replicas": 1}]}}))
        .unwrap();
        let made = world.gangs("stranger").create(&PostParams::default(), &stranger).await.unwrap();
        let patch = Patch::Merge(json!({"status": {"phase": "Succeeded"}}));
        world.gangs("stranger").patch_status("wf-a-1", &PatchParams::default(), &patch).await.unwrap();
        world.submit("stranger", "wf", json!([node("a", 1, 200, &[])]), json!({})).await;
        world.shows("stranger", "wf", "NameTaken").await;
        assert_eq!(world.members("stranger", "wf", "a").await.len(), 0);
        let there = world.gangs("stranger").get("wf-a-1").await.unwrap();
        assert_eq!(there.metadata.uid, made.metadata.uid, "the stranger is left alone");
        world.gangs("stranger").delete("wf-a-1", &DeleteParams::default()).await.unwrap();
        world.reaches("stranger", "wf", WorkflowPhase::Succeeded).await;
        assert_eq!(world.members("stranger", "wf", "a").await.len(), 1);
    });
}

#[test]
fn every_row_of_bad_input_gets_its_message() {
    cases(|world| async move {
        world.namespace("bad").await;
        let ok = |id: &str, up: &[&str]| node(id, 1, 100, up);
        let mut no_image = ok("a", &[]);
        no_image.as_object_mut().unwrap().remove("image");
        let mut zero = ok("a", &[]);
        zero["replicas"] = json!(0);
        let mut bad_name = ok("a", &[]);
        bad_name["id"] = json!("Not_A_Name");
        let mut template = ok("a", &[]);
        template["podTemplate"] = json!({"spec": {"containers": [{"name": "main", "imgae": "x"}]}});
        let rows = [
            ("cycle", json!([ok("a", &["b"]), ok("b", &["a"])]), "dependsOn"),
            ("self", json!([ok("a", &["a"])]), "spec.nodes[0].dependsOn"),
            ("unknown-target", json!([ok("train", &[]), ok("b", &["trian"])]), "train"),
            ("duplicate-id", json!([ok("a", &[]), ok("a", &[])]), "spec.nodes[1].id"),
            ("bad-name", json!([bad_name]), "spec.nodes[0].id"),
            ("replicas", json!([zero]), "spec.nodes[0].replicas"),
            ("no-image", json!([no_image]), "spec.nodes[0]"),
            ("no-nodes", json!([]), "spec.nodes"),
            ("template", json!([template]), "imgae"),
        ];
        for (name, nodes, expected) in rows {
            let made = create_raw(world, "bad", name, nodes).await;
            let refusal = made.expect_err(name);
            assert!(refusal.contains(expected), "{name}: {refusal}");
        }
        let left = world.workflows("bad").list(&ListParams::default()).await.unwrap().items.len();
        assert_eq!(left, 0, "nothing of it was stored");
    });
}

/// Creates a workflow as it was written, also where it does not fit the types.
async fn create_raw(world: &dag::World, namespace: &str, name: &str, nodes: Value) -> Result<(), String> {
    let object = json!({"apiVersion": "flowforge.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": name},
        "spec": {"nodes": nodes}});
    let path = format!("/apis/flowforge.dev/v1alpha1/namespaces/{namespace}/workflows");
    let request = http::Request::post(path)
        .header("content-type", "application/json")
        .body(serde_json::to_vec(&object).unwrap())
        .unwrap();
    world.testbed.client().request::<Value>(request).await.map(drop).map_err(|e| e.to_string())
}

#[test]
fn hostile_input_does_no_harm() {
    cases(|world| async move {
        world.namespace("hostile").await;
        // A large cyclic graph is refused within the API server's patience with a webhook (5 s), else it would be another
        // refusal.
        let many: Vec<Value> = (0..5000)
            .map(|i| json!({"id": format!("n{i}"), "image": "x", "dependsOn": [format!("n{}", (i + 1) % 5000)]}))
            .collect();
        let refusal = create_raw(world, "hostile", "cycle", json!(many)).await.unwrap_err();
        assert!(refusal.contains("dependsOn"), "{refusal}");
        // Garbage to the webhook itself.
        let address = world.testbed.network().at(11443);
        let mut config = kube::Config::new(format!("https://{address}").parse().unwrap());
        config.accept_invalid_certs = true;
        let webhook = kube::Client::try_from(config).unwrap();
        for body in [b"".to_vec(), b"\xff\xfe garbage".to_vec(), b"{\"request\":".to_vec(), vec![b'['; 1 << 20]] {
            let request = http::Request::post("/validate-workflow")
                .header("content-type", "application/json")
                .body(body)
                .unwrap();
            let answer = webhook.request_text(request).await;
            assert!(answer.is_err(), "{answer:?}");
        }
        // The API server itself refuses a pod of 1e18 GPUs (it canonicalises to "1E"): the workflow ends and says why. One
        // that nothing can hold waits, and others go on.
        let gpus = |amount: &str| {
            let mut greedy = node("a", 1, 100, &[]);
            greedy["resources"] = json!({"limits": {"nvidia.com/gpu": amount}});
            json!([greedy])
        };
        world.submit("hostile", "absurd", gpus("1000000000000000000"), json!({})).await;
        let absurd = world.reaches("hostile", "absurd", WorkflowPhase::Failed).await;
        let message = absurd.status.unwrap_or_default().message.unwrap_or_default();
        assert!(message.contains("limits[nvidia.com/gpu]") && message.contains("must be an integer"), "{message}");
        world.submit("hostile", "huge", gpus("1000000000000000"), json!({})).await;
        world.submit("hostile", "small", json!([node("a", 1, 100, &[])]), json!({})).await;
        world.reaches("hostile", "small", WorkflowPhase::Succeeded).await;
        let waiting = world.reaches("hostile", "huge", WorkflowPhase::Running).await;
        assert_eq!(phase_of(&waiting, "a"), NodePhase::Scheduling);
    });
}

#[test]
fn what_slipped_past_the_webhook_is_refused_by_the_controller() {
    cases(|world| async move {
        world.namespace("slipped").await;
        // The webhook does not ask about what our own ServiceAccount, or nobody at all, writes: go round it by the
        // namespace label that exempts system namespaces.
        let object = workflow("wf", json!([node("a", 1, 100, &["b"]), node("b", 1, 100, &["a"])]), json!({}));
        let api = world.workflows("kube-system");
        api.create(&PostParams::default(), &object).await.unwrap();
        let refused = world.reaches("kube-system", "wf", WorkflowPhase::Failed).await;
        let status = refused.status.as_ref().unwrap();
        assert_eq!(status.reason.as_deref(), Some("InvalidSpec"));
        assert_eq!(condition(&refused, "Accepted"), Some("False"));
        assert!(status.message.as_deref().unwrap_or_default().contains("dependsOn"), "{status:?}");
    });
}

#[test]
fn a_member_rolled_back_by_the_scheduler_is_made_again_in_the_same_attempt() {
    cases(|world| async move {
        world.namespace("rollback").await;
        world.submit("rollback", "wf", json!([node("a", 2, 300, &[])]), json!({"schedulerName": "nobody"})).await;
        until("both members exist", || async {
            let n = world.members("rollback", "wf", "a").await.len();
            if n == 2 { Ok(()) } else { Err(format!("{n}")) }
        })
        .await;
        // As the scheduler takes back a half-bound gang: the condition first, then the deletion.
        let api = world.pods("rollback");
        let condition = json!({"status": {"conditions": [{"type": "DisruptionTarget", "status": "True",
            "reason": "GangRollback", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        api.patch_status("wf-a-1-1", &PatchParams::default(), &Patch::Strategic(condition)).await.unwrap();
        api.delete("wf-a-1-1", &DeleteParams::default()).await.unwrap();
        until("its next incarnation exists", || async {
            api.get_opt("wf-a-1-1r1").await.map_err(|e| e.to_string())?.map(drop).ok_or("none yet".to_owned())
        })
        .await;
        until("the first one is gone", || async {
            match api.get_opt("wf-a-1-1").await.map_err(|e| e.to_string())? {
                None => Ok(()),
                Some(_) => Err("it is there".to_owned()),
            }
        })
        .await;
        for name in ["wf-a-1-0", "wf-a-1-1r1"] {
            let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name},
                "target": {"apiVersion": "v1", "kind": "Node", "name": "cpu-0000"}});
            let _: Value = api.create_subresource("binding", name, &PostParams::default(), &binding).await.unwrap();
        }
        let done = world.reaches("rollback", "wf", WorkflowPhase::Succeeded).await;
        assert_eq!(done.status.unwrap().nodes[0].attempt, 1);
    });
}
