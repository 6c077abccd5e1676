use super::*;
use crate::testing::{GangBuilder as _, at, gang, view, workflow};
use expect_test::{Expect, expect};
use flowforge_api::workflow::PackedNodes;

const LIVE: Extent = Extent { columns: 100, lines: 40, ended_gangs: false };

#[track_caller]
fn check(view: &View, extent: Extent, expected: &Expect) {
    let text: String = view.lines(at(68), extent, Style::default()).iter().map(|line| format!("{line}\n")).collect();
    expected.assert_eq(&text);
}

fn diamond() -> View {
    view(
        workflow("diamond")
            .created(0)
            .started(2)
            .phase("Running", "1/4")
            .node("preprocess", 1, &[], "Succeeded")
            .node("train", 4, &["preprocess"], "Running")
            .node("eval", 1, &["train"], "Pending")
            .node("publish", 1, &["train", "eval"], "Pending"),
        &[
            gang("diamond", "preprocess", 1).phase("Succeeded").placed(1, None, &["n1"]).counts(0, 1, 0),
            gang("diamond", "train", 4).phase("Running").placed(4, Some("rack/r1"), &["n1*4"]).counts(4, 0, 0),
        ],
    )
}

#[test]
fn a_running_diamond() {
    check(
        &diamond(),
        LIVE,
        &expect![[r#"
            diamond  Running  ▰▱▱▱ 1/4 nodes  1m06s
            ├─ ✔ preprocess  Succeeded     1/1  12s
            ├─ ● train       Running       4/4  58s
            │  └─ gang diamond-train-1: ▰▰▰▰ 4 of 4 running in rack/r1
            ├─ ○ eval        Pending       0/1  -       after train
            └─ ○ publish     Pending       0/1  -       after train, eval
        "#]],
    );
}

#[test]
fn the_phases_of_a_large_workflow_are_read_from_its_packed_status() {
    let packed = PackedNodes { running: "1".into(), succeeded: "0".into(), ..PackedNodes::default() };
    let mut view = diamond();
    let status = view.workflow.status.as_mut().unwrap();
    status.nodes.clear();
    status.packed = Some(packed);
    check(
        &view,
        LIVE,
        &expect![[r#"
            diamond  Running  ▰▱▱▱ 1/4 nodes  1m06s
            ├─ ✔ preprocess  Succeeded     1/1  -
            ├─ ● train       Running       4/4  -
            │  └─ gang diamond-train-1: ▰▰▰▰ 4 of 4 running in rack/r1
            ├─ ○ eval        Pending       0/1  -       after train
            └─ ○ publish     Pending       0/1  -       after train, eval
        "#]],
    );
}

#[test]
fn the_whole_tree_has_the_gangs_that_ended() {
    check(
        &diamond(),
        Extent::WHOLE,
        &expect![[r#"
            diamond  Running  ▰▱▱▱ 1/4 nodes  1m06s
            ├─ ✔ preprocess  Succeeded     1/1  12s
            │  └─ gang diamond-preprocess-1: 1 of 1 succeeded on n1
            ├─ ● train       Running       4/4  58s
            │  └─ gang diamond-train-1: ▰▰▰▰ 4 of 4 running in rack/r1
            ├─ ○ eval        Pending       0/1  -       after train
            └─ ○ publish     Pending       0/1  -       after train, eval
        "#]],
    );
}

#[test]
fn a_waiting_gang_says_what_is_missing_and_is_cut_at_the_edge() {
    let message = "gang demo/d-train-1 needs 4 members placed together, 3 fit; member rank 3: 0/4 nodes are available: 4 Insufficient nvidia.com/gpu.";
    let waiting = view(
        workflow("d").started(2).phase("Running", "0/1").node("train", 4, &[], "Scheduling"),
        &[gang("d", "train", 4).refused("Unschedulable", message)],
    );
    check(
        &waiting,
        LIVE,
        &expect![[r#"
            d  Running  0/1 nodes  1m06s
            └─ ◌ train  Scheduling    0/4  1m00s
               └─ gang d-train-1: 0 of 4 bound
                    Unschedulable: needs 4 members placed together, 3 fit; member rank 3: 0/4 nodes are
                    available: 4 Insufficient nvidia.com/gpu.
        "#]],
    );
}

#[test]
fn a_refusal_is_wrapped_on_a_narrow_terminal_and_ends_somewhere() {
    let message = "gang demo/d-train-1 needs 4 members placed together in one rack, 0 fit; member rank 0: 0/32 nodes are available: 12 Insufficient nvidia.com/gpu, 8 node(s) had untolerated taint {maintenance: }, 12 node(s) didn't match Pod's node affinity/selector.";
    let waiting = view(
        workflow("d").started(2).phase("Running", "0/2").node("train", 4, &[], "Scheduling").node(
            "eval",
            1,
            &["train"],
            "Pending",
        ),
        &[gang("d", "train", 4).refused("Unschedulable", message)],
    );
    check(
        &waiting,
        Extent { columns: 80, ..LIVE },
        &expect![[r#"
            d  Running  ▱▱ 0/2 nodes  1m06s
            ├─ ◌ train  Scheduling    0/4  1m00s
            │  └─ gang d-train-1: 0 of 4 bound
            │       Unschedulable: needs 4 members placed together in one rack, 0 fit;
            │       member rank 0: 0/32 nodes are available: 12 Insufficient nvidia.com/gpu,
            │       8 node(s) had untolerated taint {maintenance: }, 12 node(s) didn't matc…
            └─ ○ eval   Pending       0/1  -       after train
        "#]],
    );
    check(
        &waiting,
        Extent { columns: 60, ..LIVE },
        &expect![[r#"
            d  Running  ▱▱ 0/2 nodes  1m06s
            ├─ ◌ train  Scheduling    0/4  1m00s
            │  └─ gang d-train-1: 0 of 4 bound
            │       Unschedulable: needs 4 members placed together in
            │       one rack, 0 fit; member rank 0: 0/32 nodes are
            │       available: 12 Insufficient nvidia.com/gpu, 8 node(s…
            └─ ○ eval   Pending       0/1  -       after train
        "#]],
    );
}

#[test]
fn members_that_are_done_are_told_from_those_that_run() {
    let at_work = view(
        workflow("d").started(2).phase("Running", "0/1").node("train", 4, &[], "Running").with(|n| {
            n.reason = Some("Completed".into());
        }),
        &[gang("d", "train", 4).phase("Running").placed(4, Some("rack/r1"), &["n1*4"]).counts(3, 1, 0)],
    );
    check(
        &at_work,
        LIVE,
        &expect![[r#"
        d  Running  0/1 nodes  1m06s
        └─ ● train  Running       4/4  58s
           └─ gang d-train-1: ▰▰▰▰ 3 of 4 running, 1 succeeded in rack/r1
    "#]],
    );
}

#[test]
fn a_failure_names_its_first_members() {
    let mut lost =
        gang("d", "train", 5).phase("Failed").placed(5, None, &["n1", "n2", "n3", "n4", "n5"]).counts(0, 0, 5);
    for rank in 0..5 {
        lost = lost.result(rank, 1, "Error", &format!("n{}", rank + 1));
    }
    let failed = view(
        workflow("d")
            .started(2)
            .finished(30)
            .phase("Failed", "2/2")
            .reason("NodeFailed", "train")
            .node("train", 5, &[], "Failed")
            .with(|n| {
                n.attempt = 2;
                n.reason = Some("MemberFailed".into());
                n.message = Some("member 0 exited with code 1".into());
            })
            .node("eval", 1, &["train"], "Skipped"),
        &[lost],
    );
    check(
        &failed,
        LIVE,
        &expect![[r#"
        d  Failed  2/2 nodes  28s  NodeFailed: train
        ├─ ✘ train  Failed        5/5  12s     attempt 2  MemberFailed: member 0 exited with code 1
        │  └─ gang d-train-1: 5 of 5 failed on n1 … n5
        │       ✘ rank 0 exited with code 1 on n1: Error
        │       ✘ rank 1 exited with code 1 on n2: Error
        │       ✘ rank 2 exited with code 1 on n3: Error
        │       … and 2 more
        └─ – eval   Skipped       0/1  -
    "#]],
    );
}

#[test]
fn what_matters_least_is_summed_up_when_the_terminal_is_small() {
    let mut wide = workflow("wide").started(2).phase("Running", "20/60");
    for i in 0..20 {
        wide = wide.node(&format!("done-{i}"), 1, &[], "Succeeded");
    }
    wide = wide.node("busy", 2, &[], "Running");
    for i in 0..39 {
        wide = wide.node(&format!("later-{i}"), 1, &["busy"], "Pending");
    }
    check(
        &view(wide, &[]),
        Extent { lines: 6, ..LIVE },
        &expect![[r#"
            wide  Running  ▰▰▰▰▰▱▱▱▱▱▱▱▱▱▱▱ 20/60 nodes  1m06s
            ├─ ● busy      Running       2/2  58s
            ├─ ○ later-0   Pending       0/1  -       after busy
            ├─ ○ later-1   Pending       0/1  -       after busy
            ├─ ○ later-2   Pending       0/1  -       after busy
            └─ … and 36 Pending, 20 Succeeded
        "#]],
    );
}

#[test]
fn a_workflow_that_nobody_has_looked_at_is_pending() {
    let mut fresh = view(workflow("d").node("a", 3, &[], "Pending"), &[]);
    fresh.workflow.status = None;
    check(
        &fresh,
        LIVE,
        &expect![[r#"
        d  Pending  0/1 nodes
        └─ ○ a  Pending       0/3  -
    "#]],
    );
}
