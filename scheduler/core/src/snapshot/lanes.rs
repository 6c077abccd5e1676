//! Resource lanes: one column of numbers per resource name, a row per node.
//!
//! A lane exists only for `cpu`, `memory`, `ephemeral-storage`, `pods` and names in some node's allocatable. `used` is exact
//! (128 bits: pods that ask for absurd amounts add up and subtract without loss), `free` is what is compared: allocatable
//! less used, signed because static, mirror and foreign pods may overcommit, and saturated to 64 bits.

use super::scoring_rows::ScoringRows;
use crate::model::{CPU, EPHEMERAL_STORAGE, MEMORY, PODS};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Index of a lane.
pub(crate) type LaneIndex = usize;

pub(crate) const CPU_LANE: LaneIndex = 0;
pub(crate) const MEMORY_LANE: LaneIndex = 1;
pub(crate) const EPHEMERAL_STORAGE_LANE: LaneIndex = 2;
pub(crate) const PODS_LANE: LaneIndex = 3;
const FIXED: [&str; 4] = [CPU, MEMORY, EPHEMERAL_STORAGE, PODS];

#[derive(Clone, Debug, Default, PartialEq)]
struct Lane {
    name: SmolStr,
    /// Nodes with this name in their allocatable; the lane ends with the last one.
    holders: u32,
    allocatable: Vec<i64>,
    used: Vec<i128>,
    free: Vec<i64>,
}

/// All lanes, as columns.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    by_name: BTreeMap<SmolStr, LaneIndex>,
    vacant: Vec<LaneIndex>,
    rows: usize,
    /// CPU and memory with the defaults for scoring.
    scored: [Vec<i128>; 2],
    /// Names that profiles score by, and their lanes now.
    watched: Vec<(SmolStr, Option<LaneIndex>)>,
    /// The same columns as doubles, for looks at every node.
    rows_for_scores: ScoringRows,
    /// Changes when a lane begins or ends: resolved requests are stale then.
    epoch: u64,
}

impl Lanes {
    pub(crate) fn new() -> Self {
        let mut lanes = Self {
            lanes: Vec::new(),
            by_name: BTreeMap::new(),
            vacant: Vec::new(),
            rows: 0,
            scored: [Vec::new(), Vec::new()],
            watched: Vec::new(),
            rows_for_scores: ScoringRows::default(),
            epoch: 0,
        };
        for name in FIXED {
            lanes.hold(name);
        }
        lanes
    }

    pub(crate) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Keeps the lanes of these names at hand, by their position.
    pub(crate) fn watch(&mut self, names: &[SmolStr]) {
        self.watched = names.iter().map(|name| (name.clone(), self.find(name))).collect();
    }

    /// The lane of a watched name; None where no node has such a resource.
    pub(crate) fn watched(&self, at: u16) -> Option<LaneIndex> {
        self.watched.get(usize::from(at)).and_then(|(_, lane)| *lane)
    }

    fn rewatch(&mut self, name: &str, lane: Option<LaneIndex>) {
        for (_, known) in self.watched.iter_mut().filter(|(watched, _)| watched == name) {
            *known = lane;
        }
    }

    /// Makes rows for nodes up to this index.
    pub(crate) fn grow(&mut self, rows: usize) {
        if rows <= self.rows {
            return;
        }
        self.rows = rows;
        for lane in &mut self.lanes {
            lane.allocatable.resize(rows, 0);
            lane.used.resize(rows, 0);
            lane.free.resize(rows, 0);
        }
        for column in &mut self.scored {
            column.resize(rows, 0);
        }
        self.rows_for_scores.grow(rows);
    }

    pub(crate) fn find(&self, name: &str) -> Option<LaneIndex> {
        self.by_name.get(name).copied()
    }

    /// A node has this name in its allocatable. Returns the lane and whether it is new: then `used` is to be filled in.
    pub(crate) fn hold(&mut self, name: &str) -> (LaneIndex, bool) {
        if let Some(at) = self.find(name) {
            self.lanes[at].holders += 1;
            return (at, false);
        }
        let rows = self.rows;
        let name = SmolStr::from(name);
        let lane = Lane {
            name: name.clone(),
            holders: 1,
            allocatable: vec![0; rows],
            used: vec![0; rows],
            free: vec![0; rows],
        };
        let at = if let Some(at) = self.vacant.pop() {
            self.lanes[at] = lane;
            at
        } else {
            self.lanes.push(lane);
            self.lanes.len() - 1
        };
        self.rewatch(&name, Some(at));
        self.by_name.insert(name, at);
        self.epoch += 1;
        (at, true)
    }

    /// A node no longer has this name in its allocatable.
    pub(crate) fn release(&mut self, name: &str) {
        let Some(at) = self.find(name) else { return };
        self.lanes[at].holders -= 1;
        if self.lanes[at].holders == 0 {
            self.by_name.remove(name);
            self.rewatch(name, None);
            self.lanes[at] = Lane::default();
            let rows = self.rows;
            self.lanes[at].allocatable.resize(rows, 0);
            self.lanes[at].used.resize(rows, 0);
            self.lanes[at].free.resize(rows, 0);
            self.vacant.push(at);
            self.epoch += 1;
        }
    }

    pub(crate) fn set_allocatable(&mut self, lane: LaneIndex, row: usize, amount: i64) {
        self.lanes[lane].allocatable[row] = amount.max(0);
        self.refresh(lane, row);
    }

    pub(crate) fn add_used(&mut self, lane: LaneIndex, row: usize, amount: i128) {
        self.lanes[lane].used[row] += amount;
        self.refresh(lane, row);
    }

    pub(crate) fn add_scored(&mut self, row: usize, cpu: i128, memory: i128) {
        self.scored[0][row] += cpu;
        self.scored[1][row] += memory;
        self.rows_for_scores.set_scored(row, self.scored(row));
    }

    fn refresh(&mut self, at: LaneIndex, row: usize) {
        let lane = &mut self.lanes[at];
        lane.free[row] = clamp(i128::from(lane.allocatable[row]) - lane.used[row]);
        if at == CPU_LANE || at == MEMORY_LANE {
            let both = |of: fn(&Self, LaneIndex, usize) -> i64| [of(self, CPU_LANE, row), of(self, MEMORY_LANE, row)];
            let (allocatable, used) = (both(Self::allocatable), both(Self::used));
            self.rows_for_scores.set_used(row, used, self.scored(row), allocatable);
        }
    }

    /// The columns that scores are computed from when every node is looked at.
    pub(crate) fn scoring_rows(&self) -> &ScoringRows {
        &self.rows_for_scores
    }

    /// Free places for pods, by row.
    pub(crate) fn free_pod_places(&self) -> &[i64] {
        self.free_column(PODS_LANE)
    }

    /// A lane's free amounts, by row.
    pub(crate) fn free_column(&self, lane: LaneIndex) -> &[i64] {
        &self.lanes[lane].free
    }

    pub(crate) fn free(&self, lane: LaneIndex, row: usize) -> i64 {
        self.lanes[lane].free[row]
    }

    pub(crate) fn allocatable(&self, lane: LaneIndex, row: usize) -> i64 {
        self.lanes[lane].allocatable[row]
    }

    pub(crate) fn used(&self, lane: LaneIndex, row: usize) -> i64 {
        clamp(self.lanes[lane].used[row])
    }

    pub(crate) fn scored(&self, row: usize) -> [i64; 2] {
        [clamp(self.scored[0][row]), clamp(self.scored[1][row])]
    }

    /// Use of every resource of a node.
    pub(crate) fn used_by_name(&self, row: usize) -> BTreeMap<SmolStr, i64> {
        self.by_name.iter().map(|(name, at)| (name.clone(), self.used(*at, row))).collect()
    }

    /// Every lane's name, allocatable and exact use of a node, for comparison.
    #[cfg(test)]
    pub(crate) fn row(&self, row: usize) -> BTreeMap<SmolStr, (i64, i128, i64)> {
        let cell =
            |at: &LaneIndex| (self.lanes[*at].allocatable[row], self.lanes[*at].used[row], self.lanes[*at].free[row]);
        self.by_name.iter().map(|(name, at)| (name.clone(), cell(at))).collect()
    }
}

fn clamp(amount: i128) -> i64 {
    i64::try_from(amount).unwrap_or(if amount < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absurd_amounts_add_up_and_go_away_without_a_trace() {
        let mut lanes = Lanes::new();
        lanes.grow(1);
        lanes.set_allocatable(CPU_LANE, 0, 4000);
        for _ in 0..5 {
            lanes.add_used(CPU_LANE, 0, i128::from(i64::MAX));
        }
        assert_eq!((lanes.free(CPU_LANE, 0), lanes.used(CPU_LANE, 0)), (i64::MIN, i64::MAX));
        for _ in 0..5 {
            lanes.add_used(CPU_LANE, 0, -i128::from(i64::MAX));
        }
        assert_eq!((lanes.free(CPU_LANE, 0), lanes.used(CPU_LANE, 0)), (4000, 0));
    }

    #[test]
    fn a_lane_lives_as_long_as_a_node_has_its_name() {
        let mut lanes = Lanes::new();
        lanes.grow(2);
        let epoch = lanes.epoch();
        lanes.watch(&["a".into(), "x.y/gpu".into()]);
        assert!(lanes.hold("x.y/gpu").1);
        assert_eq!((lanes.watched(0), lanes.watched(1)), (None, lanes.find("x.y/gpu")));
        assert!(!lanes.hold("x.y/gpu").1);
        lanes.release("x.y/gpu");
        assert!(lanes.find("x.y/gpu").is_some());
        lanes.release("x.y/gpu");
        assert_eq!((lanes.find("x.y/gpu"), lanes.watched(1)), (None, None));
        assert!(lanes.epoch() > epoch);
        let (at, fresh) = lanes.hold("x.y/other");
        assert!(fresh);
        assert_eq!(lanes.free(at, 1), 0);
    }
}
