//! The engine after a restart, one story at a time: what a list finds, and what it then wants done.

mod story;

use flowforge_dag_controller_core::{
    AttemptKey, Cause, Config, GangEnd, GangFacts, GangPhase, MemberEnd, MemberKey, MemberLost, MemberOutcome, NodeIx,
    NodePhase, Observed, ObservedGang, Reason, Recorded, RecordedMember, RecordedNode, WorkflowPhase,
};
use story::{Run, deleting, diamond, exited, running};

fn recorded_node(node: u32, phase: NodePhase, gang: Option<GangPhase>) -> RecordedNode {
    RecordedNode {
        node: NodeIx(node),
        phase,
        attempt: u32::from(phase != NodePhase::Pending),
        gang,
        cause: None,
        tally: (0, 0),
        released_at_ms: None,
        scheduled_at_ms: None,
        started_at_ms: None,
        finished_at_ms: None,
    }
}

fn observed_gang(node: u32, ended: Option<GangEnd>) -> ObservedGang {
    let phase = if ended.is_some() { GangPhase::Succeeded } else { GangPhase::Pending };
    ObservedGang {
        key: AttemptKey { node: NodeIx(node), attempt: 1 },
        facts: GangFacts { ended, ..GangFacts::default() },
        service: false,
        phase,
        scheduled_at_ms: None,
        started_at_ms: None,
        results: Vec::new(),
    }
}

#[test]
fn a_restart_goes_on_where_it_was() {
    let (scheduled_at_ms, started_at_ms) = (None, None);
    let cause = Cause::of(Reason::Completed);
    let end = GangEnd { succeeded: true, cause, scheduled_at_ms, started_at_ms, finished_at_ms: 5, outputs: "".into() };
    let train0 = MemberKey { node: NodeIx(1), attempt: 1, rank: 0, incarnation: 0 };
    let observed = Observed {
        gangs: vec![observed_gang(0, Some(end)), observed_gang(1, None)],
        pods: vec![(train0, running())],
        ..Observed::default()
    };
    let (run, first) = Run::of(diamond(MemberLost::Fail), Config::default(), observed, &Recorded::default());
    assert_eq!(first, "service train, pod train.1", "the status was not even written");
    assert_eq!(run.phases(), [NodePhase::Succeeded, NodePhase::Scheduling, NodePhase::Pending, NodePhase::Pending]);
}

#[test]
fn a_restart_that_finds_no_gang_tells_a_claim_from_a_loss() {
    // Released, and the status says so; but the Gang was never made: it is claimed now.
    let nodes = vec![recorded_node(0, NodePhase::Scheduling, None)];
    let recorded = Recorded { phase: WorkflowPhase::Running, nodes, ..Recorded::default() };
    let (_, first) = Run::of(diamond(MemberLost::Fail), Config::default(), Observed::default(), &recorded);
    assert_eq!(first, "gang preprocess");
    // The status has seen its Gang: it was deleted, and nothing runs twice.
    let nodes = vec![recorded_node(0, NodePhase::Running, Some(GangPhase::Running))];
    let recorded = Recorded { phase: WorkflowPhase::Running, nodes, ..Recorded::default() };
    let (run, first) = Run::of(diamond(MemberLost::Fail), Config::default(), Observed::default(), &recorded);
    assert_eq!(first, "");
    assert_eq!((run.phase("preprocess"), run.state.phase()), (NodePhase::Failed, WorkflowPhase::Failed));
    // The status is old, but a later node was claimed: it had succeeded.
    let observed = Observed { gangs: vec![observed_gang(1, None)], ..Observed::default() };
    let (run, first) = Run::of(diamond(MemberLost::Fail), Config::default(), observed, &recorded);
    assert_eq!(first, "service train, pod train.0, pod train.1");
    assert_eq!(run.phase("preprocess"), NodePhase::Succeeded);
}

#[test]
fn whose_failure_stopped_the_others_has_failed_though_nothing_of_it_is_left() {
    let others = [1, 2, 3].map(|node| {
        let cause = Cause::of(Reason::NodeFailed).with_detail("preprocess");
        RecordedNode { attempt: 0, cause: Some(cause), ..recorded_node(node, NodePhase::Skipped, None) }
    });
    let mut nodes = vec![recorded_node(0, NodePhase::Scheduling, None)];
    nodes.extend(others);
    let recorded = Recorded { phase: WorkflowPhase::Running, nodes, ..Recorded::default() };
    let (run, first) = Run::of(diamond(MemberLost::Fail), Config::default(), Observed::default(), &recorded);
    assert_eq!((first.as_str(), run.phase("preprocess")), ("", NodePhase::Failed));
    assert_eq!(run.state.node(NodeIx(0)).cause.map(|cause| cause.reason), Some(Reason::Unrecorded));
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
    // Nor does a member that ended well after all take that back.
    let pod = MemberKey { node: NodeIx(0), attempt: 1, rank: 0, incarnation: 0 };
    let observed =
        Observed { gangs: vec![observed_gang(0, None)], pods: vec![(pod, exited(0))], ..Observed::default() };
    let (mut run, _) = Run::of(diamond(MemberLost::Fail), Config::default(), observed, &recorded);
    assert_eq!(run.recorded("preprocess.0"), "free preprocess.0, finish preprocess Unrecorded");
}

#[test]
fn a_recorded_failure_outlives_a_pod_that_turns_up_later() {
    let end = MemberEnd {
        outcome: MemberOutcome::Failed,
        exit_code: Some(1),
        reason: "Error".into(),
        node: "n1".into(),
        said: "".into(),
    };
    let failed = RecordedMember { rank: 0, incarnation: Some(0), end };
    let gang = ObservedGang { results: vec![failed], ..observed_gang(0, None) };
    let late = MemberKey { node: NodeIx(0), attempt: 1, rank: 0, incarnation: 1 };
    let observed = Observed { gangs: vec![gang], pods: vec![(late, running())], ..Observed::default() };
    let (run, first) = Run::of(diamond(MemberLost::Fail), Config::default(), observed, &Recorded::default());
    assert_eq!(first, "delete preprocess.0r1");
    assert_eq!(run.state.node(NodeIx(0)).cause.map(|c| c.reason), Some(Reason::MemberFailed));
}

#[test]
fn an_ended_workflow_stays_ended_after_a_restart() {
    let recorded = Recorded { phase: WorkflowPhase::Failed, ..Recorded::default() };
    let (run, first) = Run::of(diamond(MemberLost::Fail), Config::default(), Observed::default(), &recorded);
    assert_eq!(first, "", "also when its nodes were not recorded");
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
}

#[test]
fn a_restart_that_waits_for_a_silent_machine_still_names_it() {
    let outcome = MemberOutcome::Failed;
    let end = MemberEnd { outcome, exit_code: None, reason: "NodeLost".into(), node: "n1".into(), said: "".into() };
    let lost = RecordedMember { rank: 0, incarnation: Some(0), end };
    let gang = ObservedGang { results: vec![lost], ..observed_gang(0, None) };
    let pods = vec![(MemberKey { node: NodeIx(0), attempt: 1, rank: 0, incarnation: 0 }, deleting(running()))];
    let observed = Observed { gangs: vec![gang], pods, ..Observed::default() };
    let (run, first) = Run::of(diamond(MemberLost::Fail), Config::default(), observed, &Recorded::default());
    assert_eq!((first.as_str(), run.still_stopping("preprocess").as_str()), ("", "0"));
    assert_eq!(run.state.cause().map(Cause::message).as_deref(), Some("member 0: NodeLost on n1"));
}

#[test]
fn what_a_packed_status_leaves_out_of_a_failure_is_read_from_its_gang() {
    let cause = Cause { rank: Some(1), exit_code: Some(3), ..Cause::of(Reason::MemberFailed) };
    let (scheduled_at_ms, started_at_ms) = (Some(2), Some(3));
    let end = GangEnd {
        succeeded: false,
        cause: cause.clone(),
        scheduled_at_ms,
        started_at_ms,
        finished_at_ms: 5,
        outputs: "".into(),
    };
    let nodes = vec![
        recorded_node(0, NodePhase::Succeeded, Some(GangPhase::Succeeded)),
        recorded_node(1, NodePhase::Failed, Some(GangPhase::Failed)),
    ];
    let recorded = Recorded { phase: WorkflowPhase::Running, nodes, ..Recorded::default() };
    let observed = Observed { gangs: vec![observed_gang(1, Some(end))], ..Observed::default() };
    let (run, first) = Run::of(diamond(MemberLost::Fail), Config::default(), observed, &recorded);
    assert_eq!(first, "");
    let train = run.state.node(NodeIx(1));
    assert_eq!((train.cause, train.finished_at_ms, train.started_at_ms), (Some(&cause), Some(5), Some(3)));
    assert_eq!((run.state.phase(), run.state.cause()), (WorkflowPhase::Failed, Some(&cause)));
    assert_eq!(run.state.node(NodeIx(0)).members.succeeded, 1);
    // Without its Gang it stays failed, and stops the workflow all the same.
    let (run, _) = Run::of(diamond(MemberLost::Fail), Config::default(), Observed::default(), &recorded);
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
    assert_eq!(run.state.cause().map(|c| c.reason), Some(Reason::Unrecorded));
}
