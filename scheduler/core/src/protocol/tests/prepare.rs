//! Prepare: nothing is bound before all that the members need is there.

use super::*;
use crate::event::PrepareReadResult;
use crate::preparation::{ClaimName, ResourceClaimFacts, Standing, VolumeClaimFacts, VolumeFacts};
use expect_test::expect;
use serde_json::{Value, json};
use std::sync::Arc;

pub(super) fn claim(name: &str) -> ClaimName {
    ClaimName { namespace: "ns".into(), name: name.into(), uid: format!("{name}-uid").into() }
}

pub(super) fn provision(name: &str, node: &str) -> Preparation {
    Preparation::Provision { claim: claim(name), claim_resource_version: "5".into(), node: node.into() }
}

pub(super) fn bind_volume(name: &str, volume: &str) -> Preparation {
    Preparation::BindVolume {
        claim: claim(name),
        volume: volume.into(),
        volume_uid: format!("{volume}-uid").into(),
        volume_resource_version: "5".into(),
    }
}

pub(super) fn devices(conditions: &[&str]) -> Value {
    let result =
        json!({"request": "gpu", "driver": "d", "pool": "p", "device": "gpu-0", "bindingConditions": conditions});
    json!({"devices": {"results": [result]}})
}

pub(super) fn allocate(name: &str, conditions: &[&str]) -> Preparation {
    let allocation = Arc::new(devices(conditions));
    Preparation::AllocateClaim { claim: claim(name), resource_version: "5".into(), finalized: true, allocation }
}

pub(super) fn pvc(name: &str, version: &str) -> VolumeClaimFacts {
    VolumeClaimFacts { key: claim(name), resource_version: version.into(), ..VolumeClaimFacts::default() }
}

pub(super) fn selected(node: &str, pvc: VolumeClaimFacts) -> VolumeClaimFacts {
    VolumeClaimFacts { selected_node: Some(node.into()), ..pvc }
}

pub(super) fn bound(volume: &str, pvc: VolumeClaimFacts) -> VolumeClaimFacts {
    VolumeClaimFacts { volume: Some(volume.into()), bound: true, ..pvc }
}

pub(super) fn devices_of(name: &str, version: &str, pods: &[&str]) -> ResourceClaimFacts {
    ResourceClaimFacts {
        uid: format!("{name}-uid").into(),
        resource_version: version.into(),
        finalized: true,
        allocation: (!pods.is_empty()).then(|| devices(&[])),
        reserved_for: pods.iter().map(|pod| format!("{pod}-uid").into()).collect(),
        ..ResourceClaimFacts::default()
    }
}

/// The pair, each with something to prepare.
pub(super) fn pair_with(first: Preparation, second: Preparation) -> Plan {
    let mut plan = pair();
    plan.members[0].preparations = vec![first];
    plan.members[1].preparations = vec![second];
    plan
}

/// The pair, which provisions a volume each; the journal has it, and both were asked for.
pub(super) fn provisioning() -> Scene {
    let mut scene = Scene::leading();
    scene.begin(pair_with(provision("a", "n0"), provision("b", "n1")));
    scene.journal_ok(0);
    scene.wrote("select n0 for pvc a", "6");
    scene.wrote("select n1 for pvc b", "6");
    scene.transcript.clear();
    scene
}

/// The pair, which shares a claim.
pub(super) fn sharing() -> Scene {
    let mut scene = Scene::leading();
    scene.begin(pair_with(allocate("gpus", &[]), allocate("gpus", &[])));
    scene.journal_ok(0);
    scene.transcript.clear();
    scene
}

/// The same, with the claim allocated and reserved for both, at version 7.
pub(super) fn shared() -> Scene {
    let mut scene = sharing();
    scene.wrote("allocate and reserve claim gpus @5 for g-0", "6");
    scene.prepare("allocate and reserve claim gpus @5 for g-1", "conflict", WriteResult::Conflict);
    scene.claim_read("gpus", "allocated", devices_of("gpus", "6", &["g-0"]));
    scene.wrote("reserve claim gpus @6 for g-1", "7");
    scene
}

impl Scene {
    pub(super) fn prepare(&mut self, words: &str, title: &str, result: WriteResult) {
        let op = self.take(words);
        self.outcome(&format!("{words}: {title}"), Outcome::Prepare { op, result });
    }

    pub(super) fn wrote(&mut self, words: &str, version: &str) {
        self.prepare(words, "ok", WriteResult::Ok(version.into()));
    }

    pub(super) fn prepared_read(&mut self, words: &str, title: &str, result: PrepareReadResult) {
        let op = self.take(words);
        self.outcome(&format!("{words}: {title}"), Outcome::PreparedRead { op, result });
    }

    pub(super) fn pvc_read(&mut self, title: &str, facts: VolumeClaimFacts) {
        let words = format!("read pvc {}", facts.key.name);
        self.prepared_read(&words, title, PrepareReadResult::Found(Box::new(ObjectFacts::VolumeClaim(facts))));
    }

    pub(super) fn volume_read(&mut self, name: &str, title: &str, facts: VolumeFacts) {
        let words = format!("read volume {name}");
        self.prepared_read(&words, title, PrepareReadResult::Found(Box::new(ObjectFacts::Volume(facts))));
    }

    pub(super) fn claim_read(&mut self, name: &str, title: &str, facts: ResourceClaimFacts) {
        let words = format!("read claim {name}");
        self.prepared_read(&words, title, PrepareReadResult::Found(Box::new(ObjectFacts::ResourceClaim(facts))));
    }

    pub(super) fn pvc_seen(&mut self, title: &str, facts: &VolumeClaimFacts) {
        let title = format!("watch: pvc {} {title}", facts.key.name);
        self.call(&title, |protocol, now, fx| protocol.on_volume_claim(facts, now, fx));
    }

    pub(super) fn checked(&mut self, name: &str, check: Check) {
        self.call(&format!("{name} is {check:?}"), |protocol, now, fx| {
            protocol.checked(&pod(name).key, check, now, fx);
        });
    }
}

#[test]
fn nothing_is_bound_before_every_member_is_prepared() {
    let mut scene = Scene::leading();
    scene.begin(pair_with(provision("a", "n0"), provision("b", "n1")));
    scene.journal_ok(0);
    scene.wrote("select n0 for pvc a", "6");
    scene.wrote("select n1 for pvc b", "6");
    scene.pvc_seen("is asked for", &selected("n0", pvc("a", "6")));
    scene.pvc_seen("is bound", &selected("n0", bound("v", pvc("a", "7"))));
    scene.checked("g-0", Check::Sound);
    scene.pvc_seen("is bound", &selected("n1", bound("w", pvc("b", "7"))));
    scene.checked("g-1", Check::Sound);
    scene.bind_ok("g-0");
    scene.bind_ok("g-1");
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0+p:a g-1@n1+p:b]
        > slot 0: ok
          select n0 for pvc a @5
          select n1 for pvc b @5
        > select n0 for pvc a: ok
        > select n1 for pvc b: ok
        > watch: pvc a is asked for
        > watch: pvc a is bound
          PREPARED g-0 on n0
          observe Prepared { kind: Provision, took_ms: 0 }
        > g-0 is Sound
        > watch: pvc b is bound
          PREPARED g-1 on n1
          observe Prepared { kind: Provision, took_ms: 0 }
        > g-1 is Sound
          bind g-0 @10 to n0 (1-1)
          bind g-1 @10 to n1 (1-1)
        > bind g-0: ok
          CONFIRM g-0 on n0
        > bind g-1: ok
          CONFIRM g-1 on n1
          write slot 0 @3: 1/3
        > slot 0: ok
          CLOSED bound
    "#]]);
}

#[test]
fn what_is_not_there_in_time_is_given_up() {
    let mut scene = provisioning();
    scene.pvc_seen("is bound", &selected("n1", bound("w", pvc("b", "7"))));
    scene.checked("g-1", Check::Sound);
    scene.transcript.clear();
    scene.wait(600_000);
    scene.check(&expect![[r#"
        > 600000 ms later
          observe VolumesFailed(1)
          observe PrepareFailed
          read pvc a
          read pvc b
    "#]]);
}

#[test]
fn a_profile_may_be_less_patient_than_the_process() {
    let mut scene = Scene::leading();
    let mut plan = pair_with(provision("a", "n0"), provision("b", "n1"));
    plan.members[1].patience = Patience { volumes_ms: Some(5_000), devices_ms: None };
    scene.begin(plan);
    scene.journal_ok(0);
    scene.wrote("select n0 for pvc a", "6");
    scene.wrote("select n1 for pvc b", "6");
    scene.transcript.clear();
    scene.wait(5_000);
    scene.check(&expect![[r#"
        > 5000 ms later
          observe VolumesFailed(2)
          observe PrepareFailed
          read pvc a
          read pvc b
    "#]]);
}

#[test]
fn a_claim_that_no_watch_tells_of_is_read_now_and_then() {
    let mut scene = provisioning();
    scene.wait(10_000);
    scene.pvc_read("still asked for", selected("n0", pvc("a", "6")));
    scene.wait(10_000);
    scene.wait(10_000);
    scene.pvc_read("bound", selected("n0", bound("v", pvc("a", "7"))));
    scene.check(&expect![[r#"
        > 10000 ms later
          read pvc a
          read pvc b
        > read pvc a: still asked for
        > 10000 ms later
        > 10000 ms later
          read pvc a
        > read pvc a: bound
          PREPARED g-0 on n0
          observe Prepared { kind: Provision, took_ms: 30000 }
    "#]]);
}

#[test]
fn a_volume_that_another_claim_took_undoes_the_gang() {
    let mut scene = Scene::leading();
    scene.begin(pair_with(bind_volume("a", "v"), bind_volume("b", "w")));
    scene.journal_ok(0);
    scene.wrote("give volume w @5 to b", "6");
    scene.prepare("give volume v @5 to a", "conflict", WriteResult::Conflict);
    let taken =
        VolumeFacts { uid: "v-uid".into(), resource_version: "8".into(), claim: Some(claim("z")), deleting: false };
    scene.volume_read("v", "taken", taken);
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0+b:av g-1@n1+b:bw]
        > slot 0: ok
          give volume v @5 to a
          give volume w @5 to b
        > give volume w @5 to b: ok
        > give volume v @5 to a: conflict
          read volume v
        > read volume v: taken
          observe VolumesFailed(2)
          observe PrepareFailed
          write slot 0 @3: 1/3
        > slot 0: ok
          RELEASE g-0
          RELEASE g-1
          CLOSED undone: Unprepared("PersistentVolume v is taken by claim ns/z")
    "#]]);
}

#[test]
fn a_volume_that_only_changed_is_given_under_its_new_version() {
    let mut scene = Scene::leading();
    scene.begin(pair_with(bind_volume("a", "v"), bind_volume("b", "w")));
    scene.journal_ok(0);
    scene.transcript.clear();
    scene.prepare("give volume v @5 to a", "conflict", WriteResult::Conflict);
    let changed = VolumeFacts { uid: "v-uid".into(), resource_version: "8".into(), ..VolumeFacts::default() };
    scene.volume_read("v", "free", changed);
    scene.wrote("give volume v @8 to a", "9");
    scene.pvc_seen("is bound to another", &bound("x", pvc("a", "9")));
    scene.check(&expect![[r#"
        > give volume v @5 to a: conflict
          read volume v
        > read volume v: free
          give volume v @8 to a
        > give volume v @8 to a: ok
        > watch: pvc a is bound to another
          observe VolumesFailed(2)
          observe PrepareFailed
    "#]]);
}

#[test]
fn a_shared_claim_is_allocated_once_and_reserved_for_each() {
    let mut scene = shared();
    scene.checked("g-0", Check::Sound);
    scene.checked("g-1", Check::Sound);
    scene.check(&expect![[r#"
        > allocate and reserve claim gpus @5 for g-0: ok
          PREPARED g-0 on n0
          observe Prepared { kind: AllocateClaim, took_ms: 0 }
        > allocate and reserve claim gpus @5 for g-1: conflict
          read claim gpus
        > read claim gpus: allocated
          reserve claim gpus @6 for g-1
        > reserve claim gpus @6 for g-1: ok
          PREPARED g-1 on n1
          observe Prepared { kind: AllocateClaim, took_ms: 0 }
        > g-0 is Sound
        > g-1 is Sound
          bind g-0 @10 to n0 (1-1)
          bind g-1 @10 to n1 (1-1)
    "#]]);
}

#[test]
fn a_claim_that_was_allocated_otherwise_meanwhile_undoes_the_gang() {
    let mut scene = sharing();
    scene.prepare("allocate and reserve claim gpus @5 for g-0", "conflict", WriteResult::Conflict);
    let other = json!({"devices": {"results": [{"request": "gpu", "driver": "d", "pool": "p", "device": "gpu-7"}]}});
    let facts = ResourceClaimFacts { allocation: Some(other), ..devices_of("gpus", "6", &["z"]) };
    scene.claim_read("gpus", "allocated otherwise", facts);
    scene.check(&expect![[r#"
        > allocate and reserve claim gpus @5 for g-0: conflict
          read claim gpus
        > read claim gpus: allocated otherwise
          observe PrepareFailed
          read claim gpus
    "#]]);
}

#[test]
fn devices_with_binding_conditions_are_waited_for() {
    let mut scene = Scene::leading();
    let mut plan = pair_with(allocate("gpus", &["attached"]), allocate("nics", &[]));
    plan.members[1].preparations.clear();
    scene.begin(plan);
    scene.journal_ok(0);
    scene.transcript.clear();
    scene.wrote("allocate and reserve claim gpus @5 for g-0", "6");
    scene.call("watch: claim gpus changed", |protocol, now, fx| protocol.on_claim(&claim("gpus"), now, fx));
    let facts = devices_of("gpus", "6", &["g-0"]);
    scene.claim_read("gpus", "pending", ResourceClaimFacts { standing: Standing::Pending, ..facts.clone() });
    scene.call("watch: claim gpus changed", |protocol, now, fx| protocol.on_claim(&claim("gpus"), now, fx));
    let failed = Standing::Failed("attached is False: no cable".to_owned());
    scene.claim_read("gpus", "failed", ResourceClaimFacts { standing: failed, ..facts });
    scene.check(&expect![[r#"
        > allocate and reserve claim gpus @5 for g-0: ok
        > watch: claim gpus changed
          read claim gpus
        > read claim gpus: pending
        > watch: claim gpus changed
          read claim gpus
        > read claim gpus: failed
          observe PrepareFailed
          read claim gpus
    "#]]);
}

#[test]
fn what_was_prepared_is_checked_before_it_is_bound_to() {
    let mut scene = provisioning();
    scene.pvc_seen("is bound", &selected("n0", bound("v", pvc("a", "7"))));
    scene.checked("g-0", Check::NotYet);
    scene.wait(1_000);
    scene.checked("g-0", Check::Broken("volume v is elsewhere".to_owned()));
    scene.check(&expect![[r#"
        > watch: pvc a is bound
          PREPARED g-0 on n0
          observe Prepared { kind: Provision, took_ms: 0 }
        > g-0 is NotYet
        > 1000 ms later
          PREPARED g-0 on n0
        > g-0 is Broken("volume v is elsewhere")
          observe VolumesFailed(2)
          observe PrepareFailed
          read pvc a
          read pvc b
    "#]]);
}

#[test]
fn a_volume_that_comes_after_its_claim_is_checked_at_once() {
    let mut scene = provisioning();
    scene.pvc_seen("is bound", &selected("n0", bound("v", pvc("a", "7"))));
    scene.checked("g-0", Check::NotYet);
    scene.transcript.clear();
    scene.call("watch: volume v", |protocol, now, fx| protocol.on_volume(&claim("a"), now, fx));
    scene.check(&expect![[r#"
        > watch: volume v
          PREPARED g-0 on n0
    "#]]);
}

#[test]
fn a_volume_that_never_comes_is_late() {
    let mut scene = provisioning();
    for (name, node, version) in [("a", "n0", "7"), ("b", "n1", "7")] {
        scene.pvc_seen("is bound", &selected(node, bound("v", pvc(name, version))));
    }
    scene.checked("g-0", Check::NotYet);
    scene.checked("g-1", Check::Sound);
    scene.transcript.clear();
    scene.wait(600_000);
    scene.check(&expect![[r#"
        > 600000 ms later
          observe VolumesFailed(1)
          observe PrepareFailed
          read pvc a
          read pvc b
    "#]]);
}

#[test]
fn an_answer_that_comes_before_the_answer_to_the_request_is_looked_at_at_once() {
    let mut scene = Scene::leading();
    scene.begin(pair_with(provision("a", "n0"), provision("b", "n1")));
    scene.journal_ok(0);
    scene.transcript.clear();
    scene.pvc_seen("is bound", &selected("n0", bound("v", pvc("a", "7"))));
    scene.wrote("select n0 for pvc a", "6");
    scene.pvc_read("bound", selected("n0", bound("v", pvc("a", "7"))));
    scene.check(&expect![[r#"
        > watch: pvc a is bound
        > select n0 for pvc a: ok
          read pvc a
        > read pvc a: bound
          PREPARED g-0 on n0
          observe Prepared { kind: Provision, took_ms: 0 }
    "#]]);
}

/// A pod of its own that was given a volume and is bound.
fn bound_alone() -> Scene {
    let mut scene = Scene::leading();
    let mut plan = plan_of(&[(lone_pod("p"), "n0")]);
    plan.members[0].preparations = vec![provision("a", "n0")];
    scene.begin(plan);
    scene.journal_ok(0);
    scene.wrote("select n0 for pvc a", "6");
    scene.pvc_seen("is bound", &selected("n0", bound("v", pvc("a", "7"))));
    scene.call("checked", |protocol, now, fx| protocol.checked(&lone_pod("p").key, Check::Sound, now, fx));
    scene.bind_ok("p");
    scene
}

#[test]
fn a_single_pod_with_a_volume_goes_through_the_journal() {
    let mut scene = bound_alone();
    scene.wait(1_000);
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > begin pod ns/p
          write slot 0 @2: 1/2 1-1.0 open [p@n0+p:a]
        > slot 0: ok
          select n0 for pvc a @5
        > select n0 for pvc a: ok
        > watch: pvc a is bound
          PREPARED p on n0
          observe Prepared { kind: Provision, took_ms: 0 }
        > checked
          bind p @10 to n0 (1-1)
        > bind p: ok
          CONFIRM p on n0
        > 1000 ms later
          write slot 0 @3: 1/3
        > slot 0: ok
          CLOSED bound
    "#]]);
}

#[test]
fn a_single_pod_that_is_bound_leaves_the_journal_with_the_next_write() {
    let mut scene = bound_alone();
    scene.transcript.clear();
    scene.wait(900);
    scene.begin(pair());
    scene.journal_ok(0);
    scene.wait(1_000);
    scene.check(&expect![[r#"
        > 900 ms later
        > begin gang ns/g
          write slot 0 @3: 1/3 1-2.0 open [g-0@n0 g-1@n1]
        > slot 0: ok
          CLOSED bound
          bind g-0 @10 to n0 (1-2)
          bind g-1 @10 to n1 (1-2)
        > 1000 ms later
    "#]]);
}

#[test]
fn what_closes_during_a_write_waits_for_its_own_delay() {
    let mut scene = bound_alone();
    scene.wait(700);
    let mut plan = plan_of(&[(lone_pod("q"), "n1")]);
    plan.members[0].preparations = vec![bind_volume("b", "w")];
    scene.begin(plan);
    scene.journal_ok(0);
    scene.transcript.clear();
    scene.wrote("give volume w", "6");
    scene.pvc_seen("is bound", &bound("w", pvc("b", "7")));
    scene.call("checked", |protocol, now, fx| protocol.checked(&lone_pod("q").key, Check::Sound, now, fx));
    scene.bind_ok("q");
    scene.wait(900);
    scene.wait(100);
    scene.journal(0, "unknown", WriteResult::Unknown("timeout".to_owned()));
    scene.wait(50);
    scene.check(&expect![[r#"
        > give volume w: ok
        > watch: pvc b is bound
          PREPARED q on n1
          observe Prepared { kind: BindVolume, took_ms: 0 }
        > checked
          bind q @10 to n1 (1-2)
        > bind q: ok
          CONFIRM q on n1
        > 900 ms later
        > 100 ms later
          write slot 0 @4: 1/4
        > slot 0: unknown
        > 50 ms later
          read slot 0
    "#]]);
}

#[test]
fn the_next_leader_goes_on_from_what_it_finds() {
    let mut scene = Scene::new();
    scene.lead(2, provisioning().journal_found());
    scene.journal_ok(0);
    scene.recovered(&[pod("g-0"), pod("g-1")]);
    scene.pvc_read("bound", selected("n0", bound("v", pvc("a", "7"))));
    scene.wrote("fence pvc a @7", "8");
    scene.pvc_read("bound", selected("n0", bound("v", pvc("a", "8"))));
    scene.checked("g-0", Check::Sound);
    scene.pvc_read("not asked for yet", pvc("b", "5"));
    scene.wrote("fence pvc b @5", "6");
    scene.pvc_read("not asked for yet", pvc("b", "6"));
    scene.wrote("select n1 for pvc b @6", "7");
    scene.check(&expect![[r#"
        > lead 2
          write slot 0 @77: 2/3 1-1.0 open [g-0@n0+p:a g-1@n1+p:b]
        > slot 0: ok
          RECOVERED gang ns/g [g-0@n0 g-1@n1]
          READY
        > recovered
          read pvc a
          read pvc b
        > read pvc a: bound
          fence pvc a @7
        > fence pvc a @7: ok
          read pvc a
        > read pvc a: bound
          PREPARED g-0 on n0
          observe Prepared { kind: Provision, took_ms: 0 }
        > g-0 is Sound
        > read pvc b: not asked for yet
          fence pvc b @5
        > fence pvc b @5: ok
          read pvc b
        > read pvc b: not asked for yet
          select n1 for pvc b @6
        > select n1 for pvc b @6: ok
    "#]]);
}

#[test]
fn the_next_leader_takes_nothing_from_a_member_that_is_bound() {
    let scene = sharing();
    let journal = scene.journal_found();
    let mut scene = Scene::new();
    scene.lead(2, journal);
    scene.journal_ok(0);
    scene.transcript.clear();
    scene.recovered(&[on("n0", version("11", pod("g-0"))), pod("g-1")]);
    scene.claim_read("gpus", "reserved for both", devices_of("gpus", "8", &["g-0", "g-1"]));
    scene.wrote("fence claim gpus @8", "9");
    scene.claim_read("gpus", "reserved for both", devices_of("gpus", "9", &["g-0", "g-1"]));
    scene.checked("g-1", Check::Sound);
    scene.bind_ok("g-1");
    scene.check(&expect![[r#"
        > recovered
          CONFIRM g-0 on n0
          read claim gpus
        > read claim gpus: reserved for both
          fence claim gpus @8
        > fence claim gpus @8: ok
          read claim gpus
        > read claim gpus: reserved for both
          PREPARED g-1 on n1
          observe Prepared { kind: AllocateClaim, took_ms: 0 }
        > g-1 is Sound
          bind g-1 @10 to n1 (1-1)
        > bind g-1: ok
          CONFIRM g-1 on n1
          write slot 0 @2: 2/4
    "#]]);
}
