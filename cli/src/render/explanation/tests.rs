use super::*;
use crate::render::tree::View;
use crate::testing::{GangBuilder as _, at, gang, view, workflow};
use expect_test::{Expect, expect};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use std::collections::BTreeMap;

const REFUSED: &str = "gang demo/d-train-1 needs 4 members placed together, 3 fit; member rank 3: 0/32 nodes are \
                       available: 28 Insufficient nvidia.com/gpu, 4 node(s) had untolerated taint(s).";

#[track_caller]
fn check(explanation: &Explanation, expected: &Expect) {
    expected.assert_eq(&explanation.text(Style::default()));
}

fn pod(name: &str, node: Option<&str>, refusal: Option<(&str, &str)>) -> Pod {
    let conditions: Vec<_> = refusal
        .into_iter()
        .map(|(reason, message)| json!({"type": "PodScheduled", "status": "False", "reason": reason, "message": message}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {
            "name": name,
            "namespace": "demo",
            "creationTimestamp": "2026-11-20T08:00:00Z",
            "labels": {"flowforge.dev/gang": "plain", "flowforge.dev/rank": "0"},
            "annotations": {"flowforge.dev/gang-size": "3"},
        },
        "spec": {"schedulerName": "flowforge", "nodeName": node, "containers": []},
        "status": {"phase": "Pending", "conditions": conditions},
    }))
    .expect("a pod")
}

#[test]
fn a_gang_that_does_not_fit() {
    let gang = gang("d", "train", 4).refused("Unschedulable", REFUSED);
    let pods = vec![pod("a", None, None); 4];
    check(
        &of_gang("demo", "d-train-1", Some(&gang), &pods, at(192)),
        &expect![[r#"
            gang demo/d-train-1: Pending for 3m04s
              needs 4 members placed together: 4 exist, 0 bound
              Unschedulable: gang demo/d-train-1 needs 4 members placed together, 3 fit; member rank 3: 0/32 nodes are available
                NODES   REASON                             WHAT WOULD CURE IT
                28      Insufficient nvidia.com/gpu        free nvidia.com/gpu there, add nodes that have it, or ask for less
                4       node(s) had untolerated taint(s)   add a toleration for the taint, or remove it: kubectl taint nodes NODE KEY-
        "#]],
    );
}

#[test]
fn a_plain_gang_is_explained_by_its_pods() {
    let waits = Some(("WaitingForGang", "2 of 3 members exist"));
    check(
        &of_gang("demo", "plain", None, &[pod("a", None, waits), pod("b", None, waits)], at(5)),
        &expect![[r#"
            gang demo/plain: Pending for 5s
              needs 3 members placed together: 2 exist, 0 bound
              WaitingForGang (on 2 pods): 2 of 3 members exist
                cure: the rest of the gang's members must be created
        "#]],
    );
}

#[test]
fn silence_names_who_is_silent() {
    let gang = gang("d", "train", 4);
    check(
        &of_gang("demo", "d-train-1", Some(&gang), &[], at(9)),
        &expect![[r#"
        gang demo/d-train-1: Pending for 1s
          needs 4 members placed together: 0 exist, 0 bound
          NotSeen: the DAG controller, which makes its pods, has not looked at it yet
            cure: check that it runs: kubectl -n flowforge-system get pods -l app.kubernetes.io/name=flowforge-dag-controller
    "#]],
    );
    check(
        &of_gang("demo", "d-train-1", Some(&gang), &[pod("a", None, None)], at(9)),
        &expect![[r#"
        gang demo/d-train-1: Pending for 1s
          needs 4 members placed together: 1 exist, 0 bound
          NotSeen: the scheduler has not looked at it yet
            cure: check that it runs: kubectl -n flowforge-system get pods -l app.kubernetes.io/name=flowforge-scheduler
    "#]],
    );
}

#[test]
fn a_pod_that_nobody_serves() {
    check(
        &of_pod(&pod("a", None, None), at(60)),
        &expect![[r#"
        pod demo/a: Pending for 1m00s
          a member of gang plain (rank 0); see `flowforge explain gang plain`
          NotSeen: scheduler flowforge has not looked at it yet
            cure: check that a scheduler serves schedulerName flowforge
    "#]],
    );
}

#[test]
fn a_pod_whose_image_is_missing() {
    let mut stuck = pod("a", Some("n1"), None);
    stuck.status.as_mut().expect("status").container_statuses = Some(
        serde_json::from_value(json!([{
            "name": "main", "image": "i", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"i\""}},
        }]))
        .expect("statuses"),
    );
    check(
        &of_pod(&stuck, at(60)),
        &expect![[r#"
        pod demo/a: Pending for 1m00s
          a member of gang plain (rank 0); see `flowforge explain gang plain`
          bound to node n1
          ImagePullBackOff: container main: Back-off pulling image "i"
            cure: check the image's name and the pull secrets
    "#]],
    );
}

fn waiting() -> View {
    view(
        workflow("d")
            .created(0)
            .phase("Running", "1/4")
            .node("preprocess", 1, &[], "Succeeded")
            .node("train", 4, &["preprocess"], "Scheduling")
            .node("eval", 1, &["train"], "Pending")
            .node("publish", 1, &["train", "eval"], "Pending"),
        &[gang("d", "train", 4).refused("Unschedulable", REFUSED)],
    )
}

#[test]
fn a_workflow_says_what_each_node_waits_for() {
    let pods = BTreeMap::from([("d-train-1".to_owned(), vec![pod("a", None, None); 4])]);
    check(
        &of_workflow(&waiting(), &pods, at(200)),
        &expect![[r#"
            workflow demo/d: Running
              1 of 4 nodes have ended

              node train: Scheduling

                gang demo/d-train-1: Pending for 3m12s
                  needs 4 members placed together: 4 exist, 0 bound
                  Unschedulable: gang demo/d-train-1 needs 4 members placed together, 3 fit; member rank 3: 0/32 nodes are available
                    NODES   REASON                             WHAT WOULD CURE IT
                    28      Insufficient nvidia.com/gpu        free nvidia.com/gpu there, add nodes that have it, or ask for less
                    4       node(s) had untolerated taint(s)   add a toleration for the taint, or remove it: kubectl taint nodes NODE KEY-

              node eval: Pending
                waits for train (Scheduling)

              node publish: Pending
                waits for train (Scheduling), eval (Pending)
        "#]],
    );
}

#[test]
fn a_workflow_without_its_claim() {
    let mut view = view(workflow("d").created(0).phase("Pending", "0/1").node("a", 1, &[], "Pending"), &[]);
    let status = view.workflow.status.as_mut().expect("status");
    status.reason = Some("ClaimMissing".into());
    status.message = Some("spec.storage[0].claimRef: there is no claim demo/nas".into());
    check(
        &of_workflow(&view, &BTreeMap::new(), at(61)),
        &expect![[r#"
        workflow demo/d: Pending for 1m01s
          0 of 1 nodes have ended
          ClaimMissing: spec.storage[0].claimRef: there is no claim demo/nas
            cure: create the PersistentVolumeClaim

          node a: Pending
            waits for the workflow, see above
    "#]],
    );
}

#[test]
fn for_programs_the_refusal_is_taken_apart() {
    let gang = gang("d", "train", 4).refused("Unschedulable", REFUSED);
    let value = serde_json::to_value(of_gang("demo", "d-train-1", Some(&gang), &[], at(192))).expect("json");
    assert_eq!(value.pointer("/refusals/0/nodes/0/nodes"), Some(&json!(28)));
    assert_eq!(value.pointer("/refusals/0/nodes/0/reason"), Some(&json!("Insufficient nvidia.com/gpu")));
}
