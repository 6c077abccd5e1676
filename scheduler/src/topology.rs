//! `ClusterTopology` objects: which levels are in force, and what is said about them.
//!
//! ```text
//!   object "default" ──usable──> in force        not usable ──> its last usable levels, else the configuration's
//!   no such object, no such API ──────────────> the configuration's
//!   levels in force ──> engine (Event::Topology) ──survey of the nodes' labels──> conditions, metric
//! ```
//! Invariant: there are always levels in force, so that nothing that is wrong with an object ever keeps a pod waiting
//! that asks for no level.

use crate::convert::types::Meta;
use crate::dispatch::{Outbox, TopologyWrite};
use crate::input::Fact;
use crate::metrics::Metrics;
use crate::watch::{Listed, Watched};
use flowforge_api::names::condition;
use flowforge_api::topology::{DEFAULT, TopologyLevelStatus, reason};
use flowforge_api::{ClusterTopologySpec, ClusterTopologyStatus};
use flowforge_scheduler_core::engine::Engine;
use flowforge_topology_core::{FindingKind, LevelSpec, Levels, LevelsError, Survey};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Deserialize;
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// Labels of nodes that change are looked at again after so long at the earliest.
const SURVEY_PERIOD: Duration = Duration::from_secs(10);
/// And after so many times what the last survey took: the engine's thread has other things to do.
const SURVEY_SHARE: u32 = 200;
/// Findings that a condition tells, and bytes that they may take; etcd and people have limits.
const TOLD: usize = 16;
const MESSAGE_BYTES: usize = 2_048;

/// A `ClusterTopology` with what is used of it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct ClusterTopology {
    metadata: Meta,
    spec: ClusterTopologySpec,
    #[serde(default)]
    status: ClusterTopologyStatus,
}

/// ClusterTopologies.
pub(crate) struct ClusterTopologies;

impl Watched for ClusterTopologies {
    type Object = ClusterTopology;
    const KIND: &'static str = "clustertopologies";
    const PATH: &'static str = "/apis/flowforge.dev/v1alpha1/clustertopologies";
    const OPTIONAL: bool = true;

    fn meta(object: &ClusterTopology) -> &Meta {
        &object.metadata
    }

    fn upsert(&self, object: &ClusterTopology) -> Fact {
        Fact::Topology(TopologyFact::Seen(Box::new(object.clone())))
    }

    fn gone(object: &ClusterTopology) -> Fact {
        Fact::Topology(TopologyFact::Gone(object.metadata.name.clone()))
    }

    fn listed(metas: Vec<Listed>) -> Fact {
        Fact::Topology(TopologyFact::Listed(metas.into_iter().map(|listed| listed.name).collect()))
    }
}

/// News of a `ClusterTopology`.
#[derive(Debug)]
pub(crate) enum TopologyFact {
    /// Added or changed.
    Seen(Box<ClusterTopology>),
    /// Gone.
    Gone(SmolStr),
    /// Names of all that a list found.
    Listed(BTreeSet<SmolStr>),
}

/// The levels in force and the objects that have a say.
pub(crate) struct TopologyDesk {
    configured: Levels,
    in_force: Levels,
    objects: BTreeMap<SmolStr, ClusterTopology>,
    /// An object changed since statuses were compared with it.
    changed: bool,
    /// Other levels came into force since the last survey.
    other_levels: bool,
    /// Until when no other survey is due, and what was surveyed.
    surveyed: Option<(Instant, (u64, u64))>,
    survey: Survey,
}

impl TopologyDesk {
    /// A desk without objects.
    pub(crate) fn new(configured: Levels) -> Self {
        let in_force = configured.clone();
        Self {
            configured,
            in_force,
            objects: BTreeMap::new(),
            changed: true,
            other_levels: true,
            surveyed: None,
            survey: Survey::default(),
        }
    }

    /// Takes news in. Some: these levels are in force from now on.
    pub(crate) fn take(&mut self, fact: TopologyFact) -> Option<Vec<LevelSpec>> {
        match fact {
            TopologyFact::Seen(object) => {
                self.objects.insert(object.metadata.name.clone(), *object);
            }
            TopologyFact::Gone(name) => {
                self.objects.remove(&name);
            }
            TopologyFact::Listed(names) => self.objects.retain(|name, _| names.contains(name)),
        }
        self.changed = true;
        let wanted = match self.objects.get(DEFAULT).map(|object| levels(&object.spec)) {
            None => self.configured.clone(),
            Some(Ok(levels)) => levels,
            Some(Err(_)) => return None,
        };
        if self.in_force == wanted {
            return None;
        }
        tracing::info!(levels = %names(&wanted), "other topology levels are in force");
        self.in_force = wanted;
        self.other_levels = true;
        Some(self.in_force.specs())
    }

    /// Looks at the nodes' labels where something may be new, sets the metric, and hands on statuses that are not as written.
    pub(crate) fn tell(&mut self, engine: &Engine, outbox: &Outbox, metrics: &Metrics) {
        let cluster = engine.snapshot().cluster();
        let epoch = cluster.survey_epoch();
        let outdated = self.surveyed.is_none_or(|(until, seen)| seen != epoch && Instant::now() >= until);
        let due = outdated || self.other_levels;
        if !engine.is_planning() || !(due || self.changed) {
            return;
        }
        if due {
            let begun = Instant::now();
            self.survey = cluster.survey();
            let pause = SURVEY_PERIOD.max(begun.elapsed() * SURVEY_SHARE);
            self.surveyed = Some((Instant::now() + pause, epoch));
        }
        (self.changed, self.other_levels) = (false, false);
        metrics
            .set_topology(&self.survey, self.objects.get(DEFAULT).is_some_and(|object| levels(&object.spec).is_err()));
        let now = Timestamp::now();
        outbox.write_topologies(self.objects.values().filter_map(|object| self.write(object, now)).collect());
    }

    /// For `/debug/state`.
    pub(crate) fn inspect(&self) -> Value {
        let findings =
            self.survey.findings.iter().map(|finding| json!({"kind": finding.kind.word(), "message": finding.message}));
        json!({"levels": names(&self.in_force), "findings": findings.collect::<Vec<_>>()})
    }

    /// The status of an object; None when it is written so already.
    fn write(&self, object: &ClusterTopology, now: Timestamp) -> Option<TopologyWrite> {
        let status = self.status(object, now);
        let meta = &object.metadata;
        (status != object.status).then(|| TopologyWrite { name: meta.name.clone(), uid: meta.uid.clone(), status })
    }

    fn status(&self, object: &ClusterTopology, now: Timestamp) -> ClusterTopologyStatus {
        let generation = Some(object.metadata.generation);
        let condition = |type_: &str, holds: bool, reason: &str, message: String| {
            let status = if holds { "True" } else { "False" };
            let known = object.status.conditions.iter().find(|have| have.type_ == type_ && have.status == status);
            Condition {
                type_: type_.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message,
                last_transition_time: known
                    .map_or_else(|| Time(whole_seconds(now)), |have| have.last_transition_time.clone()),
                observed_generation: generation,
            }
        };
        let (holds, why, message) = self.readiness(object);
        let mut status = ClusterTopologyStatus {
            observed_generation: generation,
            conditions: vec![condition(condition::READY, holds, why, message)],
            ..ClusterTopologyStatus::default()
        };
        if holds {
            let (degraded, why, message) = degradation(&self.survey);
            status.conditions.push(condition(condition::DEGRADED, degraded, why, message));
            status.nodes = i64::try_from(self.survey.nodes).ok();
            let integer = |count| i64::try_from(count).unwrap_or(i64::MAX);
            let level = |level: &flowforge_topology_core::LevelCount| TopologyLevelStatus {
                name: level.level.to_string(),
                domains: integer(level.domains),
                nodes: integer(level.nodes),
            };
            status.levels = self.survey.levels.iter().map(level).collect();
        }
        status
    }

    fn readiness(&self, object: &ClusterTopology) -> (bool, &'static str, String) {
        if object.metadata.name != DEFAULT {
            return (false, reason::NOT_DEFAULT, format!("only the ClusterTopology named {DEFAULT} counts"));
        }
        match levels(&object.spec) {
            Ok(levels) => (true, reason::IN_USE, format!("levels {} are in force", names(&levels))),
            Err(why) => {
                let stays = format!("{why}; until that is corrected levels {} stay in force", names(&self.in_force));
                (false, reason::INVALID_LEVELS, stays)
            }
        }
    }
}

fn levels(spec: &ClusterTopologySpec) -> Result<Levels, LevelsError> {
    let labels = |labels: &[String]| labels.iter().map(SmolStr::from).collect();
    Levels::new(spec.levels.iter().map(|level| (SmolStr::from(&level.name), labels(&level.labels))).collect())
}

fn names(levels: &Levels) -> String {
    levels.names().collect::<Vec<_>>().join(" > ")
}

/// `metav1.Time` has no fractions; with them an echo would differ from what was written.
fn whole_seconds(now: Timestamp) -> Timestamp {
    Timestamp::from_second(now.as_second()).unwrap_or(now)
}

fn degradation(survey: &Survey) -> (bool, &'static str, String) {
    let kinds: BTreeSet<FindingKind> = survey.findings.iter().map(|finding| finding.kind).collect();
    let why = match (kinds.first(), kinds.len()) {
        (None, _) => return (false, reason::COMPLETE, "the labels of the nodes fit the levels".to_owned()),
        (Some(kind), 1) => kind.word(),
        (Some(_), _) => reason::SEVERAL,
    };
    let mut message = survey.findings.iter().take(TOLD).map(|f| f.message.as_str()).collect::<Vec<_>>().join("; ");
    if survey.findings.len() > TOLD {
        message.push_str(&format!("; and {} more", survey.findings.len() - TOLD));
    }
    if message.len() > MESSAGE_BYTES {
        message.truncate(message.floor_char_boundary(MESSAGE_BYTES));
        message.push('…');
    }
    (true, why, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowforge_topology_core::{Finding, LevelCount, standard};

    fn object(name: &str, levels: &[(&str, &[&str])]) -> ClusterTopology {
        let levels: Vec<Value> = levels.iter().map(|(name, labels)| json!({"name": name, "labels": labels})).collect();
        let meta = json!({"name": name, "uid": "u", "generation": 3, "resourceVersion": "7"});
        serde_json::from_value(json!({"metadata": meta, "spec": {"levels": levels}})).expect("an object")
    }

    fn seen(object: ClusterTopology) -> TopologyFact {
        TopologyFact::Seen(Box::new(object))
    }

    fn desk() -> TopologyDesk {
        TopologyDesk::new(Levels::new(standard()).expect("valid"))
    }

    fn level_names(levels: Option<Vec<LevelSpec>>) -> Option<Vec<SmolStr>> {
        levels.map(|levels| levels.into_iter().map(|(name, _)| name).collect())
    }

    #[test]
    fn the_object_named_default_overrides_the_configuration_until_it_is_gone() {
        let mut desk = desk();
        assert_eq!(desk.take(TopologyFact::Listed(BTreeSet::new())), None);
        assert_eq!(desk.take(seen(object("other", &[("row", &["r"])]))), None);
        let row = object(DEFAULT, &[("row", &["r"])]);
        assert_eq!(level_names(desk.take(seen(row.clone()))), Some(vec!["row".into()]));
        assert_eq!(desk.take(seen(row)), None, "its own echo changes nothing");
        let standard = vec!["zone".into(), "block".into(), "rack".into(), "nvlink".into(), "host".into()];
        assert_eq!(level_names(desk.take(TopologyFact::Gone(DEFAULT.into()))), Some(standard.clone()));
        desk.take(seen(object(DEFAULT, &[("row", &["r"])])));
        assert_eq!(level_names(desk.take(TopologyFact::Listed(BTreeSet::new()))), Some(standard));
    }

    #[test]
    fn levels_that_cannot_be_used_leave_the_last_ones_in_force_and_say_so() {
        let mut desk = desk();
        let broken = object(DEFAULT, &[("a", &["x"]), ("b", &["x"])]);
        assert_eq!(desk.take(seen(broken.clone())), None);
        let status = desk.status(&broken, Timestamp::UNIX_EPOCH);
        let ready = &status.conditions[0];
        assert_eq!((ready.status.as_str(), ready.reason.as_str(), status.levels.len()), ("False", "InvalidLevels", 0));
        assert!(
            ready.message.contains("node label \"x\" is read by topology levels \"a\" and \"b\""),
            "{}",
            ready.message
        );
        assert!(
            ready.message.ends_with("levels zone > block > rack > nvlink > host stay in force"),
            "{}",
            ready.message
        );
        desk.take(seen(object(DEFAULT, &[("row", &["r"])])));
        assert_eq!(desk.take(seen(broken.clone())), None);
        assert!(
            desk.status(&broken, Timestamp::UNIX_EPOCH).conditions[0].message.ends_with("levels row stay in force")
        );
    }

    #[test]
    fn a_status_tells_what_the_labels_lack_and_is_written_once() {
        let mut desk = desk();
        let mut row = object(DEFAULT, &[("row", &["r"])]);
        desk.take(seen(row.clone()));
        let finding =
            |kind, message: &str| Finding { kind, level: "row".into(), message: message.to_owned(), count: 1 };
        let counts = LevelCount { level: "row".into(), domains: 2, nodes: 5 };
        desk.survey = Survey {
            nodes: 6,
            levels: vec![counts],
            findings: vec![finding(FindingKind::MissingLabels, "1 node lacks it")],
        };
        let at = |second| Timestamp::from_second(second).expect("a time");
        let write = desk.write(&row, at(10)).expect("not written yet");
        let degraded = &write.status.conditions[1];
        assert_eq!((degraded.status.as_str(), degraded.reason.as_str()), ("True", "MissingLabels"));
        assert_eq!(degraded.message, "1 node lacks it");
        assert_eq!((write.status.nodes, write.status.levels[0].domains), (Some(6), 2));
        row.status = write.status;
        assert_eq!(desk.write(&row, at(20)), None, "the echo is no news");
        desk.survey.findings.push(finding(FindingKind::SplitDomain, "a clique is torn"));
        let again = desk.write(&row, at(30)).expect("other findings");
        let degraded = &again.status.conditions[1];
        assert_eq!((degraded.reason.as_str(), degraded.last_transition_time.0), ("SeveralProblems", at(10)));
        desk.survey.findings.clear();
        let healed = &desk.write(&row, at(40)).expect("healed").status.conditions[1];
        assert_eq!((healed.status.as_str(), healed.reason.as_str()), ("False", "Complete"));
        assert_eq!(healed.last_transition_time.0, at(40));
    }

    #[test]
    fn another_name_does_not_count_and_a_long_message_is_cut() {
        let mut desk = desk();
        let other = object("other", &[("row", &["r"])]);
        desk.take(seen(other.clone()));
        let status = desk.status(&other, Timestamp::UNIX_EPOCH);
        assert_eq!((status.conditions.len(), status.conditions[0].reason.as_str()), (1, "NotDefault"));
        let long =
            Finding { kind: FindingKind::SharedHost, level: "host".into(), message: "ä".repeat(3_000), count: 2 };
        let (_, _, message) = degradation(&Survey { findings: vec![long; 40], ..Survey::default() });
        assert!(message.len() <= MESSAGE_BYTES + 3 && message.ends_with('…'), "{}", message.len());
    }
}
