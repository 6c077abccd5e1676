//! What Volcano's PodGroups refer to: their queue, the Job that owns them, the tiers of the network.

use crate::gangs::beside::{BesideKind, Fact, Surroundings};
use crate::types::Meta;
use flowforge_topology_core::readers::volcano::{self as reader, HyperNodes};
use serde::Deserialize;
use smol_str::SmolStr;

/// A queue.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Queue {
    metadata: Meta,
    status: QueueStatus,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct QueueStatus {
    state: SmolStr,
}

impl BesideKind for Queue {
    const PLURAL: &'static str = "queues.scheduling.volcano.sh";
    const PATH: &'static str = "/apis/scheduling.volcano.sh/v1beta1/queues";

    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn said(&self) -> Fact {
        Fact::Queue(self.status.state.clone())
    }
}

/// A Volcano Job.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Job {
    metadata: Meta,
    spec: JobSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct JobSpec {
    scheduler_name: SmolStr,
}

impl BesideKind for Job {
    const PLURAL: &'static str = "jobs.batch.volcano.sh";
    const PATH: &'static str = "/apis/batch.volcano.sh/v1alpha1/jobs";

    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn said(&self) -> Fact {
        Fact::Scheduler(self.spec.scheduler_name.clone())
    }
}

/// A group of nodes of one tier.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct HyperNode {
    metadata: Meta,
    spec: HyperNodeSpec,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct HyperNodeSpec {
    tier: u32,
    tier_name: SmolStr,
}

impl BesideKind for HyperNode {
    const PLURAL: &'static str = "hypernodes.topology.volcano.sh";
    const PATH: &'static str = "/apis/topology.volcano.sh/v1alpha1/hypernodes";

    fn meta(&self) -> &Meta {
        &self.metadata
    }

    fn said(&self) -> Fact {
        Fact::Tier(self.spec.tier, Some(self.spec.tier_name.clone()).filter(|name| !name.is_empty()))
    }
}

/// Whether the Job of this name asks for this scheduler.
pub(super) fn job_is_ours(around: &Surroundings, namespace: &str, name: &str) -> bool {
    matches!(around.find(Job::PLURAL, namespace, name), Some(Fact::Scheduler(scheduler)) if around.is_ours(scheduler))
}

/// Why nothing more of a queue is placed, where that is so. Where no queue is known, Volcano's are not used.
pub(super) fn queue_holds(around: &Surroundings, name: &str) -> Option<String> {
    match around.find(Queue::PLURAL, "", name) {
        // One that was just made has no state yet.
        Some(Fact::Queue(state)) => (!matches!(state.as_str(), "" | "Open"))
            .then(|| format!("queue {name} is {state}; its groups are placed when it is Open")),
        _ => around
            .all(Queue::PLURAL)
            .next()
            .map(|_| format!("queue {name} does not exist; create it, or name another one in spec.queue")),
    }
}

/// Whether there are HyperNodes.
pub(super) fn any_tier(around: &Surroundings) -> bool {
    around.all(HyperNode::PLURAL).next().is_some()
}

/// The name of a tier, by its name or number.
///
/// # Errors
/// When no HyperNode is of that tier.
pub(super) fn tier_name(around: &Surroundings, asked: &str) -> Result<SmolStr, String> {
    let group = |((_, name), fact): (&(SmolStr, SmolStr), &Fact)| match fact {
        Fact::Tier(tier, tier_name) => Some(reader::HyperNode {
            name: name.clone(),
            tier: *tier,
            tier_name: tier_name.clone(),
            members: Vec::new(),
        }),
        Fact::Queue(_) | Fact::Scheduler(_) => None,
    };
    let groups: Vec<_> = around.all(HyperNode::PLURAL).filter_map(group).collect();
    let groups = HyperNodes::new(&groups).map_err(|error| error.to_string())?;
    let level = groups.tier(asked).map_err(|error| error.to_string())?;
    Ok(groups.levels().name(level).into())
}
