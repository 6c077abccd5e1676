//! What is told to people and nobody waits for: pod conditions, gang statuses and Events. The latest per object wins.
//!
//! A condition `PodScheduled=False` must never land after the pod's Binding, which sets it to True: binding a pod takes
//! its waiting condition back ([`Reports::forget_condition`]) and waits for one that is being written
//! ([`Reports::condition_settled`]).
//!
//! The engine says a thing once, so that what it said must arrive: a condition or status whose write fails for a reason that
//! passes waits again until it is outdated; what finds no room is answered to the engine, which says it again.

use super::events::{EventBook, EventKey, EventWrite};
use super::gate::{Call, Failure, Gate};
use super::latest::{Inserted, Latest};
use crate::convert::gangs::{GroupWrite, seconds};
use crate::metrics::Metrics;
use flowforge_api::names::{condition, field_manager};
use flowforge_scheduler_core::command::{EventKind, GangSchedulingStatus};
use flowforge_scheduler_core::model::PodKey;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Most objects of each kind that wait to be told about.
const CAPACITY: usize = 131_072;
/// Entries of a gang's placement summary.
const SUMMARY_ENTRIES: usize = 64;
/// Pause before a report whose write failed for a reason that passes waits again.
const RETRY: Duration = Duration::from_secs(1);

/// A condition to write on a pod.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct ConditionWrite {
    pub(super) pod: PodKey,
    pub(super) reason: SmolStr,
    pub(super) message: String,
    pub(super) generation: i64,
    /// Whether the pod already has the condition with status False, whose transition time then stays.
    pub(super) transitioned: bool,
}

/// A gang's status to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct GangWrite {
    pub(super) namespace: SmolStr,
    pub(super) name: SmolStr,
    pub(super) uid: SmolStr,
    pub(super) status: GangSchedulingStatus,
}

/// One thing to tell.
pub(super) enum ReportWrite {
    Condition(ConditionWrite),
    Gang(GangWrite),
    Group(GroupWrite),
    Event(EventWrite),
}

/// What was set aside for another try.
enum Failed {
    Condition(SmolStr),
    Gang(SmolStr),
    Group(SmolStr),
    Event(EventKey),
}

/// The reports that wait. Filled by the engine's thread, emptied by a few tasks.
pub(super) struct Reports {
    waiting: Mutex<Waiting>,
    added: Notify,
    settled: Notify,
    metrics: Metrics,
    instance: String,
}

struct Waiting {
    conditions: Latest<SmolStr, ConditionWrite>,
    gangs: Latest<SmolStr, GangWrite>,
    groups: Latest<SmolStr, GroupWrite>,
    events: Latest<EventKey, EventWrite>,
    book: EventBook,
    /// Since when the condition of a gang has its status, by UID; bounded with the gangs that are alive.
    gang_since: BTreeMap<SmolStr, (bool, String)>,
    turn: usize,
}

impl Reports {
    pub(super) fn new(metrics: Metrics, instance: String) -> Self {
        let waiting = Waiting {
            conditions: Latest::new(CAPACITY),
            gangs: Latest::new(CAPACITY),
            groups: Latest::new(CAPACITY),
            events: Latest::new(CAPACITY),
            book: EventBook::default(),
            gang_since: BTreeMap::new(),
            turn: 0,
        };
        Self { waiting: Mutex::new(waiting), added: Notify::new(), settled: Notify::new(), metrics, instance }
    }

    /// Takes a condition; false when there is no room for it.
    pub(super) fn condition(&self, write: ConditionWrite) -> bool {
        let inserted = self.waiting.lock().conditions.insert(write.pod.uid.clone(), write);
        self.count("conditions", inserted)
    }

    /// Takes a gang's status; false when there is no room for it.
    pub(super) fn gang(&self, write: GangWrite) -> bool {
        let inserted = self.waiting.lock().gangs.insert(write.uid.clone(), write);
        self.count("gang_statuses", inserted)
    }

    /// Takes the status of an object of others; false when there is no room for it.
    pub(super) fn group(&self, write: GroupWrite) -> bool {
        let inserted = self.waiting.lock().groups.insert(write.uid().clone(), write);
        self.count("group_statuses", inserted)
    }

    pub(super) fn event(&self, pod: PodKey, kind: EventKind, note: String, profile: SmolStr, now_ms: u64) {
        let key = EventKey::new(&pod, kind);
        let inserted = {
            let mut waiting = self.waiting.lock();
            let Some(write) = waiting.book.note(pod, kind, note, profile, now_ms) else {
                drop(waiting);
                self.count("events", Inserted::Merged);
                return;
            };
            let inserted = waiting.events.insert(key.clone(), write);
            if inserted == Inserted::Dropped {
                waiting.book.forget(&key);
            }
            inserted
        };
        self.count("events", inserted);
    }

    /// A gang is gone: forget when its condition changed.
    pub(super) fn forget_gang(&self, uid: &SmolStr) {
        let mut waiting = self.waiting.lock();
        waiting.gang_since.remove(uid);
        waiting.gangs.remove(uid);
    }

    /// The gangs that are there: forget when the condition of any other changed.
    pub(super) fn retain_gangs(&self, listed: &BTreeSet<&SmolStr>) {
        self.waiting.lock().gang_since.retain(|uid, _| listed.contains(uid));
    }

    /// The pod is gone or about to be bound: what waits to be said about it is no longer true. Returns whether something
    /// that was to be said may never arrive.
    pub(super) fn forget_condition(&self, uid: &SmolStr) -> bool {
        let (forgotten, waited) = {
            let conditions = &mut self.waiting.lock().conditions;
            let before = conditions.len();
            (conditions.remove(uid), conditions.len() < before)
        };
        if waited {
            self.metrics.queue_items.with_label_values(&["conditions", "merged"]).inc();
        }
        forgotten
    }

    /// Waits until no condition of the pod is being written.
    pub(super) async fn condition_settled(&self, uid: &SmolStr) {
        loop {
            let settled = self.settled.notified();
            if !self.waiting.lock().conditions.is_working(uid) {
                return;
            }
            settled.await;
        }
    }

    /// Counts what became of an item; whether it was taken.
    fn count(&self, queue: &str, inserted: Inserted) -> bool {
        let direction = match inserted {
            Inserted::New => "in",
            Inserted::Merged => "merged",
            Inserted::Dropped => "dropped",
        };
        self.metrics.queue_items.with_label_values(&[queue, direction]).inc();
        if inserted == Inserted::New {
            self.added.notify_one();
        }
        inserted != Inserted::Dropped
    }

    /// The next report; conditions and statuses come before events, and each kind gets its turn.
    pub(super) async fn next(&self) -> ReportWrite {
        loop {
            let added = self.added.notified();
            if let Some(write) = self.waiting.lock().take() {
                // Another task may find more.
                self.added.notify_one();
                return write;
            }
            added.await;
        }
    }

    /// Writes one report and marks it done, or lets it wait again.
    pub(super) async fn write(&self, gate: &Gate, write: ReportWrite) {
        let (queue, outcome) = match &write {
            ReportWrite::Condition(condition) => ("conditions", self.write_condition(gate, condition).await),
            ReportWrite::Gang(gang) => ("gang_statuses", self.write_gang(gate, gang).await),
            ReportWrite::Group(group) => ("group_statuses", super::groups::send(group, gate).await),
            ReportWrite::Event(event) => ("events", self.write_event(gate, event).await),
        };
        self.metrics.queue_items.with_label_values(&[queue, "out"]).inc();
        match outcome {
            Err(Failure::Unknown(why)) => {
                tracing::debug!(queue, why, "a report failed");
                let failed = self.failed(write);
                tokio::time::sleep(RETRY).await;
                self.again(&failed);
            }
            Err(Failure::Refused(why)) => {
                tracing::warn!(queue, why, "a report was refused");
                self.done(&write);
            }
            Err(Failure::Conflict(_) | Failure::NotFound(_) | Failure::Lost) | Ok(()) => self.done(&write),
        }
    }

    fn done(&self, write: &ReportWrite) {
        {
            let mut waiting = self.waiting.lock();
            match write {
                ReportWrite::Condition(condition) => waiting.conditions.done(&condition.pod.uid),
                ReportWrite::Gang(gang) => waiting.gangs.done(&gang.uid),
                ReportWrite::Group(group) => waiting.groups.done(group.uid()),
                ReportWrite::Event(event) => waiting.events.done(&event.key()),
            }
        }
        self.settle();
    }

    /// Sets a report aside whose fate is unknown: conditions and statuses until they arrive, an Event that is not there yet
    /// for one more try.
    fn failed(&self, write: ReportWrite) -> Failed {
        let mut waiting = self.waiting.lock();
        match write {
            ReportWrite::Condition(condition) => {
                let uid = condition.pod.uid.clone();
                waiting.conditions.failed(uid.clone(), condition);
                Failed::Condition(uid)
            }
            ReportWrite::Gang(gang) => {
                let uid = gang.uid.clone();
                waiting.gangs.failed(uid.clone(), gang);
                Failed::Gang(uid)
            }
            ReportWrite::Group(group) => {
                let uid = group.uid().clone();
                waiting.groups.failed(uid.clone(), group);
                Failed::Group(uid)
            }
            ReportWrite::Event(event) => {
                let key = event.key();
                match event {
                    EventWrite { count: 1, last_try: false, .. } => {
                        waiting.events.failed(key.clone(), EventWrite { last_try: true, ..event });
                    }
                    // A series needs its Event: the next occurrence begins anew.
                    EventWrite { count: 1, .. } => waiting.book.forget(&key),
                    EventWrite { .. } => {}
                }
                Failed::Event(key)
            }
        }
    }

    fn again(&self, failed: &Failed) {
        let (queue, waits) = {
            let mut waiting = self.waiting.lock();
            match failed {
                Failed::Condition(uid) => ("conditions", waiting.conditions.again(uid)),
                Failed::Gang(uid) => ("gang_statuses", waiting.gangs.again(uid)),
                Failed::Group(uid) => ("group_statuses", waiting.groups.again(uid)),
                Failed::Event(key) => ("events", waiting.events.again(key)),
            }
        };
        if waits {
            self.count(queue, Inserted::New);
        }
        self.settle();
    }

    /// Nobody works on a key any more: whoever waited for it goes on.
    fn settle(&self) {
        let sizes = {
            let waiting = self.waiting.lock();
            [
                ("conditions", waiting.conditions.len()),
                ("gang_statuses", waiting.gangs.len()),
                ("group_statuses", waiting.groups.len()),
                ("events", waiting.events.len()),
            ]
        };
        for (queue, size) in sizes {
            self.metrics.queue_depth.with_label_values(&[queue]).set(i64::try_from(size).unwrap_or(i64::MAX));
        }
        self.settled.notify_waiters();
        self.added.notify_one();
    }

    async fn write_condition(&self, gate: &Gate, write: &ConditionWrite) -> Result<(), Failure> {
        let pod = &write.pod;
        let path = format!(
            "/api/v1/namespaces/{}/pods/{}/status?fieldManager={}",
            pod.namespace,
            pod.name,
            field_manager::SCHEDULER
        );
        let call = Call::strategic(path, &condition_patch(write, Timestamp::now()));
        gate.send::<IgnoredAny>(call, Instant::now()).await.map(|_| ())
    }

    async fn write_event(&self, gate: &Gate, write: &EventWrite) -> Result<(), Failure> {
        let now = Timestamp::now();
        let call = if write.count == 1 {
            Call::post(write.collection(), &write.object(&self.instance, now))
        } else {
            Call::merge(format!("{}/{}", write.collection(), write.name), &write.series(now))
        };
        gate.send::<IgnoredAny>(call, Instant::now()).await.map(|_| ())
    }

    async fn write_gang(&self, gate: &Gate, write: &GangWrite) -> Result<(), Failure> {
        let path = format!("/apis/flowforge.dev/v1alpha1/namespaces/{}/gangs/{}", write.namespace, write.name);
        let since = match self.since(write) {
            Some(since) => since,
            None => self.read_since(gate, write, path.clone()).await?,
        };
        let path = format!("{path}/status?fieldManager={}&force=true", field_manager::SCHEDULER);
        gate.send::<IgnoredAny>(Call::apply(path, &gang_apply(write, &since)), Instant::now()).await?;
        self.waiting.lock().gang_since.insert(write.uid.clone(), (write.status.scheduled, since));
        Ok(())
    }

    /// Since when the condition has the status to be written, as far as this process knows the gang.
    fn since(&self, write: &GangWrite) -> Option<String> {
        let waiting = self.waiting.lock();
        let (scheduled, since) = waiting.gang_since.get(&write.uid)?;
        Some(if *scheduled == write.status.scheduled { since.clone() } else { seconds(Timestamp::now()) })
    }

    /// The same for a gang that a former leader may have written.
    async fn read_since(&self, gate: &Gate, write: &GangWrite, path: String) -> Result<String, Failure> {
        let gang: StatusOnly = gate.send(Call::get(path), Instant::now()).await?;
        let wanted = if write.status.scheduled { "True" } else { "False" };
        let mut conditions = gang.status.conditions.into_iter();
        let same = conditions.find(|have| have.type_ == condition::SCHEDULED && have.status == wanted);
        Ok(same.map_or_else(|| seconds(Timestamp::now()), |have| have.last_transition_time))
    }
}

impl Waiting {
    fn take(&mut self) -> Option<ReportWrite> {
        // Three turns of four begin with what people and controllers wait for.
        self.turn = (self.turn + 1) % 4;
        let events_first = self.turn == 0;
        let event = |waiting: &mut Self| waiting.events.take().map(|(_, event)| ReportWrite::Event(event));
        let first = if events_first { event(self) } else { None };
        first
            .or_else(|| self.gangs.take().map(|(_, gang)| ReportWrite::Gang(gang)))
            .or_else(|| self.groups.take().map(|(_, group)| ReportWrite::Group(group)))
            .or_else(|| self.conditions.take().map(|(_, condition)| ReportWrite::Condition(condition)))
            .or_else(|| event(self))
    }
}

#[derive(Deserialize)]
struct StatusOnly {
    #[serde(default)]
    status: Conditions,
}

#[derive(Default, Deserialize)]
struct Conditions {
    #[serde(default)]
    conditions: Vec<HaveCondition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct HaveCondition {
    #[serde(rename = "type")]
    type_: String,
    status: String,
    last_transition_time: String,
}

fn condition_patch(write: &ConditionWrite, now: Timestamp) -> Value {
    let mut condition = json!({
        "type": "PodScheduled", "status": "False", "reason": write.reason, "message": write.message,
    });
    if write.generation > 0 {
        condition["observedGeneration"] = Value::from(write.generation);
    }
    if !write.transitioned {
        condition["lastTransitionTime"] = Value::from(seconds(now));
    }
    json!({"metadata": {"uid": write.pod.uid}, "status": {"conditions": [condition]}})
}

fn gang_apply(write: &GangWrite, since: &str) -> Value {
    let status = &write.status;
    let condition = json!({
        "type": condition::SCHEDULED, "status": if status.scheduled { "True" } else { "False" },
        "reason": status.reason, "message": status.message, "lastTransitionTime": since,
    });
    let mut placement = json!({"bound": status.bound});
    if let Some(domain) = &status.domain {
        placement["domain"] = Value::from(domain.as_str());
    }
    if !status.nodes.is_empty() {
        placement["nodes"] = Value::from(pack(&status.nodes));
    }
    json!({
        "apiVersion": "flowforge.dev/v1alpha1", "kind": "Gang",
        "metadata": {"name": write.name, "namespace": write.namespace, "uid": write.uid},
        "status": {"conditions": [condition], "placement": placement},
    })
}

/// Runs of the same node as `node*count`.
fn pack(nodes: &[SmolStr]) -> Vec<String> {
    let runs = nodes.chunk_by(|left, right| left == right).take(SUMMARY_ENTRIES);
    runs.filter_map(|run| Some((run.first()?, run.len())))
        .map(|(node, count)| if count == 1 { node.to_string() } else { format!("{node}*{count}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowforge_runtime::Metrics as Registry;

    fn reports() -> Reports {
        let registry = Registry::new("test", "1").expect("registry");
        Reports::new(Metrics::new(&registry).expect("metrics"), "me".to_owned())
    }

    fn condition(uid: &str, message: &str) -> ConditionWrite {
        ConditionWrite {
            pod: PodKey { namespace: "n".into(), name: "p".into(), uid: uid.into() },
            reason: "Unschedulable".into(),
            message: message.to_owned(),
            generation: 3,
            transitioned: false,
        }
    }

    #[tokio::test]
    async fn only_the_latest_condition_of_a_pod_is_written() {
        let reports = reports();
        reports.condition(condition("u", "old"));
        reports.condition(condition("u", "new"));
        let ReportWrite::Condition(write) = reports.next().await else { panic!("a condition") };
        assert_eq!(write.message, "new");
        assert!(reports.waiting.lock().take().is_none());
    }

    #[tokio::test]
    async fn a_binding_takes_back_what_waits_and_waits_for_what_is_being_written() {
        let reports = reports();
        reports.condition(condition("u", "0/1"));
        reports.forget_condition(&"u".into());
        assert!(reports.waiting.lock().take().is_none());
        reports.condition(condition("u", "0/1"));
        let write = reports.next().await;
        let uid = SmolStr::from("u");
        let settled = reports.condition_settled(&uid);
        tokio::pin!(settled);
        assert!(futures::poll!(settled.as_mut()).is_pending());
        reports.done(&write);
        assert!(futures::poll!(settled.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn a_condition_that_could_not_be_written_waits_again() {
        let reports = reports();
        reports.condition(condition("u", "0/1"));
        let failed = reports.failed(reports.next().await);
        assert!(reports.waiting.lock().take().is_none(), "not before its time");
        reports.again(&failed);
        let ReportWrite::Condition(write) = reports.next().await else { panic!("a condition") };
        assert_eq!(write.message, "0/1");
    }

    #[tokio::test]
    async fn a_binding_takes_back_a_condition_that_could_not_be_written() {
        let reports = reports();
        reports.condition(condition("u", "0/1"));
        let failed = reports.failed(reports.next().await);
        assert!(reports.forget_condition(&"u".into()));
        let uid = SmolStr::from("u");
        let settled = reports.condition_settled(&uid);
        tokio::pin!(settled);
        assert!(futures::poll!(settled.as_mut()).is_pending(), "the failed write may still land");
        reports.again(&failed);
        assert!(futures::poll!(settled.as_mut()).is_ready());
        assert!(reports.waiting.lock().take().is_none());

        reports.condition(condition("u", "0/1"));
        let in_work = reports.next().await;
        assert!(reports.forget_condition(&uid), "the binding comes while it is being written");
        reports.again(&reports.failed(in_work));
        assert!(reports.waiting.lock().take().is_none());
    }

    #[tokio::test]
    async fn an_event_is_tried_twice_and_then_begins_anew() {
        let reports = reports();
        let pod = condition("u", "").pod;
        let note = |at| reports.event(pod.clone(), EventKind::FailedScheduling, "0/1".to_owned(), "f".into(), at);
        note(0);
        let first = reports.next().await;
        reports.again(&reports.failed(first));
        let second = reports.next().await;
        reports.again(&reports.failed(second));
        assert!(reports.waiting.lock().take().is_none());
        note(1_000);
        let ReportWrite::Event(write) = reports.next().await else { panic!("an event") };
        assert_eq!(write.count, 1, "there is no event to make a series of");
    }

    #[test]
    fn a_condition_keeps_the_time_of_its_transition() {
        let at = Timestamp::from_second(0).expect("a time");
        let mut write = condition("u", "why");
        let patch = condition_patch(&write, at);
        assert_eq!(patch["metadata"]["uid"], "u");
        assert_eq!(patch["status"]["conditions"][0]["lastTransitionTime"], "1970-01-01T00:00:00Z");
        assert_eq!(patch["status"]["conditions"][0]["observedGeneration"], 3);
        write.transitioned = true;
        assert_eq!(condition_patch(&write, at)["status"]["conditions"][0].get("lastTransitionTime"), None);
    }

    #[test]
    fn a_placement_is_packed_by_runs_and_bounded() {
        let nodes: Vec<SmolStr> = ["a", "a", "b", "a"].into_iter().map(SmolStr::from).collect();
        assert_eq!(pack(&nodes), ["a*2", "b", "a"]);
        let many: Vec<SmolStr> = (0..500).map(|index| smol_str::format_smolstr!("n{index}")).collect();
        assert_eq!(pack(&many).len(), SUMMARY_ENTRIES);
    }
}
