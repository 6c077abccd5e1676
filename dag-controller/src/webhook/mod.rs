//! The admission webhook: a Workflow that cannot run is refused when it is written, with every field that is wrong.
//!
//! ```text
//!   API server ──HTTPS──> serve ──bytes──> inline ──reads WorkTemplates──> copies of them as a patch
//!                           ^     └─bytes──> admit ──core front end, pod template checks──> allowed | causes
//!   rotation ──certificate──┘   Secret shared by the replicas; CA in both webhook configurations
//! ```
//! The controller validates again: the webhook is a courtesy to people, not a gate that safety rests on.

pub mod admit;
pub mod certs;
pub mod drain;
pub mod inline;
pub mod review;
pub mod rotation;
pub mod serve;
