//! When a gang can be planned.
//!
//! Members are live pods of the current attempt: failed and deleting ones do not count, succeeded ones do. A gang is ready
//! when each role's bound, succeeded and ready pods reach its minimum, and either all replicas exist or `settle` has passed
//! since the last arrival. Pods beyond the replicas wait, and so do pods of a rank that another has: of two that wait the
//! younger goes, for the older is being replaced. Once the minimum is live, further members (replacements) are
//! planned as they come. `O(members)`.

use super::layout::Slot;
use super::table::GangRecord;
use crate::explain::Reason;
use crate::model::{GangInfo, GangRoleInfo, LayoutInfo, Millis, PodInfo, PodPhase};
use crate::snapshot::{Cluster, Place, PodId};
use flowforge_topology_core::Levels;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// How many members must be live: in total and per role.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Minimum {
    /// Of all roles together.
    pub total: u32,
    /// Per role, where roles are declared.
    pub roles: BTreeMap<SmolStr, u32>,
}

/// Whether a gang can be planned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// No member waits for a place.
    Idle,
    /// Members wait, but cannot be planned.
    Waiting(Reason),
    /// Members wait a moment for others, until this time.
    Settling(Millis),
    /// All of `pending` can be planned; the gang is live when `missing` of them are bound.
    Ready(Minimum),
    /// The minimum is live (or was, and members were lost): `pending` are planned as replacements.
    Replacing,
    /// Some members are bound, but fewer than the minimum, and never were more.
    Partial,
}

/// Who says what a gang asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A `Gang`.
    Gang,
    /// Annotations of its pods.
    Pods,
    /// An object of somebody else.
    Others,
}

/// A gang at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Assessment {
    /// Whether it can be planned.
    pub readiness: Readiness,
    /// Members that wait for a place, in rank order.
    pub pending: Vec<PodId>,
    /// Members that stand on a node and are not deleting.
    pub bound: Vec<PodId>,
    /// Members that succeeded.
    pub done: u32,
    /// Pods that name the gang but cannot be placed for it, and why.
    pub strangers: Vec<(PodId, Reason)>,
    /// What must be live together.
    pub minimum: Minimum,
    /// What is missing to the minimum, beyond what is bound or done.
    pub missing: Minimum,
    /// Slots without a pod: role and number.
    pub vacant: Vec<(SmolStr, u32)>,
    /// Required topology level.
    pub required: Option<SmolStr>,
    /// Preferred topology levels.
    pub preferred: Vec<SmolStr>,
    /// Who says so.
    pub origin: Origin,
    /// Where parts of the gang may stand.
    pub layout: LayoutInfo,
    /// The roles, and every member with its slot in rank order, where a layout says something of them.
    pub slots: (Vec<GangRoleInfo>, Vec<Slot>),
    /// Lowest priority of the members that wait.
    pub priority: i32,
}

/// The roles that count: name, replicas, minimum; a plain gang has one nameless role.
type Roles = Vec<(SmolStr, u32, u32)>;

struct Member<'a> {
    id: PodId,
    info: &'a PodInfo,
    place: Place,
}

/// Looks at a gang.
#[must_use]
pub fn assess(gang: &GangRecord, cluster: &Cluster, now: Millis, settle_ms: Millis) -> Assessment {
    let mut strangers = Vec::new();
    let members = current(gang, cluster, &mut strangers);
    let mut result = Assessment {
        readiness: Readiness::Idle,
        pending: Vec::new(),
        bound: members.iter().filter(|m| is_bound(m)).map(|m| m.id).collect(),
        done: 0,
        strangers,
        minimum: Minimum::default(),
        missing: Minimum::default(),
        vacant: Vec::new(),
        required: None,
        preferred: Vec::new(),
        origin: match &gang.declared {
            Some(declared) if GangInfo::is_of_others(&declared.name) => Origin::Others,
            Some(_) => Origin::Gang,
            None => Origin::Pods,
        },
        layout: LayoutInfo::default(),
        slots: (Vec::new(), Vec::new()),
        priority: 0,
    };
    set_topology(gang, &members, &mut result);
    let levels = cluster.tree().levels();
    result.required = result.required.map(|level| by_name(level, levels));
    result.preferred = result.preferred.into_iter().map(|level| by_name(level, levels)).collect();
    let waiting = || members.iter().filter(|m| is_waiting(m));
    if gang.declared.as_ref().is_some_and(|d| d.closed) {
        result.strangers.extend(waiting().map(|m| (m.id, Reason::GangEnded)));
        return result;
    }
    let (roles, total) = match roles(gang, &members) {
        Ok(roles) => roles,
        Err(reason) => {
            result.pending = waiting().map(|m| m.id).collect();
            result.priority = waiting().map(|m| m.info.priority).min().unwrap_or(0);
            if !result.pending.is_empty() {
                result.readiness = Readiness::Waiting(reason);
            }
            return result;
        }
    };
    count(gang, &members, &roles, total, &mut result);
    result.readiness = readiness(gang, &members, &roles, &result, (now, settle_ms));
    result
}

/// Live and succeeded pods of the current attempt, in rank order; those of other attempts are strangers.
fn current<'a>(gang: &GangRecord, cluster: &'a Cluster, strangers: &mut Vec<(PodId, Reason)>) -> Vec<Member<'a>> {
    let mut members = Vec::new();
    for &id in &gang.members {
        let Some((pod, info)) = cluster.pod(id).and_then(|p| Some((p, p.info.as_deref()?))) else { continue };
        let Some(membership) = &info.gang else { continue };
        if pod.vacant || info.deleting || gang.doomed.contains(&id) || info.phase == PodPhase::Failed {
            continue;
        }
        let ours = match (&gang.declared, &membership.uid) {
            (Some(declared), Some(uid)) => declared.uid == *uid,
            (_, None) => true,
            (None, Some(_)) => false,
        };
        if ours {
            members.push(Member { id, info, place: pod.place });
        } else if pod.place == Place::Pending && !info.gated {
            strangers.push((id, Reason::UnknownGang));
        }
    }
    members.sort_by(|a, b| order(a).cmp(&order(b)));
    members
}

/// Rank order; members without a rank by age, then name.
fn order<'a>(m: &'a Member<'_>) -> (u32, Millis, &'a SmolStr, &'a SmolStr) {
    (rank_of(m).unwrap_or(u32::MAX), m.info.created_at_ms, &m.info.key.name, &m.info.key.uid)
}

fn rank_of(m: &Member<'_>) -> Option<u32> {
    m.info.gang.as_ref().and_then(|g| g.rank)
}

fn is_bound(m: &Member<'_>) -> bool {
    m.place.node().is_some()
}

fn is_done(m: &Member<'_>) -> bool {
    m.info.phase == PodPhase::Succeeded
}

fn is_waiting(m: &Member<'_>) -> bool {
    m.place == Place::Pending && !m.info.gated
}

/// The name of the level that a node label belongs to, where that is what was asked for: others name labels.
fn by_name(asked: SmolStr, levels: &Levels) -> SmolStr {
    if levels.find(&asked).is_some() {
        return asked;
    }
    let reads = levels.iter().find(|level| levels.keys(*level).contains(&asked));
    reads.map_or(asked, |level| SmolStr::from(levels.name(level)))
}

fn set_topology(gang: &GangRecord, members: &[Member<'_>], result: &mut Assessment) {
    if let Some(declared) = &gang.declared {
        result.required.clone_from(&declared.topology_required);
        result.preferred.clone_from(&declared.topology_preferred);
        if declared.layout != LayoutInfo::default() {
            result.layout.clone_from(&declared.layout);
            let placed_or_waiting = members.iter().filter(|m| is_bound(m) || is_waiting(m));
            let slot = |m: &Member<'_>| Slot {
                pod: m.id,
                role: m.info.gang.as_ref().map(|g| g.role.clone()).unwrap_or_default(),
                rank: rank_of(m),
            };
            result.slots = (declared.roles.clone(), placed_or_waiting.map(slot).collect());
        }
        return;
    }
    let memberships = || members.iter().filter_map(|m| m.info.gang.as_ref());
    result.required = memberships().find_map(|g| g.topology_required.clone());
    result.preferred = memberships()
        .find(|g| !g.topology_preferred.is_empty())
        .map(|g| g.topology_preferred.clone())
        .unwrap_or_default();
}

/// The roles and the total minimum, or why the declaration cannot be used.
fn roles(gang: &GangRecord, members: &[Member<'_>]) -> Result<(Roles, u32), Reason> {
    if let Some(declared) = &gang.declared {
        if let Some(reason) = barred(declared, members) {
            return Err(reason);
        }
        let roles = declared.roles.iter().map(|r| (r.name.clone(), r.replicas, r.min)).collect();
        return Ok((roles, declared.min_member));
    }
    let mut size: Option<u32> = None;
    for said in members.iter().filter_map(|m| m.info.gang.as_ref()?.size.as_ref()) {
        match (said, size) {
            (Err(text), _) => return Err(Reason::SizeInvalid(text.clone())),
            (Ok(0), _) => return Err(Reason::SizeInvalid("0".into())),
            (Ok(n), Some(before)) if *n != before => return Err(Reason::SizeConflict(before.min(*n), before.max(*n))),
            (Ok(n), _) => size = Some(*n),
        }
    }
    let missing = || match GangInfo::is_of_others(&gang.name) {
        true => Reason::Undeclared(gang.name.clone()),
        false => Reason::SizeMissing,
    };
    let size = size.ok_or_else(missing)?;
    Ok((vec![(SmolStr::default(), size, size)], size))
}

/// What in the terms of a declaration keeps everybody waiting.
fn barred(declared: &GangInfo, members: &[Member<'_>]) -> Option<Reason> {
    let terms = &declared.terms;
    if let Some(what) = &terms.invalid {
        return Some(Reason::Misdeclared(what.clone()));
    }
    let priorities = members.iter().filter(|m| is_waiting(m)).map(|m| m.info.priority);
    let other = terms.priority.and_then(|asked| Some((priorities.clone().find(|have| *have != asked)?, asked)));
    let conflict = other.map(|(have, asked)| Reason::PriorityConflict(have, asked));
    conflict.or_else(|| terms.held.clone().map(Reason::Held))
}

/// How many pods of a role are waited for.
fn expected((_, replicas, min): &(SmolStr, u32, u32)) -> u32 {
    if *replicas == GangRoleInfo::UNLIMITED { *min } else { *replicas }
}

/// The role that a member counts for: its own, or the nameless one that takes all others.
fn counted_role(member: &Member<'_>, roles: &Roles) -> SmolStr {
    let own = member.info.gang.as_ref().map(|g| g.role.clone()).unwrap_or_default();
    let has = |role: &str| roles.iter().any(|(name, ..)| name == role);
    if !has(&own) && has("") { SmolStr::default() } else { own }
}

/// Fills in who waits, who is surplus, and what is missing.
fn count(gang: &GangRecord, members: &[Member<'_>], roles: &Roles, total: u32, result: &mut Assessment) {
    let plain = gang.declared.is_none();
    let role_of = |m: &Member<'_>| counted_role(m, roles);
    let mut live_total = 0;
    for role in roles {
        let (name, replicas, min) = role;
        let of_role: Vec<&Member<'_>> = members.iter().filter(|m| plain || role_of(m) == *name).collect();
        let live = of_role.iter().filter(|m| is_bound(m) || is_done(m)).count();
        let done = of_role.iter().filter(|m| is_done(m)).count();
        let (live, done) = (saturate(live), saturate(done));
        let free = replicas.saturating_sub(live) as usize;
        let (mut waiting, twins) = one_per_rank(&of_role);
        result.strangers.extend(twins.iter().map(|(m, rank)| (m.id, Reason::RankTaken(*rank))));
        let surplus = waiting.split_off(free.min(waiting.len()));
        result.strangers.extend(surplus.iter().map(|m| (m.id, Reason::Surplus(*replicas))));
        let vacant = expected(role).saturating_sub(live).saturating_sub(saturate(waiting.len()));
        if vacant > 0 {
            result.vacant.push((if plain { "worker".into() } else { name.clone() }, vacant));
        }
        result.pending.extend(waiting.iter().map(|m| m.id));
        result.done += done;
        live_total += live;
        if !plain && !name.is_empty() {
            result.minimum.roles.insert(name.clone(), *min);
            result.missing.roles.insert(name.clone(), min.saturating_sub(live));
        }
    }
    result.missing.roles.retain(|_, missing| *missing > 0);
    let needed = total.max(roles.iter().map(|(_, _, min)| min).sum());
    result.minimum.total = needed;
    result.missing.total = needed.saturating_sub(live_total);
    // Where no role says how many come, what the total asks for beyond the roles is open to any.
    let there = saturate(result.pending.len()) + result.vacant.iter().map(|(_, n)| n).sum::<u32>();
    if let Some(open) = result.missing.total.checked_sub(there).filter(|open| *open > 0 && !plain) {
        result.vacant.push(("worker".into(), open));
    }
    if !plain {
        let known = |m: &&Member<'_>| roles.iter().any(|(name, ..)| *name == role_of(m));
        let unknown = members.iter().filter(|m| is_waiting(m) && !known(m));
        result.strangers.extend(unknown.map(|m| (m.id, Reason::UnknownRole(role_of(m)))));
    }
    let rank: BTreeMap<PodId, usize> = members.iter().enumerate().map(|(at, m)| (m.id, at)).collect();
    result.pending.sort_by_key(|id| rank.get(id).copied());
    let priority = |id: &PodId| members.get(*rank.get(id)?).map(|m| m.info.priority);
    result.priority = result.pending.iter().filter_map(priority).min().unwrap_or(0);
}

/// The members that wait, in order, and those that wait in vain because their rank is another's: a rank is named by a label
/// once per role in the declared form, once per gang role label in the plain one. Of two that wait the younger goes.
fn one_per_rank<'a, 'b>(of_role: &[&'b Member<'a>]) -> (Vec<&'b Member<'a>>, Vec<(&'b Member<'a>, u32)>) {
    let role_of = |m: &'b Member<'_>| m.info.gang.as_ref().map(|g| &g.role);
    let age = |m: &'b Member<'_>| (m.info.created_at_ms, &m.info.key.name, &m.info.key.uid);
    let mut holders: BTreeMap<_, &'b Member<'a>> = BTreeMap::new();
    for &member in of_role.iter().filter(|m| is_bound(m) || is_done(m) || is_waiting(m)) {
        let Some(rank) = rank_of(member) else { continue };
        let holder = holders.entry((role_of(member), rank)).or_insert(member);
        let standing = |m: &Member<'_>| is_bound(m) || is_done(m);
        if !standing(holder) && (standing(member) || age(member) > age(holder)) {
            *holder = member;
        }
    }
    let (mut waiting, mut twins) = (Vec::new(), Vec::new());
    for &member in of_role.iter().filter(|m| is_waiting(m)) {
        match rank_of(member).filter(|rank| holders.get(&(role_of(member), *rank)).is_none_or(|h| h.id != member.id)) {
            Some(rank) => twins.push((member, rank)),
            None => waiting.push(member),
        }
    }
    (waiting, twins)
}

fn readiness(
    gang: &GangRecord,
    members: &[Member<'_>],
    roles: &Roles,
    counted: &Assessment,
    (now, settle_ms): (Millis, Millis),
) -> Readiness {
    let live = counted.missing.total == 0 && counted.missing.roles.is_empty();
    let some_bound = !counted.bound.is_empty();
    if !live && some_bound && !gang.whole_once {
        return Readiness::Partial;
    }
    if counted.pending.is_empty() {
        return Readiness::Idle;
    }
    if live || some_bound {
        return Readiness::Replacing;
    }
    let role_of =
        |id: &PodId| members.iter().find(|m| m.id == *id).and_then(|m| Some(m.info.gang.as_ref()?.role.clone()));
    let waits =
        |role: &SmolStr| saturate(counted.pending.iter().filter(|id| role_of(id).as_ref() == Some(role)).count());
    let short = counted.missing.roles.iter().find(|(role, missing)| waits(role) < **missing);
    let gated = || saturate(members.iter().filter(|m| m.place == Place::Pending && m.info.gated).count());
    let pending = saturate(counted.pending.len());
    if pending < counted.missing.total {
        return Readiness::Waiting(Reason::Incomplete(pending + counted.done, counted.minimum.total, gated()));
    }
    if let Some((role, missing)) = short {
        let need = counted.minimum.roles.get(role).copied().unwrap_or(*missing);
        let have = need.saturating_sub(*missing) + waits(role);
        return Readiness::Waiting(Reason::RoleIncomplete(role.clone(), have, need, gated()));
    }
    let replicas: u32 = roles.iter().map(expected).sum();
    let settled = gang.last_arrival_ms.saturating_add(settle_ms);
    if pending + counted.done < replicas && now < settled {
        return Readiness::Settling(settled);
    }
    Readiness::Ready(counted.missing.clone())
}

fn saturate(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::fixture::{PodChain, declared_member, gang, member, node};
    use crate::gang::Gangs;
    use crate::model::GangInfo;
    use crate::snapshot::Snapshot;

    /// Assesses the gang `g` of these pods at `now`, the last of which came at 0.
    fn look(declared: Option<GangInfo>, pods: Vec<PodInfo>, now: Millis) -> Assessment {
        let mut snapshot = Snapshot::new(&Config::default());
        snapshot.upsert_node(node("n1"));
        let mut gangs = Gangs::default();
        let mut id = declared.map(|info| gangs.declare(info));
        for pod in pods {
            let (namespace, membership) = (pod.key.namespace.clone(), pod.gang.clone().unwrap());
            let news = snapshot.upsert_pod(pod).unwrap();
            id = Some(gangs.join(news.id, &namespace, &membership));
        }
        assess(gangs.get(id.unwrap()).unwrap(), snapshot.cluster(), now, 1000)
    }

    fn of(n: u32, size: u32) -> Vec<PodInfo> {
        (0..n).map(|rank| member("g", rank, size)).collect()
    }

    #[test]
    fn a_plain_gang_is_ready_when_all_of_its_size_exist() {
        assert_eq!(look(None, of(3, 4), 0).readiness, Readiness::Waiting(Reason::Incomplete(3, 4, 0)));
        let ready = look(None, of(4, 4), 0);
        assert_eq!(ready.readiness, Readiness::Ready(Minimum { total: 4, ..Minimum::default() }));
        assert_eq!(ready.pending.len(), 4);
    }

    #[test]
    fn gated_members_do_not_count() {
        let mut pods = of(4, 4);
        pods[2].gated = true;
        assert_eq!(look(None, pods, 0).readiness, Readiness::Waiting(Reason::Incomplete(3, 4, 1)));
    }

    #[test]
    fn contradicting_and_unusable_sizes_are_named() {
        let mut pods = of(2, 2);
        pods[1].gang.as_mut().unwrap().size = Some(Ok(3));
        assert_eq!(look(None, pods.clone(), 0).readiness, Readiness::Waiting(Reason::SizeConflict(2, 3)));
        pods[1].gang.as_mut().unwrap().size = Some(Err("four".into()));
        assert_eq!(look(None, pods.clone(), 0).readiness, Readiness::Waiting(Reason::SizeInvalid("four".into())));
        pods.iter_mut().for_each(|p| p.gang.as_mut().unwrap().size = None);
        assert_eq!(look(None, pods, 0).readiness, Readiness::Waiting(Reason::SizeMissing));
        assert_eq!(look(None, of(1, 0), 0).readiness, Readiness::Waiting(Reason::SizeInvalid("0".into())));
    }

    #[test]
    fn surplus_pods_wait_and_the_lowest_ranks_go() {
        let mut pods = of(5, 4);
        pods.reverse();
        let seen = look(None, pods, 0);
        assert_eq!(seen.pending.len(), 4);
        assert_eq!(seen.strangers.len(), 1);
        assert_eq!(seen.strangers[0].1, Reason::Surplus(4));
    }

    #[test]
    fn failed_and_deleting_members_do_not_count_and_succeeded_ones_do() {
        let mut pods = of(4, 4);
        pods[0].phase = PodPhase::Failed;
        assert_eq!(look(None, pods.clone(), 0).readiness, Readiness::Waiting(Reason::Incomplete(3, 4, 0)));
        pods[0].phase = PodPhase::Succeeded;
        assert_eq!(look(None, pods.clone(), 0).readiness, Readiness::Ready(Minimum { total: 3, ..Minimum::default() }));
        pods[0].phase = PodPhase::Pending;
        pods[0].deleting = true;
        assert_eq!(look(None, pods, 0).readiness, Readiness::Waiting(Reason::Incomplete(3, 4, 0)));
    }

    #[test]
    fn an_elastic_gang_settles_before_it_starts_short() {
        let declared = gang("g", &[("worker", 4, 2)]);
        let pods = |n| (0..n).map(|rank| declared_member(&declared, "worker", rank)).collect::<Vec<_>>();
        let at = |n, now| look(Some(declared.clone()), pods(n), now).readiness;
        assert!(matches!(at(1, 5000), Readiness::Waiting(Reason::Incomplete(1, 2, 0))));
        assert_eq!(at(3, 999), Readiness::Settling(1000));
        assert!(matches!(at(3, 1000), Readiness::Ready(_)));
        assert!(matches!(at(4, 0), Readiness::Ready(_)));
    }

    #[test]
    fn every_role_must_reach_its_minimum() {
        let declared = gang("g", &[("leader", 1, 1), ("worker", 2, 2)]);
        let workers = vec![declared_member(&declared, "worker", 0), declared_member(&declared, "worker", 1)];
        let seen = look(Some(declared.clone()), workers.clone(), 9000);
        assert_eq!(seen.readiness, Readiness::Waiting(Reason::Incomplete(2, 3, 0)));
        let mut all = workers;
        all.push(declared_member(&declared, "leader", 0));
        all.push(declared_member(&declared, "driver", 0));
        let seen = look(Some(declared), all, 0);
        assert!(matches!(seen.readiness, Readiness::Ready(_)));
        assert_eq!(
            seen.strangers.iter().map(|(_, r)| r.clone()).collect::<Vec<_>>(),
            [Reason::UnknownRole("driver".into())]
        );
    }

    #[test]
    fn pods_of_another_attempt_are_strangers_and_an_ended_gang_takes_none() {
        let old = gang("g", &[("worker", 1, 1)]);
        let new = GangInfo { uid: "newer".into(), ..old.clone() };
        let seen = look(Some(new.clone()), vec![declared_member(&old, "worker", 0)], 0);
        assert_eq!((seen.readiness, seen.strangers[0].1.clone()), (Readiness::Idle, Reason::UnknownGang));
        let unknown = look(None, vec![declared_member(&old, "worker", 0)], 0);
        assert_eq!(unknown.strangers[0].1, Reason::UnknownGang);
        let ended = GangInfo { closed: true, ..new.clone() };
        let seen = look(Some(ended), vec![declared_member(&new, "worker", 0)], 0);
        assert_eq!((seen.readiness, seen.strangers[0].1.clone()), (Readiness::Idle, Reason::GangEnded));
    }

    #[test]
    fn a_live_gang_takes_replacements_and_a_part_of_one_is_partial() {
        let mut pods = of(2, 2);
        pods[0] = pods[0].clone().on("n1");
        assert_eq!(look(None, pods.clone(), 0).readiness, Readiness::Partial);
        let declared = gang("g", &[("worker", 2, 1)]);
        let live = declared_member(&declared, "worker", 0).on("n1");
        let seen = look(Some(declared.clone()), vec![live, declared_member(&declared, "worker", 1)], 0);
        assert_eq!((seen.readiness, seen.pending.len(), seen.bound.len()), (Readiness::Replacing, 1, 1));
    }

    #[test]
    fn a_pod_with_the_rank_of_a_live_member_is_never_planned() {
        let declared = gang("g", &[("worker", 2, 1)]);
        let live = declared_member(&declared, "worker", 0).on("n1");
        let mut twin = declared_member(&declared, "worker", 0).uid("twin");
        twin.key.name = "a-twin".into();
        let other = declared_member(&declared, "worker", 1);
        let seen = look(Some(declared.clone()), vec![live.clone(), twin.clone(), other], 0);
        assert_eq!((seen.pending.len(), seen.strangers.len()), (1, 1));
        assert_eq!(seen.strangers[0].1, Reason::RankTaken(0));
        let seen = look(Some(declared), vec![live, twin], 0);
        assert_eq!((seen.readiness, seen.pending.len(), seen.strangers.len()), (Readiness::Idle, 0, 1));
    }

    #[test]
    fn of_two_pods_of_one_rank_only_the_younger_is_planned() {
        let mut pods = of(2, 2);
        let mut successor = pods[0].clone().uid("successor");
        (successor.key.name, successor.created_at_ms) = ("a-successor".into(), 5_000);
        pods.push(successor);
        let seen = look(None, pods.clone(), 0);
        assert!(matches!(seen.readiness, Readiness::Ready(_)), "{seen:?}");
        assert_eq!((seen.pending.len(), seen.strangers.len()), (2, 1));
        assert_eq!(seen.strangers[0].1, Reason::RankTaken(0));
        // A gang is not complete by a second pod of a rank that it has.
        pods.remove(1);
        assert_eq!(look(None, pods, 0).readiness, Readiness::Waiting(Reason::Incomplete(1, 2, 0)));
    }

    #[test]
    fn mixed_priorities_queue_at_the_lowest() {
        let mut pods = of(2, 2);
        pods[0].priority = 100;
        pods[1].priority = -5;
        assert_eq!(look(None, pods, 0).priority, -5);
    }
}
