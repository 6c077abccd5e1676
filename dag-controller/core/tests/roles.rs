//! Gangs with roles, one story at a time.

mod story;

use flowforge_dag_controller_core::retry::Retry;
use flowforge_dag_controller_core::{
    Config, Dag, Edge, Failure, NodeIx, NodePhase, NodeSpec, Observed, PodFacts, Reason, Recorded, Role, Success,
};
use std::sync::Arc;
use story::{Run, bound, deleting, exited, pending, running};

fn role(name: &str, replicas: u32, min: u32, success: Success, failure: Failure) -> Role {
    Role { name: name.into(), replicas, min, success, failure }
}

/// One node of these roles, claimed, with all of its pods asked for.
fn run(roles: Vec<Role>, retry: Option<Retry>) -> Run {
    let replicas = roles.iter().map(|role| role.replicas).sum();
    let node = NodeSpec { roles: Some(roles.into()), retry: retry.map(Arc::new), ..NodeSpec::of("mpi", replicas) };
    let dag = Dag::new(vec![node], Vec::<Edge>::new()).unwrap_or_else(|e| unreachable!("one node: {e}"));
    let (mut run, _) = Run::of(Arc::new(dag), Config::default(), Observed::default(), &Recorded::default());
    run.gang("mpi");
    run
}

fn launcher_and_workers(min: u32, failure: Failure) -> Run {
    let launcher = role("launcher", 1, 1, Success::All, Failure::FailGang);
    let mut run = run(vec![launcher, role("worker", 3, min, Success::Ignore, failure)], None);
    for rank in 0..4 {
        run.pod(&format!("mpi.{rank}"), running());
    }
    assert_eq!(run.phase("mpi"), NodePhase::Running);
    run
}

fn shown(run: &Run) -> (Option<Reason>, bool) {
    let view = run.state.node(NodeIx(0));
    (view.cause.map(|cause| cause.reason), view.degraded_since_ms.is_some())
}

#[test]
fn the_launchers_success_stops_the_workers_and_their_stop_is_no_failure() {
    let mut run = launcher_and_workers(3, Failure::FailGang);
    assert_eq!(
        run.pod("mpi.0", exited(0)),
        "record mpi.0 Succeeded Completed, delete mpi.1, delete mpi.2, delete mpi.3"
    );
    run.recorded("mpi.0");
    // One ends on SIGTERM, one exits non-zero by itself in the same moment, one ends well.
    assert_eq!(run.pod("mpi.1", deleting(exited(143))), "record mpi.1 Stopped Stopped");
    assert_eq!(run.pod("mpi.2", exited(1)), "record mpi.2 Stopped Stopped");
    assert_eq!(run.pod("mpi.3", exited(0)), "record mpi.3 Succeeded Completed");
    let mut last = String::new();
    for rank in 1..4 {
        last = run.recorded(&format!("mpi.{rank}"));
    }
    assert_eq!(last, "free mpi.3, finish mpi Completed");
    run.finished("mpi", true, Reason::Completed);
    assert_eq!(run.phase("mpi"), NodePhase::Succeeded);
}

#[test]
fn a_worker_that_fails_fails_the_gang_although_nobody_waits_for_its_success() {
    let mut run = launcher_and_workers(1, Failure::FailGang);
    assert_eq!(run.pod("mpi.2", exited(3)), "record mpi.2 Failed Error, delete mpi.0, delete mpi.1, delete mpi.3");
    assert_eq!(shown(&run).0, Some(Reason::MemberFailed));
}

#[test]
fn a_member_is_left_out_until_its_role_falls_below_its_minimum() {
    let mut run = launcher_and_workers(2, Failure::Ignore);
    assert_eq!(run.pod("mpi.1", exited(3)), "record mpi.1 Failed Error");
    assert_eq!((run.phase("mpi"), shown(&run)), (NodePhase::Running, (Some(Reason::Degraded), true)));
    assert_eq!(run.pod("mpi.3", exited(3)), "record mpi.3 Failed Error, delete mpi.0, delete mpi.2");
    let cause = run.state.node(NodeIx(0)).cause.map(|cause| cause.message()).unwrap_or_default();
    assert_eq!(cause, "member 3 exited with code 3 (Error on n1; role worker has 1 members left and needs 2)");
}

#[test]
fn the_rest_of_a_role_that_counts_succeeds_without_those_left_out() {
    let mut run = run(vec![role("worker", 3, 1, Success::All, Failure::Ignore)], None);
    for rank in 0..3 {
        run.pod(&format!("mpi.{rank}"), running());
    }
    run.pod("mpi.0", exited(1));
    run.pod("mpi.1", exited(0));
    for rank in 0..2 {
        run.recorded(&format!("mpi.{rank}"));
    }
    run.pod("mpi.2", exited(0));
    assert_eq!(run.recorded("mpi.2"), "free mpi.2, finish mpi Completed");
    // Where nobody is left who could succeed, it fails, whatever its minimum.
    let mut run = self::run(vec![role("worker", 1, 0, Success::Any, Failure::Ignore)], None);
    run.pod("mpi.0", exited(1));
    assert_eq!(shown(&run).0, Some(Reason::MemberFailed));
}

#[test]
fn a_lost_member_is_made_again_while_the_gang_runs_degraded() {
    let mut run = launcher_and_workers(3, Failure::ReplaceMember);
    let lost = PodFacts { node_gone: true, ..running() };
    assert_eq!(run.pod("mpi.2", lost), "record mpi.2 Lost NodeLost");
    assert_eq!(shown(&run), (Some(Reason::Degraded), true));
    assert_eq!(run.recorded("mpi.2"), "free mpi.2, pod mpi.2r1");
    run.pod("mpi.2r1", pending());
    assert_eq!(shown(&run), (Some(Reason::Degraded), true));
    run.pod("mpi.2r1", running());
    assert_eq!((run.phase("mpi"), shown(&run)), (NodePhase::Running, (None, false)));
    // A program that fails has no budget here: its role falls below its minimum.
    assert_eq!(run.pod("mpi.1", exited(1)), "record mpi.1 Failed Error, delete mpi.0, delete mpi.2r1, delete mpi.3");
}

#[test]
fn a_failed_member_is_made_again_as_often_as_the_retry_allows() {
    let retry = Retry { limit: 1, infrastructure_limit: 0, ..Retry::default() };
    let mut run = run(vec![role("worker", 2, 1, Success::Any, Failure::ReplaceMember)], Some(retry));
    for rank in 0..2 {
        run.pod(&format!("mpi.{rank}"), running());
    }
    assert_eq!(run.pod("mpi.1", exited(1)), "record mpi.1 Lost Error");
    assert_eq!(run.recorded("mpi.1"), "free mpi.1, pod mpi.1r1");
    run.pod("mpi.1r1", running());
    assert_eq!(run.pod("mpi.1r1", exited(1)), "record mpi.1r1 Failed Error", "it is left out, one is enough");
    assert_eq!(run.pod("mpi.0", exited(0)), "record mpi.0 Succeeded Completed");
    run.recorded("mpi.1r1");
    assert_eq!(run.recorded("mpi.0"), "free mpi.0, finish mpi Completed");
}

#[test]
fn a_gang_runs_as_soon_as_the_minimum_of_every_role_does() {
    let ps = role("ps", 1, 1, Success::Ignore, Failure::FailGang);
    let mut run = run(vec![ps, role("worker", 3, 2, Success::All, Failure::Ignore)], None);
    for rank in 1..4 {
        run.pod(&format!("mpi.{rank}"), bound());
    }
    assert_eq!(run.state.node(NodeIx(0)).scheduled_at_ms, None, "the parameter server has no place");
    run.pod("mpi.0", running());
    run.pod("mpi.1", running());
    assert_eq!(run.phase("mpi"), NodePhase::Scheduling);
    run.pod("mpi.2", running());
    assert_eq!((run.phase("mpi"), shown(&run).1), (NodePhase::Running, true));
    run.pod("mpi.3", running());
    assert!(!shown(&run).1);
}
