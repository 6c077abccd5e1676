//! Phases, bounds and the views from which statuses are written.
//!
//! ```text
//!   workflow  Pending ──first release──> Running ──all nodes ended, all pods stopped──> Succeeded | Failed | Canceled
//!   node      Pending ──upstream done──> Scheduling ──gang runs──> Running ──> Succeeded | Failed
//!                └─────────────────────── never started ────────────────────────────> Skipped
//!   gang      Pending ──all bound──> Scheduled ──all ran──> Running ──end decided, pods stopped, recorded──> Succeeded | Failed
//! ```
//! Phases only move to the right. A node ends when its gang's end is *durable* (`status.phase` of the Gang), so that what
//! is released by it never rests on something a crash can forget. An ended node keeps a few words; members exist only
//! while their gang is open.

use crate::ids::NodeIx;
use crate::reason::Cause;

/// Phase of a workflow.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum WorkflowPhase {
    /// No node was released.
    #[default]
    Pending,
    /// A node was released.
    Running,
    /// Every node ended well.
    Succeeded,
    /// A node failed.
    Failed,
    /// It was canceled, or deleted, before every node had ended well.
    Canceled,
}

impl WorkflowPhase {
    /// It never changes again.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Canceled)
    }
}

/// Phase of a node.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum NodePhase {
    /// An upstream node has not ended.
    #[default]
    Pending,
    /// Released; its gang is not bound and running as a whole.
    Scheduling,
    /// All members run or ran.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
    /// It never ran and never will.
    Skipped,
}

impl NodePhase {
    /// It never changes again.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Succeeded | Self::Failed | Self::Skipped)
    }
}

/// Phase of a gang.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum GangPhase {
    /// Its members are not all bound.
    #[default]
    Pending,
    /// All members that are needed are bound.
    Scheduled,
    /// All members that are needed run or ran.
    Running,
    /// It ended well.
    Succeeded,
    /// It ended badly.
    Failed,
}

/// How many members are where.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct Counts {
    /// Members asked for.
    pub desired: u32,
    /// Pods that exist.
    pub created: u32,
    /// Members that are bound, or were when they ended.
    pub bound: u32,
    /// Members whose main container runs.
    pub running: u32,
    /// Members that ended well.
    pub succeeded: u32,
    /// Members that ended badly, collateral included.
    pub failed: u32,
}

/// The bounds and pauses the engine keeps. All milliseconds.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Config {
    /// Makes pauses of different workflows differ; the shell takes it from the workflow's UID.
    pub seed: u64,
    /// `ttlSecondsAfterFinished`; never deleted when `None`.
    pub ttl_ms: Option<u64>,
    /// `timeoutSeconds` of the whole workflow; without bound when `None`.
    pub timeout_ms: Option<u64>,
    /// Most nodes whose gangs are open at once; without bound when `None`.
    pub parallelism: Option<u32>,
    /// How long a gang that quota refuses may hold its other half: up to twice this.
    pub quota_hold_ms: u64,
    /// How long a create that is forbidden is tried again.
    pub forbidden_hold_ms: u64,
    /// First pause after these, and after a taken name; doubled each time.
    pub retry_base_ms: u64,
    /// Longest pause.
    pub retry_cap_ms: u64,
    /// How long after a failure of the user's a sign of the infrastructure still tells that it was to blame.
    pub infra_grace_ms: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            ttl_ms: None,
            timeout_ms: None,
            parallelism: None,
            quota_hold_ms: 10_000,
            forbidden_hold_ms: 60_000,
            retry_base_ms: 1_000,
            retry_cap_ms: 60_000,
            infra_grace_ms: 60_000,
        }
    }
}

/// What a node's status shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct NodeView<'a> {
    /// The node.
    pub node: NodeIx,
    /// Its phase.
    pub phase: NodePhase,
    /// Its attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Why it ended, is ending or waits.
    pub cause: Option<&'a Cause>,
    /// Phase of its current attempt's gang, once the Gang exists.
    pub gang: Option<GangPhase>,
    /// Members of its current attempt.
    pub members: Counts,
    /// Since when its gang runs with fewer members than it is to have, milliseconds since the epoch.
    pub degraded_since_ms: Option<u64>,
    /// When it was released, milliseconds since the epoch.
    pub released_at_ms: Option<u64>,
    /// When all members were bound.
    pub scheduled_at_ms: Option<u64>,
    /// When all members ran.
    pub started_at_ms: Option<u64>,
    /// When it ended.
    pub finished_at_ms: Option<u64>,
}
