//! Whoever writes late, paused or deposed: a live pod is deleted only while the journal says that its gang is rolled back
//! or that it is evicted, and a slot is never overwritten by a smaller epoch. Source: ARCHITECTURE.md (every write carries a
//! UID, resourceVersion or create precondition; RollingBack is journaled before anything is deleted).

use super::Invariant;
use crate::api::Landed;
use crate::world::World;

/// See the module.
#[derive(Debug)]
pub(super) struct StaleWriterIsHarmless;

impl Invariant for StaleWriterIsHarmless {
    fn name(&self) -> &'static str {
        "stale_writer_is_harmless"
    }

    fn landed(&mut self, world: &World, landed: &Landed) -> Result<(), String> {
        match landed {
            Landed::Delete { pod } => {
                let mut recorded = world.api.recorded(&pod.uid);
                if recorded.any(|(part, member)| member.e || world.api.is_rolling_back(&part.id)) {
                    return Ok(());
                }
                Err(format!("{} was deleted, and no rollback or eviction of it is in the journal", pod.name))
            }
            Landed::Journal { slot, over_epoch, epoch } if epoch < over_epoch => {
                Err(format!("slot {slot} of epoch {over_epoch} was overwritten by epoch {epoch}"))
            }
            Landed::Journal { .. } | Landed::Bind { .. } => Ok(()),
        }
    }
}
