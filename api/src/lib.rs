//! CRD types and every label, annotation, condition and reason name of FlowForge.
//!
//! This crate has no client. `scheduler/` and `dag-controller/` convert these types to and from the plain types of
//! their cores; `manifests/crds/` is generated from here and checked for freshness (`make verify`).
//!
//! ```text
//!   Workflow ──owns──> Gang (one per attempt of a node) ──owns──> Pods, headless Service
//!   WorkTemplate: a node with parameters; copied into the Workflows that refer to it
//!   PlacementJournal: slots of open bind intents, written by the scheduler alone
//!   ClusterTopology: the levels of the cluster, read by the scheduler, which writes what the nodes make of them
//! ```

mod control;
pub mod gang;
pub mod journal;
pub mod names;
mod role;
pub mod template;
pub mod topology;
pub mod workflow;

pub use gang::{Gang, GangSpec, GangStatus};
pub use journal::{PlacementJournal, PlacementJournalSpec};
pub use template::{WorkTemplate, WorkTemplateSpec};
pub use topology::{ClusterTopology, ClusterTopologySpec, ClusterTopologyStatus};
pub use workflow::{Workflow, WorkflowSpec, WorkflowStatus};

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// The API group of every FlowForge kind.
pub const GROUP: &str = "flowforge.dev";

/// Every CRD of the project with its file stem under `manifests/crds/`.
#[must_use]
pub fn crds() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("flowforge.dev_clustertopologies", ClusterTopology::crd()),
        ("flowforge.dev_gangs", Gang::crd()),
        ("flowforge.dev_placementjournals", PlacementJournal::crd()),
        ("flowforge.dev_workflows", workflow::crd()),
        ("flowforge.dev_worktemplates", template::crd()),
    ]
}
