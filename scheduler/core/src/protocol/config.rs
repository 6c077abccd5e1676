//! What the protocol can be told: deadlines, limits and who tolerates a rollback.

use super::plan::Patience;
use crate::model::{Millis, Owner};
use crate::preparation::Preparation;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;

/// Parameters of the binding protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProtocolConfig {
    /// How long a gang is moved forward before it is rolled back (or held, where its owner does not tolerate that).
    pub repair_deadline_ms: Millis,
    /// A command without an outcome for so long counts as unknown; longer than dispatch's own request timeout.
    pub outcome_timeout_ms: Millis,
    /// First delay before a command is repeated; doubles up to `retry_max_ms`.
    pub retry_min_ms: Millis,
    /// Largest delay before a command is repeated.
    pub retry_max_ms: Millis,
    /// Delay before something is tried again that the server refused (403, 422).
    pub refused_retry_ms: Millis,
    /// How often a place is asked for again for members that have none.
    pub replan_interval_ms: Millis,
    /// How long volumes may take to be bound or provisioned before the first Binding, unless the pod's profile says.
    pub volume_bind_timeout_ms: Millis,
    /// How long devices may take until their binding conditions are true, unless the pod's profile says.
    pub device_bind_timeout_ms: Millis,
    /// How often a claim that is waited for is read when no watch tells of it; doubles up to eight times that.
    pub prepare_read_interval_ms: Millis,
    /// How long the journal may still hold a pod of its own that is bound, for want of a write to take it along.
    pub close_delay_ms: Millis,
    /// Largest payload of a journal slot. etcd refuses requests above 1.5 MiB, the rest is slack for repairs.
    pub slot_limit_bytes: usize,
    /// Slots that take new intents, from the first. What more there are were left by a former configuration: they are
    /// fenced like the others, their intents are finished, and then they stay empty.
    pub journal_slots: usize,
    /// Owners whose pods may be deleted by a rollback.
    pub tolerance: Tolerance,
}

impl Default for ProtocolConfig {
    fn default() -> Self {
        Self {
            repair_deadline_ms: 30_000,
            outcome_timeout_ms: 15_000,
            retry_min_ms: 50,
            retry_max_ms: 2_000,
            refused_retry_ms: 10_000,
            replan_interval_ms: 1_000,
            volume_bind_timeout_ms: 600_000,
            device_bind_timeout_ms: 600_000,
            prepare_read_interval_ms: 10_000,
            close_delay_ms: 1_000,
            slot_limit_bytes: 900 * 1024,
            journal_slots: 8,
            tolerance: Tolerance::default(),
        }
    }
}

impl ProtocolConfig {
    /// How long a preparation may take.
    pub(super) fn prepare_timeout(&self, what: &Preparation, patience: Patience) -> Millis {
        if what.kind().is_volume() {
            patience.volumes_ms.unwrap_or(self.volume_bind_timeout_ms)
        } else {
            patience.devices_ms.unwrap_or(self.device_bind_timeout_ms)
        }
    }

    /// Delay before the next try after so many failures in a row.
    pub(super) fn backoff(&self, failures: u32) -> Millis {
        self.retry_min_ms.saturating_mul(1 << failures.min(16)).min(self.retry_max_ms)
    }
}

/// Whose pods a rollback may delete: owners that recreate the pod without counting it as a failure.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tolerance {
    /// Pods without a controller.
    pub bare: bool,
    /// Controllers.
    pub owners: Vec<TolerantOwner>,
}

/// A kind of controller that tolerates a rollback.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TolerantOwner {
    /// API group, without the version; empty for the core group.
    pub group: SmolStr,
    /// Kind.
    pub kind: SmolStr,
}

impl Default for Tolerance {
    /// Bare pods and the pods of our own DAG controller, which recreates them in the same attempt at no budget.
    fn default() -> Self {
        let gang = TolerantOwner { group: SmolStr::new_static("flowforge.dev"), kind: SmolStr::new_static("Gang") };
        Self { bare: true, owners: vec![gang] }
    }
}

impl Tolerance {
    /// Whether pods of this controller may be deleted by a rollback.
    #[must_use]
    pub fn allows(&self, owner: Option<&Owner>) -> bool {
        let Some(owner) = owner else { return self.bare };
        let group = owner.api_version.split_once('/').map_or("", |(group, _)| group);
        self.owners.iter().any(|tolerant| tolerant.group == group && tolerant.kind == owner.kind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(api_version: &str, kind: &str) -> Owner {
        Owner { api_version: api_version.into(), kind: kind.into(), name: "x".into(), uid: "u".into() }
    }

    #[test]
    fn bare_pods_and_gangs_of_any_version_are_tolerant_and_jobs_are_not() {
        let tolerance = Tolerance::default();
        assert!(tolerance.allows(None));
        assert!(tolerance.allows(Some(&owner("flowforge.dev/v1alpha1", "Gang"))));
        assert!(tolerance.allows(Some(&owner("flowforge.dev/v1", "Gang"))));
        assert!(!tolerance.allows(Some(&owner("batch/v1", "Job"))));
        assert!(!tolerance.allows(Some(&owner("example.com/v1", "Gang"))));
        assert!(!tolerance.allows(Some(&owner("v1", "ReplicationController"))));
    }
}
