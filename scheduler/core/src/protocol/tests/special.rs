//! Special claims of extended resources: made and named before their pod is bound, deleted where it is not.

use super::prepare::*;
use super::*;
use crate::event::PrepareReadResult;
use crate::preparation::{PodFacts, ResourceClaimFacts, Standing};
use expect_test::expect;
use serde_json::{Value, json};
use std::sync::Arc;

fn requests(class: &str) -> Value {
    json!([{"name": "container-0-request-0", "exactly": {"deviceClassName": class, "count": 1}}])
}

fn create(name: &str, conditions: &[&str]) -> Preparation {
    Preparation::CreateClaim {
        claim: claim(name),
        manifest: Arc::new(json!({"spec": {"devices": {"requests": requests("gpu")}}})),
        allocation: Arc::new(devices(conditions)),
        mappings: Arc::new(json!([{"containerName": "main"}])),
    }
}

/// A special claim of g-0 as the server has it.
fn made(version: &str, reserved: bool) -> ResourceClaimFacts {
    ResourceClaimFacts {
        uid: "made".into(),
        special_for: Some("g-0-uid".into()),
        requests: requests("gpu"),
        ..devices_of("x", version, if reserved { &["g-0"] } else { &[] })
    }
}

/// The pair, of which the first gets a special claim.
fn creating(conditions: &[&str]) -> Scene {
    let mut scene = Scene::leading();
    let mut plan = pair();
    plan.members[0].preparations = vec![create("x", conditions)];
    scene.begin(plan);
    scene.journal_ok(0);
    scene.transcript.clear();
    scene
}

fn status_read(scene: &mut Scene, title: &str, named: Option<&str>) {
    let facts = PodFacts {
        uid: "g-0-uid".into(),
        resource_version: "12".into(),
        special_claim: named.map(SmolStr::from),
        fence: None,
    };
    let found = PrepareReadResult::Found(Box::new(ObjectFacts::Pod(facts)));
    scene.prepared_read("read status of g-0", title, found);
}

#[test]
fn it_is_made_reserved_and_named_and_the_pod_is_bound_under_the_version_that_this_left() {
    let mut scene = creating(&[]);
    assert!(scene.payloads.values().all(|payload| Slot::decode(payload).unwrap().v == 3));
    scene.wrote("create claim x", "20");
    scene.wrote("allocate and reserve claim x @20 for g-0", "21");
    scene.wrote("name claim x in g-0", "22");
    scene.checked("g-0", Check::Sound);
    scene.check(&expect![[r#"
        > create claim x: ok
          allocate and reserve claim x @20 for g-0
        > allocate and reserve claim x @20 for g-0: ok
          name claim x in g-0
        > name claim x in g-0: ok
          PREPARED g-0 on n0
          observe Prepared { kind: CreateClaim, took_ms: 0 }
        > g-0 is Sound
          bind g-0 @22 to n0 (1-1)
          bind g-1 @10 to n1 (1-1)
    "#]]);
}

#[test]
fn one_that_may_be_there_is_looked_for_and_used() {
    let mut scene = creating(&["attached"]);
    scene.prepare("create claim x", "unknown", WriteResult::Unknown("reset".into()));
    scene.wait(5_000);
    scene.claim_read("x", "there", made("20", false));
    scene.wrote("allocate and reserve claim x @20 for g-0", "21");
    scene.wrote("name claim x in g-0", "22");
    scene.wait(30_000);
    let allocation = Some(devices(&["attached"]));
    let pending = ResourceClaimFacts { allocation, standing: Standing::Pending, ..made("21", true) };
    scene.claim_read("x", "pending", pending.clone());
    scene.wait(60_000);
    scene.claim_read("x", "attached", ResourceClaimFacts { standing: Standing::Ready, ..pending });
    scene.check(&expect![[r#"
        > create claim x: unknown
        > 5000 ms later
          read claim x
        > read claim x: there
          allocate and reserve claim x @20 for g-0
        > allocate and reserve claim x @20 for g-0: ok
          name claim x in g-0
        > name claim x in g-0: ok
        > 30000 ms later
          read claim x
        > read claim x: pending
        > 60000 ms later
          read claim x
        > read claim x: attached
          PREPARED g-0 on n0
          observe Prepared { kind: CreateClaim, took_ms: 95000 }
    "#]]);
}

#[test]
fn one_that_is_not_there_is_made_again() {
    let mut scene = creating(&[]);
    scene.prepare("create claim x", "unknown", WriteResult::Unknown("reset".into()));
    scene.wait(5_000);
    scene.prepared_read("read claim x", "not found", PrepareReadResult::NotFound);
    scene.wrote("create claim x", "20");
    scene.check(&expect![[r#"
        > create claim x: unknown
        > 5000 ms later
          read claim x
        > read claim x: not found
          create claim x
        > create claim x: ok
          allocate and reserve claim x @20 for g-0
    "#]]);
}

#[test]
fn one_of_another_pod_or_for_another_node_undoes_the_gang() {
    for facts in [
        ResourceClaimFacts { special_for: Some("z-uid".into()), ..made("20", false) },
        ResourceClaimFacts { requests: requests("other"), ..made("20", false) },
    ] {
        let theirs = facts.special_for != Some("g-0-uid".into());
        let mut scene = creating(&[]);
        scene.prepare("create claim x", "conflict", WriteResult::Conflict);
        scene.claim_read("x", "there", facts.clone());
        scene.claim_read("x", "there", facts);
        let deletes = scene.transcript.contains("release claim x @20");
        assert_eq!(deletes, !theirs, "only what is the pod's is deleted: {}", scene.transcript);
    }
}

#[test]
fn on_the_way_back_it_is_released_and_deleted() {
    let mut scene = creating(&[]);
    scene.wrote("create claim x", "20");
    scene.wrote("allocate and reserve claim x @20 for g-0", "21");
    scene.call("abort", |protocol, now, fx| protocol.abort(&gang(), "canceled", now, fx));
    scene.wrote("name claim x in g-0", "22");
    scene.claim_read("x", "reserved", made("21", true));
    scene.wrote("release claim x @21", "23");
    scene.wrote("delete claim x (made) @23", "");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > create claim x: ok
          allocate and reserve claim x @20 for g-0
        > allocate and reserve claim x @20 for g-0: ok
          name claim x in g-0
        > abort
        > name claim x in g-0: ok
          read claim x
        > read claim x: reserved
          release claim x @21
        > release claim x @21: ok
          delete claim x (made) @23
        > delete claim x (made) @23: ok
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Aborted("canceled")
    "#]]);
}

#[test]
fn the_next_leader_goes_on_where_the_pod_names_it() {
    let left = || {
        let mut former = creating(&[]);
        former.wrote("create claim x", "20");
        former.wrote("allocate and reserve claim x @20 for g-0", "21");
        let mut scene = Scene::new();
        scene.lead(2, former.journal_found());
        scene.journal_ok(0);
        scene.recovered(&[pod("g-0"), pod("g-1")]);
        scene.claim_read("x", "reserved", made("21", true));
        scene.wrote("fence claim x @21", "23");
        scene.claim_read("x", "reserved", made("23", true));
        scene
    };
    let mut scene = left();
    status_read(&mut scene, "names it", Some("x"));
    scene.checked("g-0", Check::Sound);
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/3 1-1.0 open [g-0@n0+x:x g-1@n1]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > recovered
          read claim x
        > read claim x: reserved
          fence claim x @21
        > fence claim x @21: ok
          read claim x
        > read claim x: reserved
          read status of g-0
        > read status of g-0: names it
          PREPARED g-0 on n0
          observe Prepared { kind: CreateClaim, took_ms: 0 }
        > g-0 is Sound
          bind g-0 @10 to n0 (1-1)
          bind g-1 @10 to n1 (1-1)
    "#]]);
    let mut scene = left();
    scene.transcript.clear();
    status_read(&mut scene, "names none", None);
    scene.fence_ok("g-0", "13");
    scene.fence_ok("g-1", "13");
    scene.claim_read("x", "reserved", made("23", true));
    scene.wrote("release claim x @23", "24");
    scene.wrote("delete claim x (made) @24", "");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > read status of g-0: names none
          observe PrepareFailed
          fence g-0 @10
          fence g-1 @10
        > fence g-0: ok
          read claim x
        > fence g-1: ok
        > read claim x: reserved
          release claim x @23
        > release claim x @23: ok
          delete claim x (made) @24
        > delete claim x (made) @24: ok
          write slot 0 @2: 2/4
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Unprepared("what ResourceClaim ns/x is for ended with the former leader")
    "#]]);
}
