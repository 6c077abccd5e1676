//! CPU and memory of every node as doubles, in columns: what a look at every node computes the scores of resources from,
//! several nodes at once. A row with an amount that a double does not hold exactly scores infinity, which says that its score is
//! to be computed in integers.

use crate::plugins::node_resources_balanced_allocation::balance;
use crate::plugins::node_resources_fit::EXACT;

/// What stands in the row of a node that has nothing: no division by 0.
const NOTHING: f64 = 1.0;

/// The columns, by node index; each CPU and memory.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct ScoringRows {
    pub(crate) allocatable: [Vec<f64>; 2],
    /// Requests of the pods on the node.
    pub(crate) used: [Vec<f64>; 2],
    /// The same with the defaults for scoring; minus infinity where an amount of the row is not exact.
    pub(crate) scored: [Vec<f64>; 2],
    /// How balanced the use is, as [`balance`] says it.
    pub(crate) balance: Vec<f64>,
    exact_use: Vec<bool>,
}

impl ScoringRows {
    /// Makes rows for nodes up to this index; those of nodes that have nothing are not exact.
    pub(super) fn grow(&mut self, rows: usize) {
        for column in [&mut self.allocatable, &mut self.used].into_iter().flatten() {
            column.resize(rows, NOTHING);
        }
        self.scored.iter_mut().for_each(|column| column.resize(rows, f64::NEG_INFINITY));
        self.balance.resize(rows, NOTHING);
        self.exact_use.resize(rows, false);
    }

    /// What the pods on a node ask for and count for in scores, and what it has.
    pub(super) fn set_used(&mut self, row: usize, used: [i64; 2], scored: [i64; 2], allocatable: [i64; 2]) {
        self.exact_use[row] = used.iter().all(is_exact) && allocatable.iter().all(|a| is_exact(a) && *a > 0);
        if self.exact_use[row] {
            for (column, amount) in
                self.used.iter_mut().chain(&mut self.allocatable).zip(used.iter().chain(&allocatable))
            {
                column[row] = double(*amount);
            }
            self.balance[row] = double(balance(used.into_iter().zip(allocatable)));
        }
        self.set_scored(row, scored);
    }

    /// What the pods on a node count for in scores.
    pub(super) fn set_scored(&mut self, row: usize, scored: [i64; 2]) {
        let exact = self.exact_use[row] && scored.iter().all(is_exact);
        for (column, amount) in self.scored.iter_mut().zip(scored) {
            column[row] = if exact { double(amount) } else { f64::NEG_INFINITY };
        }
    }
}

fn is_exact(amount: &i64) -> bool {
    (0..=EXACT).contains(amount)
}

/// An amount of at most [`EXACT`] as a double.
#[expect(clippy::cast_precision_loss, reason = "exact by the caller's check")]
pub(crate) fn double(amount: i64) -> f64 {
    amount as f64
}
