//! The scheduler's refusals, taken apart: how many nodes fail for which reason, and what would cure it.
//!
//! The text is kube-scheduler's: `0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 node(s) were unschedulable.`,
//! for a gang with `needs 4 members placed together, 3 fit: ` before it. What cannot be taken apart is shown as it is.

use serde::Serialize;

/// Nodes that fail for one reason.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeReason {
    pub(crate) nodes: u32,
    pub(crate) reason: String,
    pub(crate) cure: String,
}

/// What cures a reason that the scheduler gives for a node; the longest matching beginning counts.
const NODE_CURES: &[(&str, &str)] = &[
    ("Too many pods", "end pods there, or raise the kubelet's pod limit (maxPods)"),
    ("node(s) had untolerated taint", "add a toleration for the taint, or remove it: kubectl taint nodes NODE KEY-"),
    ("node(s) didn't match Pod's node affinity", "relax nodeSelector or affinity, or label more nodes"),
    ("node(s) were unschedulable", "make them schedulable again: kubectl uncordon NODE"),
    ("node(s) didn't have free ports", "drop hostPort, or end the pods that hold the port"),
    ("node(s) didn't match the requested node name", "drop spec.nodeName, or name a node that exists"),
    ("node(s) didn't satisfy", "relax the constraint, or add nodes that satisfy it"),
    ("node(s) didn't match", "relax the constraint, or add nodes that match it"),
];

/// What cures a reason of a pod's or gang's condition.
const CONDITION_CURES: &[(&str, &str)] = &[
    ("SchedulingGated", "whoever put the scheduling gates on the pod must remove them"),
    ("WaitingForGang", "the rest of the gang's members must be created; see the members above"),
    ("IncompleteGang", "the rest of the gang's members must be created; see the members above"),
    (
        "SearchLimit",
        "nothing: the search gave up at its limit and is tried again; a narrower topology or selector helps it",
    ),
    ("SchedulerError", "nothing here: it is tried again; the scheduler's log has the cause"),
    ("QuotaExceeded", "free some of the namespace's quota, or raise it: kubectl describe quota"),
    ("ClaimMissing", "create the PersistentVolumeClaim"),
    ("ClaimPending", "bind the PersistentVolumeClaim: kubectl describe pvc"),
    ("ClaimNotShared", "use a ReadWriteMany claim, or one replica"),
    ("NameTaken", "delete the object that holds the name, or submit under another name"),
    ("CreateForbidden", "change what the message names; the cluster's policy refuses the pods as they are"),
    ("CreateInvalid", "correct the node's pod fields as the message says"),
    ("InvalidSpec", "correct the fields as the message says and submit a new workflow"),
];

/// What would cure a node's reason.
pub(crate) fn cure_of_node(reason: &str) -> String {
    if let Some(resource) = reason.strip_prefix("Insufficient ") {
        return format!("free {resource} there, add nodes that have it, or ask for less");
    }
    lookup(NODE_CURES, reason).unwrap_or("see the message; the scheduler tries again when the cluster changes").into()
}

/// What would cure a condition's reason, where it says more than its message.
pub(crate) fn cure_of_condition(reason: &str) -> Option<&'static str> {
    lookup(CONDITION_CURES, reason)
}

fn lookup(cures: &[(&'static str, &'static str)], reason: &str) -> Option<&'static str> {
    cures
        .iter()
        .filter(|(start, _)| reason.starts_with(start))
        .max_by_key(|(start, _)| start.len())
        .map(|(_, cure)| *cure)
}

/// The nodes by reason, most nodes first; empty where the message has no such part.
pub(crate) fn nodes(message: &str) -> Vec<NodeReason> {
    let mut found: Vec<NodeReason> = list_part(message)
        .map(|list| split_reasons(list).into_iter().filter_map(one_reason).collect())
        .unwrap_or_default();
    found.sort_by(|a, b| b.nodes.cmp(&a.nodes).then_with(|| a.reason.cmp(&b.reason)));
    found
}

/// What follows `… nodes are available…: `, up to the end of the sentence.
pub(crate) fn list_part(message: &str) -> Option<&str> {
    let (_, after) = message.split_once("nodes are available")?;
    let list = after.split_once(": ").map(|(_, list)| list)?;
    // A reason may hold dots (`nvidia.com/gpu`), so that only a dot before a space or the end closes the sentence.
    let end = list.find(". ").unwrap_or_else(|| list.strip_suffix('.').map_or(list.len(), str::len));
    Some(&list[..end])
}

/// Splits at commas that a number follows: a reason may hold commas itself.
fn split_reasons(list: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    for (i, _) in list.match_indices(", ") {
        if list[i + 2..].starts_with(|c: char| c.is_ascii_digit()) {
            parts.push(&list[start..i]);
            start = i + 2;
        }
    }
    parts.push(&list[start..]);
    parts
}

fn one_reason(part: &str) -> Option<NodeReason> {
    let (count, reason) = part.trim().split_once(' ')?;
    let nodes = count.parse().ok()?;
    Some(NodeReason { nodes, reason: reason.to_owned(), cure: cure_of_node(reason) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(message: &str, expected: &Expect) {
        let lines: String =
            nodes(message).iter().map(|n| format!("{} | {} | {}\n", n.nodes, n.reason, n.cure)).collect();
        expected.assert_eq(&lines);
    }

    #[test]
    fn a_fit_error_is_taken_apart_most_nodes_first() {
        check(
            "0/8 nodes are available: 1 node(s) had untolerated taint(s), 2 node(s) were unschedulable, 5 Insufficient nvidia.com/gpu. preemption: 0/8 nodes are available: 8 Preemption is not helpful for scheduling.",
            &expect![[r#"
                5 | Insufficient nvidia.com/gpu | free nvidia.com/gpu there, add nodes that have it, or ask for less
                2 | node(s) were unschedulable | make them schedulable again: kubectl uncordon NODE
                1 | node(s) had untolerated taint(s) | add a toleration for the taint, or remove it: kubectl taint nodes NODE KEY-
            "#]],
        );
    }

    #[test]
    fn a_gangs_message_is_taken_apart_as_well() {
        check(
            "gang demo/train needs 4 members placed together, 3 fit: 0/32 nodes are available for member rank 3: 28 Insufficient nvidia.com/gpu, 4 node(s) didn't match Pod's node affinity/selector.",
            &expect![[r#"
                28 | Insufficient nvidia.com/gpu | free nvidia.com/gpu there, add nodes that have it, or ask for less
                4 | node(s) didn't match Pod's node affinity/selector | relax nodeSelector or affinity, or label more nodes
            "#]],
        );
    }

    #[test]
    fn other_texts_have_no_such_part() {
        check("2 of 4 members exist", &expect![""]);
        check("no nodes available to schedule pods", &expect![""]);
        check("0/0 nodes are available", &expect![""]);
        check("", &expect![""]);
    }

    #[test]
    fn a_reason_may_hold_commas_and_numbers() {
        check(
            "0/3 nodes are available: 3 weird, but 2 true. ",
            &expect![[r#"
            3 | weird, but 2 true | see the message; the scheduler tries again when the cluster changes
        "#]],
        );
    }

    #[test]
    fn an_unknown_reason_still_has_an_answer() {
        assert!(cure_of_node("something new").contains("tries again"));
        assert_eq!(cure_of_condition("SomethingNew"), None);
    }
}
