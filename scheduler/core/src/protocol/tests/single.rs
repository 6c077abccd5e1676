//! A pod on its own: no journal, and nothing to hold.

use super::*;
use expect_test::expect;

fn single() -> Scene {
    let mut scene = Scene::leading();
    scene.begin(plan_of(&[(lone_pod("p"), "n0")]));
    scene
}

#[test]
fn a_single_pod_is_bound_at_once_and_skips_the_journal() {
    let mut scene = single();
    scene.bind_ok("p");
    scene.check(&expect![[r#"
        > begin pod ns/p
          bind p @10 to n0 (1-1)
        > bind p: ok
          CONFIRM p on n0
          CLOSED bound
    "#]]);
}

#[test]
fn a_single_pod_that_changed_is_given_back_to_the_queue() {
    let mut scene = single();
    scene.bind_conflict("p");
    scene.found("changed", version("11", lone_pod("p")));
    scene.check(&expect![[r#"
        > begin pod ns/p
          bind p @10 to n0 (1-1)
        > bind p: conflict
          read p
        > read p: changed
          RELEASE p
          CLOSED undone: Changed("the pod changed or its node went away while it was being bound")
    "#]]);
}

#[test]
fn a_single_pod_whose_binding_is_unknown_is_fenced_before_it_goes_elsewhere() {
    let mut scene = single();
    scene.node_gone("n0");
    scene.fence_ok("p", "11");
    scene.check(&expect![[r#"
        > begin pod ns/p
          bind p @10 to n0 (1-1)
        > node n0 is gone
          fence p @10
        > fence p: ok
          RELEASE p
          CLOSED undone: Changed("the pod changed or its node went away while it was being bound")
    "#]]);
}

#[test]
fn a_single_pod_that_landed_before_the_fence_is_bound() {
    let mut scene = single();
    scene.node_gone("n0");
    scene.fence("p", "conflict", WriteResult::Conflict);
    scene.found("on n0", on("n0", version("11", lone_pod("p"))));
    scene.check(&expect![[r#"
        > begin pod ns/p
          bind p @10 to n0 (1-1)
        > node n0 is gone
          fence p @10
        > fence p: conflict
          read p
        > read p: on n0
          CONFIRM p on n0
          CLOSED bound
    "#]]);
}

#[test]
fn a_single_pod_that_is_gone_closes_its_intent() {
    let mut scene = single();
    scene.bind("p", "404", BindResult::NotFound);
    scene.check(&expect![[r#"
        > begin pod ns/p
          bind p @10 to n0 (1-1)
        > bind p: 404
          LOST p worker -
          RELEASE p
          CLOSED undone: Changed("the pod changed or its node went away while it was being bound")
    "#]]);
}

#[test]
fn a_refused_single_pod_is_closed_with_the_servers_reason() {
    let mut scene = single();
    scene.bind("p", "403", BindResult::Refused("quota".to_owned()));
    scene.fence_ok("p", "11");
    scene.check(&expect![[r#"
        > begin pod ns/p
          bind p @10 to n0 (1-1)
        > bind p: 403
          fence p @10
        > fence p: ok
          RELEASE p
          CLOSED undone: Refused("quota")
    "#]]);
}
