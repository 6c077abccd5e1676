//! Sends statuses of objects by which others declare gangs. What they are, and their preconditions, is
//! [`crate::convert::gangs`]' business.

use super::gate::{Call, Failure, Gate};
use crate::convert::gangs::GroupWrite;
use serde::de::IgnoredAny;
use std::time::Instant;

pub(super) async fn send(write: &GroupWrite, gate: &Gate) -> Result<(), Failure> {
    let (path, body) = write.shown();
    let call = if write.is_applied() { Call::apply(path.to_owned(), body) } else { Call::merge(path.to_owned(), body) };
    gate.send::<IgnoredAny>(call, Instant::now()).await.map(drop)
}
