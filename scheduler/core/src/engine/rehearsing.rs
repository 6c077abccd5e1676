//! What would become of a gang if its turn came now; nothing is decided, told or kept.

use super::Engine;
use crate::explain::{GangRoom, Preemption, Reason, Refusal};
use crate::gang::{Ask, Assessment, GangId, Planned, Readiness, assess};
use crate::model::Millis;
use crate::preempt::{Around, Making, Room, make_room};
use crate::rehearsal::{Outcome, Outlook, Rehearsal, domain_of, holder, lacks, name_of, pace, seats, unit};
use crate::snapshot::{NodeId, PodId};
use smol_str::SmolStr;
use std::collections::BTreeSet;

impl Engine {
    /// Rehearses a gang as it stands, as if its last member had come long enough ago; None when there is no such gang. The
    /// snapshot is afterwards as it was. Costs what a try of the gang costs, `O(nodes · levels)` and a rehearsed preemption
    /// where it has no place.
    pub fn rehearse(&mut self, namespace: &SmolStr, name: &SmolStr, now: Millis) -> Option<Rehearsal> {
        let id = self.gangs.find(namespace, name)?;
        let settled = now.saturating_add(self.config.settle_ms);
        let seen = assess(self.gangs.get(id)?, self.snapshot.cluster(), settled, self.config.settle_ms);
        let standing: Vec<(PodId, NodeId)> = seen.bound.iter().copied().zip(self.nodes_of(&seen.bound)).collect();
        let (resource, outcome) = self.outcome_of(id, &seen, &standing, now);
        Some(Rehearsal {
            namespace: namespace.clone(),
            name: name.clone(),
            priority: seen.priority,
            required: seen.required.as_ref().map(ToString::to_string),
            resource,
            waiting: u32::try_from(seen.pending.len()).unwrap_or(u32::MAX),
            standing: seats(self.snapshot.cluster(), &standing),
            outcome,
        })
    }

    fn outcome_of(
        &mut self,
        id: GangId,
        seen: &Assessment,
        standing: &[(PodId, NodeId)],
        now: Millis,
    ) -> (SmolStr, Outcome) {
        let cluster = self.snapshot.cluster();
        let counted = |members: &[PodId]| unit(cluster, members, None);
        let missing = match &seen.readiness {
            Readiness::Ready(missing) => Some(missing.clone()),
            Readiness::Replacing => None,
            Readiness::Partial => Some(seen.missing.clone()),
            Readiness::Idle => return (counted(&seen.bound), Outcome::Stands { pace: pace(cluster, standing) }),
            Readiness::Waiting(reason) => return (counted(&seen.pending), waits(&self.named(id, reason.clone()))),
            Readiness::Settling(_) => return (counted(&seen.pending), waits(&self.named(id, Reason::Settling))),
        };
        let resource = counted(&seen.pending);
        let ask = match self.ask(seen) {
            Ok(ask) => ask,
            Err(reason) => return (resource, waits(&self.named(id, reason))),
        };
        if let Some(reason) = self.refused_anyway(&ask) {
            let total = self.snapshot.cluster().node_count();
            return (resource, waits(&Refusal::PreFilter { total, reason }));
        }
        match self.place_gang(id, &ask, seen, missing.as_ref()) {
            Planned::Placed(places) => (resource, self.given_back(id, &ask, standing, &places)),
            Planned::Split(level) => {
                let level = self.snapshot.cluster().tree().levels().name(level).into();
                (resource, waits(&self.named(id, Reason::SplitDomain(level))))
            }
            Planned::SearchLimit(steps) => {
                let refusal = self.named(id, Reason::SearchLimit(steps));
                let outcome = self.refused(id, &ask, &[], &refusal, &resource, now);
                (resource, outcome)
            }
            Planned::Nowhere(nowhere) => {
                let short = |reason: &Reason| match reason {
                    Reason::Insufficient(name) => Some(name.clone()),
                    _ => None,
                };
                let short = nowhere.seen.reasons.keys().find_map(short);
                let resource = unit(self.snapshot.cluster(), &ask.members, short.as_ref());
                let together = missing.is_none().then(|| ask.clone());
                let asks: Vec<Ask> = together.into_iter().chain(self.would_do(&ask, seen, missing.as_ref())).collect();
                let refusal = self.no_place(id, &ask, *nowhere);
                let outcome = self.refused(id, &ask, &asks, &refusal, &resource, now);
                (resource, outcome)
            }
        }
    }

    /// The places that were found; nobody is assumed any more.
    fn given_back(
        &mut self,
        id: GangId,
        ask: &Ask,
        standing: &[(PodId, NodeId)],
        places: &[(PodId, NodeId)],
    ) -> Outcome {
        if let Err(reason) = self.placements(places) {
            return waits(&self.named(id, reason));
        }
        for (pod, _) in places {
            self.snapshot.forget(*pod);
        }
        let all: Vec<(PodId, NodeId)> = standing.iter().chain(places).copied().collect();
        let cluster = self.snapshot.cluster();
        Outcome::Fits {
            seats: seats(cluster, places),
            domain: domain_of(cluster, all.iter().map(|(_, node)| *node)),
            left: u32::try_from(ask.members.len().saturating_sub(places.len())).unwrap_or(u32::MAX),
            pace: pace(cluster, &all),
        }
    }

    fn refused(
        &mut self,
        id: GangId,
        ask: &Ask,
        asks: &[Ask],
        refusal: &Refusal,
        resource: &str,
        now: Millis,
    ) -> Outcome {
        let infos = ask.members.iter().filter_map(|pod| self.snapshot.cluster().info(*pod));
        let priority = infos.map(|pod| pod.priority).min().unwrap_or(i32::MIN);
        Outcome::Refused {
            reason: refusal.condition_reason().to_owned(),
            message: refusal.message(),
            levels: lacks(&mut self.snapshot, &self.gangs, ask, resource, priority),
            room: self.outlook(id, asks, resource, priority, now),
        }
    }

    /// Whom preemption would choose for the first of these asks that room can be made for.
    fn outlook(&mut self, id: GangId, asks: &[Ask], resource: &str, priority: i32, now: Millis) -> Outlook {
        let said = |preemption: Preemption| Outlook { message: preemption.to_string(), ..Outlook::default() };
        let members: BTreeSet<PodId> = asks.iter().flat_map(|ask| ask.members.iter().copied()).collect();
        if members.is_empty() || members.iter().any(|pod| self.snapshot.profile(*pod).preemption.is_none()) {
            return Outlook::default();
        }
        if members.iter().filter_map(|pod| self.snapshot.cluster().info(*pod)).any(|pod| pod.never_preempts) {
            return said(Preemption::Never);
        }
        let mut came = GangRoom::Nowhere;
        for ask in asks {
            let around = Around { gangs: &self.gangs, own: id, doomed: self.evictions.doomed(), now };
            match make_room(&mut self.snapshot, ask, priority, around) {
                Making::Room(room) => match self.outranked(&room, priority) {
                    None => return self.chosen(&room, resource, priority),
                    Some(other) => came = GangRoom::Outranked(self.title_of(other)),
                },
                Making::Going => came = GangRoom::Going,
                Making::Limit => came = GangRoom::Limit,
                Making::Nowhere => {}
            }
        }
        said(Preemption::Gang(came))
    }

    fn chosen(&self, room: &Room, resource: &str, priority: i32) -> Outlook {
        let cluster = self.snapshot.cluster();
        let victim = |pods: &[PodId]| {
            let name = pods.first().map(|pod| name_of(cluster, &self.gangs, *pod))?;
            Some(holder(cluster, name, pods, resource, priority))
        };
        let found = room.victims.iter().map(|unit| (self.name_of(unit), unit.pods.len())).collect();
        Outlook {
            message: Preemption::Gang(GangRoom::Found(found)).to_string(),
            victims: room.victims.iter().filter_map(|unit| victim(&unit.pods)).collect(),
            seats: seats(cluster, &room.places),
        }
    }
}

fn waits(refusal: &Refusal) -> Outcome {
    Outcome::Waits { reason: refusal.condition_reason().to_owned(), message: refusal.message() }
}
