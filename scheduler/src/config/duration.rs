//! Durations as Go writes them: `10s`, `1m30s`, `500ms`.

use flowforge_scheduler_convert::duration::parse;
use serde::{Deserialize, Deserializer, de::Error};
use std::time::Duration;

/// A duration; never negative.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GoDuration(pub Duration);

impl<'de> Deserialize<'de> for GoDuration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        parse(&text).map(Self).ok_or_else(|| {
            D::Error::custom(format!(
                "{text:?} is no duration; write whole or decimal numbers with ns, us, ms, s, m or h, such as 1m30s"
            ))
        })
    }
}
