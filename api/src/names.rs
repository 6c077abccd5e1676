//! Every label, annotation, finalizer, condition type and reason that FlowForge reads or writes: one definition each.

/// Labels on objects that FlowForge creates or reads.
pub mod label {
    /// Name of the gang a pod belongs to; the plain form of a gang needs this and [`super::annotation::GANG_SIZE`].
    pub const GANG: &str = "flowforge.dev/gang";
    /// Role of a pod inside its gang.
    pub const ROLE: &str = "flowforge.dev/role";
    /// Rank of a pod inside its gang, from 0.
    pub const RANK: &str = "flowforge.dev/rank";
    /// Name of the workflow an object belongs to.
    pub const WORKFLOW: &str = "flowforge.dev/workflow";
    /// Id of the workflow node an object belongs to.
    pub const NODE: &str = "flowforge.dev/node";
    /// Attempt number of the workflow node, from 1.
    pub const ATTEMPT: &str = "flowforge.dev/attempt";
    /// NUMA nodes of a Kubernetes node, where no agent reports them.
    pub const NUMA_NODES: &str = "flowforge.dev/numa-nodes";
    /// `app.kubernetes.io/managed-by`.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
}

/// Annotations on objects that FlowForge creates or reads.
pub mod annotation {
    /// Number of members of a gang in the plain (label) form, a decimal integer of at least 1.
    pub const GANG_SIZE: &str = "flowforge.dev/gang-size";
    /// UID of the `Gang` object a pod was made for.
    pub const GANG_UID: &str = "flowforge.dev/gang-uid";
    /// Id of the placement intent under which a pod was bound; merged by the Binding.
    pub const INTENT: &str = "flowforge.dev/intent";
    /// Re-versions a pod so that an older Binding can no longer land.
    pub const FENCE: &str = "flowforge.dev/fence";
    /// How often the scheduler rolled this member back; part of the pod's name.
    pub const INCARNATION: &str = "flowforge.dev/incarnation";
    /// On a Gang: failed attempts before it, by the budget that they were charged to, as `<user>+<infrastructure>`.
    pub const CHARGED: &str = "flowforge.dev/charged";
    /// On a Gang: its pods are not made before this time, milliseconds since the epoch.
    pub const NOT_BEFORE: &str = "flowforge.dev/not-before";
    /// On a Gang: machines that failed earlier attempts, comma separated; its pods avoid them where they can.
    pub const AVOIDS: &str = "flowforge.dev/avoids";
    /// Topology level that all members of a plain gang must share (`rack`, `block`, …).
    pub const TOPOLOGY_REQUIRED: &str = "flowforge.dev/topology-required";
    /// On an object of others that declares a gang: `true` takes it up before it has pods of ours. On a pod: `false` leaves the
    /// gang out of account that somebody else's label or annotation puts it in.
    pub const ADOPT: &str = "flowforge.dev/adopt";
    /// How long a pod runs at most, as `90m` or `1h30m`: while a big gang waits for room that is reserved for it, pods that are
    /// gone by then may run there. Who runs longer is not stopped.
    pub const EXPECTED_DURATION: &str = "flowforge.dev/expected-duration";
    /// Topology levels that members of a plain gang prefer to share, comma separated, best first.
    pub const TOPOLOGY_PREFERRED: &str = "flowforge.dev/topology-preferred";
}

/// Finalizers.
pub mod finalizer {
    /// Keeps a member pod until its result is recorded in its Gang.
    pub const RESULT: &str = "flowforge.dev/result";
}

/// Field managers of server-side apply and of status writes.
pub mod field_manager {
    /// The scheduler.
    pub const SCHEDULER: &str = "flowforge-scheduler";
    /// The DAG controller.
    pub const CONTROLLER: &str = "flowforge-dag-controller";
    /// The command line.
    pub const CLI: &str = "flowforge";
}

/// Condition types.
pub mod condition {
    /// On a Gang, by the scheduler: all needed members are bound.
    pub const SCHEDULED: &str = "Scheduled";
    /// On a Gang or Workflow, by the controller: it ended well.
    pub const SUCCEEDED: &str = "Succeeded";
    /// On a Gang or Workflow, by the controller: it ended badly; the reason says why.
    pub const FAILED: &str = "Failed";
    /// On a Workflow: it ended (True with reason Succeeded, Failed or Canceled), for `kubectl wait`.
    pub const COMPLETE: &str = "Complete";
    /// On a Workflow: the spec was accepted (False with reason InvalidSpec or a storage reason).
    pub const ACCEPTED: &str = "Accepted";
    /// On a Workflow or Gang: progress is made, but not as asked. On a ClusterTopology: labels of nodes are missing or
    /// contradict each other.
    pub const DEGRADED: &str = "Degraded";
    /// On a ClusterTopology: its levels are in force.
    pub const READY: &str = "Ready";
}

/// The scheduler name pods ask for by default.
pub const SCHEDULER_NAME: &str = "flowforge";
/// Namespace of both binaries and of the journal.
pub const SYSTEM_NAMESPACE: &str = "flowforge-system";
/// Name of the scheduler's Lease.
pub const SCHEDULER_LEASE: &str = "flowforge-scheduler";
/// Name of the controller's Lease.
pub const CONTROLLER_LEASE: &str = "flowforge-dag-controller";
/// Finds the owner of objects made by the DAG controller.
pub const MANAGED_BY_CONTROLLER: &str = "flowforge-dag-controller";
