//! `PlacementJournal`: the scheduler's write-ahead record of gangs that are being bound.
//!
//! A few fixed objects ("slots") in the scheduler's namespace, written by PUT with resourceVersion, by the scheduler
//! alone and without a status subresource: every write is a compare-and-swap, so a former leader's late write is refused.
//! The payload is opaque to the API server; its format belongs to `scheduler/core` (`protocol::journal`).

use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One slot of the journal.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "flowforge.dev",
    version = "v1alpha1",
    kind = "PlacementJournal",
    plural = "placementjournals",
    namespaced,
    category = "flowforge",
    printcolumn = r#"{"name":"Epoch","type":"integer","jsonPath":".spec.epoch"}"#,
    printcolumn = r#"{"name":"Open","type":"integer","jsonPath":".spec.open"}"#,
    printcolumn = r#"{"name":"Holder","type":"string","jsonPath":".spec.holder"}"#,
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct PlacementJournalSpec {
    /// Leadership epoch of the last writer (transitions of the scheduler's Lease).
    pub epoch: i64,
    /// Identity of the last writer, for people.
    #[serde(default)]
    pub holder: String,
    /// Open intents in this slot, for people.
    #[serde(default)]
    pub open: i32,
    /// The record itself: JSON of `scheduler/core`'s `protocol::journal::Slot`, at most 900 KiB.
    #[serde(default)]
    pub payload: String,
}
