//! May a workflow use the claims it names? Pure: claims and classes in, a verdict out.
//!
//! | Claim | Verdict |
//! |---|---|
//! | absent, or being deleted | wait, `ClaimMissing` |
//! | Pending, class binds immediately | wait, `ClaimPending` |
//! | Pending, class waits for the first consumer | go: the scheduler binds it |
//! | Lost | wait, `ClaimPending` |
//! | only ReadWriteOnce or ReadWriteOncePod, under a gang that may span hosts | `ClaimNotShared` |
//!
//! A gang of one never spans hosts, and one whose topology requires one host does not either (ReadWriteOncePod
//! allows a single pod wherever it runs).

use flowforge_api::workflow::{WorkflowNode, WorkflowSpec};
use flowforge_dag_controller_core::{Cause, Reason};
use std::collections::BTreeMap;

/// What is known about a PersistentVolumeClaim.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct ClaimFacts {
    /// `status.phase`.
    pub phase: String,
    /// `spec.accessModes`.
    pub access_modes: Vec<String>,
    /// `spec.storageClassName`.
    pub class: Option<String>,
    /// It has a deletionTimestamp.
    pub deleting: bool,
}

/// Names of StorageClasses; the value says whether volumes wait for their first consumer.
pub type Classes = BTreeMap<String, bool>;

const HOST_LEVEL: &str = "host";

/// Why the workflow must not start, if it must not. The first reason in the order of `spec.storage` counts, a refusal
/// before a wait.
#[must_use]
pub fn judge<'a>(
    spec: &WorkflowSpec,
    claim: impl Fn(&str) -> Option<&'a ClaimFacts>,
    classes: &Classes,
) -> Option<Cause> {
    let facts: Vec<(&str, Option<&ClaimFacts>)> =
        spec.storage.iter().map(|s| (s.claim_ref.as_str(), claim(&s.claim_ref))).collect();
    let refused = facts.iter().find_map(|(name, facts)| facts.and_then(|f| refusal(spec, name, f)));
    refused.or_else(|| facts.iter().find_map(|(name, facts)| waits(name, *facts, classes)))
}

fn refusal(spec: &WorkflowSpec, name: &str, claim: &ClaimFacts) -> Option<Cause> {
    let has = |mode: &str| claim.access_modes.iter().any(|m| m == mode);
    if claim.access_modes.is_empty() || has("ReadWriteMany") || has("ReadOnlyMany") {
        return None;
    }
    let one_pod = !has("ReadWriteOnce");
    let node = spec.nodes.iter().find(|n| if one_pod { n.members() > 1 } else { may_span_hosts(n) })?;
    let fix = if one_pod { "or set replicas: 1" } else { "or set replicas: 1, or topology.required: host" };
    let detail = format!(
        "claim {name:?} is {}, but node {:?} has {} pods that cannot all mount it: use a ReadWriteMany claim, {fix}",
        claim.access_modes.join(", "),
        node.id,
        node.members(),
    );
    Some(Cause::of(Reason::ClaimNotShared).with_detail(detail))
}

fn may_span_hosts(node: &WorkflowNode) -> bool {
    let required = node.placement().and_then(|t| t.required.as_deref());
    node.members() > 1 && required != Some(HOST_LEVEL)
}

fn waits(name: &str, claim: Option<&ClaimFacts>, classes: &Classes) -> Option<Cause> {
    let Some(claim) = claim.filter(|c| !c.deleting) else {
        let detail = format!("PersistentVolumeClaim {name:?} does not exist: create it and the workflow goes on");
        return Some(Cause::of(Reason::ClaimMissing).with_detail(detail));
    };
    let waits_for_consumer = claim.class.as_ref().and_then(|c| classes.get(c)).copied().unwrap_or(false);
    if claim.phase == "Bound" || (claim.phase == "Pending" && waits_for_consumer) {
        return None;
    }
    let phase = if claim.phase.is_empty() { "Pending" } else { &claim.phase };
    let detail = format!("PersistentVolumeClaim {name:?} is {phase}: the workflow goes on when it is bound");
    Some(Cause::of(Reason::ClaimPending).with_detail(detail))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowforge_api::gang::TopologyRequest;
    use flowforge_api::workflow::Storage;

    fn spec(replicas: i32, required: Option<&str>) -> WorkflowSpec {
        let topology = required.map(|r| TopologyRequest { required: Some(r.into()), ..TopologyRequest::default() });
        WorkflowSpec {
            storage: vec![Storage { claim_ref: "nas".into(), mount_path: "/mnt".into(), ..Storage::default() }],
            nodes: vec![WorkflowNode { id: "train".into(), replicas, topology, ..WorkflowNode::default() }],
            ..WorkflowSpec::default()
        }
    }

    fn claim(phase: &str, modes: &[&str]) -> ClaimFacts {
        ClaimFacts {
            phase: phase.into(),
            access_modes: modes.iter().map(|m| (*m).to_owned()).collect(),
            class: Some("fast".into()),
            deleting: false,
        }
    }

    fn check(spec: &WorkflowSpec, claim: Option<&ClaimFacts>, waits: bool, expected: Option<Reason>) {
        let classes = Classes::from([("fast".to_owned(), waits)]);
        let cause = judge(spec, |name| claim.filter(|_| name == "nas"), &classes);
        assert_eq!(cause.as_ref().map(|c| c.reason), expected, "{claim:?}");
        assert!(cause.is_none_or(|c| c.detail.contains("nas")));
    }

    #[test]
    fn a_missing_or_dying_claim_is_waited_for() {
        check(&spec(1, None), None, false, Some(Reason::ClaimMissing));
        let dying = ClaimFacts { deleting: true, ..claim("Bound", &["ReadWriteMany"]) };
        check(&spec(1, None), Some(&dying), false, Some(Reason::ClaimMissing));
    }

    #[test]
    fn a_pending_claim_is_waited_for_unless_it_waits_for_us() {
        let pending = claim("Pending", &["ReadWriteMany"]);
        check(&spec(1, None), Some(&pending), false, Some(Reason::ClaimPending));
        check(&spec(1, None), Some(&pending), true, None);
        check(&spec(1, None), Some(&claim("Lost", &["ReadWriteMany"])), true, Some(Reason::ClaimPending));
        check(&spec(1, None), Some(&claim("Bound", &["ReadWriteMany"])), false, None);
    }

    #[test]
    fn a_claim_for_one_host_is_refused_under_a_gang_that_may_span_hosts() {
        let once = claim("Bound", &["ReadWriteOnce"]);
        check(&spec(4, None), Some(&once), false, Some(Reason::ClaimNotShared));
        check(&spec(4, Some("rack")), Some(&once), false, Some(Reason::ClaimNotShared));
        check(&spec(4, Some("host")), Some(&once), false, None);
        check(&spec(1, None), Some(&once), false, None);
        check(&spec(4, None), Some(&claim("Bound", &["ReadWriteOnce", "ReadWriteMany"])), false, None);
        // The refusal comes before the wait: waiting would not cure it.
        check(&spec(4, None), Some(&claim("Pending", &["ReadWriteOnce"])), false, Some(Reason::ClaimNotShared));
    }

    #[test]
    fn a_claim_for_one_pod_is_refused_under_any_gang_of_several() {
        let one_pod = claim("Bound", &["ReadWriteOncePod"]);
        check(&spec(2, Some("host")), Some(&one_pod), false, Some(Reason::ClaimNotShared));
        check(&spec(1, None), Some(&one_pod), false, None);
    }
}
