use super::*;
use crate::input::documents::parse;
use crate::input::members;
use crate::snapshot::Snapshot;
use expect_test::{Expect, expect};
use serde_json::{Value, json};

/// Two racks of two nodes with 8 GPUs; `old` holds 4 of node a and all of node c since two hours.
fn cluster() -> Vec<Value> {
    let node = |name: &str, rack: &str, closed: bool| {
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "uid": name, "labels": {
                "kubernetes.io/hostname": name, "network.topology.nvidia.com/leaf": rack,
                "nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.count": "8"}},
            "spec": {"unschedulable": closed},
            "status": {"allocatable": {"cpu": "96", "memory": "512Gi", "pods": "110", "nvidia.com/gpu": "8"}}})
    };
    let pod = |rank: u32, node: &str, gpus: u32| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": format!("old-{rank}"), "namespace": "demo",
                "uid": format!("old-{rank}"), "labels": {"flowforge.dev/gang": "old", "flowforge.dev/rank": rank.to_string()},
                "annotations": {"flowforge.dev/gang-size": "2"}},
            "spec": {"schedulerName": "flowforge", "nodeName": node, "priority": 10,
                "containers": [{"name": "c", "resources": {"requests": {"nvidia.com/gpu": gpus.to_string()}}}]},
            "status": {"phase": "Running", "startTime": "2026-11-20T06:00:00Z"}})
    };
    vec![
        json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 100}),
        node("a", "r1", false),
        node("b", "r1", false),
        node("c", "r2", false),
        node("d", "r2", true),
        pod(0, "a", 4),
        pod(1, "c", 8),
    ]
}

/// A gang of members with 8 GPUs each, in the cluster.
fn told(spec: &str) -> Rehearsal {
    let file = format!(
        "{{apiVersion: flowforge.dev/v1alpha1, kind: Gang, metadata: {{name: train}}, spec: {spec}}}\n---\n\
         {{apiVersion: v1, kind: PodTemplate, metadata: {{name: t}}, template: {{spec: {{containers: [\
         {{name: c, image: i, resources: {{limits: {{nvidia.com/gpu: 8}}}}}}]}}}}}}"
    );
    let list = json!({"items": cluster(), "taken": "2026-11-20T08:00:00Z"});
    let mut snapshot = Snapshot::of_list(list, "the list").expect("a snapshot");
    let documents = parse("f", &file).expect("documents");
    let asked = members::of(&documents, "demo", &snapshot.priorities()).expect("members");
    snapshot.add(asked.objects);
    let now = snapshot.now();
    let mut engine = snapshot.engine("the list").expect("an engine");
    engine.rehearse(&"demo".into(), &"train".into(), now).expect("the gang")
}

#[track_caller]
fn check(spec: &str, expected: &Expect) {
    let now = "2026-11-20T08:00:00Z".parse().expect("a time");
    expected.assert_eq(&text(&told(spec), now, Style::default()));
}

#[test]
fn a_place_is_shown_with_its_cost_and_its_nodes() {
    check(
        "{minMember: 1, roles: [{name: worker, replicas: 1}], topology: {required: rack}}",
        &expect![[r#"
        gang demo/train: there is a place for its member, in host/b
          about 5.1 ms for each GiB all-reduced over 8 GPUs on 1 node
          slowest at level host: NVLink inside b, 371 GB/s

          RANK   ROLE     NODE   GPUS   DOMAINS
          0      worker   b      8      rack/r1
    "#]],
    );
}

#[test]
fn what_is_missing_is_shown_level_by_level_with_its_holders() {
    check(
        "{minMember: 2, roles: [{name: worker, replicas: 2}], topology: {required: rack}}",
        &expect![[r#"
        gang demo/train: no place for its 2 members now
          needs 16 GPUs free in one rack; the best, rack/r1, has 12: 1 of 2 members fit
            free   b 8, a 4
            held   4 GPUs by gang demo/old in 1 pod for 2h00m, priority 10

          LEVEL     NEEDS   BEST DOMAIN   FREE       MEMBERS FIT   DOMAINS WITH ROOM
          cluster   16      cluster       12 of 24   1             0 of 1
          rack *    16      rack/r1       12 of 16   1             0 of 2
          host      16      host/b        8 of 8     1             0 of 4
          * all members must share one

          what would free it: time, or more nodes; evicting all who are less important would not make room for the gang

          the scheduler's words: gang demo/train needs 2 members placed together in one rack, 1 fit (in rack/r1); member rank 1: 0/4 nodes are available: 1 node(s) were unschedulable, 3 Insufficient nvidia.com/gpu.
    "#]],
    );
}

#[test]
fn whom_preemption_would_choose_is_shown() {
    check(
        "{minMember: 2, priorityClassName: high, roles: [{name: worker, replicas: 2}], topology: {required: rack}}",
        &expect![[r#"
            gang demo/train: no place for its 2 members now
              needs 16 GPUs free in one rack; the best, rack/r1, has 12: 1 of 2 members fit
                free   b 8, a 4
                held   4 GPUs by gang demo/old in 1 pod for 2h00m, priority 10

              LEVEL     NEEDS   BEST DOMAIN   FREE       MEMBERS FIT   DOMAINS WITH ROOM
              cluster   16      cluster       12 of 24   1             0 of 1
              rack *    16      rack/r1       12 of 16   1             0 of 2
              host      16      host/b        8 of 8     1             0 of 4
              * all members must share one

              what would free it: at priority 100 it may evict 2 pods:
                12 GPUs by gang demo/old in 2 pods for 2h00m, priority 10
                then it stands on a, b

              the scheduler's words: gang demo/train needs 2 members placed together in one rack, 1 fit (in rack/r1); member rank 1: 0/4 nodes are available: 1 node(s) were unschedulable, 3 Insufficient nvidia.com/gpu.
        "#]],
    );
}

#[test]
fn what_comes_before_the_nodes_is_shown_as_it_is() {
    check(
        "{minMember: 1, roles: [{name: worker, replicas: 1}], topology: {required: row}}",
        &expect![[r#"
        gang demo/train: not looked for a place yet
          InvalidGang: gang demo/train: spec.topology.required: topology level "row" is not configured; the levels are zone, block, rack, nvlink, host
    "#]],
    );
}

#[test]
fn a_level_that_no_node_has_a_label_of_is_said_to_be_that() {
    check(
        "{minMember: 1, roles: [{name: worker, replicas: 1}], topology: {required: zone}}",
        &expect![[r#"
        gang demo/train: no place for its member now
          needs 8 GPUs in one zone; no node has a label of that level

          LEVEL     NEEDS   BEST DOMAIN   FREE       MEMBERS FIT   DOMAINS WITH ROOM
          cluster   8       cluster       12 of 24   1             1 of 1
          zone *    8       -             -          -             0 of 0
          rack      8       rack/r1       12 of 16   1             1 of 2
          host      8       host/b        8 of 8     1             1 of 4
          * all members must share one

          what would free it: a label of level zone on the nodes, or another level

          the scheduler's words: gang demo/train needs 1 members placed together in one zone, 0 fit; member rank 0: 0/4 nodes are available: 1 node(s) were unschedulable, 2 Insufficient nvidia.com/gpu.
    "#]],
    );
}

#[test]
fn amounts_have_the_units_of_their_resource() {
    let texts = [amount(1, "nvidia.com/gpu"), amount(1_500, "cpu"), amount(3 << 20, "memory"), amount(2, "x.y/z")];
    assert_eq!(texts, ["1 GPU", "1.5 CPUs", "3 MiB of memory", "2 x.y/z"]);
}
