//! A gang too large for one slot: tails first, the head last, and removed in the opposite order.

use super::*;
use expect_test::expect;

fn small_slots() -> Scene {
    let mut scene = Scene::with(ProtocolConfig { slot_limit_bytes: 640, ..ProtocolConfig::default() });
    scene.lead(1, fresh_slots(3));
    (0..3).for_each(|slot| scene.journal_ok(slot));
    scene.transcript.clear();
    scene
}

fn plan_of_size(size: u32) -> Plan {
    let members: Vec<_> = (0..size).map(|rank| (pod(&format!("g-{rank}")), "n0")).collect();
    plan_of(&members)
}

#[test]
fn a_large_gang_is_in_force_only_when_its_head_is_written_last() {
    let mut scene = small_slots();
    scene.begin(plan_of_size(6));
    scene.journal_ok(1);
    scene.journal_ok(0);
    (0..6).for_each(|rank| scene.bind_ok(&format!("g-{rank}")));
    scene.journal_ok(0);
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 1 @3: 1/2 1-1.1 tail [g-3@n0 g-4@n0 g-5@n0]
        > slot 1: ok
          write slot 0 @2: 1/2 1-1.0 open [g-0@n0 g-1@n0 g-2@n0]
        > slot 0: ok
          bind g-0 @10 to n0 (1-1)
          bind g-1 @10 to n0 (1-1)
          bind g-2 @10 to n0 (1-1)
          bind g-3 @10 to n0 (1-1)
          bind g-4 @10 to n0 (1-1)
          bind g-5 @10 to n0 (1-1)
        > bind g-0: ok
          CONFIRM g-0 on n0
        > bind g-1: ok
          CONFIRM g-1 on n0
        > bind g-2: ok
          CONFIRM g-2 on n0
        > bind g-3: ok
          CONFIRM g-3 on n0
        > bind g-4: ok
          CONFIRM g-4 on n0
        > bind g-5: ok
          CONFIRM g-5 on n0
          write slot 0 @6: 1/3
        > slot 0: ok
          CLOSED bound
          write slot 1 @5: 1/3
    "#]]);
}

#[test]
fn a_gang_that_fits_nowhere_is_refused_and_leaves_no_trace() {
    let mut scene = small_slots();
    let mut fx = Effects::default();
    assert_eq!(scene.protocol.begin(plan_of_size(40), 0, &mut fx), Err(BeginError::JournalFull));
    assert_eq!(scene.protocol.stats(), ProtocolStats::default());
    scene.begin(plan_of_size(2));
    scene.check(&expect![[r#"
        > begin gang ns/g
          write slot 0 @2: 1/2 1-2.0 open [g-0@n0 g-1@n0]
    "#]]);
}

#[test]
fn eight_thousand_members_fit_into_the_default_journal_with_long_names() {
    let mut scene = Scene::new();
    scene.lead(1, fresh_slots(8));
    (0..8).for_each(|slot| scene.journal_ok(slot));
    let member = |rank: u32| {
        let name = format!("pretrain-llm-405b-attempt-0-worker-{rank:05}-abcde");
        let key = PodKey {
            namespace: "ns".into(),
            uid: format!("0f8fad5b-d9cb-469f-a165-7086772{rank:05}").into(),
            name: name.into(),
        };
        (PodInfo { key, ..pod("g-0") }, format!("gpu-node-pool-a-{:04}.cluster.example.com", rank / 8))
    };
    let members: Vec<_> = (0..8_192).map(member).collect();
    let members: Vec<_> = members.iter().map(|(pod, node)| (pod.clone(), node.as_str())).collect();
    scene.begin(plan_of(&members));
    while let Some(slot) =
        (0..8).find(|slot| scene.open.iter().any(|(words, _)| words.starts_with(&format!("write slot {slot}"))))
    {
        scene.journal_ok(slot);
    }
    assert!(scene.payloads.values().all(|payload| payload.len() <= 900 * 1024), "a slot is too large");
    assert_eq!(scene.open.iter().filter(|(words, _)| words.starts_with("bind")).count(), 8_192);
}

#[test]
fn a_slot_never_takes_more_than_was_counted_for_it() {
    for node in ["n", "node-1.example.com", "tab\t\u{1}\"quoted\""] {
        let mut scene = Scene::leading();
        let member = |at: u32| {
            let mut pod = pod(&format!("{at}"));
            if let Some(gang) = &mut pod.gang {
                gang.rank = Some(u32::MAX - at);
                gang.role = "w".into();
            }
            Placement { shape: u64::MAX, ..Placement::new(&pod, format!("{at}{node}")) }
        };
        scene.begin(Plan { members: (0..500).map(member).collect(), ..pair() });
        let (written, counted) = (scene.payloads[&0].len(), scene.protocol.slots[0].bytes);
        assert!(written <= counted + journal::SLOT_OVERHEAD_BYTES, "{written} bytes, {counted} counted");
    }
}
