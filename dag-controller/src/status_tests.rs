use super::*;
use expect_test::{Expect, expect};
use flowforge_api::workflow::PackedNodes;
use flowforge_dag_controller_core::engine::{Observed, apply, rebuild};
use flowforge_dag_controller_core::frontend::json_len;
use flowforge_dag_controller_core::{Command, Config, Dag, Edge, Event, NodeIx, NodeSpec};
use std::sync::Arc;

const NOW_MS: u64 = 1_000_000;

/// A workflow of one node, told these events.
fn state(events: Vec<Event>) -> State {
    let node = NodeSpec::of("a", 1);
    let dag = Arc::new(Dag::new(vec![node], Vec::<Edge>::new()).unwrap());
    let mut commands: Vec<Command> = Vec::new();
    let mut state = rebuild(dag, Config::default(), Observed::default(), &Recorded::default(), NOW_MS, &mut commands);
    for event in events {
        apply(&mut state, event, NOW_MS, &mut commands);
    }
    state
}

fn ended(succeeded: bool, cause: Cause) -> Event {
    let end = flowforge_dag_controller_core::GangEnd {
        succeeded,
        cause,
        scheduled_at_ms: None,
        started_at_ms: Some(NOW_MS),
        finished_at_ms: NOW_MS,
        outputs: "".into(),
    };
    let facts = flowforge_dag_controller_core::GangFacts { ended: Some(end), ..Default::default() };
    Event::Gang(flowforge_dag_controller_core::AttemptKey { node: NodeIx(0), attempt: 1 }, facts)
}

fn cx(conditions: &[Condition], now_ms: u64) -> Context<'_> {
    Context { generation: Some(1), conditions, now_ms, room: room(0) }
}

#[track_caller]
fn check(status: &WorkflowStatus, expected: &Expect) {
    let line = |c: &Condition| format!("{}={} {} {:?}\n", c.type_, c.status, c.reason, c.message);
    let text: String = status.conditions.iter().map(line).collect();
    expected.assert_eq(&format!("{:?}\n{text}", status.phase.unwrap()));
}

#[test]
fn a_running_workflow_is_accepted_and_nothing_else_yet() {
    check(
        &compose(&state(vec![]), &cx(&[], NOW_MS)),
        &expect![[r#"
            Running
            Accepted=True Accepted ""
            Complete=False Running ""
            Succeeded=False Running ""
            Failed=False Running ""
        "#]],
    );
}

#[test]
fn a_workflow_that_waits_for_its_claim_says_so_in_accepted_alone() {
    let missing = Cause::of(Reason::ClaimMissing).with_detail("create the claim nas");
    check(
        &compose(&state(vec![Event::Hold(Some(Box::new(missing)))]), &cx(&[], NOW_MS)),
        &expect![[r#"
            Running
            Accepted=False ClaimMissing "create the claim nas"
            Complete=False Running ""
            Succeeded=False Running ""
            Failed=False Running ""
        "#]],
    );
}

#[test]
fn a_success_needs_no_words() {
    check(
        &compose(&state(vec![ended(true, Cause::of(Reason::Completed))]), &cx(&[], NOW_MS)),
        &expect![[r#"
            Succeeded
            Accepted=True Accepted ""
            Complete=True Succeeded ""
            Succeeded=True Succeeded ""
            Failed=False Succeeded ""
        "#]],
    );
}

#[test]
fn a_failure_says_why_where_it_is_told_and_not_in_accepted() {
    let cause = Cause { rank: Some(1), exit_code: Some(3), ..Cause::of(Reason::MemberFailed) };
    check(
        &compose(&state(vec![ended(false, cause)]), &cx(&[], NOW_MS)),
        &expect![[r#"
            Failed
            Accepted=True Accepted ""
            Complete=True Failed "member 1 exited with code 3"
            Succeeded=False MemberFailed "member 1 exited with code 3"
            Failed=True MemberFailed "member 1 exited with code 3"
        "#]],
    );
}

#[test]
fn a_cancel_is_no_failure() {
    let gone = Event::GangGone(flowforge_dag_controller_core::AttemptKey { node: NodeIx(0), attempt: 1 });
    check(
        &compose(&state(vec![Event::Cancel, gone, ended(false, Cause::of(Reason::Canceled))]), &cx(&[], NOW_MS)),
        &expect![[r#"
            Canceled
            Accepted=True Accepted ""
            Complete=True Canceled ""
            Succeeded=False Canceled ""
            Failed=False Canceled ""
        "#]],
    );
}

#[test]
fn a_refused_workflow_is_not_accepted_and_has_failed() {
    let cause = Cause::of(Reason::InvalidSpec).with_detail("spec.nodes: is empty");
    let spec: WorkflowSpec = serde_json::from_value(serde_json::json!({"nodes": [{"id": "a"}, {"id": "b"}]})).unwrap();
    let status = refused(&Refused { cause, at_ms: NOW_MS }, &spec, &cx(&[], NOW_MS + 5_000));
    check(
        &status,
        &expect![[r#"
            Failed
            Accepted=False InvalidSpec "spec.nodes: is empty"
            Complete=True Failed "spec.nodes: is empty"
            Succeeded=False InvalidSpec "spec.nodes: is empty"
            Failed=True InvalidSpec "spec.nodes: is empty"
        "#]],
    );
    let nodes: Vec<_> = status.nodes.iter().map(|n| (n.id.as_str(), n.phase)).collect();
    assert_eq!(nodes, [("a", NodePhase::Skipped), ("b", NodePhase::Skipped)], "no node of it waits any more");
    assert_eq!(status.finished_at, time(NOW_MS), "when it was refused, not when that was written");
}

#[test]
fn a_condition_keeps_its_time_until_its_status_turns() {
    let before = compose(&state(vec![]), &cx(&[], NOW_MS)).conditions;
    let after = compose(&state(vec![ended(true, Cause::of(Reason::Completed))]), &cx(&before, NOW_MS + 5_000));
    let times: Vec<_> = after.conditions.iter().map(|c| (c.type_.as_str(), ms(c.last_transition_time.0))).collect();
    let (old, new) = (NOW_MS, NOW_MS + 5_000);
    assert_eq!(times, [("Accepted", old), ("Complete", new), ("Succeeded", new), ("Failed", old)]);
}

/// As many nodes as there may be, one after the other, in a spec that fits beside a status.
fn largest() -> (Workflow, Arc<Dag>) {
    let count = flowforge_dag_controller_core::frontend::MAX_NODES;
    let id = |at: usize| format!("n{at}");
    let nodes: Vec<Value> = (0..count)
        .map(|at| {
            let upstream = at.checked_sub(1).map(id);
            serde_json::json!({"id": id(at), "replicas": 1, "dependsOn": Vec::from_iter(upstream)})
        })
        .collect();
    let defaults = serde_json::json!({"env": [{"name": "RUN", "value": "a && b"}]});
    let workflow = serde_json::json!({"apiVersion": "flowforge.dev/v1alpha1", "kind": "Workflow",
        "metadata": {"name": "wf", "namespace": "ns", "uid": "u"}, "spec": {"defaults": defaults, "nodes": nodes}});
    let spec = |at: usize| NodeSpec::of(id(at), 1);
    let edges = (1..count).map(|at| (ix(at - 1), ix(at)));
    let dag = Dag::new((0..count).map(spec).collect(), edges).unwrap();
    (serde_json::from_value(workflow).unwrap(), Arc::new(dag))
}

fn ix(at: usize) -> NodeIx {
    NodeIx(u32::try_from(at).unwrap())
}

/// A restart of a workflow whose nodes ended as `phase` says.
fn ended_as(dag: &Arc<Dag>, phase: impl Fn(usize) -> CoreNode) -> State {
    let detail = "x".repeat(2 * LONGEST_MESSAGE);
    let nodes = (0..dag.ids().len())
        .map(|at| RecordedNode {
            node: ix(at),
            phase: phase(at),
            attempt: 1,
            gang: None,
            cause: (phase(at) == CoreNode::Failed)
                .then(|| Cause::of(Reason::MemberFailed).with_detail(detail.as_str())),
            tally: (1, 0),
            released_at_ms: Some(NOW_MS),
            scheduled_at_ms: Some(NOW_MS),
            started_at_ms: Some(NOW_MS),
            finished_at_ms: Some(NOW_MS),
        })
        .collect();
    let recorded = Recorded { nodes, ..Recorded::default() };
    rebuild(Arc::clone(dag), Config::default(), Observed::default(), &recorded, NOW_MS, &mut Vec::new())
}

#[test]
fn the_status_of_the_largest_workflow_fits_beside_its_spec_however_it_ended() {
    let (mut workflow, dag) = largest();
    let without = json_len(&workflow);
    let endings: [(&str, &dyn Fn(usize) -> CoreNode); 3] = [
        ("all well", &|_| CoreNode::Succeeded),
        ("all badly, with long words", &|_| CoreNode::Failed),
        // The sets are longest where no two neighbours are alike.
        ("by turns", &|at| if at % 2 == 0 { CoreNode::Succeeded } else { CoreNode::Failed }),
    ];
    for (name, phase) in endings {
        let state = ended_as(&dag, phase);
        let cx = Context { room: room(without), ..cx(&[], NOW_MS) };
        workflow.status = Some(compose(&state, &cx));
        let bytes = json_len(&workflow);
        assert!(bytes < 1536 * 1024, "{name}: {bytes} bytes");
        // Nothing that a restart needs is left out.
        let back = recorded(&workflow, &dag);
        let phases: std::collections::BTreeMap<NodeIx, CoreNode> =
            back.nodes.iter().map(|n| (n.node, n.phase)).collect();
        assert!(dag.ids().all(|at| phases.get(&at) == Some(&phase(at.at()))), "{name}");
        let again = rebuild(Arc::clone(&dag), Config::default(), Observed::default(), &back, NOW_MS, &mut Vec::new());
        let said = |state: &State| state.cause().and_then(|c| message(&c.message()));
        assert_eq!((again.phase(), said(&again)), (state.phase(), said(&state)), "{name}");
    }
}

#[test]
fn a_workflow_that_fits_lists_every_node_and_needs_no_packed_sets() {
    let status = compose(&state(vec![]), &cx(&[], NOW_MS));
    assert_eq!((status.nodes.len(), &status.packed), (1, &None));
    // A merge would keep what an earlier write said.
    assert_eq!(merge_patch(&status)["packed"], Value::Null);
    let packed = PackedNodes { running: "0".to_owned(), ..PackedNodes::default() };
    let patch = merge_patch(&WorkflowStatus { packed: Some(packed), ..WorkflowStatus::default() });
    assert_eq!((&patch["packed"]["running"], &patch["packed"]["scheduling"]), (&"0".into(), &Value::Null));
    assert_eq!(patch["nodes"], Value::Null);
}

#[test]
fn the_room_of_a_status_tells_the_form_and_not_how_far_the_workflow_is() {
    let full = Context { room: room(1_400_000), ..cx(&[], NOW_MS) };
    let none = Context { room: 0, ..cx(&[], NOW_MS) };
    for events in [vec![], vec![ended(true, Cause::of(Reason::Completed))]] {
        assert_eq!(compose(&state(events.clone()), &full).packed, None);
        assert!(compose(&state(events), &none).packed.is_some());
    }
}
