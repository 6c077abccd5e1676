//! Statuses of ClusterTopologies. Only the latest batch counts: a newer one holds all that is still to be written.

use super::gate::{Call, Failure, Gate};
use crate::metrics::Metrics;
use flowforge_api::ClusterTopologyStatus;
use flowforge_api::names::field_manager;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::time::{Duration, Instant};
use tokio::sync::watch;

/// Pause before a write that may not have happened is tried again.
const RETRY: Duration = Duration::from_secs(1);
/// Label of its metrics.
pub(super) const QUEUE: &str = "topology_statuses";

/// A status to write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TopologyWrite {
    pub(crate) name: SmolStr,
    pub(crate) uid: SmolStr,
    pub(crate) status: ClusterTopologyStatus,
}

/// Writes batch after batch until the term is over.
pub(super) async fn write_all(gate: Gate, mut batches: watch::Receiver<Vec<TopologyWrite>>, metrics: Metrics) {
    while batches.changed().await.is_ok() {
        let batch = batches.borrow_and_update().clone();
        for write in &batch {
            while let Err(Failure::Unknown(why)) = send(&gate, write).await {
                tracing::debug!(name = %write.name, why, "the status of a ClusterTopology could not be written");
                tokio::time::sleep(RETRY).await;
                if batches.has_changed().unwrap_or(true) {
                    break;
                }
            }
            metrics.queue_items.with_label_values(&[QUEUE, "out"]).inc();
        }
    }
}

async fn send(gate: &Gate, write: &TopologyWrite) -> Result<(), Failure> {
    let path = format!(
        "/apis/flowforge.dev/v1alpha1/clustertopologies/{}/status?fieldManager={}&force=true",
        write.name,
        field_manager::SCHEDULER
    );
    let sent = gate.send::<IgnoredAny>(Call::apply(path, &body(write)), Instant::now()).await.map(drop);
    if let Err(Failure::Refused(why)) = &sent {
        tracing::warn!(name = %write.name, why, "the status of a ClusterTopology was refused");
    }
    sent
}

fn body(write: &TopologyWrite) -> Value {
    json!({
        "apiVersion": "flowforge.dev/v1alpha1", "kind": "ClusterTopology",
        "metadata": {"name": write.name, "uid": write.uid},
        "status": write.status,
    })
}
