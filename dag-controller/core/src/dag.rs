//! The compiled graph: what every front end produces and the engine walks.
//!
//! Nodes are dense ids in the order of the spec; edges lie in one array, grouped by upstream node (compressed sparse
//! rows), so that the end of a node touches exactly its downstream nodes. A `Dag` is acyclic by construction.
//!
//! What an edge waits for is its [`On`]; how a node combines its edges is its [`Mode`]; what its failure means to others
//! is its [`OnFailure`]. The rules themselves stand in `engine/depends.rs`.

use crate::ids::NodeIx;
use crate::outputs::Outputs;
use crate::retry::Retry;
use crate::role::Role;
use petgraph::algo::kosaraju_scc;
use petgraph::graph::DiGraph;
use smol_str::SmolStr;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// One node of the graph: a gang of pods.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NodeSpec {
    /// Its id in the spec, unique in the graph.
    pub id: SmolStr,
    /// Pods of the gang, at least 1.
    pub replicas: u32,
    /// Its roles, which have `replicas` members together; when `None` there is one, whose members are all needed.
    pub roles: Option<Arc<[Role]>>,
    /// What happens when a live member is lost, where there are no roles that say so.
    pub member_lost: MemberLost,
    /// How its edges combine.
    pub mode: Mode,
    /// What its failure means to the others.
    pub on_failure: OnFailure,
    /// It has a `when`: once its edges are satisfied, [`crate::Command::Judge`] asks whether it runs.
    pub gated: bool,
    /// It runs when all others have ended, however they did; only its like may wait for it.
    pub finally: bool,
    /// How it is tried again; never when `None`.
    pub retry: Option<Arc<Retry>>,
    /// What its members say when they end well.
    pub outputs: Option<Arc<Outputs>>,
    /// How long its attempts may last.
    pub limits: Limits,
    /// It makes no pods: it waits for a person, and ends as that person says.
    pub approval: bool,
    /// It had succeeded in the workflow that this one runs again: it does not run, its result is taken over.
    /// Never with `finally`.
    pub taken_over: bool,
}

/// How long an attempt may last; without bound where `None`. All milliseconds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Limits {
    /// Until all members are bound.
    pub queue_ms: Option<u64>,
    /// From then until all members run.
    pub start_ms: Option<u64>,
    /// From then to the end.
    pub run_ms: Option<u64>,
}

impl NodeSpec {
    /// A node of this id and size with the defaults of everything else.
    #[must_use]
    pub fn of(id: impl Into<SmolStr>, replicas: u32) -> Self {
        Self {
            id: id.into(),
            replicas,
            roles: None,
            member_lost: MemberLost::Fail,
            mode: Mode::All,
            on_failure: OnFailure::Fail,
            gated: false,
            finally: false,
            retry: None,
            outputs: None,
            limits: Limits::default(),
            approval: false,
            taken_over: false,
        }
    }
}

/// What an edge waits for.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum On {
    /// Its upstream node ended well.
    #[default]
    Succeeded,
    /// Its upstream node ended badly.
    Failed,
    /// Its upstream node ran and ended, either way.
    Completed,
    /// All members of its upstream node run, or did once.
    Running,
    /// Its upstream node never ran and never will.
    Skipped,
}

/// How the edges of a node combine.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum Mode {
    /// It waits for all of them.
    #[default]
    All,
    /// It waits for the first.
    Any,
}

/// What a node's failure means to the others.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum OnFailure {
    /// The workflow is stopped and fails.
    #[default]
    Fail,
    /// The others go on as if it had succeeded; the workflow may succeed, degraded.
    Continue,
    /// What waits for its success is skipped, the others go on; the workflow fails in the end.
    SkipDownstream,
}

/// One edge.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Edge {
    /// The node that is waited for.
    pub up: NodeIx,
    /// The node that waits.
    pub down: NodeIx,
    /// For what it waits.
    pub on: On,
}

impl From<(NodeIx, NodeIx)> for Edge {
    /// (upstream, downstream): waits for the success.
    fn from((up, down): (NodeIx, NodeIx)) -> Self {
        Self { up, down, on: On::Succeeded }
    }
}

/// What happens when a live member is lost to the infrastructure.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum MemberLost {
    /// The gang fails.
    #[default]
    Fail,
    /// The member is made again in the same attempt.
    Replace,
}

/// An acyclic graph of gangs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Dag {
    nodes: Vec<NodeSpec>,
    by_id: BTreeMap<SmolStr, NodeIx>,
    /// Edges of node `n` are `down[down_start[n]..down_start[n + 1]]`.
    down_start: Vec<u32>,
    down: Vec<NodeIx>,
    /// What each of these edges waits for.
    on: Vec<On>,
    upstream: Vec<u32>,
    order: Vec<NodeIx>,
    /// The node, or one above it, has a `when`: it may be passed over without a trace of its own.
    passable: Vec<bool>,
}

/// Why nodes and edges are no [`Dag`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum DagError {
    /// Two nodes have this id.
    #[error("two nodes have the id {0:?}")]
    DuplicateId(SmolStr),
    /// An edge names a node that does not exist.
    #[error("an edge names {0}, which does not exist")]
    UnknownNode(NodeIx),
    /// These nodes wait for each other: each for the one before it, the first for the last.
    #[error("nodes wait for each other in a circle: {0:?}")]
    Cycle(Vec<NodeIx>),
}

impl Dag {
    /// Builds the graph. Duplicate edges count once; two nodes may share edges that wait for different things.
    /// O(nodes + edges log edges).
    ///
    /// # Errors
    /// Duplicate ids, edges to nowhere, and the shortest cycle through the first node that lies on one.
    pub fn new<E: Into<Edge>>(nodes: Vec<NodeSpec>, edges: impl IntoIterator<Item = E>) -> Result<Self, DagError> {
        let mut edges: Vec<Edge> = edges.into_iter().map(Into::into).collect();
        let mut by_id = BTreeMap::new();
        for (at, node) in (0u32..).zip(&nodes) {
            if by_id.insert(node.id.clone(), NodeIx(at)).is_some() {
                return Err(DagError::DuplicateId(node.id.clone()));
            }
        }
        let count = nodes.len();
        if let Some(&bad) = edges.iter().flat_map(|e| [&e.up, &e.down]).find(|n| n.at() >= count) {
            return Err(DagError::UnknownNode(bad));
        }
        edges.sort_unstable();
        edges.dedup();
        let mut pairs: Vec<(NodeIx, NodeIx)> = edges.iter().map(|e| (e.up, e.down)).collect();
        pairs.dedup();
        if let Some(cycle) = cycles(count, &pairs, 1).pop() {
            return Err(DagError::Cycle(cycle));
        }
        let mut down_start = vec![0u32; count + 1];
        let mut upstream = vec![0u32; count];
        for edge in &edges {
            down_start[edge.up.at() + 1] += 1;
            upstream[edge.down.at()] += 1;
        }
        for at in 0..count {
            down_start[at + 1] += down_start[at];
        }
        let down = edges.iter().map(|e| e.down).collect();
        let on = edges.iter().map(|e| e.on).collect();
        let passable = nodes.iter().map(|n| n.gated).collect();
        let mut dag = Self { nodes, by_id, down_start, down, on, upstream, order: Vec::new(), passable };
        dag.order = dag.topological_order();
        for at in 0..dag.order.len() {
            let node = dag.order[at];
            if dag.passable[node.at()] {
                for edge in dag.edges_of(node) {
                    dag.passable[dag.down[edge].at()] = true;
                }
            }
        }
        Ok(dag)
    }

    /// Number of nodes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// A graph without nodes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// Number of edges.
    #[must_use]
    pub fn edge_count(&self) -> usize {
        self.down.len()
    }

    /// All ids, in the order of the spec.
    pub fn ids(&self) -> impl ExactSizeIterator<Item = NodeIx> + use<> {
        (0..u32::try_from(self.nodes.len()).unwrap_or(u32::MAX)).map(NodeIx)
    }

    /// A node.
    #[must_use]
    pub fn node(&self, node: NodeIx) -> &NodeSpec {
        &self.nodes[node.at()]
    }

    /// The node with this id.
    #[must_use]
    pub fn find(&self, id: &str) -> Option<NodeIx> {
        self.by_id.get(id).copied()
    }

    /// The nodes that wait for this one, ascending; one that has two edges to it stands there twice.
    #[must_use]
    pub fn downstream(&self, node: NodeIx) -> &[NodeIx] {
        &self.down[self.edges_of(node)]
    }

    /// The edges to the nodes that wait for this one, ascending.
    pub fn edges_from(&self, node: NodeIx) -> impl ExactSizeIterator<Item = Edge> {
        self.edges_of(node).map(move |at| Edge { up: node, down: self.down[at], on: self.on[at] })
    }

    fn edges_of(&self, node: NodeIx) -> std::ops::Range<usize> {
        self.down_start[node.at()] as usize..self.down_start[node.at() + 1] as usize
    }

    /// Whether the node, or one above it, has a `when`.
    #[must_use]
    pub fn is_passable(&self, node: NodeIx) -> bool {
        self.passable[node.at()]
    }

    /// How many edges this node waits for.
    #[must_use]
    pub fn upstream_count(&self, node: NodeIx) -> u32 {
        self.upstream[node.at()]
    }

    /// Every node after all of its upstream nodes; among equals in the order of the spec.
    #[must_use]
    pub fn order(&self) -> &[NodeIx] {
        &self.order
    }

    /// For display: nodes by the length of the longest path that leads to them.
    #[must_use]
    pub fn layers(&self) -> Vec<Vec<NodeIx>> {
        let mut depth = vec![0usize; self.len()];
        let mut layers: Vec<Vec<NodeIx>> = Vec::new();
        for &node in &self.order {
            let own = depth[node.at()];
            for down in self.downstream(node) {
                depth[down.at()] = depth[down.at()].max(own + 1);
            }
            if layers.len() <= own {
                layers.resize_with(own + 1, Vec::new);
            }
            layers[own].push(node);
        }
        layers
    }

    /// The path whose durations (`duration_ms` by node) add up to the most, from its first node to its last, and the sum.
    /// Among equal paths the one through the lower ids.
    #[must_use]
    pub fn critical_path(&self, duration_ms: impl Fn(NodeIx) -> u64) -> (Vec<NodeIx>, u64) {
        // Backwards over the order: the longest way from a node to an end, and its next step.
        let mut longest = vec![(0u64, None::<NodeIx>); self.len()];
        for &node in self.order.iter().rev() {
            let mut best = (0u64, None);
            for &down in self.downstream(node) {
                let length = longest[down.at()].0;
                if best.1.is_none() || length > best.0 {
                    best = (length, Some(down));
                }
            }
            longest[node.at()] = (best.0.saturating_add(duration_ms(node)), best.1);
        }
        let start = self
            .ids()
            .filter(|n| self.upstream_count(*n) == 0)
            .reduce(|best, n| if longest[n.at()].0 > longest[best.at()].0 { n } else { best });
        let total = start.map_or(0, |n| longest[n.at()].0);
        let path = std::iter::successors(start, |n| longest[n.at()].1).collect();
        (path, total)
    }

    /// Kahn's algorithm with a queue: linear, no recursion, deterministic.
    fn topological_order(&self) -> Vec<NodeIx> {
        let mut waits = self.upstream.clone();
        let mut order: Vec<NodeIx> = self.ids().filter(|n| waits[n.at()] == 0).collect();
        let mut next = 0;
        while let Some(&node) = order.get(next) {
            next += 1;
            for &down in self.downstream(node) {
                waits[down.at()] -= 1;
                if waits[down.at()] == 0 {
                    order.push(down);
                }
            }
        }
        order
    }
}

/// For each group of nodes that wait for each other (at most `limit`, in the order of their lowest node), the shortest
/// cycle through its lowest node. Linear, and without recursion (petgraph's Kosaraju, not its Tarjan). `edges` sorted.
pub(crate) fn cycles(count: usize, edges: &[(NodeIx, NodeIx)], limit: usize) -> Vec<Vec<NodeIx>> {
    let mut graph: DiGraph<(), (), u32> = DiGraph::with_capacity(count, edges.len());
    for _ in 0..count {
        graph.add_node(());
    }
    for (up, down) in edges {
        graph.add_edge(up.0.into(), down.0.into(), ());
    }
    let mut groups: Vec<Vec<usize>> = kosaraju_scc(&graph)
        .into_iter()
        .filter(|group| group.len() > 1 || group.iter().any(|n| graph.contains_edge(*n, *n)))
        .map(|group| group.into_iter().map(|n| n.index()).collect())
        .collect();
    groups.sort_by_key(|group| group.iter().min().copied());
    let mut came_from = vec![None; count];
    let mut group_of = vec![usize::MAX; count];
    for (number, group) in groups.iter().enumerate() {
        for &node in group {
            group_of[node] = number;
        }
    }
    let starts = groups.iter().filter_map(|group| group.iter().min().copied());
    starts.take(limit).map(|start| shortest_way_back(edges, start, &group_of, &mut came_from)).collect()
}

/// Breadth first inside one strongly connected group, from `start` back to itself.
fn shortest_way_back(
    edges: &[(NodeIx, NodeIx)],
    start: usize,
    group_of: &[usize],
    came_from: &mut [Option<usize>],
) -> Vec<NodeIx> {
    let mut queue = VecDeque::from([start]);
    while let Some(at) = queue.pop_front() {
        let first = edges.partition_point(|(up, _)| up.at() < at);
        for (_, down) in edges[first..].iter().take_while(|(up, _)| up.at() == at) {
            if down.at() == start {
                let back = std::iter::successors(Some(at), |n| came_from[*n]);
                let mut cycle: Vec<NodeIx> = back.filter_map(index).collect();
                cycle.reverse();
                return cycle;
            }
            if group_of[down.at()] == group_of[start] && came_from[down.at()].is_none() {
                came_from[down.at()] = Some(at);
                queue.push_back(down.at());
            }
        }
    }
    Vec::new()
}

fn index(at: usize) -> Option<NodeIx> {
    u32::try_from(at).ok().map(NodeIx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn nodes(count: usize) -> Vec<NodeSpec> {
        (0..count).map(|at| NodeSpec::of(format!("n{at}"), 1)).collect()
    }

    fn edges(pairs: &[(u32, u32)]) -> Vec<(NodeIx, NodeIx)> {
        pairs.iter().map(|(up, down)| (NodeIx(*up), NodeIx(*down))).collect()
    }

    fn ixs(of: &[u32]) -> Vec<NodeIx> {
        of.iter().copied().map(NodeIx).collect()
    }

    #[test]
    fn a_diamond_has_its_rows_layers_and_critical_path() {
        let dag = Dag::new(nodes(4), edges(&[(1, 3), (0, 1), (0, 2), (2, 3), (0, 1)])).expect("acyclic");
        assert_eq!(dag.edge_count(), 4, "an edge counts once");
        assert_eq!(dag.downstream(NodeIx(0)), ixs(&[1, 2]));
        assert_eq!(dag.downstream(NodeIx(3)), ixs(&[]));
        assert_eq!(dag.upstream_count(NodeIx(3)), 2);
        assert_eq!(dag.layers(), [ixs(&[0]), ixs(&[1, 2]), ixs(&[3])]);
        assert_eq!(dag.find("n2"), Some(NodeIx(2)));
        let (path, total_ms) = dag.critical_path(|n| [5, 10, 20, 1][n.at()]);
        assert_eq!((path, total_ms), (ixs(&[0, 2, 3]), 26));
        let (path, _) = dag.critical_path(|_| 1);
        assert_eq!(path, ixs(&[0, 1, 3]), "among equals the lower ids");
    }

    #[test]
    fn two_nodes_may_share_edges_that_wait_for_different_things() {
        let edge = |up, down, on| Edge { up: NodeIx(up), down: NodeIx(down), on };
        let list = [edge(0, 1, On::Skipped), edge(0, 1, On::Failed), edge(0, 1, On::Failed), edge(1, 2, On::Succeeded)];
        let mut nodes = nodes(3);
        nodes[0].gated = true;
        let dag = Dag::new(nodes, list).expect("acyclic");
        assert_eq!(dag.edges_from(NodeIx(0)).map(|e| e.on).collect::<Vec<_>>(), [On::Failed, On::Skipped]);
        assert_eq!((dag.upstream_count(NodeIx(1)), dag.order().len(), dag.layers().len()), (2, 3, 3));
        assert!(dag.ids().all(|n| dag.is_passable(n)), "all stand at or below the when");
    }

    #[test]
    fn what_is_no_dag_is_named() {
        let cycle = |count, pairs: &[(u32, u32)]| Dag::new(nodes(count), edges(pairs)).expect_err("no dag");
        assert_eq!(cycle(3, &[(0, 1), (1, 2), (2, 1)]), DagError::Cycle(ixs(&[1, 2])));
        assert_eq!(cycle(2, &[(1, 1)]), DagError::Cycle(ixs(&[1])));
        assert_eq!(cycle(2, &[(0, 2)]), DagError::UnknownNode(NodeIx(2)));
        let long_and_short = cycle(5, &[(0, 1), (1, 2), (2, 3), (3, 0), (1, 0)]);
        assert_eq!(long_and_short, DagError::Cycle(ixs(&[0, 1])), "the shortest way back");
        let mut twice = nodes(2);
        twice[1].id = "n0".into();
        assert_eq!(Dag::new(twice, edges(&[])), Err(DagError::DuplicateId("n0".into())));
    }

    /// As the webhook's threads run it, and smaller: whatever recursed over a path of this length would overflow.
    #[track_caller]
    fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
        let thread = std::thread::Builder::new().stack_size(64 * 1024).spawn(test).expect("a thread");
        thread.join().expect("the stack holds");
    }

    #[test]
    fn the_longest_chain_and_the_longest_cycle_need_no_deep_stack() {
        const NODES: u32 = 20_000;
        on_a_small_stack(|| {
            for backwards in [false, true] {
                let at = |n: u32| if backwards { NODES - 1 - n } else { n };
                let mut pairs: Vec<(u32, u32)> = (1..NODES).map(|n| (at(n - 1), at(n))).collect();
                let dag = Dag::new(nodes(NODES as usize), edges(&pairs)).expect("a chain");
                assert_eq!(dag.layers().len(), NODES as usize);
                assert_eq!(dag.critical_path(|_| 1).1, u64::from(NODES));
                pairs.push((at(NODES - 1), at(0)));
                let Err(DagError::Cycle(cycle)) = Dag::new(nodes(NODES as usize), edges(&pairs)) else {
                    panic!("a cycle")
                };
                assert_eq!(cycle.len(), NODES as usize);
            }
        });
    }

    #[test]
    fn many_cycles_and_dense_ones_take_linear_time() {
        // 10,000 pairs that wait for each other, and 447 nodes that all wait for all: both at the limit of nodes or edges.
        let pairs: Vec<(u32, u32)> = (0..10_000).flat_map(|n| [(2 * n, 2 * n + 1), (2 * n + 1, 2 * n)]).collect();
        let dense: Vec<(u32, u32)> = (0..447).flat_map(|up| (0..447).map(move |down| (up, down))).collect();
        on_a_small_stack(move || {
            for (count, pairs, expected) in [(20_000, pairs, 2), (447, dense, 1)] {
                let mut edges = edges(&pairs);
                edges.sort_unstable();
                let found = cycles(count, &edges, 5);
                assert!(found.iter().all(|cycle| cycle.len() == expected), "{found:?}");
            }
        });
    }

    proptest! {
        #[test]
        fn a_graph_is_a_dag_or_shows_a_true_cycle(pairs in prop::collection::vec((0u32..20, 0u32..20), 0..60)) {
            let edges = edges(&pairs);
            match Dag::new(nodes(20), edges.clone()) {
                Ok(dag) => {
                    let mut place = [0; 20];
                    for (at, node) in dag.order().iter().enumerate() {
                        place[node.at()] = at;
                    }
                    prop_assert_eq!(dag.order().len(), 20);
                    for (up, down) in edges {
                        prop_assert!(place[up.at()] < place[down.at()]);
                        prop_assert!(dag.downstream(up).contains(&down));
                    }
                }
                Err(DagError::Cycle(cycle)) => {
                    for (at, node) in cycle.iter().enumerate() {
                        prop_assert!(edges.contains(&(*node, cycle[(at + 1) % cycle.len()])));
                    }
                }
                Err(other) => prop_assert!(false, "{other}"),
            }
        }
    }
}
