//! HTTPS for the webhook: axum behind rustls, with the certificate swapped while serving.
//!
//! Bounds: connections at once and streams of each, reviews at once, time for a handshake, for a request's headers and for
//! its body, and bytes of a body.

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tower::util::MapResponseLayer;

use super::admit::Admission;
use super::drain::Drain;
use super::inline;
use super::review::ReviewOut;
use crate::metrics::{AdmissionVerdict, Metrics};

/// Path at which Workflows and WorkTemplates are validated.
pub const VALIDATE_PATH: &str = "/validate-workflow";
/// Path at which Workflows get copies of their templates.
pub const INLINE_PATH: &str = "/inline-templates";

// An update carries the object twice; the API server itself takes 3 MiB.
const BODY_LIMIT_BYTES: usize = 8 * 1024 * 1024;
const MAX_CONNECTIONS: usize = 512;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
// The API server gives a webhook 10 s for all of it.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
// The API server sends a few at once; each may hold a body.
const MAX_STREAMS: u32 = 128;
const MAX_REVIEWS: usize = 64;
// The API server waits 5 s for an answer (manifests/base/webhook.yaml).
const LAST_ANSWERS: Duration = Duration::from_secs(5);

/// The certificate being served; replaced while connections come in.
#[derive(Debug, Default)]
pub struct ServingCert(RwLock<Option<Arc<CertifiedKey>>>);

impl ServingCert {
    /// Serves `key` from the next handshake on.
    pub fn set(&self, key: Arc<CertifiedKey>) {
        *self.0.write() = Some(key);
    }

    /// Whether there is one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.read().is_some()
    }
}

impl ResolvesServerCert for ServingCert {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

struct Shared {
    reviews: Semaphore,
    client: kube::Client,
    admission: Admission,
    metrics: Arc<Metrics>,
}

/// Answers admission reviews on `listener` until `drain` has closed it, and then what is still being answered.
///
/// # Errors
/// When TLS cannot be set up.
pub async fn serve(
    listener: TcpListener,
    cert: Arc<ServingCert>,
    client: kube::Client,
    admission: Admission,
    metrics: Arc<Metrics>,
    drain: Drain,
) -> Result<(), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(cert);
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(tls));
    let app = Router::new().route(VALIDATE_PATH, post(validate)).route(INLINE_PATH, post(inline_templates));
    let app = app.with_state(Arc::new(Shared { reviews: Semaphore::new(MAX_REVIEWS), client, admission, metrics }));
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let marking = drain.clone();
    let app = app.layer(MapResponseLayer::new(move |response: Response| marking.mark(response)));
    loop {
        let Ok(slot) = Arc::clone(&slots).acquire_owned().await else { return Ok(()) };
        let stream = tokio::select! {
            () = drain.closed() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file descriptors, mostly: let some connections end.
                    tracing::warn!(%error, "accept");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                }
            },
        };
        let (acceptor, app, drain) = (acceptor.clone(), app.clone(), drain.clone());
        tokio::spawn(async move {
            connection(stream, acceptor, app, drain).await;
            drop(slot);
        });
    }
    drop(listener);
    if tokio::time::timeout(LAST_ANSWERS, all(&slots)).await.is_err() {
        tracing::warn!("webhook connections are cut: their answers took too long");
    }
    Ok(())
}

/// Waits until no connection is left.
async fn all(slots: &Semaphore) {
    for _ in 0..MAX_CONNECTIONS {
        if let Ok(slot) = slots.acquire().await {
            slot.forget();
        }
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, app: Router, drain: Drain) {
    let stream = match tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "webhook handshake"),
        Err(_) => return tracing::debug!("webhook handshake timed out"),
    };
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
    server
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Some(HEADER_TIMEOUT))
        .max_concurrent_streams(MAX_STREAMS);
    let mut serving = pin!(server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(app)));
    let served = tokio::select! {
        served = &mut serving => served,
        () = drain.closed() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "webhook connection");
    }
}

/// The whole body, or the status that says why not.
async fn read(body: Body, within: Duration) -> Result<Bytes, StatusCode> {
    match tokio::time::timeout(within, to_bytes(body, BODY_LIMIT_BYTES)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(_)) => Err(StatusCode::PAYLOAD_TOO_LARGE),
        Err(_) => Err(StatusCode::REQUEST_TIMEOUT),
    }
}

async fn validate(State(shared): State<Arc<Shared>>, body: Body) -> Response {
    // Its end is that of the process.
    let Ok(_review) = shared.reviews.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let body = match read(body, BODY_TIMEOUT).await {
        Ok(body) => body,
        Err(status) => {
            shared.metrics.admissions.with(AdmissionVerdict::Malformed).inc();
            return status.into_response();
        }
    };
    // Large graphs take milliseconds: keep them off the threads that serve IO.
    let worker = Arc::clone(&shared);
    let answer = tokio::task::spawn_blocking(move || worker.admission.review(&body)).await;
    let (verdict, response) = match answer {
        Ok(Ok(out)) => {
            let verdict = if out.allowed() { AdmissionVerdict::Allowed } else { AdmissionVerdict::Denied };
            (verdict, axum::Json(out).into_response())
        }
        Ok(Err(problem)) => (AdmissionVerdict::Malformed, (StatusCode::BAD_REQUEST, problem).into_response()),
        Err(_) => (AdmissionVerdict::Malformed, StatusCode::INTERNAL_SERVER_ERROR.into_response()),
    };
    shared.metrics.admissions.with(verdict).inc();
    response
}

/// Gives a Workflow the templates that it names. Answers 500 where the API server does not: who submits may try again.
async fn inline_templates(State(shared): State<Arc<Shared>>, body: Body) -> Response {
    let Ok(_review) = shared.reviews.acquire().await else {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    };
    let body = match read(body, BODY_TIMEOUT).await {
        Ok(body) => body,
        Err(status) => return status.into_response(),
    };
    let worker = Arc::clone(&shared);
    let parsed = tokio::task::spawn_blocking(move || {
        worker.admission.request(&body).map(|request| {
            let names = inline::to_read(&request);
            (request, names)
        })
    });
    let (request, names) = match parsed.await {
        Ok(Ok(parsed)) => parsed,
        Ok(Err(problem)) => return (StatusCode::BAD_REQUEST, problem).into_response(),
        Err(_) => return StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    };
    if shared.admission.is_exempt(&request) {
        return axum::Json(ReviewOut::allow(request.uid)).into_response();
    }
    let found = match inline::read(&shared.client, &request.namespace, names).await {
        Ok(found) => found,
        Err(error) => {
            let text = format!("the templates of the workflow cannot be read: {error}\n");
            return (StatusCode::INTERNAL_SERVER_ERROR, text).into_response();
        }
    };
    let operations = inline::operations(&request, found);
    let out = if operations.is_empty() {
        ReviewOut::allow(request.uid)
    } else {
        ReviewOut::patched(request.uid, &operations)
    };
    axum::Json(out).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::stream;

    #[tokio::test]
    async fn a_body_has_bounds_in_time_and_bytes() {
        let second = Duration::from_secs(1);
        assert_eq!(read(Body::from("x"), second).await, Ok(Bytes::from("x")));
        let never = Body::from_stream(stream::pending::<Result<Bytes, std::io::Error>>());
        assert_eq!(read(never, Duration::from_millis(10)).await, Err(StatusCode::REQUEST_TIMEOUT));
        let large = Body::from(vec![0; BODY_LIMIT_BYTES + 1]);
        assert_eq!(read(large, second).await, Err(StatusCode::PAYLOAD_TOO_LARGE));
    }
}
