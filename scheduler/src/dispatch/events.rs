//! Events on pods (events.k8s.io/v1): repeated ones become a series, notes are cut to what the API takes.

use flowforge_scheduler_core::command::EventKind;
use flowforge_scheduler_core::model::PodKey;
use jiff::Timestamp;
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Longest note of an Event.
const NOTE_LIMIT_BYTES: usize = 1024;
/// Longest object name, less room for what makes it unique.
const NAME_LIMIT_BYTES: usize = 253 - 18;
/// A repetition after this long begins a new Event, as in client-go.
const SERIES_MS: u64 = 6 * 60 * 1_000;
/// A series is written at most this often.
const SERIES_WRITE_MS: u64 = 60 * 1_000;
/// Events remembered for series.
const REMEMBERED: usize = 8_192;

/// What an Event is about; the note decides whether a repetition belongs to the series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct EventKey {
    pub(super) uid: SmolStr,
    kind: u8,
}

/// An Event to write.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct EventWrite {
    pub(super) pod: PodKey,
    pub(super) kind: EventKind,
    pub(super) note: String,
    pub(super) profile: SmolStr,
    pub(super) name: String,
    /// Repetitions so far; 1 makes the Event, more writes its series.
    pub(super) count: u32,
    /// Whether it failed before.
    pub(super) last_try: bool,
}

#[derive(Debug)]
struct Known {
    note: String,
    name: String,
    count: u32,
    seen_ms: u64,
    written_ms: u64,
}

/// Which Events were written lately. Not more than [`REMEMBERED`]: the oldest half goes when it is full.
#[derive(Debug, Default)]
pub(super) struct EventBook {
    known: BTreeMap<EventKey, Known>,
}

impl EventKey {
    pub(super) fn new(pod: &PodKey, kind: EventKind) -> Self {
        let kind = match kind {
            EventKind::Scheduled => 0,
            EventKind::FailedScheduling => 1,
            EventKind::GangRollback => 2,
            EventKind::Preempted => 3,
        };
        Self { uid: pod.uid.clone(), kind }
    }
}

impl EventBook {
    /// What to write for one more occurrence; None while a series was written recently.
    pub(super) fn note(
        &mut self,
        pod: PodKey,
        kind: EventKind,
        note: String,
        profile: SmolStr,
        now_ms: u64,
    ) -> Option<EventWrite> {
        let note = truncate(note);
        let key = EventKey::new(&pod, kind);
        let series = self.known.get_mut(&key).filter(|known| known.note == note && now_ms < known.seen_ms + SERIES_MS);
        if let Some(known) = series {
            known.count += 1;
            known.seen_ms = now_ms;
            if known.count > 2 && now_ms < known.written_ms + SERIES_WRITE_MS {
                return None;
            }
            known.written_ms = now_ms;
            return Some(EventWrite {
                pod,
                kind,
                note,
                profile,
                name: known.name.clone(),
                count: known.count,
                last_try: false,
            });
        }
        let name = event_name(&pod.name, now_ms, kind);
        self.make_room(now_ms);
        let known = Known { note: note.clone(), name: name.clone(), count: 1, seen_ms: now_ms, written_ms: now_ms };
        self.known.insert(key, known);
        Some(EventWrite { pod, kind, note, profile, name, count: 1, last_try: false })
    }

    /// The Event was not made: the next occurrence begins a new one.
    pub(super) fn forget(&mut self, key: &EventKey) {
        self.known.remove(key);
    }

    fn make_room(&mut self, now_ms: u64) {
        if self.known.len() < REMEMBERED {
            return;
        }
        self.known.retain(|_, known| now_ms < known.seen_ms + SERIES_MS);
        let mut ages: Vec<u64> = self.known.values().map(|known| known.seen_ms).collect();
        ages.sort_unstable();
        if let Some(&median) = ages.get(REMEMBERED / 2) {
            self.known.retain(|_, known| known.seen_ms > median);
        }
    }
}

impl EventWrite {
    /// What it is about.
    pub(super) fn key(&self) -> EventKey {
        EventKey::new(&self.pod, self.kind)
    }

    /// Collection of Events of the pod's namespace.
    pub(super) fn collection(&self) -> String {
        format!("/apis/events.k8s.io/v1/namespaces/{}/events", self.pod.namespace)
    }

    /// The Event as an object.
    pub(super) fn object(&self, instance: &str, now: Timestamp) -> Value {
        let (type_, reason, action) = match self.kind {
            EventKind::Scheduled => ("Normal", "Scheduled", "Binding"),
            EventKind::FailedScheduling => ("Warning", "FailedScheduling", "Scheduling"),
            EventKind::GangRollback => ("Warning", "GangRollback", "Binding"),
            EventKind::Preempted => ("Normal", "Preempted", "Preempting"),
        };
        json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event",
            "metadata": {"name": self.name, "namespace": self.pod.namespace},
            "eventTime": micros(now),
            "reportingController": self.profile,
            "reportingInstance": cut(instance, 128),
            "action": action, "reason": reason, "type": type_, "note": self.note,
            "regarding": {
                "apiVersion": "v1", "kind": "Pod",
                "namespace": self.pod.namespace, "name": self.pod.name, "uid": self.pod.uid,
            },
        })
    }

    /// The change that makes the Event a series.
    pub(super) fn series(&self, now: Timestamp) -> Value {
        json!({"series": {"count": self.count, "lastObservedTime": micros(now)}})
    }
}

fn micros(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%S%.6fZ").to_string()
}

fn event_name(pod: &str, now_ms: u64, kind: EventKind) -> String {
    let kind = EventKey::new(&PodKey::default(), kind).kind;
    format!("{}.{now_ms:015x}{kind:x}", cut(pod, NAME_LIMIT_BYTES).trim_end_matches(['.', '-']))
}

/// At most `limit` bytes, cut between characters.
fn cut(text: &str, limit: usize) -> &str {
    let mut end = text.len().min(limit);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

/// The note as the API takes it: what is too long ends in ` ...`.
fn truncate(mut note: String) -> String {
    const ELLIPSIS: &str = " ...";
    if note.len() > NOTE_LIMIT_BYTES {
        note.truncate(cut(&note, NOTE_LIMIT_BYTES - ELLIPSIS.len()).len());
        note.push_str(ELLIPSIS);
    }
    note
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(uid: &str) -> PodKey {
        PodKey { namespace: "n".into(), name: "p".into(), uid: uid.into() }
    }

    fn failed(book: &mut EventBook, note: &str, now_ms: u64) -> Option<u32> {
        let write = book.note(pod("u"), EventKind::FailedScheduling, note.to_owned(), "flowforge".into(), now_ms);
        write.map(|write| write.count)
    }

    #[test]
    fn a_repetition_makes_a_series_that_is_written_once_a_minute() {
        let mut book = EventBook::default();
        assert_eq!(failed(&mut book, "0/1", 0), Some(1));
        assert_eq!(failed(&mut book, "0/1", 1_000), Some(2));
        assert_eq!(failed(&mut book, "0/1", 2_000), None);
        assert_eq!(failed(&mut book, "0/1", 61_000), Some(4));
        assert_eq!(failed(&mut book, "0/2", 62_000), Some(1), "another note is another event");
        assert_eq!(failed(&mut book, "0/2", 62_000 + SERIES_MS), Some(1), "after the series ended it begins anew");
    }

    #[test]
    fn kinds_and_pods_do_not_mix() {
        let mut book = EventBook::default();
        assert_eq!(failed(&mut book, "x", 0), Some(1));
        let other = book.note(pod("u"), EventKind::Scheduled, "x".to_owned(), "f".into(), 0).expect("written");
        let stranger =
            book.note(pod("v"), EventKind::FailedScheduling, "x".to_owned(), "f".into(), 0).expect("written");
        assert_eq!((other.count, stranger.count), (1, 1));
    }

    #[test]
    fn the_book_is_bounded() {
        let mut book = EventBook::default();
        for index in 0..(REMEMBERED as u64 * 3) {
            book.note(pod(&index.to_string()), EventKind::Scheduled, String::new(), "f".into(), index);
            assert!(book.known.len() <= REMEMBERED);
        }
    }

    #[test]
    fn long_notes_end_in_an_ellipsis_at_the_limit() {
        assert_eq!(truncate("short".to_owned()), "short");
        assert_eq!(truncate("x".repeat(1_024)).len(), 1_024);
        let cut = truncate("x".repeat(1_025));
        assert_eq!((cut.len(), &cut[1_018..]), (1_024, "xx ..."));
        assert!(truncate("é".repeat(2_000)).ends_with("é ..."));
    }

    #[test]
    fn names_stay_valid_for_long_pods_and_differ_by_time_and_kind() {
        let long = format!("{}-x", "a".repeat(250));
        assert!(event_name(&long, u64::MAX, EventKind::Scheduled).len() <= 253);
        assert_ne!(event_name("p", 1, EventKind::Scheduled), event_name("p", 1, EventKind::FailedScheduling));
        assert_ne!(event_name("p", 1, EventKind::Scheduled), event_name("p", 2, EventKind::Scheduled));
    }

    #[test]
    fn an_event_reads_as_kube_schedulers_do() {
        let mut book = EventBook::default();
        let note = "Successfully assigned n/p to node".to_owned();
        let write = book.note(pod("u"), EventKind::Scheduled, note, "flowforge".into(), 5).expect("written");
        let at = Timestamp::from_microsecond(1_767_323_045_678_901).expect("a time");
        let object = write.object("host_1", at);
        assert_eq!(object["reason"], "Scheduled");
        assert_eq!(object["action"], "Binding");
        assert_eq!(object["eventTime"], "2026-01-02T03:04:05.678901Z");
        assert_eq!(object["regarding"]["uid"], "u");
        assert_eq!(write.series(at)["series"]["count"], 1);
    }
}
