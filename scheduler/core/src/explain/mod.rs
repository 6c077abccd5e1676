//! Why something waits: one closed vocabulary, from which the pod condition, the event, the metric label and the text for
//! people are all derived.

mod preemption;
mod reason;
mod refusal;
mod time;
mod volumes;

pub use preemption::{GangRoom, Preemption};
pub use reason::Reason;
pub use refusal::{GangContext, Refusal, Seen};
pub use time::rfc3339;
pub use volumes::VolumeReason;
