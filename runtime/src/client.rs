//! The API client: where the cluster is, who we say we are, and how we slow down when the server asks for it.
//!
//! There is no client-side rate limit. Instead a [`Pressure`] notes every 429 with its Retry-After, and whoever sends
//! many requests asks it how long to hold back. Nothing is retried below the caller: a caller that writes under a lease
//! decides itself whether a request may be sent again.

use futures::future::BoxFuture;
use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::config::{KubeConfigOptions, Kubeconfig};
use parking_lot::Mutex;
use prometheus::{IntCounterVec, Opts};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tower::{BoxError, Layer, Service, ServiceBuilder};

use crate::metrics::{Metrics, register};

/// Longest pause that one Retry-After can cause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Pause after a 429 without Retry-After.
const DEFAULT_PAUSE: Duration = Duration::from_secs(1);
/// Longest time until a connection is made.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// A connection is asked for a sign of life this often, and closed when none came for as long: what is in flight on one that
/// nobody answers any more would wait for its own timeout, request by request.
const SIGN_OF_LIFE: Duration = Duration::from_secs(10);
/// What a server may send on one connection, and of it for one answer, before it is read: lists and watches of kinds whose
/// reader is busy must not keep the answers to others waiting.
const CONNECTION_WINDOW: u32 = 64 << 20;
const STREAM_WINDOW: u32 = 2 << 20;

/// What the server said about its load; clones share it.
#[derive(Clone)]
pub struct Pressure {
    not_before: Arc<Mutex<Option<Instant>>>,
    requests: IntCounterVec,
}

impl Pressure {
    /// No pressure yet; counts `flowforge_api_requests_total` by method and status class.
    ///
    /// # Errors
    /// When its metric is already registered.
    pub fn new(metrics: &Metrics) -> prometheus::Result<Self> {
        let options = Opts::new("flowforge_api_requests_total", "Requests to the API server by method and outcome.");
        let requests = register(metrics, IntCounterVec::new(options, &["method", "outcome"])?)?;
        Ok(Self { not_before: Arc::default(), requests })
    }

    /// How long to hold back before the next request.
    #[must_use]
    pub fn pause(&self) -> Duration {
        let until = *self.not_before.lock();
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    fn note(&self, retry_after: Option<&HeaderValue>) {
        let seconds = retry_after.and_then(|value| value.to_str().ok()?.parse().ok()).map(Duration::from_secs);
        let until = Instant::now() + seconds.unwrap_or(DEFAULT_PAUSE).min(LONGEST_PAUSE);
        let mut not_before = self.not_before.lock();
        *not_before = (*not_before).max(Some(until));
    }

    fn count<B>(&self, method: &http::Method, answer: Result<&Response<B>, ()>) {
        let outcome = match answer {
            Err(()) => "error",
            Ok(response) => match response.status() {
                StatusCode::TOO_MANY_REQUESTS => "throttled",
                StatusCode::CONFLICT => "conflict",
                StatusCode::NOT_FOUND => "not_found",
                status if status.is_server_error() => "server_error",
                status if status.is_client_error() => "refused",
                _ => "ok",
            },
        };
        let method = match *method {
            http::Method::GET => "get",
            http::Method::POST => "post",
            http::Method::PUT => "put",
            http::Method::PATCH => "patch",
            http::Method::DELETE => "delete",
            _ => "other",
        };
        self.requests.with_label_values(&[method, outcome]).inc();
    }
}

/// A client of the cluster that `kubeconfig`, KUBECONFIG, `~/.kube/config` or the pod's ServiceAccount names, in this
/// order. `agent` becomes the user agent, e.g. `flowforge-scheduler/0.1.0`.
///
/// # Errors
/// When no configuration is found or it cannot be used; the text names what was tried.
pub async fn connect(kubeconfig: Option<&Path>, agent: &str, pressure: &Pressure) -> anyhow::Result<kube::Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let file = Kubeconfig::read_from(path)?;
            kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?
        }
        None => kube::Config::infer().await?,
    };
    config.connect_timeout = Some(CONNECT_LIMIT);
    config.default_retry = false;
    config.headers.push((header::USER_AGENT, HeaderValue::from_str(agent)?));
    let layer = PressureLayer { pressure: pressure.clone() };
    if config.proxy_url.is_some() || config.tls_server_name.is_some() {
        return Ok(ClientBuilder::try_from(config)?.with_layer(&layer).build());
    }
    multiplexed(config, &layer)
}

/// A client whose requests share one HTTP/2 connection, where the server speaks it, as client-go's do: kube's own client
/// knows HTTP/1.1 only, which takes a connection for every request in flight, and a wake-up for every answer.
fn multiplexed(config: kube::Config, layer: &PressureLayer) -> anyhow::Result<kube::Client> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_nodelay(true);
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(config.rustls_client_config()?)
        .https_or_http()
        .enable_all_versions()
        .wrap_connector(connector);
    let client: legacy::Client<_, Body> = legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .http2_keep_alive_interval(SIGN_OF_LIFE)
        .http2_keep_alive_timeout(SIGN_OF_LIFE)
        .http2_keep_alive_while_idle(true)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .build(connector);
    let service = ServiceBuilder::new()
        .layer(layer)
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(client);
    Ok(kube::Client::new(service, config.default_namespace))
}

#[derive(Clone)]
struct PressureLayer {
    pressure: Pressure,
}

impl<S> Layer<S> for PressureLayer {
    type Service = Observed<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Observed { inner, pressure: self.pressure.clone() }
    }
}

#[derive(Clone)]
struct Observed<S> {
    inner: S,
    pressure: Pressure,
}

impl<S, B> Service<Request<Body>> for Observed<S>
where
    S: Service<Request<Body>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError> + Send + 'static,
    B: Send + 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let pressure = self.pressure.clone();
        let method = request.method().clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            pressure.count(&method, answer.as_ref().map_err(|_| ()));
            if let Ok(response) = &answer
                && response.status() == StatusCode::TOO_MANY_REQUESTS
            {
                pressure.note(response.headers().get(header::RETRY_AFTER));
            }
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pressure() -> Pressure {
        Pressure::new(&Metrics::new("test", "1").expect("metrics")).expect("metrics")
    }

    #[test]
    fn a_retry_after_holds_back_for_as_long_as_it_says_within_bounds() {
        let pressure = pressure();
        assert_eq!(pressure.pause(), Duration::ZERO);
        pressure.note(Some(&HeaderValue::from_static("3")));
        let pause = pressure.pause();
        assert!(pause > Duration::from_secs(2) && pause <= Duration::from_secs(3), "{pause:?}");
        pressure.note(Some(&HeaderValue::from_static("999999999999")));
        assert!(pressure.pause() <= LONGEST_PAUSE);
    }

    #[test]
    fn a_shorter_pause_does_not_cut_a_longer_one() {
        let pressure = pressure();
        pressure.note(Some(&HeaderValue::from_static("20")));
        pressure.note(Some(&HeaderValue::from_static("garbage")));
        assert!(pressure.pause() > Duration::from_secs(15));
    }
}
