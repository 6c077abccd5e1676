//! Why a gang waits: its object where there is one, its pods' conditions otherwise (the plain, labelled form).

use std::collections::BTreeMap;

use flowforge_api::Gang;
use flowforge_api::gang::GangPhase;
use flowforge_api::names::{annotation, condition};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodCondition};
use kube::ResourceExt as _;

use super::{Explanation, Refusal};
use crate::render::duration;

const SCHEDULER_CURE: &str =
    "check that it runs: kubectl -n flowforge-system get pods -l app.kubernetes.io/name=flowforge-scheduler";
const CONTROLLER_CURE: &str =
    "check that it runs: kubectl -n flowforge-system get pods -l app.kubernetes.io/name=flowforge-dag-controller";

/// Explains a gang from its object, if it has one, and its live pods.
pub(crate) fn of_gang(namespace: &str, name: &str, gang: Option<&Gang>, pods: &[Pod], now: Timestamp) -> Explanation {
    let mut facts = Vec::new();
    let asked = asked(gang, pods);
    facts.push(members(asked, pods));
    facts.extend(gang.and_then(topology));
    let created = gang
        .and_then(|gang| gang.creation_timestamp())
        .or_else(|| pods.iter().filter_map(|pod| pod.creation_timestamp()).min_by_key(|time| time.0));
    let age = created.map_or(String::new(), |time| format!(" for {}", duration::between(time.0, now)));
    let phase = phase(gang, asked, pods);
    let waits = phase == GangPhase::Pending;
    let mut explanation = Explanation {
        kind: "gang",
        namespace: namespace.into(),
        name: name.into(),
        phase: if waits { format!("Pending{age}") } else { format!("{phase:?}") },
        facts,
        ..Explanation::default()
    };
    if waits {
        explanation.refusals = refusals(gang, pods);
    } else if let Some(gang) = gang {
        explanation.facts.extend(outcome(gang));
    }
    explanation
}

fn asked(gang: Option<&Gang>, pods: &[Pod]) -> Option<i64> {
    if let Some(gang) = gang {
        return Some(i64::from(gang.spec.min_member));
    }
    pods.iter().find_map(|pod| pod.annotations().get(annotation::GANG_SIZE)?.parse().ok())
}

fn members(asked: Option<i64>, pods: &[Pod]) -> String {
    let live: Vec<&Pod> = pods.iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    let count = |test: fn(&Pod) -> bool| live.iter().filter(|pod| test(pod)).count();
    let bound = count(is_bound);
    let gated =
        count(|pod| pod.spec.as_ref().is_some_and(|s| s.scheduling_gates.as_ref().is_some_and(|g| !g.is_empty())));
    let asked = asked.map_or("members (no size is given)".into(), |n| format!("{n} members placed together"));
    let mut text = format!("needs {asked}: {} exist, {bound} bound", live.len());
    if gated > 0 {
        text = format!("{text}, {gated} gated");
    }
    if live.len() < pods.len() {
        text = format!("{text}, {} being deleted", pods.len() - live.len());
    }
    text
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.as_ref().is_some_and(|name| !name.is_empty()))
}

fn topology(gang: &Gang) -> Option<String> {
    let mut said = Vec::new();
    if let Some(request) = &gang.spec.topology {
        said.extend(request.required.as_ref().map(|level| format!("all in one {level} (required)")));
        if !request.preferred.is_empty() {
            said.push(format!("preferably in one {}", request.preferred.join(", else one ")));
        }
        said.extend(request.segments.as_ref().map(|segments| {
            let balanced = if segments.balanced { ", balanced" } else { "" };
            format!("in segments of at most {}{balanced}, each in one {}", segments.size, segments.level)
        }));
        let spread = request.spread.as_ref();
        said.extend(spread.map(|spread| format!("over at least {} of level {}", spread.min_domains, spread.level)));
    }
    for role in &gang.spec.roles {
        let Some(topology) = &role.topology else { continue };
        said.extend(topology.required.as_ref().map(|level| format!("{} in one {level} (required)", role.name)));
        if !topology.preferred.is_empty() {
            said.push(format!("{} preferably in one {}", role.name, topology.preferred.join(", else one ")));
        }
    }
    said.extend(gang.spec.colocate.iter().map(|set| format!("{} in one {}", set.roles.join(" and "), set.level)));
    said.extend(gang.spec.separate.iter().map(|set| format!("no {} with two of {}", set.level, set.roles.join(", "))));
    (!said.is_empty()).then(|| said.join(", "))
}

fn phase(gang: Option<&Gang>, asked: Option<i64>, pods: &[Pod]) -> GangPhase {
    if let Some(gang) = gang {
        return gang.status.as_ref().and_then(|s| s.phase).unwrap_or_default();
    }
    let bound = pods.iter().filter(|pod| is_bound(pod)).count();
    let whole = asked.is_some_and(|asked| i64::try_from(bound).is_ok_and(|bound| bound >= asked));
    if whole { GangPhase::Scheduled } else { GangPhase::Pending }
}

/// The gang's own condition; else what its pods say; else who is silent.
fn refusals(gang: Option<&Gang>, pods: &[Pod]) -> Vec<Refusal> {
    let status = gang.and_then(|gang| gang.status.as_ref());
    let mut found = Vec::new();
    if let Some(status) = status
        && let Some(reason) = status.reason.as_deref().filter(|r| !r.is_empty())
    {
        found.push(Refusal::new(reason, status.message.as_deref().unwrap_or_default()));
    }
    let scheduled = status.iter().flat_map(|s| &s.conditions).find(|c| c.type_ == condition::SCHEDULED);
    match scheduled.filter(|c| c.status == "False") {
        Some(c) => found.push(Refusal::new(&c.reason, &c.message)),
        None => found.extend(of_pods(pods)),
    }
    if found.is_empty() {
        found.push(if pods.is_empty() {
            Refusal::silence("the DAG controller, which makes its pods,", CONTROLLER_CURE)
        } else {
            Refusal::silence("the scheduler", SCHEDULER_CURE)
        });
    }
    found
}

/// The distinct refusals on the unbound pods, most pods first.
fn of_pods(pods: &[Pod]) -> Vec<Refusal> {
    let mut by_text: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for condition in pods.iter().filter(|pod| !is_bound(pod)).filter_map(refusal_of) {
        let key = (condition.reason.as_deref().unwrap_or("-"), condition.message.as_deref().unwrap_or_default());
        *by_text.entry(key).or_default() += 1;
    }
    let mut found: Vec<Refusal> = by_text
        .into_iter()
        .map(|((reason, message), count)| Refusal { pods: Some(count), ..Refusal::new(reason, message) })
        .collect();
    found.sort_by_key(|refusal| std::cmp::Reverse(refusal.pods));
    found
}

/// The condition `PodScheduled=False` of a pod.
pub(super) fn refusal_of(pod: &Pod) -> Option<&PodCondition> {
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|c| c.type_ == "PodScheduled" && c.status == "False")
}

fn outcome(gang: &Gang) -> Vec<String> {
    let Some(status) = &gang.status else { return Vec::new() };
    let mut facts = Vec::new();
    if let Some(placement) = &status.placement {
        let domain = placement.domain.as_ref().map_or(String::new(), |domain| format!(" in {domain}"));
        facts.push(format!("{} bound{domain}: {}", placement.bound, placement.nodes.join(", ")));
    }
    if let Some(reason) = &status.reason {
        let message = status.message.as_deref().unwrap_or_default();
        facts.push(crate::render::style::printable(&format!("{reason}: {message}")));
    }
    facts
}
