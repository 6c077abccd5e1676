//! The placement journal's slots: fixed objects in our own namespace, made when they are absent and never deleted: what a
//! configuration with more slots left is still read, fenced and emptied.

use super::gate::{Call, Failure, Gate};
use super::pods::write_outcome;
use crate::config::MAX_JOURNAL_SLOTS;
use flowforge_api::{PlacementJournal, PlacementJournalSpec};
use flowforge_scheduler_core::command::Command;
use flowforge_scheduler_core::event::{JournalReadResult, JournalSlotRead, Outcome};
use kube::api::{ObjectMeta, PartialObjectMeta};
use serde::Deserialize;
use smol_str::SmolStr;
use std::time::Instant;

/// Where the journal is and who writes it.
#[derive(Clone, Debug)]
pub(crate) struct Journal {
    /// Namespace of the slots.
    pub(crate) namespace: String,
    /// Identity of this process, for people.
    pub(crate) holder: String,
}

impl Journal {
    fn collection(&self) -> String {
        format!("/apis/flowforge.dev/v1alpha1/namespaces/{}/placementjournals", self.namespace)
    }

    fn path(&self, slot: u32) -> String {
        format!("{}/{}", self.collection(), name(slot))
    }

    /// Carries out a journal command; None when the leadership was lost first or the command is none of these.
    pub(super) async fn execute(&self, gate: &Gate, command: &Command, queued: Instant) -> Option<Outcome> {
        match command {
            Command::WriteJournal { op, slot, resource_version, epoch, open, payload } => {
                let spec = PlacementJournalSpec {
                    epoch: i64::try_from(*epoch).unwrap_or(i64::MAX),
                    holder: self.holder.clone(),
                    open: i32::try_from(*open).unwrap_or(i32::MAX),
                    payload: payload.clone(),
                };
                let object = self.object(*slot, Some(resource_version), spec);
                let call = Call::put_for_metadata(self.path(*slot), &object);
                let written = gate.send::<PartialObjectMeta<PlacementJournal>>(call, queued).await;
                Some(Outcome::Journal { op: *op, result: write_outcome(written.map(|slot| version(&slot.metadata)))? })
            }
            Command::ReadJournal { op, slot } => {
                let result = match self.read(gate, *slot, queued).await {
                    Ok((_, read)) => {
                        JournalReadResult::Found { resource_version: read.resource_version, payload: read.payload }
                    }
                    Err(Failure::Lost) => return None,
                    Err(failure) => JournalReadResult::Unknown(failure.why().to_owned()),
                };
                Some(Outcome::JournalRead { op: *op, result })
            }
            _ => None,
        }
    }

    /// How many slots to read so that `configured` ones, and every one that exists, are among them.
    pub(super) async fn count(&self, gate: &Gate, configured: u32, queued: Instant) -> Result<u32, Failure> {
        let found: Names = gate.send(Call::list_metadata(self.collection()), queued).await?;
        Ok(found.count(configured))
    }

    /// Reads a slot without a cache, makes it when it is absent, and answers its epoch too.
    pub(super) async fn read(
        &self,
        gate: &Gate,
        slot: u32,
        queued: Instant,
    ) -> Result<(i64, JournalSlotRead), Failure> {
        let found = match gate.send::<PlacementJournal>(Call::get(self.path(slot)), queued).await {
            Err(Failure::NotFound(_)) => self.create(gate, slot, queued).await,
            answer => answer,
        }?;
        let resource_version = version(&found.metadata);
        Ok((found.spec.epoch, JournalSlotRead { slot, resource_version, payload: found.spec.payload }))
    }

    async fn create(&self, gate: &Gate, slot: u32, queued: Instant) -> Result<PlacementJournal, Failure> {
        let spec = PlacementJournalSpec { holder: self.holder.clone(), ..PlacementJournalSpec::default() };
        let call = Call::post(self.collection(), &self.object(slot, None, spec));
        match gate.send(call, queued).await {
            // Someone else made it in between.
            Err(Failure::Conflict(_)) => gate.send(Call::get(self.path(slot)), queued).await,
            answer => answer,
        }
    }

    fn object(&self, slot: u32, resource_version: Option<&SmolStr>, spec: PlacementJournalSpec) -> PlacementJournal {
        PlacementJournal {
            metadata: ObjectMeta {
                name: Some(name(slot)),
                namespace: Some(self.namespace.clone()),
                resource_version: resource_version.map(ToString::to_string),
                ..ObjectMeta::default()
            },
            spec,
        }
    }
}

/// A list of metadata, of which only the names count.
#[derive(Deserialize)]
struct Names {
    /// The server writes an empty list of metadata as null.
    items: Option<Vec<Named>>,
}

impl Names {
    /// Slots to read so that `configured` ones and all that are named here are among them.
    fn count(&self, configured: u32) -> u32 {
        let existing = self.items.iter().flatten().filter_map(|item| number(&item.metadata.name));
        existing.map(|slot| slot + 1).fold(configured, u32::max)
    }
}

#[derive(Deserialize)]
struct Named {
    metadata: NameOnly,
}

#[derive(Deserialize)]
struct NameOnly {
    name: String,
}

fn name(slot: u32) -> String {
    format!("placement-{slot}")
}

/// The slot of this name; None for objects that no configuration of ours makes.
fn number(object: &str) -> Option<u32> {
    let slot = object.strip_prefix("placement-")?.parse().ok()?;
    (slot < MAX_JOURNAL_SLOTS && name(slot) == object).then_some(slot)
}

fn version(metadata: &ObjectMeta) -> SmolStr {
    metadata.resource_version.as_deref().map(SmolStr::from).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_fixed_objects_and_writes_carry_the_version_they_replace() {
        let journal = Journal { namespace: "sys".to_owned(), holder: "me".to_owned() };
        assert_eq!(journal.path(3), "/apis/flowforge.dev/v1alpha1/namespaces/sys/placementjournals/placement-3");
        let object = journal.object(3, Some(&"42".into()), PlacementJournalSpec::default());
        assert_eq!((version(&object.metadata).as_str(), object.metadata.name.as_deref()), ("42", Some("placement-3")));
        assert_eq!(journal.object(3, None, PlacementJournalSpec::default()).metadata.resource_version, None);
    }

    #[test]
    fn as_many_slots_are_read_as_are_configured_or_exist() {
        let count = |list: &str| serde_json::from_str::<Names>(list).expect("a list").count(4);
        assert_eq!(count(r#"{"kind":"PartialObjectMetadataList","items":null}"#), 4);
        assert_eq!(count(r#"{"items":[{"metadata":{"name":"placement-2"}},{"metadata":{"name":"other"}}]}"#), 4);
        assert_eq!(count(r#"{"items":[{"metadata":{"name":"placement-7"}},{"metadata":{"name":"placement-0"}}]}"#), 8);
    }

    #[test]
    fn a_slot_is_known_by_its_name_and_strangers_are_not_slots() {
        for slot in [0, 9, 10, MAX_JOURNAL_SLOTS - 1] {
            assert_eq!(number(&name(slot)), Some(slot));
        }
        for stranger in
            ["placement-64", "placement-01", "placement-+1", "placement-", "placement-4294967296", "other-1"]
        {
            assert_eq!(number(stranger), None, "{stranger}");
        }
    }
}
