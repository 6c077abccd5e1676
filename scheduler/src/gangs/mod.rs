//! Gangs that others declare, as the shell deals with them: what is watched, what is taken up, what is answered. The
//! conventions themselves are [`crate::convert::gangs`].
//!
//! ```text
//!   their object ──watch──> Desk ──taken up?──> GangUpsert ──> core
//!   their object <── dispatch <──Declaration::answer── Desk <── what the core says of the gang, its pods' phases
//! ```

mod desk;
mod objects;

pub(crate) use desk::{Desk, GroupFact};
pub(crate) use objects::{Beside, Objects};
