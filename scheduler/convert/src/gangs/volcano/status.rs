//! The status of a Volcano PodGroup, as Volcano's scheduler keeps it.
//!
//! ```text
//!   "" | Pending ──queue open, the cluster has minResources──> Inqueue ──minMember placed──> Running ──all ended──> Completed
//!                                                                 (some run, too few are placed: Unknown)
//! ```
//! Volcano's Job makes its pods when the phase is `Inqueue`, so that without this step there would never be any. The object
//! has no status subresource: the object itself is patched, with its resourceVersion, so that what Volcano or an operator
//! wrote meanwhile is never undone. Conditions: `Unschedulable` with `NotEnoughResources` or `NotEnoughTasks`, and `Scheduled`;
//! as in Volcano the former is left as it was when the latter comes.

use super::PodGroup;
use crate::gangs::Standing;
use crate::gangs::seconds;
use crate::requests::to_resources;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use smol_str::SmolStr;

/// Volcano has the id of a scheduling session here; ours have none.
const TRANSITION: &str = "flowforge";

/// The status.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub(super) struct Status {
    phase: SmolStr,
    conditions: Vec<Condition>,
    running: u32,
    succeeded: u32,
    failed: u32,
}

#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Condition {
    #[serde(rename = "type")]
    type_: SmolStr,
    status: SmolStr,
    #[serde(rename = "transitionID")]
    transition_id: SmolStr,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_transition_time: Option<String>,
    reason: SmolStr,
    message: String,
}

impl Status {
    /// As it is written.
    pub(super) fn written(&self) -> Value {
        json!({
            "phase": self.phase, "conditions": self.conditions,
            "running": self.running, "succeeded": self.succeeded, "failed": self.failed,
        })
    }

    /// Sets a condition; the time of its transition stays as long as its status does.
    fn set(&mut self, type_: &str, reason: &str, message: String, now: String) {
        let have = self.conditions.iter().position(|have| have.type_ == type_);
        let before = have.map(|at| self.conditions.remove(at));
        if let Some(same) = before.as_ref().filter(|have| have.reason == reason && have.message == message) {
            let at = have.unwrap_or_default();
            self.conditions.insert(at, same.clone());
            return;
        }
        let since = before.filter(|have| have.status == "True").and_then(|have| have.last_transition_time);
        self.conditions.push(Condition {
            type_: type_.into(),
            status: "True".into(),
            transition_id: TRANSITION.into(),
            last_transition_time: Some(since.unwrap_or(now)),
            reason: reason.into(),
            message,
        });
    }
}

/// Why a group is not scheduled: Volcano's reason, and the text.
type Trouble = (&'static str, String);

impl PodGroup {
    /// The status as it should be.
    pub(super) fn wanted(&self, standing: &Standing<'_>) -> Status {
        let pods = standing.pods;
        let mut status =
            Status { running: pods.running, succeeded: pods.succeeded, failed: pods.failed, ..self.status.clone() };
        if status.phase == "Completed" {
            return status;
        }
        let need = standing.gang.min_member;
        let ended = pods.succeeded + pods.failed;
        let now = seconds(standing.now);
        let trouble = self.trouble(standing);
        if pods.bound + ended >= need && ended > 0 && pods.bound == 0 {
            status.phase = "Completed".into();
        } else if pods.bound + pods.succeeded >= need {
            status.phase = "Running".into();
            status.set("Scheduled", "tasks in gang are ready to be scheduled", String::new(), now);
        } else {
            let waits = trouble.is_some();
            status.phase = match status.phase.as_str() {
                _ if pods.running > 0 && waits => "Unknown".into(),
                "Inqueue" => "Inqueue".into(),
                _ if self.may_queue(standing) => "Inqueue".into(),
                _ => "Pending".into(),
            };
            if let Some((reason, why)) = trouble {
                let unplaced = pods.all.saturating_sub(pods.bound + ended);
                let message = format!("{unplaced}/{} tasks in gang unschedulable: {why}", pods.all.max(need));
                status.set("Unschedulable", reason, message, now);
            }
        }
        status
    }

    fn may_queue(&self, standing: &Standing<'_>) -> bool {
        let terms = &standing.gang.terms;
        terms.invalid.is_none() && terms.held.is_none() && self.lacking(standing).is_none()
    }

    /// Why it is not placed, where something is known.
    fn trouble(&self, standing: &Standing<'_>) -> Option<Trouble> {
        let terms = &standing.gang.terms;
        if let Some(why) = terms.invalid.as_ref().or(terms.held.as_ref()) {
            return Some(("NotEnoughResources", why.clone()));
        }
        if !matches!(self.status.phase.as_str(), "Inqueue" | "Running" | "Unknown")
            && let Some(what) = self.lacking(standing)
        {
            return Some(("NotEnoughResources", what));
        }
        let told = standing.told.filter(|told| !told.scheduled)?;
        let reason = if told.reason == "WaitingForGang" { "NotEnoughTasks" } else { "NotEnoughResources" };
        Some((reason, told.message.clone()))
    }

    /// What of `minResources` all nodes together do not have.
    fn lacking(&self, standing: &Standing<'_>) -> Option<String> {
        let asked = to_resources(&self.spec.min_resources);
        let (name, amount, has) = asked.into_iter().find_map(|(name, amount)| {
            let has = (standing.capacity)(&name);
            (amount > has).then_some((name, amount, has))
        })?;
        let unit = if name == "cpu" { "m" } else { "" };
        Some(format!("spec.minResources asks for {amount}{unit} {name}, and all nodes together have {has}{unit}"))
    }
}
