//! Random graphs, random orders, random faults: the invariants hold, and when the faults stop everything ends.

mod world;

use proptest::prelude::*;
use world::{Faults, Rng, World, conditional_dag, random_dag, with_roles};

fn run(seed: u64, nodes: usize, steps: usize, faults: Faults) -> World {
    let dag = random_dag(&mut Rng(seed), nodes, 3, 4);
    let mut world = World::new(seed, dag, faults);
    world.run(steps);
    world.heal();
    world.check_end();
    world
}

fn run_conditional(seed: u64, nodes: usize, steps: usize, faults: Faults) -> World {
    let dag = conditional_dag(&mut Rng(seed), nodes, 3, 3);
    let mut world = World::new(seed, dag, faults);
    world.run(steps);
    world.heal();
    world.check_end();
    world
}

fn run_roles(seed: u64, nodes: usize, steps: usize, faults: Faults) -> World {
    let plain = conditional_dag(&mut Rng(seed), nodes, 3, 3);
    let dag = with_roles(&mut Rng(seed ^ 0x5EED), &plain);
    let mut world = World::new(seed, dag, faults);
    world.run(steps);
    world.heal();
    world.check_end();
    world
}

fn rough() -> Faults {
    Faults { failing_nodes: 3, lost_pods: 1, rollbacks: 3, crashes: 1, duplicates: 20, ..Faults::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn without_faults_every_node_succeeds(seed in any::<u64>(), nodes in 1usize..14) {
        let world = run(seed, nodes, 200, Faults { duplicates: 20, ..Faults::default() });
        prop_assert_eq!(world.state.progress(), (nodes as u32, nodes as u32));
        prop_assert_eq!(world.state.phase(), flowforge_dag_controller_core::WorkflowPhase::Succeeded);
    }

    #[test]
    fn a_failing_node_fails_and_stops_the_rest(seed in any::<u64>(), nodes in 1usize..14) {
        let world = run(seed, nodes, 200, Faults { failing_nodes: 20, duplicates: 20, ..Faults::default() });
        for node in world.dag.ids() {
            let succeeded = world.state.node(node).phase == flowforge_dag_controller_core::NodePhase::Succeeded;
            prop_assert!(!succeeded || !world.failing().contains(&node), "{} was to fail", node);
        }
    }

    #[test]
    fn lost_pods_rollbacks_and_crashes_do_no_harm(seed in any::<u64>(), nodes in 1usize..14, steps in 50usize..800) {
        run(seed, nodes, steps, rough());
    }

    #[test]
    fn crashes_alone_change_nothing(seed in any::<u64>(), nodes in 1usize..14, steps in 50usize..800) {
        let world = run(seed, nodes, steps, Faults { crashes: 3, ..Faults::default() });
        prop_assert_eq!(world.state.phase(), flowforge_dag_controller_core::WorkflowPhase::Succeeded);
    }

    #[test]
    fn stale_events_and_late_creates_do_no_harm(seed in any::<u64>(), nodes in 1usize..14, steps in 50usize..800) {
        run(seed, nodes, steps, Faults { replays: 10, late_creates: true, ..rough() });
    }

    #[test]
    fn cancel_and_delete_stop_everything(seed in any::<u64>(), nodes in 1usize..14, delete in any::<bool>()) {
        let (cancel, delete) = if delete { (0, 2) } else { (2, 0) };
        run(seed, nodes, 300, Faults { cancel, delete, ..rough() });
    }

    #[test]
    fn a_deleted_gang_fails_and_never_runs_again(seed in any::<u64>(), nodes in 1usize..14) {
        run(seed, nodes, 400, Faults { gang_deletions: 1, crashes: 1, ..Faults::default() });
    }

    #[test]
    fn taken_names_are_waited_for(seed in any::<u64>(), nodes in 1usize..8) {
        let world = run(seed, nodes, 400, Faults { taken_names: 20, crashes: 1, ..Faults::default() });
        prop_assert_eq!(world.state.phase(), flowforge_dag_controller_core::WorkflowPhase::Succeeded);
    }

    #[test]
    fn gangs_that_fit_the_quota_alone_run_one_after_another(seed in any::<u64>(), nodes in 1usize..8) {
        let world = run(seed, nodes, 400, Faults { quota: Some(5), crashes: 1, ..Faults::default() });
        prop_assert_eq!(world.state.phase(), flowforge_dag_controller_core::WorkflowPhase::Succeeded);
    }

    #[test]
    fn every_node_comes_to_what_the_reference_says(seed in any::<u64>(), nodes in 1usize..24) {
        run_conditional(seed, nodes, 300, Faults { failing_nodes: 25, duplicates: 20, ..Faults::default() });
    }

    #[test]
    fn also_through_losses_crashes_and_stale_events(seed in any::<u64>(), nodes in 1usize..20, steps in 50usize..800) {
        run_conditional(seed, nodes, steps, Faults { failing_nodes: 25, ..rough() });
        run_conditional(seed, nodes, steps, Faults { failing_nodes: 25, replays: 10, late_creates: true, ..rough() });
    }

    #[test]
    fn also_with_few_at_a_time(seed in any::<u64>(), nodes in 1usize..20, most in 1u32..4) {
        run_conditional(seed, nodes, 300, Faults { failing_nodes: 25, parallelism: Some(most), crashes: 1, ..Faults::default() });
    }

    #[test]
    fn also_when_it_is_canceled(seed in any::<u64>(), nodes in 1usize..20) {
        run_conditional(seed, nodes, 300, Faults { failing_nodes: 25, cancel: 1, ..rough() });
    }

    #[test]
    fn rebuild_equals_the_state_reached_by_events_on_conditional_graphs(seed in any::<u64>(), nodes in 1usize..20) {
        let dag = conditional_dag(&mut Rng(seed), nodes, 3, 3);
        let mut world = World::new(seed, dag, Faults { failing_nodes: 25, cancel: 1, ..rough() });
        for _ in 0..20 {
            world.run(25);
            world.drain();
            world.check_rebuild();
            world.check_released();
        }
    }

    #[test]
    fn gangs_with_roles_end_as_their_members_say(seed in any::<u64>(), nodes in 1usize..14, steps in 50usize..800) {
        run_roles(seed, nodes, steps, Faults { failing_nodes: 50, duplicates: 20, ..Faults::default() });
        run_roles(seed, nodes, steps, Faults { failing_nodes: 50, lost_pods: 3, crashes: 2, ..rough() });
        run_roles(seed, nodes, steps, Faults { failing_nodes: 50, replays: 10, late_creates: true, cancel: 1, ..rough() });
    }

    #[test]
    fn rebuild_equals_the_state_reached_by_events_with_roles(seed in any::<u64>(), nodes in 1usize..14) {
        let plain = conditional_dag(&mut Rng(seed), nodes, 3, 3);
        let dag = with_roles(&mut Rng(seed ^ 0x5EED), &plain);
        let mut world = World::new(seed, dag, Faults { failing_nodes: 50, cancel: 1, ..rough() });
        for _ in 0..20 {
            world.run(25);
            world.drain();
            world.check_rebuild();
            world.check_released();
        }
    }

    #[test]
    fn rebuild_equals_the_state_reached_by_events(seed in any::<u64>(), nodes in 1usize..14) {
        let dag = random_dag(&mut Rng(seed), nodes, 3, 4);
        let mut world = World::new(seed, dag, Faults { cancel: 1, ..rough() });
        for _ in 0..20 {
            world.run(25);
            world.drain();
            world.check_rebuild();
            world.check_released();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn large_graphs_end_too(seed in any::<u64>(), nodes in 200usize..1_000) {
        run(seed, nodes, 3_000, rough());
        run_conditional(seed, 2 * nodes, 3_000, Faults { failing_nodes: 10, ..rough() });
    }
}
