//! What a Gang's status records: the end of every member, packed, and the gang's own phase.
//!
//! The ledger is the durable half of an attempt: a result that stands here is never forgotten, whatever happens to the
//! pod. Ranks are packed as sets; details are kept for the first members that did not end well.

use flowforge_api::gang::{Gang, GangPhase, GangStatus, MemberCounts, MemberOutcome, MemberResult};
use flowforge_api::names::condition;
use flowforge_dag_controller_core::command::{MemberEnd, MemberOutcome as Outcome};
use flowforge_dag_controller_core::engine::RecordedMember;
use flowforge_dag_controller_core::ranks::{pack, unpack};
use flowforge_dag_controller_core::{Counts, GangEnd, GangPhase as Phase, NodeView};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Map, Value};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

use crate::convert::time;

const MAX_RESULTS: usize = 64;
const COMPLETED: &str = "Completed";

/// The record of one attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Ledger {
    succeeded: BTreeSet<u32>,
    failed: BTreeSet<u32>,
    stopped: BTreeSet<u32>,
    /// The last incarnation that was lost, by rank.
    lost: BTreeMap<u32, u32>,
    results: Vec<MemberResult>,
    /// What members said of the node's outputs, by rank.
    said: BTreeMap<u32, SmolStr>,
    /// The outputs of the node, once it has ended well.
    outputs: Option<Value>,
}

impl Ledger {
    /// The ledger that a Gang's status holds.
    #[must_use]
    pub fn read(gang: &Gang) -> Self {
        let replicas = replicas(gang);
        let Some(status) = &gang.status else { return Self::default() };
        let ranks = |text: &Option<String>| text.as_deref().map(|t| unpack(t, replicas)).unwrap_or_default();
        let mut lost = BTreeMap::new();
        let mut enter = |rank: u32, incarnation: u32| note_lost(&mut lost, rank, incarnation);
        for (incarnation, packed) in &status.lost_ranks {
            let Ok(incarnation) = incarnation.parse() else { continue };
            unpack(packed, replicas).into_iter().for_each(|rank| enter(rank, incarnation));
        }
        for result in status.results.iter().filter(|r| r.outcome == MemberOutcome::Lost) {
            enter(u32::try_from(result.rank).unwrap_or(0), u32::try_from(result.incarnation).unwrap_or(0));
        }
        Self {
            lost,
            succeeded: ranks(&status.succeeded_ranks),
            failed: ranks(&status.failed_ranks),
            stopped: ranks(&status.stopped_ranks),
            results: status.results.clone(),
            said: status.said.iter().filter_map(|(rank, text)| Some((rank.parse().ok()?, text.into()))).collect(),
            outputs: status.outputs.clone(),
        }
    }

    /// The outputs of the node, once it has ended well.
    #[must_use]
    pub fn outputs(&self) -> Option<Map<String, Value>> {
        self.outputs.as_ref().and_then(Value::as_object).cloned()
    }

    /// Takes note of the outputs of a node that ends well, as JSON.
    pub fn conclude(&mut self, outputs: &str) {
        if !outputs.is_empty() {
            self.outputs = serde_json::from_str(outputs).ok();
            self.said.clear();
        }
    }

    /// Enters the end of a member.
    pub fn enter(&mut self, rank: u32, incarnation: u32, uid: &str, end: &MemberEnd) {
        if !end.said.is_empty() {
            self.said.insert(rank, end.said.clone());
        }
        match end.outcome {
            Outcome::Succeeded => drop(self.succeeded.insert(rank)),
            Outcome::Failed => drop(self.failed.insert(rank)),
            Outcome::Stopped => drop(self.stopped.insert(rank)),
            Outcome::Lost => note_lost(&mut self.lost, rank, incarnation),
        }
        let known = |r: &MemberResult| r.rank == to_i32(rank) && r.incarnation == to_i32(incarnation);
        if end.outcome == Outcome::Succeeded || self.results.iter().any(known) || !self.make_room(end.outcome) {
            return;
        }
        self.results.push(MemberResult {
            rank: to_i32(rank),
            incarnation: to_i32(incarnation),
            uid: uid.to_owned(),
            outcome: match end.outcome {
                Outcome::Succeeded => MemberOutcome::Succeeded,
                Outcome::Failed => MemberOutcome::Failed,
                Outcome::Lost => MemberOutcome::Lost,
                Outcome::Stopped => MemberOutcome::Stopped,
            },
            exit_code: end.exit_code,
            reason: end.reason.to_string(),
            node: (!end.node.is_empty()).then(|| end.node.to_string()),
        });
    }

    /// Whether there is room for details of one more member. A failure takes the place of what is no verdict on the gang:
    /// its exit code and node are what a person looks for.
    fn make_room(&mut self, outcome: Outcome) -> bool {
        if self.results.len() < MAX_RESULTS {
            return true;
        }
        let lesser = self.results.iter().rposition(|r| r.outcome != MemberOutcome::Failed);
        match lesser.filter(|_| outcome == Outcome::Failed) {
            Some(at) => {
                self.results.remove(at);
                true
            }
            None => false,
        }
    }

    /// The members as the core wants them back.
    #[must_use]
    pub fn recorded(&self) -> Vec<RecordedMember> {
        let sets = [
            (&self.succeeded, Outcome::Succeeded, COMPLETED),
            (&self.failed, Outcome::Failed, "Error"),
            (&self.stopped, Outcome::Stopped, "Stopped"),
        ];
        let mut members = Vec::new();
        for (ranks, outcome, reason) in sets {
            for &rank in ranks {
                let detail = self.results.iter().find(|r| r.rank == to_i32(rank) && outcome_of(r) == outcome);
                let said = self.said.get(&rank).cloned().unwrap_or_default();
                members.push(detail.map_or_else(
                    || RecordedMember {
                        rank,
                        incarnation: None,
                        end: MemberEnd {
                            outcome,
                            exit_code: (outcome == Outcome::Succeeded).then_some(0),
                            reason: reason.into(),
                            node: "".into(),
                            said,
                        },
                    },
                    recorded,
                ));
            }
        }
        members.extend(self.lost.iter().map(|(&rank, &incarnation)| {
            let same = |r: &&MemberResult| r.rank == to_i32(rank) && r.incarnation == to_i32(incarnation);
            let detail = self.results.iter().filter(|r| r.outcome == MemberOutcome::Lost).find(same);
            detail.map_or_else(|| of_lost(rank, incarnation), recorded)
        }));
        members
    }

    /// Our part of the Gang's status. With `end` it is the last.
    #[must_use]
    pub fn status(&self, view: &GangView, end: Option<&GangEnd>, generation: i64) -> GangStatus {
        let packed = |ranks: &BTreeSet<u32>| (!ranks.is_empty()).then(|| pack(ranks));
        let mut lost: BTreeMap<u32, BTreeSet<u32>> = BTreeMap::new();
        for (&rank, &incarnation) in &self.lost {
            lost.entry(incarnation).or_default().insert(rank);
        }
        let mut status = GangStatus {
            phase: Some(view.phase),
            reason: view.reason.clone(),
            message: view.message.clone().filter(|m| !m.is_empty()),
            members: Some(counts(&view.counts)),
            succeeded_ranks: packed(&self.succeeded),
            failed_ranks: packed(&self.failed),
            stopped_ranks: packed(&self.stopped),
            lost_ranks: lost.into_iter().map(|(incarnation, ranks)| (incarnation.to_string(), pack(&ranks))).collect(),
            results: self.results.clone(),
            said: self.said.iter().map(|(rank, text)| (rank.to_string(), text.to_string())).collect(),
            outputs: self.outputs.clone(),
            scheduled_at: view.scheduled_at_ms.and_then(time),
            started_at: view.started_at_ms.and_then(time),
            conditions: view.degraded(generation),
            ..GangStatus::default()
        };
        if let Some(end) = end {
            let message = end.cause.message();
            status.phase = Some(if end.succeeded { GangPhase::Succeeded } else { GangPhase::Failed });
            status.reason = Some(end.cause.reason.as_str().to_owned());
            status.message = (!message.is_empty()).then_some(message.clone());
            status.scheduled_at = end.scheduled_at_ms.and_then(time);
            status.started_at = end.started_at_ms.and_then(time);
            status.finished_at = time(end.finished_at_ms);
            status.conditions = conditions(end, &message, generation);
        }
        status
    }
}

/// What the core shows of an open gang.
pub struct GangView {
    phase: GangPhase,
    reason: Option<String>,
    message: Option<String>,
    counts: Counts,
    degraded_since_ms: Option<u64>,
    scheduled_at_ms: Option<u64>,
    started_at_ms: Option<u64>,
}

impl GangView {
    /// The condition that is there while the gang runs with fewer members than it is to have.
    fn degraded(&self, generation: i64) -> Vec<Condition> {
        let Some(at) = self.degraded_since_ms.and_then(time) else { return Vec::new() };
        let Counts { desired, running, succeeded, .. } = self.counts;
        vec![Condition {
            type_: condition::DEGRADED.to_owned(),
            status: "True".to_owned(),
            reason: "MembersMissing".to_owned(),
            message: format!("{} of {desired} members run or have succeeded", running + succeeded),
            last_transition_time: at,
            observed_generation: Some(generation),
        }]
    }
}

impl From<NodeView<'_>> for GangView {
    fn from(node: NodeView<'_>) -> Self {
        Self {
            phase: gang_phase(node.gang.unwrap_or_default()),
            reason: node.cause.map(|c| c.reason.as_str().to_owned()),
            message: node.cause.map(flowforge_dag_controller_core::Cause::message),
            counts: node.members,
            degraded_since_ms: node.degraded_since_ms,
            scheduled_at_ms: node.scheduled_at_ms,
            started_at_ms: node.started_at_ms,
        }
    }
}

/// The phase as the API spells it.
#[must_use]
pub fn gang_phase(phase: Phase) -> GangPhase {
    match phase {
        Phase::Pending => GangPhase::Pending,
        Phase::Scheduled => GangPhase::Scheduled,
        Phase::Running => GangPhase::Running,
        Phase::Succeeded => GangPhase::Succeeded,
        Phase::Failed => GangPhase::Failed,
    }
}

/// The phase as the core spells it.
#[must_use]
pub fn core_phase(phase: GangPhase) -> Phase {
    match phase {
        GangPhase::Pending => Phase::Pending,
        GangPhase::Scheduled => Phase::Scheduled,
        GangPhase::Running => Phase::Running,
        GangPhase::Succeeded => Phase::Succeeded,
        GangPhase::Failed => Phase::Failed,
    }
}

/// Member counts as the API spells them.
#[must_use]
pub fn counts(counts: &Counts) -> MemberCounts {
    MemberCounts {
        desired: to_i32(counts.desired),
        created: to_i32(counts.created),
        running: to_i32(counts.running),
        succeeded: to_i32(counts.succeeded),
        failed: to_i32(counts.failed),
    }
}

fn conditions(end: &GangEnd, message: &str, generation: i64) -> Vec<Condition> {
    let Some(at) = time(end.finished_at_ms) else { return Vec::new() };
    let condition = |kind: &str, holds: bool| Condition {
        type_: kind.to_owned(),
        status: if holds { "True" } else { "False" }.to_owned(),
        reason: end.cause.reason.as_str().to_owned(),
        message: message.to_owned(),
        last_transition_time: at.clone(),
        observed_generation: Some(generation),
    };
    vec![condition(condition::SUCCEEDED, end.succeeded), condition(condition::FAILED, !end.succeeded)]
}

fn note_lost(lost: &mut BTreeMap<u32, u32>, rank: u32, incarnation: u32) {
    let last = lost.entry(rank).or_insert(incarnation);
    *last = incarnation.max(*last);
}

/// A loss without details: there was no room for them.
fn of_lost(rank: u32, incarnation: u32) -> RecordedMember {
    let reason = flowforge_dag_controller_core::Reason::MemberLost.as_str().into();
    let end = MemberEnd { outcome: Outcome::Lost, exit_code: None, reason, node: "".into(), said: "".into() };
    RecordedMember { rank, incarnation: Some(incarnation), end }
}

fn recorded(result: &MemberResult) -> RecordedMember {
    RecordedMember {
        rank: u32::try_from(result.rank).unwrap_or(0),
        incarnation: u32::try_from(result.incarnation).ok(),
        end: MemberEnd {
            outcome: outcome_of(result),
            exit_code: result.exit_code,
            reason: result.reason.as_str().into(),
            node: result.node.as_deref().unwrap_or_default().into(),
            said: "".into(),
        },
    }
}

fn outcome_of(result: &MemberResult) -> Outcome {
    match result.outcome {
        MemberOutcome::Succeeded => Outcome::Succeeded,
        MemberOutcome::Failed => Outcome::Failed,
        MemberOutcome::Lost => Outcome::Lost,
        MemberOutcome::Stopped => Outcome::Stopped,
    }
}

fn replicas(gang: &Gang) -> u32 {
    let sum = gang.spec.roles.iter().fold(0i32, |n, r| n.saturating_add(r.replicas));
    u32::try_from(sum).unwrap_or(0)
}

fn to_i32(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowforge_api::gang::{GangRole, GangSpec};
    use flowforge_dag_controller_core::{Cause, Reason};

    fn end(outcome: Outcome, code: i32) -> MemberEnd {
        MemberEnd { outcome, exit_code: Some(code), reason: "Error".into(), node: "n1".into(), said: "".into() }
    }

    fn gang(replicas: i32, status: GangStatus) -> Gang {
        let roles = vec![GangRole { name: "worker".into(), replicas, ..GangRole::default() }];
        Gang {
            spec: GangSpec { min_member: replicas, roles, ..GangSpec::default() },
            status: Some(status),
            ..Gang::default()
        }
    }

    fn view(phase: GangPhase) -> GangView {
        GangView {
            phase,
            reason: None,
            message: None,
            counts: Counts::default(),
            degraded_since_ms: None,
            scheduled_at_ms: Some(1_000),
            started_at_ms: None,
        }
    }

    #[test]
    fn what_was_entered_is_read_back_from_the_status() {
        let mut ledger = Ledger::default();
        ledger.enter(0, 0, "u0", &MemberEnd { said: r#"{"n":1}"#.into(), ..end(Outcome::Succeeded, 0) });
        ledger.enter(1, 2, "u1", &end(Outcome::Failed, 3));
        ledger.enter(2, 0, "u2", &end(Outcome::Stopped, 137));
        ledger.enter(3, 0, "u3", &end(Outcome::Lost, 1));
        let back = Ledger::read(&gang(4, ledger.status(&view(GangPhase::Running), None, 1)));
        assert_eq!(back, ledger);
        assert_eq!(back.recorded()[0].end.said, r#"{"n":1}"#);
        ledger.conclude(r#"{"n":1}"#);
        let status = ledger.status(&view(GangPhase::Running), None, 1);
        assert_eq!((status.said.len(), status.outputs), (0, Some(serde_json::json!({"n": 1}))));
        let mut members: Vec<(u32, Option<u32>, Outcome, Option<i32>)> =
            back.recorded().into_iter().map(|m| (m.rank, m.incarnation, m.end.outcome, m.end.exit_code)).collect();
        members.sort();
        assert_eq!(
            members,
            [
                (0, None, Outcome::Succeeded, Some(0)),
                (1, Some(2), Outcome::Failed, Some(3)),
                (2, Some(0), Outcome::Stopped, Some(137)),
                (3, Some(0), Outcome::Lost, Some(1)),
            ]
        );
    }

    #[test]
    fn the_end_of_a_gang_sets_conditions_to_wait_for() {
        let cause = Cause { reason: Reason::MemberFailed, rank: Some(1), exit_code: Some(3), detail: "".into() };
        let end = GangEnd {
            succeeded: false,
            cause,
            scheduled_at_ms: None,
            started_at_ms: None,
            finished_at_ms: 5_000,
            outputs: "".into(),
        };
        let status = Ledger::default().status(&view(GangPhase::Running), Some(&end), 1);
        assert_eq!(status.phase, Some(GangPhase::Failed));
        assert_eq!(status.reason.as_deref(), Some("MemberFailed"));
        let holds = |kind: &str| status.conditions.iter().find(|c| c.type_ == kind).map(|c| c.status.as_str());
        assert_eq!((holds("Failed"), holds("Succeeded")), (Some("True"), Some("False")));
        assert!(!crate::convert::gang_end(&gang(2, status)).unwrap().succeeded);
    }

    #[test]
    fn a_gang_that_lacks_members_is_degraded_until_it_ends() {
        let counts = Counts { desired: 4, running: 2, succeeded: 1, ..Counts::default() };
        let view = GangView { counts, degraded_since_ms: Some(7_000), ..view(GangPhase::Running) };
        let status = Ledger::default().status(&view, None, 3);
        let [degraded] = &status.conditions[..] else { panic!("{:?}", status.conditions) };
        assert_eq!((degraded.type_.as_str(), degraded.status.as_str()), ("Degraded", "True"));
        assert_eq!(degraded.message, "3 of 4 members run or have succeeded");
        let mut ledger = Ledger::default();
        ledger.enter(1, 0, "u1", &end(Outcome::Failed, 7));
        ledger.enter(3, 0, "u3", &end(Outcome::Failed, 9));
        let cause = Cause { reason: Reason::MemberFailed, rank: Some(3), exit_code: Some(9), detail: "".into() };
        let over = GangEnd {
            succeeded: false,
            cause,
            scheduled_at_ms: None,
            started_at_ms: None,
            finished_at_ms: 9_000,
            outputs: "".into(),
        };
        let status = ledger.status(&view, Some(&over), 3);
        assert!(status.conditions.iter().all(|c| c.type_ != "Degraded"));
        // Who was left out before is not taken for who failed the gang.
        assert_eq!(crate::convert::gang_end(&gang(4, status)).unwrap().cause.exit_code, Some(9));
    }

    #[test]
    fn every_loss_is_remembered_and_no_failure_is_crowded_out() {
        let mut ledger = Ledger::default();
        for rank in 0..100 {
            ledger.enter(rank, 0, "u", &end(Outcome::Lost, 1));
        }
        ledger.enter(7, 1, "u", &end(Outcome::Lost, 1));
        ledger.enter(8, 1, "u", &end(Outcome::Failed, 3));
        let status = ledger.status(&view(GangPhase::Running), None, 1);
        assert_eq!(status.results.len(), MAX_RESULTS);
        let lost: Vec<(&str, &str)> = status.lost_ranks.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
        assert_eq!(lost, [("0", "0-6,8-99"), ("1", "7")]);
        let back = Ledger::read(&gang(100, status));
        assert_eq!(back, ledger);
        let find = |rank, outcome| {
            back.recorded().into_iter().find(|m| m.rank == rank && m.end.outcome == outcome).map(|m| m.incarnation)
        };
        assert_eq!(find(99, Outcome::Lost), Some(Some(0)), "also where there was no room for its details");
        assert_eq!(find(7, Outcome::Lost), Some(Some(1)), "the newest incarnation");
        let failed = back.recorded().into_iter().find(|m| m.end.outcome == Outcome::Failed).unwrap();
        assert_eq!((failed.rank, failed.end.exit_code, failed.end.node.as_str()), (8, Some(3), "n1"));
        // More failures than there is room for: all of them count, the first have details.
        for rank in 0..100 {
            ledger.enter(rank, 2, "u", &end(Outcome::Failed, 3));
        }
        let status = ledger.status(&view(GangPhase::Running), None, 1);
        assert_eq!((status.results.len(), status.failed_ranks.as_deref()), (MAX_RESULTS, Some("0-99")));
        assert!(status.results.iter().all(|r| r.outcome == MemberOutcome::Failed));
    }

    #[test]
    fn the_status_of_the_largest_gang_stays_far_below_the_object_limit() {
        let mut ledger = Ledger::default();
        for rank in 0..8192 {
            let outcome = if rank % 2 == 0 { Outcome::Failed } else { Outcome::Stopped };
            ledger.enter(rank, rank % 7, "0123456789abcdef0123456789abcdef0123", &end(Outcome::Lost, 1));
            ledger.enter(rank, 8, "0123456789abcdef0123456789abcdef0123", &end(outcome, 1));
        }
        let bytes = serde_json::to_vec(&ledger.status(&view(GangPhase::Running), None, 1)).unwrap().len();
        assert!(bytes < 128 * 1024, "{bytes} bytes");
    }
}
