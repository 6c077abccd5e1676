//! The controller's own metrics. Label values come from the enums below and from nowhere else.

use flowforge_dag_controller_core::engine::State;
use flowforge_dag_controller_core::{Milestone, WorkflowPhase};
use flowforge_runtime::metrics::{doubling_buckets, register};
use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, Opts};
use std::marker::PhantomData;
use std::time::Duration;

/// A closed set of label values.
pub trait LabelValue: Copy + 'static {
    /// Every value.
    const ALL: &'static [Self];
    /// Its text.
    fn text(self) -> &'static str;
}

macro_rules! label_values {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Eq, PartialEq)]
        pub enum $name { $($(#[$vdoc])* $variant),+ }
        impl LabelValue for $name {
            const ALL: &'static [Self] = &[$(Self::$variant),+];
            fn text(self) -> &'static str { match self { $(Self::$variant => $text),+ } }
        }
    };
}

label_values! {
    /// What an admission review came to.
    AdmissionVerdict {
        /// Let through.
        Allowed = "allowed",
        /// Refused with reasons.
        Denied = "denied",
        /// Not a review at all.
        Malformed = "malformed",
    }
}

label_values! {
    /// Kind of a write to the API server.
    Write {
        /// Gang created.
        CreateGang = "create_gang",
        /// Service created.
        CreateService = "create_service",
        /// Pod created.
        CreatePod = "create_pod",
        /// Pod deleted.
        DeletePod = "delete_pod",
        /// Finalizer removed from a pod.
        Finalizer = "finalizer",
        /// Status of a Gang.
        GangStatus = "gang_status",
        /// Status of a Workflow.
        WorkflowStatus = "workflow_status",
        /// Workflow deleted after its time to live.
        DeleteWorkflow = "delete_workflow",
        /// Event.
        Event = "event",
    }
}

label_values! {
    /// What a write came to.
    Outcome {
        /// Done.
        Done = "done",
        /// Refused as out of date, or the name is taken.
        Conflict = "conflict",
        /// Refused.
        Refused = "refused",
        /// No answer, or one that says nothing.
        Unknown = "unknown",
        /// Not sent, because the lease would not have lasted.
        Withheld = "withheld",
    }
}

label_values! {
    /// A bounded queue.
    Queue {
        /// Watch events and outcomes on their way to the workflows.
        Shard = "shard",
        /// Requests that wait for their turn or are under way; bounded by the members of the workflows.
        Jobs = "jobs",
        /// Events on their way to the API server.
        Events = "events",
    }
}

label_values! {
    /// A phase of a node whose duration is measured.
    TimedPhase {
        /// From release to all members bound and running.
        Scheduling = "scheduling",
        /// From all members running to the end.
        Running = "running",
    }
}

label_values! {
    /// How a workflow ended.
    Ended {
        /// Well.
        Succeeded = "succeeded",
        /// Badly.
        Failed = "failed",
        /// Canceled.
        Canceled = "canceled",
    }
}

/// Counters by one closed label, all present from the start.
#[derive(Clone, Debug)]
pub struct Counters<L> {
    vec: IntCounterVec,
    label: PhantomData<L>,
}

impl<L: LabelValue> Counters<L> {
    fn new(metrics: &flowforge_runtime::Metrics, name: &str, help: &str, label: &str) -> prometheus::Result<Self> {
        let vec = register(metrics, IntCounterVec::new(Opts::new(name, help), &[label])?)?;
        for value in L::ALL {
            vec.with_label_values(&[value.text()]);
        }
        Ok(Self { vec, label: PhantomData })
    }

    /// The counter of `label`.
    #[must_use]
    pub fn with(&self, label: L) -> IntCounter {
        self.vec.with_label_values(&[label.text()])
    }
}

/// The controller's metrics.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// Admission reviews.
    pub admissions: Counters<AdmissionVerdict>,
    /// Attempts released.
    pub releases: IntCounter,
    /// Workflows that ended.
    pub workflows_ended: Counters<Ended>,
    /// Workflows held in memory.
    pub workflows: IntGauge,
    /// What went into a queue.
    pub queue_in: Counters<Queue>,
    /// What came out of a queue.
    pub queue_out: Counters<Queue>,
    /// What a full queue dropped.
    pub queue_dropped: Counters<Queue>,
    /// Objects that carry our names but belong to someone else.
    pub strangers: IntCounter,
    /// From the arrival of the event that ended an upstream to the acknowledged creation of the downstream's Gang.
    pub release_latency: Histogram,
    /// Time an event takes inside the core.
    pub apply: Histogram,
    writes: IntCounterVec,
    phases: HistogramVec,
}

impl Metrics {
    /// Registers everything.
    ///
    /// # Errors
    /// When a name is registered already.
    pub fn new(registry: &flowforge_runtime::Metrics) -> prometheus::Result<Self> {
        let counter = |name: &str, help: &str| register(registry, IntCounter::new(name, help)?);
        let writes = Opts::new("flowforge_dag_writes_total", "Writes to the API server by kind and outcome.");
        let writes = register(registry, IntCounterVec::new(writes, &["kind", "outcome"])?)?;
        for kind in Write::ALL {
            writes.with_label_values(&[kind.text(), Outcome::Done.text()]);
        }
        // Nodes run from a second to weeks: 0.25 s to about 12 days.
        let phases = HistogramOpts::new("flowforge_dag_node_phase_duration_seconds", "Time nodes spent in a phase.")
            .buckets(doubling_buckets(0.25, 23));
        let phases = register(registry, HistogramVec::new(phases, &["phase"])?)?;
        let release = HistogramOpts::new(
            "flowforge_dag_release_latency_seconds",
            "Upstream's end seen to downstream's Gang made.",
        )
        .buckets(doubling_buckets(0.001, 16));
        // The core promises microseconds: 1 us to about 65 ms.
        let apply = HistogramOpts::new("flowforge_dag_apply_duration_seconds", "Time an event takes inside the core.")
            .buckets(doubling_buckets(0.000_001, 17));
        Ok(Self {
            admissions: Counters::new(registry, "flowforge_dag_admissions_total", "Admission reviews.", "verdict")?,
            releases: counter("flowforge_dag_releases_total", "Attempts of nodes released.")?,
            workflows_ended: Counters::new(registry, "flowforge_dag_workflows_total", "Workflows ended.", "phase")?,
            workflows: register(registry, IntGauge::new("flowforge_dag_workflows_active", "Workflows in memory.")?)?,
            queue_in: Counters::new(registry, "flowforge_dag_queue_in_total", "Put into a queue.", "queue")?,
            queue_out: Counters::new(registry, "flowforge_dag_queue_out_total", "Taken from a queue.", "queue")?,
            queue_dropped: Counters::new(registry, "flowforge_dag_queue_dropped_total", "Dropped, full.", "queue")?,
            strangers: counter("flowforge_dag_strangers_total", "Objects with our names that are not ours.")?,
            release_latency: register(registry, Histogram::with_opts(release)?)?,
            apply: register(registry, Histogram::with_opts(apply)?)?,
            writes,
            phases,
        })
    }

    /// Counts a write.
    pub fn wrote(&self, kind: Write, outcome: Outcome) {
        self.writes.with_label_values(&[kind.text(), outcome.text()]).inc();
    }

    /// Counts what a milestone ends.
    pub fn reached(&self, state: &State, milestone: Milestone) {
        match milestone {
            Milestone::WorkflowEnded => {
                let label = match state.phase() {
                    WorkflowPhase::Succeeded => Ended::Succeeded,
                    WorkflowPhase::Canceled => Ended::Canceled,
                    _ => Ended::Failed,
                };
                self.workflows_ended.with(label).inc();
            }
            Milestone::NodeEnded(at) => {
                let node = state.node(at);
                self.phase_took(TimedPhase::Scheduling, node.released_at_ms, node.started_at_ms);
                self.phase_took(TimedPhase::Running, node.started_at_ms, node.finished_at_ms);
            }
            _ => {}
        }
    }

    fn phase_took(&self, phase: TimedPhase, from_ms: Option<u64>, to_ms: Option<u64>) {
        let elapsed_ms = to_ms.zip(from_ms).and_then(|(to, from)| to.checked_sub(from));
        if let Some(elapsed_ms) = elapsed_ms {
            let seconds = Duration::from_millis(elapsed_ms).as_secs_f64();
            self.phases.with_label_values(&[phase.text()]).observe(seconds);
        }
    }
}
