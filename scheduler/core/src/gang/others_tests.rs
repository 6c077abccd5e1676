//! Gangs whose declaration says less than ours, and asks for more.

use super::{Assessment, Gangs, Minimum, Readiness, assess};
use crate::config::Config;
use crate::explain::Reason;
use crate::fixture::{PodChain, gang, member, node};
use crate::model::{GangInfo, GangRoleInfo, PodInfo, Terms};
use crate::snapshot::Snapshot;

const NAME: &str = "podgroup.example.com/g";

/// A declaration of at least so many, of which these roles have minima of their own.
fn group(min_member: u32, roles: &[(&str, u32)]) -> GangInfo {
    let role = |name: &str, min| GangRoleInfo { name: name.into(), replicas: GangRoleInfo::UNLIMITED, min };
    let named = roles.iter().map(|(name, min)| role(name, *min));
    GangInfo { min_member, roles: named.chain([role("", 0)]).collect(), ..gang(NAME, &[]) }
}

/// A pod that names the group, of a role.
fn of_role(role: &str, rank: u32) -> PodInfo {
    let mut pod = member(NAME, rank, 1);
    pod.key.name = format!("{role}-{rank}").into();
    pod.key.uid = pod.key.name.clone();
    if let Some(membership) = &mut pod.gang {
        (membership.size, membership.role) = (None, role.into());
    }
    pod
}

fn look(declared: Option<GangInfo>, pods: Vec<PodInfo>) -> Assessment {
    let mut snapshot = Snapshot::new(&Config::default());
    snapshot.upsert_node(node("n1"));
    let mut gangs = Gangs::default();
    let mut id = declared.map(|info| gangs.declare(info));
    for pod in pods {
        let (namespace, membership) = (pod.key.namespace.clone(), pod.gang.clone().unwrap());
        let news = snapshot.upsert_pod(pod).unwrap();
        id = Some(gangs.join(news.id, &namespace, &membership));
    }
    assess(gangs.get(id.unwrap()).unwrap(), snapshot.cluster(), 0, 1_000)
}

#[test]
fn a_group_of_unknown_size_goes_with_its_minimum_and_has_no_surplus() {
    let two = || vec![of_role("worker", 0), of_role("worker", 1)];
    assert_eq!(look(Some(group(3, &[])), two()).readiness, Readiness::Waiting(Reason::Incomplete(2, 3, 0)));
    let seen = look(Some(group(2, &[])), two());
    assert_eq!(seen.readiness, Readiness::Ready(Minimum { total: 2, ..Minimum::default() }));
    assert_eq!(seen.vacant, []);
    let more = [of_role("worker", 0).on("n1"), of_role("worker", 1).on("n1"), of_role("worker", 2)];
    let seen = look(Some(group(2, &[])), more.into());
    assert_eq!((seen.readiness, seen.pending.len(), seen.strangers.len()), (Readiness::Replacing, 1, 0));
}

#[test]
fn a_minimum_of_a_task_counts_beside_that_of_all() {
    let workers = || (0..3).map(|rank| of_role("worker", rank)).collect::<Vec<_>>();
    let declared = group(3, &[("ps", 1)]);
    let lacks = Reason::RoleIncomplete("ps".into(), 0, 1, 0);
    assert_eq!(lacks.to_string(), "0 of 1 members of role ps exist");
    assert_eq!(look(Some(declared.clone()), workers()).readiness, Readiness::Waiting(lacks));
    let mut all = workers();
    all.push(of_role("ps", 0));
    let seen = look(Some(declared), all);
    let Readiness::Ready(missing) = seen.readiness else { panic!("{seen:?}") };
    assert_eq!((missing.total, missing.roles.get("ps")), (3, Some(&1)));
}

#[test]
fn a_part_of_a_group_of_unknown_size_lacks_what_its_minimum_lacks() {
    let seen = look(Some(group(4, &[("ps", 1)])), vec![of_role("worker", 0).on("n1"), of_role("worker", 1)]);
    assert_eq!(seen.readiness, Readiness::Partial);
    assert_eq!(seen.vacant, [("ps".into(), 1), ("worker".into(), 1)]);
}

#[test]
fn what_is_wrong_with_a_declaration_keeps_everybody_waiting() {
    let why = |terms: Terms| {
        let seen = look(Some(GangInfo { terms, ..group(1, &[]) }), vec![of_role("worker", 0).priority(7)]);
        let Readiness::Waiting(reason) = seen.readiness else { panic!("{seen:?}") };
        assert_eq!(seen.pending.len(), 1, "each member is told");
        reason
    };
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(why(Terms { invalid: text("a"), held: text("b"), ..Terms::default() }), Reason::Misdeclared("a".into()));
    assert_eq!(why(Terms { held: text("b"), ..Terms::default() }), Reason::Held("b".into()));
    assert_eq!(why(Terms { priority: Some(8), ..Terms::default() }), Reason::PriorityConflict(7, 8));
    let same = Terms { priority: Some(7), ..Terms::default() };
    let seen = look(Some(GangInfo { terms: same, ..group(1, &[]) }), vec![of_role("worker", 0).priority(7)]);
    assert!(matches!(seen.readiness, Readiness::Ready(_)), "{seen:?}");
}

#[test]
fn a_group_whose_object_is_not_there_is_named() {
    assert_eq!(look(None, vec![of_role("worker", 0)]).readiness, Readiness::Waiting(Reason::Undeclared(NAME.into())));
}

#[test]
fn a_level_may_be_asked_for_by_the_label_that_it_reads() {
    let asks = |level: &str| {
        let declared = GangInfo { topology_required: Some(level.into()), ..group(1, &[]) };
        look(Some(declared), vec![of_role("worker", 0)]).required.unwrap()
    };
    assert_eq!(asks("topology.kubernetes.io/zone"), "zone");
    assert_eq!(asks("rack"), "rack");
    assert_eq!(asks("example.com/row"), "example.com/row", "refused later, by the name that was asked for");
}
