//! When an object of others is taken up, and what the core hears of it.
#![allow(clippy::needless_pass_by_value, reason = "literals of json! are given as they are written")]

use super::*;
use crate::convert::gangs::CoschedulingPodGroup as PodGroup;
use serde_json::{Value, json};

const NAME: &str = "podgroup.scheduling.x-k8s.io/g";

fn desk() -> Desk {
    Desk::new(Ours::new(["flowforge".into()]))
}

fn seen(uid: &str, min: u32, annotations: Value) -> GroupFact {
    let meta = json!({"name": "g", "namespace": "n", "uid": uid, "annotations": annotations});
    let object: PodGroup =
        serde_json::from_value(json!({"metadata": meta, "spec": {"minMember": min}})).expect("an object");
    GroupFact::Seen(Box::new(object))
}

fn member(uid: &str, scheduler: &str) -> PodInfo {
    let pod = serde_json::from_value(json!({
        "metadata": {"name": uid, "namespace": "n", "uid": uid, "labels": {"scheduling.x-k8s.io/pod-group": "g"}},
        "spec": {"schedulerName": scheduler},
    }));
    crate::convert::pod(&pod.expect("a pod"), |name| name == "flowforge")
}

/// UID and minimum of what is declared, or the UID of what is gone.
fn heard(events: Vec<Event>) -> Vec<(String, Option<u32>)> {
    let one = |event| match event {
        Event::GangUpsert(gang) => {
            assert_eq!(gang.name, NAME);
            (gang.uid.to_string(), Some(gang.min_member))
        }
        Event::GangDelete { uid, .. } => (uid.to_string(), None),
        other => panic!("{other:?}"),
    };
    events.into_iter().map(one).collect()
}

#[test]
fn an_object_is_taken_up_with_the_first_pod_that_asks_for_us_and_never_otherwise() {
    let mut desk = desk();
    assert_eq!(heard(desk.take(seen("u", 2, json!({})))), []);
    assert_eq!(heard(desk.see_pod(&member("other", "default-scheduler"))), []);
    assert_eq!(heard(desk.see_pod(&member("a", "flowforge"))), [("u".to_owned(), Some(2))]);
    assert_eq!(heard(desk.see_pod(&member("b", "flowforge"))), [], "known already");
    assert_eq!(heard(desk.take(seen("u", 3, json!({})))), [("u".to_owned(), Some(3))]);
    assert_eq!(desk.known().collect::<Vec<_>>(), ["u"]);
    assert_eq!(heard(desk.take(GroupFact::Gone(("n".into(), NAME.into())))), [("u".to_owned(), None)]);
}

#[test]
fn an_object_that_comes_after_its_pods_or_is_annotated_is_taken_up_at_once() {
    let mut late = desk();
    late.see_pod(&member("a", "flowforge"));
    assert_eq!(heard(late.take(seen("u", 2, json!({})))), [("u".to_owned(), Some(2))]);
    let mut asked = desk();
    assert_eq!(heard(asked.take(seen("u", 2, json!({"flowforge.dev/adopt": "true"})))), [("u".to_owned(), Some(2))]);
}

#[test]
fn an_object_made_anew_or_missing_in_a_list_ends_the_former_gang() {
    let mut desk = desk();
    desk.see_pod(&member("a", "flowforge"));
    desk.take(seen("old", 2, json!({})));
    assert_eq!(heard(desk.take(seen("new", 2, json!({})))), [("old".to_owned(), None), ("new".to_owned(), Some(2))]);
    let list = |kind| GroupFact::Listed { kind, names: BTreeSet::new() };
    assert_eq!(heard(desk.take(list("podgroup.scheduling.k8s.io"))), [], "a list of another kind");
    assert_eq!(heard(desk.take(list("podgroup.scheduling.x-k8s.io"))), [("new".to_owned(), None)]);
}

#[test]
fn pods_are_counted_until_they_are_gone() {
    let mut desk = desk();
    let key: Key = ("n".into(), NAME.into());
    let mut pod = member("a", "flowforge");
    desk.see_pod(&pod);
    (pod.node_name, pod.phase) = (Some("n1".into()), flowforge_scheduler_core::model::PodPhase::Running);
    desk.see_pod(&pod);
    desk.see_pod(&member("b", "flowforge"));
    let tally = desk.members.tally(&key);
    assert_eq!((tally.all, tally.bound, tally.running), (2, 1, 1));
    let b = SmolStr::from("b");
    desk.retain_pods(&BTreeSet::from([&b]));
    assert_eq!(desk.members.tally(&key).all, 1);
    desk.forget_pod(&b);
    assert!(!desk.members.any(&key));
}
