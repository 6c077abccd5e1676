//! One request to the API server under a lease: when it may start, how long it may take, and what its answer means.
//!
//! Invariants: nothing is sent when less of the lease remains than the request may take; only a 429, which the server
//! sends instead of doing anything, is repeated here; whatever else fails is reported as what is known about it.
//!
//! A single pod is bound without a journal, so that only time keeps a deposed leader's Binding from a place that its
//! successor gave away. A request starts when the timeout T fits into what remains to the renew deadline; the client gives
//! up after T, and the server, which is told T with the request, T after it came. The margin between renew deadline and
//! lease duration is at least T (`LeaseTiming::request_timeout`): when another can hold the lease, nothing of ours is alive.
//! What this does not cover is a process that is suspended between its look at the lease and the send.

use flowforge_runtime::{Leadership, Pressure};
use http::{Method, Request};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::time::{Duration, Instant};

/// Longest wait between two looks at the lease and the pressure.
const LOOK_AGAIN: Duration = Duration::from_millis(50);
/// First pause after a 429 without a known Retry-After; doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// What is known about a request that did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// 409: a precondition did not hold; nothing was done.
    Conflict(String),
    /// 404.
    NotFound(String),
    /// 400, 403, 405, 413, 415, 422: it will not get better by itself.
    Refused(String),
    /// It may or may not have happened.
    Unknown(String),
    /// The leadership ended before it was sent.
    Lost,
}

impl Failure {
    /// The text for people.
    pub(super) fn why(&self) -> &str {
        match self {
            Self::Conflict(why) | Self::NotFound(why) | Self::Refused(why) | Self::Unknown(why) => why,
            Self::Lost => "the leadership was lost",
        }
    }
}

/// The way to the API server for one term.
#[derive(Clone)]
pub(super) struct Gate {
    client: kube::Client,
    leadership: Leadership,
    pressure: Pressure,
    timeout: Duration,
}

impl Gate {
    pub(super) fn new(client: kube::Client, leadership: Leadership, pressure: Pressure, timeout: Duration) -> Self {
        Self { client, leadership, pressure, timeout }
    }

    /// Sends a request with a JSON body and decodes the answer. `queued` is when the command was given: one that could
    /// not start within twice the timeout is given up, so that its outcome is known in time. For as long a right that we
    /// lack is asked for again: an API server that has just started denies everything until it has read its roles.
    pub(super) async fn send<T: DeserializeOwned>(&self, call: Call, queued: Instant) -> Result<T, Failure> {
        let mut pause = FIRST_PAUSE;
        loop {
            self.admit(queued).await?;
            let request = call.request(self.timeout)?;
            match tokio::time::timeout(self.timeout, self.client.request::<T>(request)).await {
                Err(_) => return Err(Failure::Unknown(format!("no answer within {:?}", self.timeout))),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if is_throttled(&error) || self.may_be_granted_yet(&error, queued) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(Duration::from_secs(2));
                }
                Ok(Err(error)) => return Err(classify(&error)),
            }
        }
    }

    fn may_be_granted_yet(&self, error: &kube::Error, queued: Instant) -> bool {
        lacks_a_right(error) && queued.elapsed() + self.timeout / 2 < self.timeout * 2
    }

    /// Waits until the server's last Retry-After has passed and the lease permits another request.
    async fn admit(&self, queued: Instant) -> Result<(), Failure> {
        loop {
            if self.leadership.remaining().is_zero() {
                return Err(Failure::Lost);
            }
            if queued.elapsed() > self.timeout * 2 {
                return Err(Failure::Unknown(format!("not sent within {:?}", self.timeout * 2)));
            }
            let pause = self.pressure.pause();
            if pause.is_zero() && self.leadership.permits(self.timeout) {
                return Ok(());
            }
            tokio::time::sleep(pause.clamp(Duration::from_millis(5), LOOK_AGAIN)).await;
        }
    }
}

/// A request that can be sent more than once.
#[derive(Clone, Debug)]
pub(super) struct Call {
    method: Method,
    path: String,
    content_type: &'static str,
    accept: &'static str,
    body: Vec<u8>,
}

const JSON: &str = "application/json";
/// Metadata instead of whole objects.
const METADATA_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

impl Call {
    fn new(method: Method, path: String, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { method, path, content_type, accept: JSON, body }
    }

    /// The request as one line.
    #[cfg(test)]
    pub(super) fn shown(&self) -> String {
        let body = String::from_utf8_lossy(&self.body);
        format!("{} {} {} {body}", self.method, self.path, self.content_type)
    }

    pub(super) fn get(path: String) -> Self {
        Self::new(Method::GET, path, JSON, Vec::new())
    }

    /// A list of metadata.
    pub(super) fn list_metadata(path: String) -> Self {
        Self { accept: METADATA_LIST, ..Self::get(path) }
    }

    pub(super) fn post(path: String, body: &impl Serialize) -> Self {
        Self::new(Method::POST, path, JSON, json(body))
    }

    pub(super) fn put(path: String, body: &impl Serialize) -> Self {
        Self::new(Method::PUT, path, JSON, json(body))
    }

    /// A PUT that is answered with the object's metadata: what we sent need not come back.
    pub(super) fn put_for_metadata(path: String, body: &impl Serialize) -> Self {
        Self { accept: METADATA, ..Self::put(path, body) }
    }

    pub(super) fn delete(path: String, body: &impl Serialize) -> Self {
        Self::new(Method::DELETE, path, JSON, json(body))
    }

    /// A JSON merge patch.
    pub(super) fn merge(path: String, body: &impl Serialize) -> Self {
        Self::new(Method::PATCH, path, "application/merge-patch+json", json(body))
    }

    /// A strategic merge patch: lists of conditions merge by type.
    pub(super) fn strategic(path: String, body: &impl Serialize) -> Self {
        Self::new(Method::PATCH, path, "application/strategic-merge-patch+json", json(body))
    }

    /// A server-side apply; JSON is YAML.
    pub(super) fn apply(path: String, body: &impl Serialize) -> Self {
        Self::new(Method::PATCH, path, "application/apply-patch+yaml", json(body))
    }

    /// The request, which tells the server when to give up; else it would work on it for a minute.
    fn request(&self, timeout: Duration) -> Result<Request<Vec<u8>>, Failure> {
        let separator = if self.path.contains('?') { '&' } else { '?' };
        Request::builder()
            .method(self.method.clone())
            .uri(format!("{}{separator}timeout={}ms", self.path, timeout.as_millis()))
            .header(http::header::CONTENT_TYPE, self.content_type)
            .header(http::header::ACCEPT, self.accept)
            .body(self.body.clone())
            .map_err(|error| Failure::Refused(error.to_string()))
    }
}

fn json(body: &impl Serialize) -> Vec<u8> {
    // Our own types with string keys: this cannot fail, and an empty body would be refused by the server.
    serde_json::to_vec(body).unwrap_or_default()
}

fn is_throttled(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 429)
}

/// Whether the authorizer refused, not admission: that speaks of what is asked, not of who asks.
fn lacks_a_right(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status)
        if status.code == 403 && status.message.contains("User \"") && status.message.contains("cannot "))
}

/// What an error says about whether the request was carried out.
fn classify(error: &kube::Error) -> Failure {
    let kube::Error::Api(status) = error else { return Failure::Unknown(error.to_string()) };
    let message = status.message.clone();
    match status.code {
        409 => Failure::Conflict(message),
        404 => Failure::NotFound(message),
        400 | 403 | 405 | 413 | 415 | 422 => Failure::Refused(message),
        _ => Failure::Unknown(format!("{} {message}", status.code)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn answered(code: u16) -> kube::Error {
        kube::Error::Api(Status { code, message: "why".to_owned(), ..Status::default() }.boxed())
    }

    #[test]
    fn a_right_that_is_lacking_is_told_from_what_admission_refuses() {
        let forbidden = |message: &str| {
            kube::Error::Api(Status { code: 403, message: message.to_owned(), ..Status::default() }.boxed())
        };
        assert!(lacks_a_right(&forbidden(
            "pods \"p\" is forbidden: User \"system:serviceaccount:a:b\" cannot create resource \"pods/binding\" in API group \"\""
        )));
        assert!(!lacks_a_right(&forbidden("pods \"p\" is forbidden: exceeded quota: q")));
        assert!(!lacks_a_right(&answered(500)));
    }

    #[test]
    fn every_request_tells_the_server_when_to_give_up() {
        let uri = |path: &str| Call::get(path.to_owned()).request(Duration::from_secs(5)).map(|r| r.uri().to_string());
        assert_eq!(uri("/api/v1/pods"), Ok("/api/v1/pods?timeout=5000ms".to_owned()));
        assert_eq!(uri("/a?fieldManager=x"), Ok("/a?fieldManager=x&timeout=5000ms".to_owned()));
    }

    #[test]
    fn every_answer_says_what_is_known_about_the_request() {
        assert_eq!(classify(&answered(409)), Failure::Conflict("why".to_owned()));
        assert_eq!(classify(&answered(404)), Failure::NotFound("why".to_owned()));
        for code in [400, 403, 422] {
            assert_eq!(classify(&answered(code)), Failure::Refused("why".to_owned()), "{code}");
        }
        for code in [401, 500, 503, 504] {
            assert_eq!(classify(&answered(code)), Failure::Unknown(format!("{code} why")), "{code}");
        }
        assert!(matches!(classify(&kube::Error::TlsRequired), Failure::Unknown(_)));
        assert!(is_throttled(&answered(429)) && !is_throttled(&answered(503)));
    }
}
