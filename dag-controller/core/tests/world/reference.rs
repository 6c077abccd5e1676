//! What each node of a graph must come to, told slowly: from the ends of those that ran and the answers of the `when`s, by
//! looking at every edge again and again. It shares nothing with the engine but the graph.

use flowforge_dag_controller_core::{Dag, Edge, Mode, NodeIx, On, OnFailure};

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
