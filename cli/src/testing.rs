//! Builders of the objects that the tests render. Times are seconds from one fixed moment.

use std::collections::BTreeMap;

use flowforge_api::gang::{GangRole, MemberCounts, MemberOutcome, MemberResult, PlacementSummary};
use flowforge_api::names::{condition, label};
use flowforge_api::workflow::{Dependency, NodeStatus, WorkflowNode};
use flowforge_api::{Gang, GangSpec, Workflow, WorkflowSpec};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::de::DeserializeOwned;

use crate::render::tree::View;

/// So many seconds after the moment that tests count from.
pub(crate) fn at(seconds: i64) -> Timestamp {
    let start: Timestamp = "2026-11-20T08:00:00Z".parse().expect("a valid time");
    start + SignedDuration::from_secs(seconds)
}

fn time(seconds: i64) -> Option<Time> {
    Some(Time(at(seconds)))
}

/// A value of an enum by its name.
fn named<T: DeserializeOwned>(name: &str) -> T {
    serde_json::from_value(name.into()).expect("a value of the enum")
}

/// Builds a workflow.
pub(crate) struct WorkflowBuilder(Workflow);

pub(crate) fn workflow(name: &str) -> WorkflowBuilder {
    let mut workflow = Workflow::new(name, WorkflowSpec::default());
    workflow.metadata.namespace = Some("demo".into());
    workflow.status = Some(Default::default());
    WorkflowBuilder(workflow)
}

impl WorkflowBuilder {
    fn status(&mut self) -> &mut flowforge_api::WorkflowStatus {
        self.0.status.get_or_insert_default()
    }

    pub(crate) fn created(mut self, seconds: i64) -> Self {
        self.0.metadata.creation_timestamp = time(seconds);
        self
    }

    pub(crate) fn started(mut self, seconds: i64) -> Self {
        self.status().started_at = time(seconds);
        self
    }

    pub(crate) fn finished(mut self, seconds: i64) -> Self {
        self.status().finished_at = time(seconds);
        self
    }

    pub(crate) fn phase(mut self, phase: &str, progress: &str) -> Self {
        self.status().phase = Some(named(phase));
        self.status().progress = Some(progress.into());
        self
    }

    pub(crate) fn reason(mut self, reason: &str, message: &str) -> Self {
        self.status().reason = Some(reason.into());
        self.status().message = Some(message.into());
        self
    }

    /// Adds a node and its status; Running since second 10, ended at 22.
    pub(crate) fn node(mut self, id: &str, replicas: i32, after: &[&str], phase: &str) -> Self {
        let depends_on = after.iter().map(|id| Dependency::from(*id)).collect();
        self.0.spec.nodes.push(WorkflowNode { id: id.into(), replicas, depends_on, ..WorkflowNode::default() });
        let mut status = NodeStatus { id: id.into(), phase: named(phase), ..NodeStatus::default() };
        let counts = MemberCounts { desired: replicas, created: replicas, ..MemberCounts::default() };
        match phase {
            "Pending" | "Skipped" => {}
            "Scheduling" => (status.released_at, status.members) = (time(8), Some(counts)),
            "Running" => {
                (status.released_at, status.started_at) = (time(8), time(10));
                status.members = Some(MemberCounts { running: replicas, ..counts });
            }
            _ => {
                (status.released_at, status.started_at, status.finished_at) = (time(8), time(10), time(22));
                status.members = Some(MemberCounts { succeeded: replicas, ..counts });
            }
        }
        self.status().nodes.push(status);
        self
    }

    /// Changes the status of the node added last.
    pub(crate) fn with(mut self, change: impl FnOnce(&mut NodeStatus)) -> Self {
        change(self.status().nodes.last_mut().expect("a node was added"));
        self
    }

    pub(crate) fn build(self) -> Workflow {
        self.0
    }
}

/// The first attempt's gang of a node.
pub(crate) fn gang(workflow: &str, node: &str, replicas: i32) -> Gang {
    let role = GangRole { name: "worker".into(), replicas, ..GangRole::default() };
    let spec = GangSpec { min_member: replicas, roles: vec![role], ..GangSpec::default() };
    let mut gang = Gang::new(&format!("{workflow}-{node}-1"), spec);
    let labels = [(label::WORKFLOW, workflow), (label::NODE, node), (label::ATTEMPT, "1")];
    gang.metadata.namespace = Some("demo".into());
    gang.metadata.creation_timestamp = time(8);
    gang.metadata.labels = Some(labels.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect());
    gang.status = Some(Default::default());
    gang
}

/// What happened to a gang.
pub(crate) trait GangBuilder {
    fn refused(self, reason: &str, message: &str) -> Self;
    fn phase(self, phase: &str) -> Self;
    fn placed(self, bound: i32, domain: Option<&str>, nodes: &[&str]) -> Self;
    fn counts(self, running: i32, succeeded: i32, failed: i32) -> Self;
    fn result(self, rank: i32, exit_code: i32, reason: &str, node: &str) -> Self;
}

impl GangBuilder for Gang {
    fn refused(mut self, reason: &str, message: &str) -> Self {
        self.status.get_or_insert_default().conditions.push(Condition {
            type_: condition::SCHEDULED.into(),
            status: "False".into(),
            reason: reason.into(),
            message: message.into(),
            last_transition_time: Time(at(9)),
            observed_generation: None,
        });
        self
    }

    fn phase(mut self, phase: &str) -> Self {
        self.status.get_or_insert_default().phase = Some(named(phase));
        self
    }

    fn placed(mut self, bound: i32, domain: Option<&str>, nodes: &[&str]) -> Self {
        let nodes = nodes.iter().map(ToString::to_string).collect();
        self.status.get_or_insert_default().placement =
            Some(PlacementSummary { bound, domain: domain.map(Into::into), nodes });
        self
    }

    fn counts(mut self, running: i32, succeeded: i32, failed: i32) -> Self {
        let desired = self.spec.min_member;
        let counts = MemberCounts { desired, created: desired, running, succeeded, failed };
        self.status.get_or_insert_default().members = Some(counts);
        self
    }

    fn result(mut self, rank: i32, exit_code: i32, reason: &str, node: &str) -> Self {
        self.status.get_or_insert_default().results.push(MemberResult {
            rank,
            incarnation: 0,
            uid: format!("uid-{rank}"),
            outcome: if exit_code == 0 { MemberOutcome::Succeeded } else { MemberOutcome::Failed },
            exit_code: Some(exit_code),
            reason: reason.into(),
            node: Some(node.into()),
        });
        self
    }
}

/// A workflow with its gangs.
pub(crate) fn view(workflow: WorkflowBuilder, gangs: &[Gang]) -> View {
    let gangs: BTreeMap<String, Gang> =
        gangs.iter().map(|gang| (gang.metadata.name.clone().expect("named"), gang.clone())).collect();
    View { workflow: workflow.build(), gangs }
}
