//! Time limits, parallelism, suspension and termination, one story at a time.

mod story;

use flowforge_dag_controller_core::event::Starting;
use flowforge_dag_controller_core::{
    Cause, Config, Dag, Decision, Edge, Event, Limits, NodeIx, NodePhase, NodeSpec, Observed, OnFailure, PodFacts,
    Reason, Recorded, WorkflowPhase,
};
use std::sync::Arc;
use story::{Run, bound, deleting, exited, pending, running};

/// Nodes of one member that wait for nothing.
fn run(nodes: Vec<NodeSpec>, config: Config) -> (Run, String) {
    let dag = Dag::new(nodes, Vec::<Edge>::new()).unwrap_or_else(|e| unreachable!("no edges: {e}"));
    Run::of(Arc::new(dag), config, Observed::default(), &Recorded::default())
}

fn limited(limits: Limits) -> Run {
    let (mut run, first) = run(vec![NodeSpec { limits, ..NodeSpec::of("a", 1) }], Config::default());
    assert_eq!(first, "gang a");
    run.gang("a");
    run
}

fn reason(run: &Run) -> Option<Reason> {
    run.state.node(NodeIx(0)).cause.map(|cause| cause.reason)
}

#[test]
fn a_gang_that_finds_no_place_in_time_fails() {
    let mut run = limited(Limits { queue_ms: Some(5_000), ..Limits::default() });
    run.pod("a.0", pending());
    let begun = run.now_ms;
    assert_eq!(run.wake(), "delete a.0");
    assert!(run.now_ms >= begun + 4_000, "{}", run.now_ms - begun);
    assert_eq!(reason(&run), Some(Reason::QueueTimeout));
    // One that is bound in time is not asked again.
    let mut run = limited(Limits { queue_ms: Some(5_000), ..Limits::default() });
    run.pod("a.0", bound());
    assert_eq!((run.wake(), reason(&run)), (String::new(), None));
}

#[test]
fn a_start_that_takes_too_long_says_what_it_waited_for() {
    let limits = Limits { start_ms: Some(5_000), ..Limits::default() };
    for (starting, expected) in [
        (Starting::Unknown, Reason::StartTimeout),
        (Starting::Image("ErrImagePull: no such image".into()), Reason::ImagePull),
        (Starting::Config("CreateContainerConfigError: no secret".into()), Reason::ConfigError),
        (Starting::Volumes, Reason::VolumeMount),
        (Starting::Sandbox, Reason::SandboxNotReady),
    ] {
        let mut run = limited(limits);
        run.pod("a.0", PodFacts { starting: starting.clone(), ..bound() });
        assert_eq!(run.wake(), "delete a.0");
        assert_eq!(reason(&run), Some(expected), "{starting:?}");
    }
    // What it waited for has come: that is not held against it.
    let mut run = limited(limits);
    run.pod("a.0", PodFacts { starting: Starting::Sandbox, ..bound() });
    run.pod("a.0", running());
    assert_eq!((run.wake(), reason(&run)), (String::new(), None));
}

#[test]
fn a_run_that_takes_too_long_is_stopped() {
    let mut run = limited(Limits { run_ms: Some(5_000), ..Limits::default() });
    run.pod("a.0", running());
    assert_eq!(run.wake(), "delete a.0");
    assert_eq!(reason(&run), Some(Reason::RunTimeout));
    run.pod("a.0", deleting(exited(143)));
    assert_eq!(run.recorded("a.0"), "free a.0, finish a RunTimeout");
}

#[test]
fn a_workflow_whose_time_is_over_fails_and_still_runs_what_runs_last() {
    let last = NodeSpec { finally: true, ..NodeSpec::of("clean", 1) };
    let config = Config { timeout_ms: Some(60_000), ..Config::default() };
    let (mut run, _) = run(vec![NodeSpec::of("a", 1), last], config);
    run.gang("a");
    run.pod("a.0", running());
    assert_eq!(run.wake(), "delete a.0");
    run.pod("a.0", deleting(exited(143)));
    run.recorded("a.0");
    assert_eq!(run.finished("a", false, Reason::WorkflowTimeout), "gang clean");
    run.gang("clean");
    run.pod("clean.0", running());
    run.now_ms += 600_000;
    assert_eq!(run.tell(Event::Timer), "", "no time limit stops it");
    run.pod("clean.0", exited(0));
    run.recorded("clean.0");
    run.finished("clean", true, Reason::Completed);
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
    assert_eq!(run.state.cause().map(|c| c.reason), Some(Reason::WorkflowTimeout));
}

#[test]
fn no_more_nodes_are_open_than_wished() {
    let nodes = ["a", "b", "c"].map(|id| NodeSpec::of(id, 1)).to_vec();
    let (mut run, first) = run(nodes, Config { parallelism: Some(1), ..Config::default() });
    assert_eq!(first, "gang a");
    assert_eq!(run.succeed("a"), "gang b");
    assert_eq!(run.tell(Event::Parallelism(None)), "gang c");
}

#[test]
fn a_suspended_workflow_releases_nothing_until_it_goes_on() {
    let nodes = ["a", "b"].map(|id| NodeSpec::of(id, 1)).to_vec();
    let (mut run, _) = run(nodes, Config { parallelism: Some(1), ..Config::default() });
    assert_eq!(run.tell(Event::Suspend(true)), "");
    assert_eq!(run.state.cause().map(|c| c.reason), Some(Reason::Suspended));
    assert_eq!(run.succeed("a"), "", "what runs goes on");
    assert_eq!(run.tell(Event::Suspend(false)), "gang b");
    assert_eq!(run.state.cause(), None::<&Cause>);
    // A cancel does not wait for it.
    run.gang("b");
    run.tell(Event::Suspend(true));
    run.pod("b.0", running());
    assert_eq!(run.tell(Event::Cancel), "delete b.0");
}

#[test]
fn an_approval_node_makes_nothing_and_ends_as_a_person_says() {
    let ask = NodeSpec { approval: true, ..NodeSpec::of("ask", 1) };
    let dag = Dag::new(vec![ask, NodeSpec::of("go", 1)], [Edge::from((NodeIx(0), NodeIx(1)))]);
    let dag = Arc::new(dag.unwrap_or_else(|e| unreachable!("two nodes: {e}")));
    let decided = |approved| Decision { approved, by: "by alice".into() };
    for (approved, shown, phase) in [(true, "gang go", NodePhase::Succeeded), (false, "", NodePhase::Failed)] {
        let start = |observed| Run::of(Arc::clone(&dag), Config::default(), observed, &Recorded::default());
        let (mut run, first) = start(Observed::default());
        assert_eq!((first.as_str(), reason(&run)), ("", Some(Reason::WaitingForApproval)));
        assert_eq!(run.tell(Event::Decided(NodeIx(0), decided(approved))), shown);
        assert_eq!(run.tell(Event::Decided(NodeIx(0), decided(!approved))), "", "it is decided");
        assert_eq!((run.phase("ask"), run.state.node(NodeIx(0)).attempt), (phase, 0));
        // A restart finds the decision, whether or not the status was written.
        let (again, first) = start(Observed { decisions: vec![(NodeIx(0), decided(approved))], ..Observed::default() });
        assert_eq!((first.as_str(), again.phases()), (shown, run.phases()));
    }
}

#[test]
fn a_denial_that_is_there_before_its_turn_skips_what_follows_and_lets_the_last_run() {
    let ask = NodeSpec { approval: true, on_failure: OnFailure::SkipDownstream, ..NodeSpec::of("ask", 1) };
    let last = NodeSpec { finally: true, ..NodeSpec::of("last", 1) };
    let dag = Dag::new(vec![ask, NodeSpec::of("go", 1), last], [Edge::from((NodeIx(0), NodeIx(1)))]);
    let dag = Arc::new(dag.unwrap_or_else(|e| unreachable!("three nodes: {e}")));
    let decisions = vec![(NodeIx(0), Decision { approved: false, by: "by alice".into() })];
    let observed = Observed { decisions, ..Observed::default() };
    let (run, first) = Run::of(dag, Config::default(), observed, &Recorded::default());
    assert_eq!((run.phase("ask"), run.phase("go")), (NodePhase::Failed, NodePhase::Skipped));
    assert_eq!(first, "gang last", "nothing else is left to wait for");
}

#[test]
fn a_cancel_does_not_wait_for_a_person() {
    let ask = NodeSpec { approval: true, ..NodeSpec::of("ask", 1) };
    let (mut run, _) = run(vec![ask], Config::default());
    run.tell(Event::Cancel);
    assert_eq!((run.phase("ask"), run.state.phase()), (NodePhase::Skipped, WorkflowPhase::Canceled));
    run.tell(Event::Decided(NodeIx(0), Decision { approved: true, by: "late".into() }));
    assert_eq!(run.phase("ask"), NodePhase::Skipped);
}

#[test]
fn what_had_succeeded_before_is_taken_over_and_does_not_run() {
    let a = NodeSpec { taken_over: true, ..NodeSpec::of("a", 1) };
    let dag = Dag::new(vec![a, NodeSpec::of("b", 1)], [Edge::from((NodeIx(0), NodeIx(1)))]);
    let dag = Arc::new(dag.unwrap_or_else(|e| unreachable!("two nodes: {e}")));
    let (mut run, first) = Run::of(dag, Config::default(), Observed::default(), &Recorded::default());
    assert_eq!(
        (first.as_str(), run.phase("a"), reason(&run)),
        ("gang b", NodePhase::Succeeded, Some(Reason::TakenOver))
    );
    run.succeed("b");
    assert_eq!((run.state.phase(), run.state.node(NodeIx(0)).attempt), (WorkflowPhase::Succeeded, 0));
}

#[test]
fn a_termination_asks_again_and_runs_nothing_more() {
    let last = NodeSpec { finally: true, ..NodeSpec::of("clean", 1) };
    let (mut run, _) = run(vec![NodeSpec::of("a", 1), last], Config::default());
    run.gang("a");
    run.pod("a.0", running());
    assert_eq!(run.tell(Event::Cancel), "delete a.0");
    run.pod("a.0", deleting(running()));
    assert_eq!(run.tell(Event::Terminate), "delete a.0", "with the least grace now");
    run.pod("a.0", deleting(exited(137)));
    run.recorded("a.0");
    assert_eq!(run.finished("a", false, Reason::Canceled), "");
    assert_eq!((run.phase("clean"), run.state.phase()), (NodePhase::Skipped, WorkflowPhase::Canceled));
}
