//! Waiting for a fact of the real world, with a limit and an explanation.

use anyhow::{Result, bail};
use std::future::Future;
use std::time::{Duration, Instant};

/// How often a fact is looked at.
const PERIOD: Duration = Duration::from_millis(50);

/// Looks until `probe` gives `Ok(value)`.
///
/// The probe answers `Err(text)` while the fact does not hold; the last text is the error when `limit` has passed.
///
/// # Errors
/// `what` and the last text of the probe, after `limit`.
pub async fn eventually<T, F, Fut>(what: &str, limit: Duration, mut probe: F) -> Result<T>
where
    F: FnMut() -> Fut,
    Fut: Future<Output = Result<T, String>>,
{
    let start = Instant::now();
    loop {
        match probe().await {
            Ok(value) => return Ok(value),
            Err(last) if start.elapsed() >= limit => {
                bail!("not within {:.1} s: {what}: {last}", limit.as_secs_f64());
            }
            Err(_) => tokio::time::sleep(PERIOD).await,
        }
    }
}
