//! Attempts that follow failed ones, one story at a time.

mod story;

use flowforge_dag_controller_core::event::Disruption;
use flowforge_dag_controller_core::retry::{On, Retry, Scope};
use flowforge_dag_controller_core::{
    AttemptKey, Config, Dag, Edge, Event, GangFacts, MemberKey, MemberLost, NodeIx, NodePhase, NodeSpec, Observed,
    PodFacts, Reason, Recorded, WorkflowPhase,
};
use std::collections::BTreeSet;
use std::sync::Arc;
use story::{Run, deleting, exited, pending, running};

/// train (2 members), tried again as `retry` says, then eval.
fn run(retry: Retry) -> Run {
    let train = NodeSpec { retry: Some(Arc::new(retry)), ..NodeSpec::of("train", 2) };
    let edge = Edge::from((NodeIx(0), NodeIx(1)));
    let dag = Dag::new(vec![train, NodeSpec::of("eval", 1)], [edge]).unwrap_or_else(|e| unreachable!("two nodes: {e}"));
    let (run, first) = Run::of(Arc::new(dag), Config::default(), Observed::default(), &Recorded::default());
    assert_eq!(first, "gang train");
    run
}

fn user(limit: u32) -> Retry {
    Retry { limit, infrastructure_limit: 0, jitter_percent: 0, ..Retry::default() }
}

fn member(attempt: u32, rank: u32) -> MemberKey {
    MemberKey { node: NodeIx(0), attempt, rank, incarnation: 0 }
}

/// Both members of an attempt run.
fn start(run: &mut Run, attempt: u32) {
    run.tell(Event::Gang(AttemptKey { node: NodeIx(0), attempt }, GangFacts::default()));
    for rank in 0..2 {
        run.tell(Event::Pod(member(attempt, rank), running()));
    }
}

/// Member 0 fails with this code, member 1 is stopped for it, both are recorded.
fn fail(run: &mut Run, attempt: u32, exit_code: i32) -> String {
    run.tell(Event::Pod(member(attempt, 0), exited(exit_code)));
    run.tell(Event::Recorded(vec![member(attempt, 0)]));
    run.tell(Event::Pod(member(attempt, 1), deleting(exited(143))));
    run.tell(Event::Recorded(vec![member(attempt, 1)]))
}

/// The end of an attempt is durable, as it was decided.
fn durable(run: &mut Run, attempt: u32, reason: Reason) -> String {
    let end = flowforge_dag_controller_core::GangEnd {
        succeeded: reason == Reason::Completed,
        cause: flowforge_dag_controller_core::Cause {
            exit_code: Some(3),
            ..flowforge_dag_controller_core::Cause::of(reason)
        },
        scheduled_at_ms: Some(1),
        started_at_ms: Some(2),
        finished_at_ms: run.now_ms,
        outputs: "".into(),
    };
    let facts = GangFacts { ended: Some(end), ..GangFacts::default() };
    run.tell(Event::Gang(AttemptKey { node: NodeIx(0), attempt }, facts))
}

#[test]
fn a_failed_gang_is_claimed_again_at_once_and_its_pods_wait_for_their_pause() {
    let mut run = run(user(1));
    start(&mut run, 1);
    assert_eq!(fail(&mut run, 1, 3), "free train.1, finish train MemberFailed");
    assert_eq!(run.state.phase(), WorkflowPhase::Running, "nothing is stopped while it may be tried again");
    assert_eq!(durable(&mut run, 1, Reason::MemberFailed), "gang train#2 (1+0, avoids n1)");
    assert_eq!((run.phase("train"), run.state.node(NodeIx(0)).attempt), (NodePhase::Scheduling, 2));
    let held = run.tell(Event::Gang(AttemptKey { node: NodeIx(0), attempt: 2 }, GangFacts::default()));
    assert_eq!(held, "", "the pause");
    assert_eq!(run.state.node(NodeIx(0)).cause.map(|c| c.reason), Some(Reason::BackOff));
    assert_eq!(run.wake(), "service train, pod train.0, pod train.1");
    for rank in 0..2 {
        run.tell(Event::Pod(member(2, rank), running()));
    }
    assert_eq!(fail(&mut run, 2, 3), "free train.1, finish train MemberFailed");
    assert_eq!(durable(&mut run, 2, Reason::MemberFailed), "", "the budget is used");
    assert_eq!((run.phase("train"), run.phase("eval")), (NodePhase::Failed, NodePhase::Skipped));
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
}

#[test]
fn a_member_of_a_later_attempt_does_not_wait_for_a_stray_pod_of_that_attempt() {
    let mut run = run(user(1));
    start(&mut run, 1);
    fail(&mut run, 1, 3);
    durable(&mut run, 1, Reason::MemberFailed);
    run.tell(Event::Gang(AttemptKey { node: NodeIx(0), attempt: 2 }, GangFacts::default()));
    assert_eq!(run.wake(), "service train, pod train.0, pod train.1");
    for rank in 0..2 {
        run.tell(Event::Pod(member(2, rank), pending()));
    }
    assert_eq!(run.tell(Event::PodGone(member(2, 1))), "pod train.1r1");
    assert_eq!(run.tell(Event::Pod(member(2, 1), running())), "delete train.1", "it was not gone after all");
    assert_eq!(run.tell(Event::PodGone(member(2, 0))), "pod train.0r1");
}

#[test]
fn a_failure_that_is_not_named_is_not_tried_again() {
    let on = On { exit_codes: BTreeSet::from([75]), ..On::default() };
    let mut run = run(Retry { on: Some(on), ..user(5) });
    start(&mut run, 1);
    fail(&mut run, 1, 3);
    assert_eq!(run.phase("eval"), NodePhase::Skipped, "the workflow is stopped at once");
    assert_eq!(durable(&mut run, 1, Reason::MemberFailed), "");
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
}

#[test]
fn a_sign_of_the_infrastructure_within_the_grace_tells_who_was_to_blame() {
    let mut run = run(Retry { infrastructure_limit: 1, ..user(0) });
    start(&mut run, 1);
    assert_eq!(fail(&mut run, 1, 3), "free train.1", "its end is not recorded before the grace is over");
    let lost = PodFacts { node_gone: true, node: Some("n7".into()), ..deleting(exited(143)) };
    assert_eq!(run.tell(Event::Pod(member(1, 1), lost)), "finish train NodeLost", "at the first sign");
    let cause = run.state.node(NodeIx(0)).cause.map(|c| c.message()).unwrap_or_default();
    assert!(cause.contains("NodeLost on n7, after member 0 exited with code 3"), "{cause}");
    assert_eq!(durable(&mut run, 1, Reason::NodeLost), "gang train#2 (0+1, avoids n7)");
}

#[test]
fn without_a_sign_it_was_the_user() {
    let mut run = run(Retry { infrastructure_limit: 1, ..user(0) });
    start(&mut run, 1);
    fail(&mut run, 1, 3);
    let before = run.now_ms;
    assert_eq!(run.wake(), "finish train MemberFailed");
    assert!(run.now_ms - before >= 59_000, "{}", run.now_ms - before);
    assert_eq!(durable(&mut run, 1, Reason::MemberFailed), "");
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
}

#[test]
fn a_cancel_ends_the_grace_and_nothing_is_tried_again() {
    let mut run = run(Retry { infrastructure_limit: 1, ..user(3) });
    start(&mut run, 1);
    fail(&mut run, 1, 3);
    assert_eq!(run.tell(Event::Cancel), "finish train MemberFailed");
    assert_eq!(durable(&mut run, 1, Reason::MemberFailed), "");
    assert_eq!((run.phase("train"), run.state.phase()), (NodePhase::Failed, WorkflowPhase::Canceled));
}

#[test]
fn a_preempted_gang_is_tried_again_on_the_budget_of_the_infrastructure() {
    let mut run = run(Retry { infrastructure_limit: 1, ..user(0) });
    start(&mut run, 1);
    let preempted = PodFacts { disruption: Some(Disruption::Preemption), ..deleting(running()) };
    run.tell(Event::Pod(member(1, 0), preempted));
    let gone = PodFacts { disruption: Some(Disruption::Preemption), ..deleting(exited(143)) };
    run.tell(Event::Pod(member(1, 0), gone));
    run.tell(Event::Recorded(vec![member(1, 0)]));
    run.tell(Event::Pod(member(1, 1), deleting(exited(143))));
    assert_eq!(run.tell(Event::Recorded(vec![member(1, 1)])), "free train.1, finish train Preempted");
    assert_eq!(durable(&mut run, 1, Reason::Preempted), "gang train#2 (0+1, avoids n1)");
}

#[test]
fn the_next_attempt_waits_for_pods_that_may_still_run() {
    let mut run = run(user(1));
    start(&mut run, 1);
    fail(&mut run, 1, 3);
    durable(&mut run, 1, Reason::MemberFailed);
    // A pod of the first attempt turns up late, made by a leader that is no more.
    let late = MemberKey { incarnation: 1, ..member(1, 1) };
    assert_eq!(run.tell(Event::Pod(late, running())), "delete train.1r1");
    run.tell(Event::Gang(AttemptKey { node: NodeIx(0), attempt: 2 }, GangFacts::default()));
    assert_eq!(run.wake(), "", "it may run");
    assert_eq!(run.state.node(NodeIx(0)).cause.map(|c| c.reason), Some(Reason::PredecessorUnreachable));
    assert_eq!(run.tell(Event::PodGone(late)), "service train, pod train.0, pod train.1");
}

#[test]
fn pods_that_do_not_stop_are_given_up_when_the_user_wants_to_go_on() {
    let mut run = run(Retry { force_after_ms: Some(120_000), infrastructure_limit: 1, ..user(0) });
    start(&mut run, 1);
    run.tell(Event::Pod(member(1, 0), exited(3)));
    run.tell(Event::Recorded(vec![member(1, 0)]));
    run.tell(Event::Pod(member(1, 1), deleting(running())));
    assert_eq!(run.wake(), "", "the grace is over, and member 1 does not stop");
    assert_eq!(run.still_stopping("train"), "1");
    assert_eq!(run.wake(), "record train.1 Stopped Stopped");
    assert_eq!(run.tell(Event::Recorded(vec![member(1, 1)])), "finish train MemberFailed");
}

#[test]
fn with_scope_member_only_the_failed_member_is_made_again() {
    let mut run = run(Retry { scope: Scope::Member, ..user(1) });
    start(&mut run, 1);
    assert_eq!(run.tell(Event::Pod(member(1, 0), exited(3))), "record train.0 Lost Error");
    assert_eq!(run.tell(Event::Recorded(vec![member(1, 0)])), "free train.0, pod train.0r1");
    let again = MemberKey { incarnation: 1, ..member(1, 0) };
    run.tell(Event::Pod(again, running()));
    assert_eq!(
        run.tell(Event::Pod(again, exited(3))),
        "record train.0r1 Failed Error, delete train.1",
        "once is enough"
    );
    assert_eq!(run.phase("eval"), NodePhase::Skipped);
}

#[test]
fn a_node_without_a_retry_fails_as_ever() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.gang("preprocess");
    run.pod("preprocess.0", exited(1));
    assert_eq!(run.recorded("preprocess.0"), "free preprocess.0, finish preprocess MemberFailed");
}
