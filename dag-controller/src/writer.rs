//! Sending writes under the lease: one place that decides what an answer means and when a request is sent again.
//!
//! ```text
//!   not permitted by the lease ──> wait for its renewal, or give up when it is lost
//!   no answer, 401, 408, 429, 5xx, 409 of a racing quota ──> pause, send again: every request names its object and UID
//!   anything else ──> an answer
//! ```
//! What must hold: no request starts when less lease remains than it may take; a request is repeated only because its
//! preconditions (a name, a UID, a resourceVersion) make the repetition harmless.

use flowforge_runtime::{Leadership, Pressure};
use http::Request;
use kube::Client;
use kube::core::Status;
use serde::de::DeserializeOwned;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::Semaphore;

use crate::metrics::{Metrics, Outcome, Write};

const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
const LEASE_RECHECK: Duration = Duration::from_millis(50);
/// Longest time for which a request may run.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What a request came to.
#[derive(Debug)]
pub enum Sent<T> {
    /// Done; the object as it is now.
    Done(T),
    /// 409 AlreadyExists.
    Taken,
    /// 409 Conflict: a precondition does not hold.
    Stale,
    /// 404.
    Gone,
    /// Any other refusal.
    Refused(Box<Status>),
    /// The lease was lost.
    Withheld,
}

/// Sends writes of one term of leadership.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    leadership: Leadership,
    pressure: Pressure,
    timeout: Duration,
    slots: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

type Built = Result<Request<Vec<u8>>, kube::core::request::Error>;

impl Writer {
    /// A writer with at most `concurrency` requests at once.
    #[must_use]
    pub fn new(
        client: Client,
        leadership: Leadership,
        pressure: Pressure,
        timeout: Duration,
        concurrency: usize,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self { client, leadership, pressure, timeout, slots: Arc::new(Semaphore::new(concurrency)), metrics }
    }

    /// Sends what `build` makes until there is an answer.
    pub async fn send<T: DeserializeOwned>(&self, kind: Write, build: impl Fn() -> Built) -> Sent<T> {
        let sent = self.answer(&build, None).await.unwrap_or(Sent::Withheld);
        self.count(kind, &sent);
        sent
    }

    /// The same, unless `dropped` is set before the first request starts. What was sent once is sent until there is an
    /// answer: it may have landed.
    pub async fn send_unless<T: DeserializeOwned>(
        &self,
        dropped: &AtomicBool,
        kind: Write,
        build: impl Fn() -> Built,
    ) -> Option<Sent<T>> {
        let sent = self.answer(&build, Some(dropped)).await?;
        self.count(kind, &sent);
        Some(sent)
    }

    /// Metrics.
    fn count<T>(&self, kind: Write, sent: &Sent<T>) {
        let outcome = match sent {
            Sent::Done(_) => Outcome::Done,
            Sent::Taken | Sent::Stale | Sent::Gone => Outcome::Conflict,
            Sent::Refused(_) => Outcome::Refused,
            Sent::Withheld => Outcome::Withheld,
        };
        self.metrics.wrote(kind, outcome);
    }

    /// A consistent read, repeated like a write.
    pub async fn read<T: DeserializeOwned>(&self, build: impl Fn() -> Built) -> Sent<T> {
        self.answer(&build, None).await.unwrap_or(Sent::Withheld)
    }

    /// None when it was dropped before anything was sent.
    async fn answer<T: DeserializeOwned>(
        &self,
        build: &impl Fn() -> Built,
        mut dropped: Option<&AtomicBool>,
    ) -> Option<Sent<T>> {
        let mut pause = FIRST_PAUSE;
        loop {
            let Some(slot) = self.permitted().await else { return Some(Sent::Withheld) };
            if dropped.take().is_some_and(|dropped| dropped.load(Ordering::Relaxed)) {
                return None;
            }
            let request = match build() {
                Ok(request) => request,
                Err(error) => return Some(Sent::Refused(unbuildable(&error))),
            };
            let error = match tokio::time::timeout(self.timeout, self.client.request::<T>(request)).await {
                Ok(Ok(object)) => return Some(Sent::Done(object)),
                Ok(Err(kube::Error::Api(status))) => match classify(status) {
                    Ok(sent) => return Some(sent),
                    Err(status) => status.message,
                },
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer in time".to_owned(),
            };
            drop(slot);
            tracing::debug!(%error, "request is sent again");
            if !self.sleep(pause.max(self.pressure.pause())).await {
                return Some(Sent::Withheld);
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Sleeps; false when the lease was lost meanwhile.
    pub async fn sleep(&self, pause: Duration) -> bool {
        tokio::select! {
            () = self.leadership.lost() => false,
            () = tokio::time::sleep(pause) => true,
        }
    }

    async fn permitted(&self) -> Option<tokio::sync::OwnedSemaphorePermit> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.ok()?;
        loop {
            let pressure = self.pressure.pause();
            if pressure.is_zero() && self.leadership.permits(self.timeout) {
                return Some(slot);
            }
            tokio::select! {
                () = self.leadership.lost() => return None,
                () = tokio::time::sleep(pressure.max(LEASE_RECHECK)) => {}
            }
        }
    }
}

/// The answer in a status, or the status back when the request is to be sent again.
fn classify<T>(status: Box<Status>) -> Result<Sent<T>, Box<Status>> {
    match (status.code, status.reason.as_str()) {
        (404, _) => Ok(Sent::Gone),
        (409, "AlreadyExists") => Ok(Sent::Taken),
        // Admission of a create that races for a quota answers Conflict as well; it names the quota.
        (409, _) if status.details.as_ref().is_some_and(|d| d.kind == "resourcequotas") => Err(status),
        (409, _) => Ok(Sent::Stale),
        (500, _) if is_too_large(&status.message) => Ok(Sent::Refused(status)),
        (401 | 408 | 429, _) | (500..=599, _) => Err(status),
        _ => Ok(Sent::Refused(status)),
    }
}

/// etcd's limit on a request, and that of the API server's connection to it: both come as 500, and neither passes.
fn is_too_large(message: &str) -> bool {
    ["request is too large", "trying to send message larger than max"].iter().any(|text| message.contains(text))
}

fn unbuildable(error: &kube::core::request::Error) -> Box<Status> {
    let mut status = Status::failure(&error.to_string(), "BadRequest");
    status.code = 400;
    Box::new(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(code: u16, reason: &str, kind: &str, expected: &str) {
        check_message(code, reason, kind, "x", expected);
    }

    fn check_message(code: u16, reason: &str, kind: &str, message: &str, expected: &str) {
        let mut status = Status::failure(message, reason);
        status.code = code;
        let details = kube::core::response::StatusDetails {
            name: String::new(),
            group: String::new(),
            kind: kind.to_owned(),
            uid: String::new(),
            causes: vec![],
            retry_after_seconds: 0,
        };
        status.details = Some(details);
        let text = match classify::<()>(Box::new(status)) {
            Ok(sent) => format!("{sent:?}"),
            Err(_) => "again".to_owned(),
        };
        assert!(text.starts_with(expected), "{code} {reason}: {text}");
    }

    #[test]
    fn an_answer_is_told_from_one_that_says_nothing() {
        check(404, "NotFound", "pods", "Gone");
        check(409, "AlreadyExists", "pods", "Taken");
        check(409, "Conflict", "pods", "Stale");
        check(409, "Conflict", "resourcequotas", "again");
        check(403, "Forbidden", "pods", "Refused");
        check(422, "Invalid", "pods", "Refused");
        check(413, "RequestEntityTooLarge", "workflows", "Refused");
        for message in
            ["etcdserver: request is too large", "trying to send message larger than max (3145728 vs. 2097152)"]
        {
            check_message(500, "", "workflows", message, "Refused");
        }
        for code in [401, 408, 429, 500, 503, 504] {
            check(code, "", "pods", "again");
        }
    }
}
