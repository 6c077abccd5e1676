//! The scheduler's refusals, taken apart: how many nodes fail for which reason, and what would cure it.
//!
//! The text is kube-scheduler's: `0/5 nodes are available: 3 Insufficient nvidia.com/gpu, 2 node(s) were unschedulable.`,
//! for a gang with `needs 4 members placed together, 3 fit; member rank 3: ` before it. What cannot be taken apart is shown
//! as it is.

use serde::Serialize;

/// Nodes that fail for one reason.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NodeReason {
    pub(crate) nodes: u32,
    pub(crate) reason: String,
    pub(crate) cure: String,
}

/// What lets a pod in where a gang waits for its turn.
const SHORT_WORK: &str = "wait until the gang has started; who is gone by then may run there: say so with the annotation flowforge.dev/expected-duration";

/// What cures a reason that the scheduler gives for a node; the longest matching beginning counts.
const NODE_CURES: &[(&str, &str)] = &[
    ("Too many pods", "end pods there, or raise the kubelet's pod limit (maxPods)"),
    ("node(s) had untolerated taint", "add a toleration for the taint, or remove it: kubectl taint nodes NODE KEY-"),
    (
        "node(s) didn't match scheduler-enforced node affinity",
        "label more nodes as the addedAffinity of the pod's profile asks, or use another schedulerName",
    ),
    ("node(s) didn't match Pod's node affinity", "relax nodeSelector or affinity, or label more nodes"),
    ("node(s) were unschedulable", "make them schedulable again: kubectl uncordon NODE"),
    ("node(s) didn't have free ports", "drop hostPort, or end the pods that hold the port"),
    ("node(s) didn't match the requested node name", "drop spec.nodeName, or name a node that exists"),
    (
        "node(s) didn't match Pod's required features",
        "drop what needs the feature from the pod, or add nodes whose kubelet declares it (status.declaredFeatures)",
    ),
    (
        "node(s) didn't match pod topology spread constraints",
        "raise maxSkew, add nodes in the places that have the fewest of these pods, or make the constraint ScheduleAnyway",
    ),
    (
        "node(s) didn't match pod topology spread constraints (missing required label)",
        "label the nodes with the constraint's topologyKey",
    ),
    ("node(s) didn't match pod affinity rules", "start the pods that podAffinity asks for, or make the term preferred"),
    (
        "node(s) didn't match pod anti-affinity rules",
        "add nodes, end the pods that podAntiAffinity names, or make the term preferred",
    ),
    (
        "node(s) didn't satisfy existing pods anti-affinity rules",
        "add nodes, or end the pods there whose podAntiAffinity names this pod",
    ),
    ("No preemption victims found", "give the pod a higher priority, or end pods there"),
    ("Preemption is not helpful", "nothing: no eviction would help there; see what else the node has against the pod"),
    (
        "node(s) had no available disk",
        "end the pods there that mount the same disk, or mount it read-only in all of them",
    ),
    (
        "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod",
        "end the pod that uses the claim, or give each pod its own claim",
    ),
    ("looking up PVC ", "create the claim in the pod's namespace"),
    ("PVC ", "delete the claim: it has the name of the pod's ephemeral volume and was not made for it"),
    ("node(s) exceed max volume count", "add nodes, or end pods there that mount volumes of the same driver"),
    (
        "node(s) didn't match PersistentVolume's node affinity",
        "free resources on the nodes that reach the pod's volumes: kubectl get pv -o yaml",
    ),
    (
        "node(s) didn't find available persistent volumes to bind",
        "make volumes that these nodes reach, or use a StorageClass whose provisioner and allowedTopologies cover them",
    ),
    ("node(s) did not have enough free storage", "free storage there: kubectl get csistoragecapacities -A"),
    (
        "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)",
        "restore the volume, or delete the claim and make it anew",
    ),
    ("node(s) had no available volume zone", "free resources on nodes in the zones of the pod's volumes"),
    ("cannot allocate all claims", "free devices, add nodes that have them, or relax the claim's selectors"),
    (
        "resourceclaim not available",
        "the claim is allocated for other nodes: end the pods that use it, or use another claim",
    ),
    (
        "cannot schedule extended resource claim",
        "nothing: what a former attempt left of the pod's claim is being deleted",
    ),
    ("cannot fit resource", "add nodes that offer all extended resources that the pod asks for"),
    ("invalid resource pools", "the driver's ResourceSlices contradict themselves: see its logs"),
    ("node(s) were outside", "free places inside that domain: the gang's other members are there"),
    ("node(s) were reserved for gang", SHORT_WORK),
    ("node(s) were kept for gang", SHORT_WORK),
    ("node(s) didn't satisfy", "relax the constraint, or add nodes that satisfy it"),
    ("node(s) didn't match", "relax the constraint, or add nodes that match it"),
];

/// What cures what a message says, where the condition's reason alone does not tell; the first part found counts.
const MESSAGE_CURES: &[(&str, &str)] = &[
    ("unbound immediate PersistentVolumeClaims", "bind the claims: kubectl describe pvc"),
    ("waiting for ephemeral volume controller", "nothing: kube-controller-manager makes the claim"),
    ("bound to non-existent persistentvolume", "restore the volume, or delete the claim and make it anew"),
    ("is being deleted", "let the claim's other users end, then make it anew"),
    ("(pod is not owner)", "delete the claim: it has the name of the pod's ephemeral volume and was not made for it"),
    ("persistentvolumeclaim \"", "create the claim in the pod's namespace"),
    ("PersistentVolumeClaim had no pv name", "name a StorageClass in the claim, or bind it: kubectl describe pvc"),
    ("storageclass.storage.k8s.io \"", "create the StorageClass that the claim names"),
    ("PersistentVolume had no name", "bind the claims: kubectl describe pvc"),
    ("persistentvolume \"", "restore the volume that the claim is bound to, or make the claim anew"),
    ("CSI driver is not installed", "install the driver on the nodes: kubectl get csinodes"),
    (
        "wait for its node, which this scheduler",
        "use a StorageClass with volumeBindingMode Immediate, or another scheduler for this pod",
    ),
    ("ResourceClaim", "create the claim or its template: kubectl describe resourceclaim"),
    ("resource claim", "nothing: the claim is being allocated for another pod, and then this one is tried"),
    ("device class", "create the DeviceClass that the claim names, or correct the name"),
    ("no nodes available to schedule pods", "add a node"),
    ("pod affinity terms conflict", "correct the pod's node affinity: its terms exclude each other"),
    ("members of role", "the rest of that role's members must be created, or freed of their scheduling gates"),
    ("members exist", "the rest of the gang's members must be created"),
    ("more are gated", "whoever put the scheduling gates on the members must remove them"),
    ("waiting a moment", "nothing: it goes on by itself within a second or so"),
    (
        "another pod of the gang has rank",
        "nothing, when the other one is going away; else give each pod its own flowforge.dev/rank",
    ),
    ("members already", "nothing: surplus pods wait; delete them, or raise the gang's size"),
    ("members stand in several domains", "delete the members outside of one domain, or drop the required level"),
    ("is not configured", "name one of the levels, or configure it: kubectl -n flowforge-system get configmaps"),
    ("about the size", "give all members the same annotation flowforge.dev/gang-size"),
    ("is not a whole number", "write a number into the annotation flowforge.dev/gang-size"),
    ("no member has annotation", "annotate the members with flowforge.dev/gang-size, or create the Gang"),
    ("and no member says how many", "create the object that the message names, or correct the name that its pods give"),
    ("is not one of the gang's roles", "use a role of the Gang's spec.roles in the label flowforge.dev/role"),
    ("can hold it", "free a whole domain of this level, or drop the required level"),
    ("were outside", "free places inside that domain"),
    ("that this pod was made for does not exist", "delete the pod: its gang is gone"),
    ("the gang has ended", "delete the pod: its gang has ended"),
    ("refuses the binding", "change what the message names; the API server refuses the pod where it was placed"),
    ("the binding was undone", "nothing: it is tried again"),
    (
        " to stop",
        "nothing, while their machines answer; one that never will: delete its Node, or taint it \
         node.kubernetes.io/out-of-service=nodeshutdown:NoExecute",
    ),
];

/// What cures a reason of a pod's, gang's, node's or workflow's status.
const CONDITION_CURES: &[(&str, &str)] = &[
    ("SchedulingGated", "whoever put the scheduling gates on the pod must remove them"),
    ("InvalidGang", "correct what the message names in the gang's declaration or in its members"),
    ("WaitingForGang", "wait for what the message names, or change it"),
    ("SearchLimit", "nothing: it is tried again; a narrower topology or selector makes the search shorter"),
    ("SchedulerError", "nothing here: it is tried again; the scheduler's log has the cause"),
    ("QuotaExceeded", "free some of the namespace's quota, or raise it: kubectl describe quota"),
    ("ClaimMissing", "create the PersistentVolumeClaim"),
    ("ClaimPending", "bind the PersistentVolumeClaim: kubectl describe pvc"),
    ("ClaimNotShared", "use a ReadWriteMany claim, or one replica"),
    ("NameTaken", "delete the object that holds the name, or submit under another name"),
    ("MembersVanish", "nothing: the next one is made after a pause; look for who deletes the pods"),
    (
        "Degraded",
        "nothing, while a lost member is made again; one that was left out does not come back in this attempt",
    ),
    ("BackOff", "nothing: the next attempt starts when its pause is over"),
    (
        "PredecessorUnreachable",
        "wait until the old attempt's machine answers, delete its Node object or taint it out-of-service, \
         or set retry.forceAfterSeconds in the next workflow",
    ),
    ("Suspended", "remove spec.suspend from the workflow"),
    ("WaitingForApproval", "flowforge approve WORKFLOW NODE, or the same with --deny"),
    ("QueueTimeout", "ask for less, free room, or give timeouts.queueSeconds more time in a new workflow"),
    ("CreateForbidden", "change what the message names; the cluster's policy refuses the pods as they are"),
    ("CreateInvalid", "correct the node's pod fields as the message says"),
    ("InvalidSpec", "correct the fields as the message says and submit a new workflow"),
];

/// What would cure a node's reason.
pub(crate) fn cure_of_node(reason: &str) -> String {
    if let Some(resource) = reason.strip_prefix("Insufficient ") {
        return format!("free {resource} there, add nodes that have it, or ask for less");
    }
    // Names of requests and classes come first.
    if reason.contains("CEL ") {
        return "correct the selector of the claim or of its DeviceClass".into();
    }
    lookup(NODE_CURES, reason).unwrap_or("see the message; the scheduler tries again when the cluster changes").into()
}

/// What would cure a refusal that no table of nodes explains.
pub(crate) fn cure_of(reason: &str, message: &str) -> Option<&'static str> {
    let told = MESSAGE_CURES.iter().find(|(part, _)| message.contains(part)).map(|(_, cure)| *cure);
    told.or_else(|| lookup(CONDITION_CURES, reason))
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
    use flowforge_scheduler_core::explain::{Reason, Refusal, VolumeReason};
    use flowforge_scheduler_core::plugins::volume_zone::ZoneUnknown;

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
            "gang demo/train needs 4 members placed together in one rack, 3 fit (in rack/r1); member rank 3: 0/32 nodes are available: 28 Insufficient nvidia.com/gpu, 4 node(s) didn't match Pod's node affinity/selector.",
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
        assert_eq!(cure_of("SomethingNew", "nobody knows"), None);
    }

    /// What can be said of volumes, as [`every_reason`] has it.
    fn every_volume_reason() -> Vec<VolumeReason> {
        use VolumeReason as V;
        let all = vec![
            V::DiskConflict,
            V::ReadWriteOncePod,
            V::ClaimMissing("data".into()),
            V::BindingClaimMissing("data".into()),
            V::LimitClaimMissing("ml".into(), "data".into()),
            V::LimitClaimNotOwned("ml".into(), "p-data".into(), "p".into()),
            V::Limit,
            V::DriverMissing("csi.example".into()),
            V::EphemeralClaimMissing("p-data".into()),
            V::ClaimLost("data".into(), "pv".into()),
            V::ClaimDeleting("data".into()),
            V::ClaimNotOwned("ml".into(), "p-data".into(), "p".into()),
            V::UnboundClaims,
            V::Affinity,
            V::NoVolume,
            V::NoStorage,
            V::NoSuchVolume,
            V::VolumeMissing("pv".into()),
            V::ZoneUnknown(ZoneUnknown::ClaimMissing("data".into())),
            V::ZoneUnknown(ZoneUnknown::NoClass),
            V::ZoneUnknown(ZoneUnknown::ClassMissing("fast".into())),
            V::ZoneUnknown(ZoneUnknown::Unbound),
            V::Zone,
        ];
        for reason in &all {
            match reason {
                V::DiskConflict | V::ReadWriteOncePod | V::ClaimMissing(_) | V::Limit | V::DriverMissing(_) => {}
                V::BindingClaimMissing(_) => {}
                V::EphemeralClaimMissing(_) | V::ClaimLost(..) | V::ClaimDeleting(_) | V::ClaimNotOwned(..) => {}
                V::UnboundClaims | V::Affinity | V::NoVolume | V::NoStorage | V::NoSuchVolume => {}
                V::LimitClaimMissing(..) | V::LimitClaimNotOwned(..) => {}
                V::ZoneUnknown(why) => match why {
                    ZoneUnknown::ClaimMissing(_) | ZoneUnknown::NoClass => {}
                    ZoneUnknown::ClassMissing(_) | ZoneUnknown::Unbound => {}
                },
                V::VolumeMissing(_) | V::Zone => {}
            }
        }
        all
    }

    /// One of each, and a match without a wildcard: a reason that is new to the scheduler does not compile here.
    fn every_reason() -> Vec<Reason> {
        use Reason as R;
        let mut all = vec![
            R::NodeName,
            R::NodeUnschedulable,
            R::UntoleratedTaint,
            R::NodeAffinity,
            R::AddedAffinity,
            R::AffinityConflict,
            R::NotNamed,
            R::NodePorts,
            R::Spread,
            R::SpreadLabel,
            R::PodAffinity,
            R::PodAntiAffinity,
            R::ExistingAntiAffinity,
            R::DeclaredFeatures,
            R::TooManyPods,
            R::Insufficient("nvidia.com/gpu".into()),
            R::Claim("could not find ResourceClaim \"ml/gpu\"".into()),
            R::Claim("request gpu: device class gpu.example does not exist".into()),
            R::Devices,
            R::ClaimElsewhere,
            R::InvalidPools,
            R::LeftoverClaim,
            R::NoSuchResource,
            R::DeviceError("class gpu: selector #0: CEL compile error: x".into()),
            R::NoNodes,
            R::NoVictims,
            R::EvictionUseless,
            R::OutsideDomain("rack/r1".into()),
            R::UnknownLevel("spec.topology.required".into(), "row".into(), "zone, rack".into()),
            R::NoDomain("rack".into()),
            reserved(false),
            reserved(true),
            R::SplitDomain("rack".into()),
            R::SearchLimit(9),
            R::Incomplete(2, 4, 0),
            R::Incomplete(2, 4, 1),
            R::Settling,
            R::SizeConflict(4, 8),
            R::SizeInvalid("x".into()),
            R::SizeMissing,
            R::UnknownRole("ps".into()),
            R::Surplus(4),
            R::RankTaken(3),
            R::UnknownGang,
            R::GangEnded,
            R::BindRefused("no".into()),
            R::Undone("why".into()),
        ];
        all.extend(every_volume_reason().into_iter().map(R::Volume));
        all.extend(every_reason_of_others_gangs());
        for reason in &all {
            match reason {
                R::NodeName | R::NodeUnschedulable | R::UntoleratedTaint | R::NodeAffinity | R::AddedAffinity => {}
                R::AffinityConflict | R::DeclaredFeatures | R::Spread | R::SpreadLabel => {}
                R::PodAffinity | R::PodAntiAffinity | R::ExistingAntiAffinity => {}
                R::NotNamed | R::NodePorts | R::TooManyPods | R::Insufficient(_) | R::NoNodes => {}
                R::Volume(_) | R::NoVictims | R::EvictionUseless | R::Claim(_) | R::Devices | R::ClaimElsewhere => {}
                R::LeftoverClaim | R::NoSuchResource | R::InvalidPools | R::DeviceError(_) => {}
                R::OutsideDomain(_) | R::UnknownLevel(..) | R::NoDomain(_) | R::SplitDomain(_) | R::SearchLimit(_) => {}
                R::Incomplete(..) | R::Settling | R::SizeConflict(..) | R::SizeInvalid(_) | R::SizeMissing => {}
                R::Undeclared(_) | R::Misdeclared(_) | R::Held(_) | R::PriorityConflict(..) => {}
                R::UnknownRole(_) | R::Surplus(_) | R::RankTaken(_) | R::UnknownGang | R::GangEnded => {}
                R::BindRefused(_) | R::Undone(_) | R::RoleIncomplete(..) | R::Reserved { .. } => {}
            }
        }
        all
    }

    fn reserved(kept: bool) -> Reason {
        Reason::Reserved { gang: "ml/train".into(), until_ms: 0, kept, misdeclared: true }
    }

    fn every_reason_of_others_gangs() -> [Reason; 5] {
        [
            Reason::Undeclared("podgroup.scheduling.k8s.io/train".into()),
            Reason::Misdeclared("spec.subGroupPolicy is not supported".into()),
            Reason::Held("queue q is Closed".into()),
            Reason::PriorityConflict(1, 2),
            Reason::RoleIncomplete("ps".into(), 0, 1, 0),
        ]
    }

    #[test]
    fn every_reason_of_the_scheduler_has_a_cure() {
        for reason in every_reason() {
            let text = reason.to_string();
            let on_nodes = format!("0/2 nodes are available: 2 {text}.");
            let as_nodes = nodes(&on_nodes).first().is_some_and(|n| !n.cure.starts_with("see the message"));
            let waits = Refusal::Gang { gang: "ml/train".into(), reason };
            let as_gang = cure_of(waits.condition_reason(), &waits.message()).is_some();
            assert!(as_nodes || as_gang, "{text}");
        }
    }

    #[test]
    fn every_reason_to_wait_of_the_controller_has_a_cure() {
        use flowforge_dag_controller_core::reason::{Class, Reason};
        let ended = |r: &Reason| matches!(r, Reason::Completed | Reason::Approved | Reason::TakenOver);
        let waits = |r: &&Reason| matches!(r.class(), Class::None | Class::Policy) && !ended(r);
        let mut count = 0;
        for reason in Reason::ALL.iter().filter(waits) {
            assert!(cure_of(reason.as_str(), "").is_some(), "{reason}");
            count += 1;
        }
        assert!(count >= 5, "only {count} reasons");
    }
}
