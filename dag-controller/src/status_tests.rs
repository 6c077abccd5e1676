use super::*;
use expect_test::{Expect, expect};
use flowforge_dag_controller_core::engine::{Observed, apply, rebuild};
use flowforge_dag_controller_core::{Command, Config, Dag, Event, MemberLost, NodeIx, NodeSpec};
use std::sync::Arc;

const NOW_MS: u64 = 1_000_000;

/// A workflow of one node, told these events.
fn state(events: Vec<Event>) -> State {
    let node = NodeSpec { id: "a".into(), replicas: 1, member_lost: MemberLost::Fail };
    let dag = Arc::new(Dag::new(vec![node], Vec::new()).unwrap());
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
    };
    let facts = flowforge_dag_controller_core::GangFacts { ended: Some(end), deleting: false };
    Event::Gang(flowforge_dag_controller_core::AttemptKey { node: NodeIx(0), attempt: 1 }, facts)
}

fn cx(conditions: &[Condition], now_ms: u64) -> Context<'_> {
    Context { generation: Some(1), conditions, now_ms }
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
    let status = refused(&Refused { cause, at_ms: NOW_MS }, 0, &cx(&[], NOW_MS + 5_000));
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
