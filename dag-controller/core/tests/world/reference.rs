//! What each node of a graph must come to, told slowly: from the ends of those that ran and the answers of the `when`s, by
//! looking at every edge again and again. It shares nothing with the engine but the graph.

use flowforge_dag_controller_core::{
    Dag, Edge, Failure, MemberOutcome, Mode, NodeIx, NodeSpec, On, OnFailure, Role, Success,
};
use std::collections::BTreeMap;
use std::ops::Range;

/// How a node that was claimed, or whose `when` is broken, ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Outcome {
    pub(crate) succeeded: bool,
    /// It failed by its own fault: nobody stopped it.
    pub(crate) own: bool,
}

/// What is known of a node from outside.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fact {
    pub(crate) end: Option<Outcome>,
    /// All its members ran.
    pub(crate) reached: bool,
    /// Its `when` is false.
    pub(crate) shut: bool,
    /// It was skipped because the workflow was stopped.
    pub(crate) swept: bool,
}

/// What must become of a node.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    /// Something it waits for can still happen.
    Waits,
    /// It is to run, runs or ran.
    Runs,
    Succeeded,
    Failed,
    Tolerated,
    /// Passed over by a `when`.
    Passed,
    /// It can never run.
    Never,
}

/// The fate of every node.
pub(crate) fn fates(dag: &Dag, fact: impl Fn(NodeIx) -> Fact) -> Vec<Fate> {
    let mut into: Vec<Vec<Edge>> = vec![Vec::new(); dag.len()];
    for edge in dag.ids().flat_map(|n| dag.edges_from(n)) {
        into[edge.down.at()].push(edge);
    }
    let mut fates = vec![Fate::Waits; dag.len()];
    let (ordinary, last): (Vec<NodeIx>, Vec<NodeIx>) = dag.order().iter().partition(|n| !dag.node(**n).finally);
    for node in ordinary.into_iter().chain(last) {
        let fact_of_node = fact(node);
        fates[node.at()] = match fact_of_node.end {
            Some(Outcome { succeeded: true, .. }) => Fate::Succeeded,
            Some(Outcome { own: true, .. }) if dag.node(node).on_failure == OnFailure::Continue => Fate::Tolerated,
            Some(_) => Fate::Failed,
            None if fact_of_node.swept => Fate::Never,
            None if dag.node(node).finally && !closing(dag, &fates, &fact) => Fate::Waits,
            None => by_edges(dag.node(node).mode, &into[node.at()], &fates, &fact),
        };
        if fates[node.at()] == Fate::Runs && fact_of_node.shut {
            fates[node.at()] = Fate::Passed;
        }
    }
    fates
}

/// Every node that is not `finally` has ended.
fn closing(dag: &Dag, fates: &[Fate], fact: &impl Fn(NodeIx) -> Fact) -> bool {
    let ended = |n: NodeIx| !matches!(fates[n.at()], Fate::Waits | Fate::Runs) || fact(n).swept;
    dag.ids().filter(|n| !dag.node(*n).finally).all(ended)
}

fn by_edges(mode: Mode, edges: &[Edge], fates: &[Fate], fact: &impl Fn(NodeIx) -> Fact) -> Fate {
    let fate = |e: &Edge| fates[e.up.at()];
    let good = |e: &Edge| match e.on {
        On::Succeeded => matches!(fate(e), Fate::Succeeded | Fate::Tolerated),
        On::Failed => matches!(fate(e), Fate::Failed | Fate::Tolerated),
        On::Completed => matches!(fate(e), Fate::Succeeded | Fate::Failed | Fate::Tolerated),
        On::Running => fate(e) == Fate::Succeeded || fact(e.up).reached,
        On::Skipped => matches!(fate(e), Fate::Passed | Fate::Never),
    };
    let passed = |e: &Edge| fate(e) == Fate::Passed && !matches!(e.on, On::Failed | On::Skipped);
    let open = |e: &Edge| matches!(fate(e), Fate::Waits | Fate::Runs) && !good(e);
    let lost = |e: &Edge| !good(e) && !passed(e) && !open(e);
    let goods = edges.iter().filter(|e| good(e)).count();
    match mode {
        _ if edges.is_empty() => Fate::Runs,
        Mode::All if edges.iter().any(lost) => Fate::Never,
        Mode::Any if goods > 0 => Fate::Runs,
        _ if edges.iter().any(open) => Fate::Waits,
        _ if edges.iter().all(passed) => Fate::Passed,
        Mode::All => Fate::Runs,
        Mode::Any => Fate::Never,
    }
}

/// The ranks of each role of a node, and how many of them are needed.
pub(crate) fn needed(node: &NodeSpec) -> impl Iterator<Item = (Range<u32>, u32)> {
    let one = [(0..node.replicas, node.replicas)];
    let many = node.roles.iter().flat_map(|roles| of(roles)).map(|(role, ranks)| (ranks, role.min));
    one.into_iter().filter(|_| node.roles.is_none()).chain(many)
}

fn of(roles: &[Role]) -> impl Iterator<Item = (&Role, Range<u32>)> {
    let before = |at: usize| roles[..at].iter().map(|role| role.replicas).sum::<u32>();
    roles.iter().enumerate().map(move |(at, role)| (role, before(at)..before(at) + role.replicas))
}

/// What a gang with roles has come to, by what became of its members: as a person would say it who reads the Gang.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Tale {
    /// Every role has done its work.
    pub(crate) done: bool,
    /// A role can not go on.
    pub(crate) broken: bool,
}

/// See [`Tale`]; `ends` is the last end of each rank.
pub(crate) fn tale(roles: &[Role], ends: &BTreeMap<u32, MemberOutcome>) -> Tale {
    let (mut done, mut broken) = (true, false);
    for (role, ranks) in of(roles) {
        let count = |outcome| ranks.clone().filter(|rank| ends.get(rank) == Some(&outcome)).count() as u32;
        let (well, out) = (count(MemberOutcome::Succeeded), count(MemberOutcome::Failed));
        let left = role.replicas - out;
        done &= match role.success {
            Success::All => well > 0 && well == left,
            Success::Any => well > 0,
            Success::Ignore => true,
        };
        broken |= match role.failure {
            Failure::FailGang | Failure::ReplaceLost => out > 0,
            Failure::ReplaceMember | Failure::Ignore => left < role.min || left == 0 && role.success != Success::Ignore,
        };
    }
    Tale { done, broken }
}
