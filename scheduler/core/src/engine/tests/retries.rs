//! What is tried or said again, and when.

use super::*;

#[test]
fn a_report_that_was_dropped_is_said_again_with_the_next_refusal() {
    let mut s = Scene::new();
    s.nodes([node("n1")]);
    let declared = gang("g", &[("worker", 1, 1)]);
    s.see(Event::GangUpsert(Box::new(declared.clone())));
    s.create(declared_member(&declared, "worker", 0).asks("nvidia.com/gpu", 8));
    s.run();
    assert_eq!((s.condition_writes, s.gang_status.len()), (1, 1));
    s.gang_status.clear();
    s.engine.unsaid(&Unsaid::Condition { uid: "uid-g-worker-0".into() });
    s.engine.unsaid(&Unsaid::GangStatus { namespace: "ns".into(), name: "g".into() });
    s.pass(300_000);
    assert_eq!((s.condition_writes, s.gang_status.len()), (2, 1));
    s.pass(300_000);
    assert_eq!(s.condition_writes, 2);
}
