//! Random graphs.

use super::Rng;
use flowforge_dag_controller_core::outputs::{Kind, Output, Outputs};
use flowforge_dag_controller_core::retry::{Retry, Scope};
use flowforge_dag_controller_core::{
    Dag, Edge, Failure, Limits, MemberLost, Mode, NodeIx, NodeSpec, On, OnFailure, Role, Success,
};
use std::sync::Arc;

/// Something that each member says, something that rank 0 says, and something that nobody does.
fn outputs(replicas: u32) -> Outputs {
    let output =
        |name: &str, optional, collect| Output { name: name.into(), kind: Kind::Int, default: None, optional, collect };
    Outputs(vec![
        output("rank", false, Some(0..replicas)),
        output("incarnation", false, None),
        output("silent", true, None),
    ])
}

/// A random graph: edges go from lower to higher places, about `degree` into each node.
pub(crate) fn random_dag(rng: &mut Rng, nodes: usize, degree: usize, max_replicas: usize) -> Arc<Dag> {
    let mut specs = Vec::new();
    let mut edges = Vec::new();
    for at in 0..nodes {
        let member_lost = if rng.chance(50) { MemberLost::Replace } else { MemberLost::Fail };
        let replicas = 1 + rng.below(max_replicas) as u32;
        let outputs = rng.chance(30).then(|| Arc::new(outputs(replicas)));
        specs.push(NodeSpec { member_lost, outputs, ..NodeSpec::of(format!("n{at}"), replicas) });
        for _ in 0..rng.below(degree + 1) {
            if at > 0 {
                edges.push((NodeIx(rng.below(at) as u32), NodeIx(at as u32)));
            }
        }
    }
    Arc::new(Dag::new(specs, edges).unwrap_or_else(|e| unreachable!("edges only go up: {e}")))
}

/// The same with everything an edge can wait for, nodes that wait for the first, failures that stop nobody, and `when`s.
pub(crate) fn conditional_dag(rng: &mut Rng, nodes: usize, degree: usize, max_replicas: usize) -> Arc<Dag> {
    let plain = random_dag(rng, nodes, degree, max_replicas);
    let on = [On::Succeeded, On::Succeeded, On::Failed, On::Completed, On::Running, On::Skipped];
    let edges: Vec<Edge> = plain.ids().flat_map(|n| plain.edges_from(n)).collect();
    let ordinary = nodes - rng.below(nodes.min(4));
    let finally = |n: NodeIx| n.at() >= ordinary;
    let edges = edges.into_iter().filter(|e| finally(e.up) == finally(e.down));
    let edges: Vec<Edge> = edges.map(|e| Edge { on: on[rng.below(on.len())], ..e }).collect();
    let policies = [OnFailure::Continue, OnFailure::SkipDownstream, OnFailure::SkipDownstream];
    let specs = plain.ids().map(|n| NodeSpec {
        mode: if rng.chance(30) { Mode::Any } else { Mode::All },
        on_failure: if rng.chance(4) { OnFailure::Fail } else { policies[rng.below(policies.len())] },
        gated: rng.chance(25),
        finally: finally(n),
        approval: rng.chance(6),
        taken_over: !finally(n) && rng.chance(6),
        limits: match rng.chance(10) {
            true => Limits { queue_ms: Some(40_000), start_ms: Some(30_000), run_ms: Some(60_000) },
            false => Limits::default(),
        },
        retry: rng.chance(50).then(|| {
            let scope = if rng.chance(20) { Scope::Member } else { Scope::Gang };
            let (limit, infrastructure_limit) = (rng.below(3) as u32, rng.below(4) as u32);
            Arc::new(Retry { limit, infrastructure_limit, scope, ..Retry::default() })
        }),
        ..plain.node(n).clone()
    });
    let specs: Vec<NodeSpec> = specs.collect();
    Arc::new(Dag::new(specs, edges).unwrap_or_else(|e| unreachable!("edges only go up: {e}")))
}

/// The same graph, in which half of the nodes have roles with policies of their own.
pub(crate) fn with_roles(rng: &mut Rng, plain: &Dag) -> Arc<Dag> {
    let edges: Vec<Edge> = plain.ids().flat_map(|n| plain.edges_from(n)).collect();
    let mut specs: Vec<NodeSpec> = plain.ids().map(|n| plain.node(n).clone()).collect();
    for spec in &mut specs {
        if rng.chance(50) {
            let roles = roles(rng);
            spec.replicas = roles.iter().map(|role| role.replicas).sum();
            (spec.outputs, spec.roles) = (None, Some(roles.into()));
        }
    }
    Arc::new(Dag::new(specs, edges).unwrap_or_else(|e| unreachable!("it was a graph before: {e}")))
}

/// One to three roles, one of which at least counts for the success.
fn roles(rng: &mut Rng) -> Vec<Role> {
    const SUCCESS: [Success; 3] = [Success::All, Success::Any, Success::Ignore];
    const FAILURE: [Failure; 3] = [Failure::FailGang, Failure::ReplaceMember, Failure::Ignore];
    let count = 1 + rng.below(3);
    let counts = rng.below(count);
    let role = |at: usize| {
        let replicas = 1 + rng.below(3) as u32;
        let success = if at == counts { SUCCESS[rng.below(2)] } else { SUCCESS[rng.below(3)] };
        let least = u32::from(success != Success::Ignore);
        let min = if rng.chance(50) { replicas } else { least + rng.below((replicas + 1 - least) as usize) as u32 };
        let failure = FAILURE[rng.below(3)];
        Role { name: format!("r{at}").into(), replicas, min, success, failure }
    };
    (0..count).map(role).collect()
}
