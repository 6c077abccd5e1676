//! The engine, one story at a time.

mod story;

use flowforge_dag_controller_core::event::{Disruption, Object, PodPhase, Refusal, RefusalKind};
use flowforge_dag_controller_core::{
    AttemptKey, Cause, Config, Event, GangFacts, GangPhase, MemberKey, MemberLost, NodeIx, NodePhase, Observed,
    PodFacts, Reason, Recorded, WorkflowPhase,
};
use story::{Run, bound, deleting, diamond, exited, pending, running};

#[test]
fn a_diamond_runs_from_top_to_bottom() {
    let (mut run, first) = Run::new(MemberLost::Fail);
    assert_eq!(first, "gang preprocess");
    assert_eq!(run.state.phase(), WorkflowPhase::Running);
    assert_eq!(run.gang("preprocess"), "pod preprocess.0", "a single pod needs no Service");
    assert_eq!(run.phase("preprocess"), NodePhase::Scheduling);
    assert_eq!(run.pod("preprocess.0", running()), "");
    assert_eq!(run.phase("preprocess"), NodePhase::Running);
    assert_eq!(run.pod("preprocess.0", exited(0)), "record preprocess.0 Succeeded Completed");
    assert_eq!(run.recorded("preprocess.0"), "free preprocess.0, finish preprocess Completed");
    assert_eq!(run.phase("preprocess"), NodePhase::Running, "its success is not durable yet");
    assert_eq!(run.state.node(NodeIx(0)).cause, None, "so nothing is said of it");
    assert_eq!(run.finished("preprocess", true, Reason::Completed), "gang train");

    assert_eq!(run.gang("train"), "service train, pod train.0, pod train.1");
    run.pod("train.0", bound());
    assert_eq!(run.state.node(NodeIx(1)).gang, Some(GangPhase::Pending));
    run.pod("train.1", bound());
    assert_eq!(run.state.node(NodeIx(1)).gang, Some(GangPhase::Scheduled));
    assert_eq!(run.phase("train"), NodePhase::Scheduling, "bound is not running");
    run.pod("train.0", running());
    run.pod("train.1", exited(0));
    assert_eq!(run.phase("train"), NodePhase::Running, "one runs, one has run");
    run.pod("train.0", exited(0));
    run.recorded("train.0");
    assert_eq!(run.recorded("train.1"), "free train.1, finish train Completed");
    assert_eq!(run.finished("train", true, Reason::Completed), "gang eval, gang publish");
    run.succeed("eval");
    run.succeed("publish");
    assert_eq!(run.state.phase(), WorkflowPhase::Succeeded);
    assert_eq!(run.state.progress(), (4, 4));
}

#[test]
fn a_finished_node_never_reruns_whatever_arrives_late() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    assert_eq!(run.gang("preprocess"), "", "a Gang event from before its end");
    assert_eq!(run.recorded("preprocess.0"), "");
    let gone = run.key("preprocess.0");
    assert_eq!(run.tell(Event::PodGone(gone)), "");
    let gang = run.attempt("preprocess");
    assert_eq!(run.tell(Event::GangGone(gang)), "", "archived");
    assert_eq!(run.phase("preprocess"), NodePhase::Succeeded);
    assert_eq!(run.pod("preprocess.0", running()), "delete preprocess.0", "a late pod of an ended gang is stopped");
}

#[test]
fn a_failed_member_fails_gang_node_and_workflow_once_all_pods_are_stopped() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    run.gang("train");
    run.pod("train.0", running());
    run.pod("train.1", running());
    assert_eq!(run.pod("train.1", exited(3)), "record train.1 Failed Error, delete train.0");
    let cause = run.state.node(NodeIx(1)).cause.cloned().unwrap_or(Cause::of(Reason::Completed));
    assert_eq!(
        (cause.reason, cause.message()),
        (Reason::MemberFailed, "member 1 exited with code 3 (Error on n1)".into())
    );
    assert_eq!(run.phase("eval"), NodePhase::Skipped, "what never ran is skipped at once");
    assert_eq!(run.recorded("train.1"), "free train.1");
    assert_eq!(run.state.phase(), WorkflowPhase::Running, "train.0 may still run");
    let stopped = PodFacts { deletion_requested_at_ms: Some(2), ..exited(143) };
    assert_eq!(run.pod("train.0", stopped), "record train.0 Stopped Stopped");
    assert_eq!(run.recorded("train.0"), "free train.0, finish train MemberFailed");
    run.finished("train", false, Reason::MemberFailed);
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
    assert_eq!(run.state.cause().map(|c| c.reason), Some(Reason::MemberFailed));
    assert_eq!(run.phases(), [NodePhase::Succeeded, NodePhase::Failed, NodePhase::Skipped, NodePhase::Skipped]);
}

#[test]
fn running_siblings_are_stopped_and_released_ones_that_never_ran_are_skipped() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    run.succeed("train");
    run.gang("eval");
    run.gang("publish");
    run.pod("publish.0", pending());
    assert_eq!(run.pod("eval.0", exited(1)), "record eval.0 Failed Error, delete publish.0");
    assert_eq!(run.recorded("eval.0"), "free eval.0, finish eval MemberFailed");
    assert_eq!(run.pod("publish.0", deleting(pending())), "free publish.0, finish publish NodeFailed");
    run.finished("eval", false, Reason::MemberFailed);
    run.finished("publish", false, Reason::NodeFailed);
    assert_eq!((run.phase("eval"), run.phase("publish")), (NodePhase::Failed, NodePhase::Skipped));
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
}

#[test]
fn a_rolled_back_member_is_made_again_in_the_same_attempt() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    run.gang("train");
    run.pod("train.0", running());
    let marked = PodFacts { disruption: Some(Disruption::GangRollback), ..running() };
    assert_eq!(run.pod("train.0", marked.clone()), "", "marked is not gone");
    assert_eq!(run.pod("train.0", deleting(marked)), "");
    let killed = PodFacts { disruption: Some(Disruption::GangRollback), ..deleting(exited(137)) };
    assert_eq!(run.pod("train.0", killed), "free train.0, pod train.0r1", "no result: it did not fail");
    assert_eq!(run.state.node(NodeIx(1)).attempt, 1);
    assert_eq!(run.phase("train"), NodePhase::Scheduling);
    assert_eq!(run.pod("train.0", deleting(exited(137))), "", "the old one is nobody's member");
}

#[test]
fn members_that_vanish_again_and_again_are_made_again_after_pauses() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.gang("preprocess");
    for again in 0..3 {
        let member = format!("preprocess.0r{again}");
        assert_eq!(
            run.pod(&member, deleting(pending())),
            format!("free {}, pod preprocess.0r{}", run.member(run.key(&member)), again + 1)
        );
    }
    assert_eq!(run.pod("preprocess.0r3", deleting(pending())), "free preprocess.0r3");
    assert_eq!(run.state.node(NodeIx(0)).cause.map(|c| c.reason), Some(Reason::MembersVanish));
    assert_eq!(run.wake(), "pod preprocess.0r4");
}

#[test]
fn a_lost_member_fails_the_gang_or_is_replaced_as_the_policy_says() {
    for (policy, expected) in [
        (MemberLost::Fail, "record train.0 Failed NodeLost, delete train.1"),
        (MemberLost::Replace, "record train.0 Lost NodeLost"),
    ] {
        let (mut run, _) = Run::new(policy);
        run.succeed("preprocess");
        run.gang("train");
        run.pod("train.0", running());
        run.pod("train.1", running());
        let lost = PodFacts { disruption: Some(Disruption::NodeLost), ..deleting(running()) };
        assert_eq!(run.still_stopping("train"), "");
        assert_eq!(run.pod("train.0", lost.clone()), expected);
        assert_eq!(run.phase("train"), NodePhase::Running);
        if policy == MemberLost::Replace {
            assert_eq!(run.recorded("train.0"), "", "it may still run");
            let gone = PodFacts { phase: PodPhase::Failed, ..lost };
            assert_eq!(run.pod("train.0", gone), "free train.0, pod train.0r1");
            assert_eq!(run.phase("train"), NodePhase::Running, "phases never go back");
        }
    }
}

#[test]
fn a_refusal_keeps_the_kubelets_own_word() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.gang("preprocess");
    let refused = PodFacts { phase: PodPhase::Failed, reason: "UnexpectedAdmissionError".into(), ..bound() };
    assert_eq!(run.pod("preprocess.0", refused), "record preprocess.0 Failed KubeletRefused");
    let message = run.state.cause().map(Cause::message);
    assert_eq!(message.as_deref(), Some("member 0: KubeletRefused (UnexpectedAdmissionError) on n1"));
}

#[test]
fn an_end_that_waits_for_a_silent_machine_says_for_whom() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    run.gang("train");
    run.pod("train.0", running());
    run.pod("train.1", running());
    // Its peer notices first that the machine is gone.
    run.pod("train.1", exited(1));
    run.recorded("train.1");
    assert_eq!(run.still_stopping("train"), "0");
    run.pod("train.0", deleting(running()));
    assert_eq!(run.still_stopping("train"), "0", "told to stop is not stopped");
    assert_eq!(run.state.phase(), WorkflowPhase::Running);
    let gone = PodFacts { node_gone: true, ..deleting(running()) };
    assert_eq!(run.pod("train.0", gone), "record train.0 Stopped Stopped");
    assert_eq!(run.still_stopping("train"), "");
    assert_eq!(run.recorded("train.0"), "free train.0, finish train MemberFailed");
}

#[test]
fn an_exit_of_its_own_fails_the_gang_under_either_policy() {
    let (mut run, _) = Run::new(MemberLost::Replace);
    run.gang("preprocess");
    assert_eq!(run.pod("preprocess.0", exited(1)), "record preprocess.0 Failed Error");
    assert_eq!(run.recorded("preprocess.0"), "free preprocess.0, finish preprocess MemberFailed");
}

#[test]
fn a_member_succeeds_by_its_main_container_and_its_sidecars_are_stopped_once_that_is_recorded() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.gang("preprocess");
    let main_done = PodFacts { phase: PodPhase::Running, ..exited(0) };
    assert_eq!(run.pod("preprocess.0", main_done.clone()), "record preprocess.0 Succeeded Completed");
    assert_eq!(run.recorded("preprocess.0"), "", "the kubelet reports the pod's phase a little later");
    let sidecar = PodFacts { others_running: true, ..main_done };
    assert_eq!(run.pod("preprocess.0", sidecar.clone()), "delete preprocess.0");
    let stopped = PodFacts { phase: PodPhase::Failed, others_running: false, ..deleting(sidecar) };
    assert_eq!(run.pod("preprocess.0", stopped), "free preprocess.0, finish preprocess Completed");
}

#[test]
fn cancel_stops_what_runs_and_skips_the_rest() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    run.gang("train");
    run.pod("train.0", running());
    run.pod("train.1", running());
    assert_eq!(run.tell(Event::Cancel), "delete train.0, delete train.1");
    assert_eq!(run.tell(Event::Cancel), "", "once");
    for member in ["train.0", "train.1"] {
        let stopped = PodFacts { deletion_requested_at_ms: Some(2), ..exited(0) };
        assert_eq!(
            run.pod(member, stopped),
            format!("record {member} Stopped Stopped"),
            "a clean exit on SIGTERM is no success"
        );
        run.recorded(member);
    }
    run.finished("train", false, Reason::Canceled);
    assert_eq!(run.state.phase(), WorkflowPhase::Canceled);
    assert_eq!(run.phases(), [NodePhase::Succeeded, NodePhase::Failed, NodePhase::Skipped, NodePhase::Skipped]);
}

#[test]
fn a_cancel_that_comes_too_late_changes_nothing() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    run.succeed("train");
    run.succeed("eval");
    run.gang("publish");
    run.pod("publish.0", exited(0));
    run.tell(Event::Cancel);
    assert_eq!(run.recorded("publish.0"), "free publish.0, finish publish Completed");
    run.finished("publish", true, Reason::Completed);
    assert_eq!(run.state.phase(), WorkflowPhase::Succeeded);
}

#[test]
fn a_cancel_before_any_release_ends_at_once() {
    let observed = Observed { cancel: true, ..Observed::default() };
    let (run, first) = Run::of(diamond(MemberLost::Fail), Config::default(), observed, &Recorded::default());
    assert_eq!(first, "");
    assert_eq!(run.state.phase(), WorkflowPhase::Canceled);
    assert_eq!(run.phases(), [NodePhase::Skipped; 4]);
}

#[test]
fn a_deletion_stops_everything_and_frees_what_is_recorded() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.gang("preprocess");
    run.pod("preprocess.0", running());
    assert_eq!(run.tell(Event::Delete), "delete preprocess.0");
    run.pod("preprocess.0", deleting(exited(143)));
    assert_eq!(run.recorded("preprocess.0"), "free preprocess.0, finish preprocess Deleted");
    assert_eq!(run.finished("preprocess", false, Reason::Deleted), "", "its finalizer is still on");
    let key = run.key("preprocess.0");
    assert_eq!(run.tell(Event::PodGone(key)), "");
    assert_eq!(run.tell(Event::Delete), "", "once");
}

#[test]
fn a_hold_delays_releases_and_nothing_else() {
    let hold = Box::new(Cause::of(Reason::ClaimMissing).with_detail("nas"));
    let observed = Observed { hold: Some(hold.clone()), ..Observed::default() };
    let (mut run, first) = Run::of(diamond(MemberLost::Fail), Config::default(), observed, &Recorded::default());
    assert_eq!(first, "");
    assert_eq!(run.state.phase(), WorkflowPhase::Pending);
    assert_eq!(run.state.cause(), Some(&*hold));
    assert_eq!(run.tell(Event::Hold(None)), "gang preprocess");
    run.tell(Event::Hold(Some(hold)));
    assert_eq!(run.succeed("preprocess"), "", "train waits");
    assert_eq!(run.tell(Event::Hold(None)), "gang train");
}

#[test]
fn quota_lets_go_of_the_half_that_exists_and_tries_again() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    run.gang("train");
    let service = run.attempt("train");
    run.tell(Event::Service(service, true));
    run.pod("train.0", pending());
    assert_eq!(run.refuse("train.1", RefusalKind::Quota), "");
    let cause = run.state.node(NodeIx(1)).cause.cloned().unwrap_or(Cause::of(Reason::Completed));
    assert_eq!((cause.reason, cause.detail.as_str()), (Reason::QuotaExceeded, "says the server"));
    let began = run.now_ms;
    let mut probes = 0;
    let let_go = loop {
        match run.wake().as_str() {
            "pod train.1" => run.refuse("train.1", RefusalKind::Quota),
            "delete train.0" => break run.now_ms - began,
            other => unreachable!("{other:?}"),
        };
        probes += 1;
    };
    let hold = Config::default().quota_hold_ms;
    assert!((hold..=2 * hold + 1_000).contains(&let_go), "{let_go} ms");
    assert!(probes >= 5, "it probes while it holds: {probes}");
    assert_eq!(run.pod("train.0", deleting(pending())), "free train.0", "not made again before the pause is over");
    let let_go_at_ms = run.now_ms;
    let tried_again = (0..5).map(|_| run.wake()).find(|shown| !shown.is_empty());
    assert_eq!(tried_again.as_deref(), Some("pod train.0r1"), "one probe first");
    assert!(run.now_ms - let_go_at_ms >= hold / 2, "somebody else had time");
    assert_eq!(run.pod("train.0r1", pending()), "pod train.1", "then the rest");
    run.pod("train.1", pending());
    assert_eq!(run.state.node(NodeIx(1)).cause, None);
    assert_eq!(run.phase("train"), NodePhase::Scheduling);
}

#[test]
fn refusals_that_trying_again_does_not_change_fail_with_their_message() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.gang("preprocess");
    assert_eq!(run.refuse("preprocess.0", RefusalKind::Invalid), "finish preprocess CreateInvalid");
    run.finished("preprocess", false, Reason::CreateInvalid);
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
    let (mut run, _) = Run::new(MemberLost::Fail);
    let gang = Object::Gang(run.attempt("preprocess"));
    run.tell(Event::Refused(gang, Refusal { kind: RefusalKind::Invalid, message: "no".into() }));
    assert_eq!(run.state.phase(), WorkflowPhase::Failed, "there is no Gang to write into");
    assert_eq!(run.state.cause().map(|c| (c.reason, c.detail.as_str())), Some((Reason::CreateInvalid, "no")));
}

#[test]
fn what_is_forbidden_is_tried_again_for_a_while_and_says_why_meanwhile() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    let gang = Object::Gang(run.attempt("preprocess"));
    let refusal = Refusal { kind: RefusalKind::Forbidden, message: "no".into() };
    let (first_ms, mut tries) = (run.now_ms, 1);
    loop {
        run.tell(Event::Refused(gang, refusal.clone()));
        let seen = run.state.node(NodeIx(0)).cause.map(|c| (c.reason, c.detail.as_str()));
        assert_eq!(seen, Some((Reason::CreateForbidden, "no")));
        if run.state.phase() == WorkflowPhase::Failed {
            break;
        }
        assert_eq!(run.wake(), "gang preprocess");
        tries += 1;
    }
    let took_ms = run.now_ms - first_ms;
    let bound_ms = Config::default().forbidden_hold_ms;
    assert!((bound_ms..bound_ms + 1_000).contains(&took_ms), "{took_ms} ms");
    assert!((5..10).contains(&tries), "with growing pauses: {tries}");
}

#[test]
fn a_gang_whose_service_account_comes_late_runs() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    assert_eq!(run.gang("train"), "service train, pod train.0, pod train.1");
    run.refuse("train.0", RefusalKind::Forbidden);
    run.refuse("train.1", RefusalKind::Forbidden);
    assert_eq!(run.state.node(NodeIx(1)).cause.map(|c| c.reason), Some(Reason::CreateForbidden));
    assert_eq!(run.wake(), "pod train.0", "one probe");
    assert_eq!(run.pod("train.0", pending()), "pod train.1", "then the rest");
    // A refusal an hour later is another story.
    run.now_ms += 3_600_000;
    assert_eq!(run.refuse("train.1", RefusalKind::Forbidden), "");
    assert_eq!(run.wake(), "pod train.1");
    let service = run.attempt("train");
    run.tell(Event::Service(service, true));
    run.pod("train.1", pending());
    assert_eq!(run.state.node(NodeIx(1)).cause, None);
}

#[test]
fn a_taken_name_is_waited_for_with_growing_pauses() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    let gang = Object::Gang(run.attempt("preprocess"));
    let refusal = Refusal { kind: RefusalKind::NameTaken, message: "owned by somebody else".into() };
    let mut pauses = Vec::new();
    for _ in 0..8 {
        let before = run.now_ms;
        assert_eq!(run.tell(Event::Refused(gang, refusal.clone())), "");
        assert_eq!(run.wake(), "gang preprocess");
        pauses.push(run.now_ms - before);
    }
    assert!(pauses[7] > 10 * pauses[0], "{pauses:?}");
    assert_eq!(run.gang("preprocess"), "pod preprocess.0");
    assert_eq!(run.state.node(NodeIx(0)).cause, None);
}

#[test]
fn a_service_that_goes_away_is_made_again() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    run.gang("train");
    let key = run.attempt("train");
    assert_eq!(run.tell(Event::Service(key, true)), "");
    assert_eq!(run.tell(Event::Service(key, false)), "service train");
}

#[test]
fn a_gang_deleted_under_us_fails_its_node() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.gang("preprocess");
    run.pod("preprocess.0", running());
    let key = run.attempt("preprocess");
    assert_eq!(run.tell(Event::GangGone(key)), "delete preprocess.0");
    assert_eq!(run.pod("preprocess.0", deleting(exited(143))), "free preprocess.0", "nowhere to record");
    assert_eq!(run.phase("preprocess"), NodePhase::Failed);
    assert_eq!(run.state.cause().map(|c| c.reason), Some(Reason::GangDeleted));
    assert_eq!(run.state.phase(), WorkflowPhase::Failed);
}

#[test]
fn an_ended_workflow_expires() {
    let config = Config { ttl_ms: Some(5_000), ..Config::default() };
    let (mut run, _) = Run::of(diamond(MemberLost::Fail), config, Observed::default(), &Recorded::default());
    for id in ["preprocess", "train", "eval", "publish"] {
        run.succeed(id);
    }
    assert_eq!(run.tell(Event::Timer), "", "not yet");
    assert_eq!(run.wake(), "expire");
}

#[test]
fn a_time_to_live_may_change_before_and_after_the_end() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.tell(Event::Ttl(Some(50_000)));
    assert_eq!(run.wake_at_ms, None, "it has not ended");
    for id in ["preprocess", "train", "eval", "publish"] {
        run.succeed(id);
    }
    let end_ms = run.now_ms;
    assert_eq!(run.wake_at_ms, Some(end_ms + 50_000));
    run.tell(Event::Ttl(Some(5_000)));
    assert_eq!(run.wake_at_ms, Some(end_ms + 5_000), "sooner");
    run.tell(Event::Ttl(Some(20_000)));
    assert_eq!(run.wake(), "", "later: the earlier time is not ours any more");
    run.tell(Event::Ttl(None));
    assert_eq!(run.wake(), "", "never");
    run.tell(Event::Ttl(Some(1_000)));
    assert_eq!(run.wake(), "expire", "at once, because that time is over");
}

#[test]
fn a_rank_that_is_done_with_does_not_run_again() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    run.succeed("preprocess");
    run.gang("train");
    run.pod("train.0", exited(0));
    assert_eq!(run.pod("train.0r1", running()), "delete train.0r1");
    assert_eq!(run.state.node(NodeIx(1)).members.succeeded, 1);
}

#[test]
fn events_about_nothing_we_know_are_ignored() {
    let (mut run, _) = Run::new(MemberLost::Fail);
    let nowhere = AttemptKey { node: NodeIx(99), attempt: 1 };
    let member = MemberKey { node: NodeIx(99), attempt: 1, rank: 0, incarnation: 0 };
    for event in [
        Event::Gang(nowhere, GangFacts::default()),
        Event::GangGone(nowhere),
        Event::Service(nowhere, true),
        Event::Pod(member, running()),
        Event::PodGone(member),
        Event::Recorded(vec![member]),
    ] {
        assert_eq!(run.tell(event), "");
    }
    let surplus = MemberKey { node: NodeIx(0), attempt: 1, rank: 7, incarnation: 0 };
    assert_eq!(run.tell(Event::Pod(surplus, running())), "delete preprocess.7", "a rank that the gang has not");
}
