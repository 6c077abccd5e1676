//! Admin HTTP: health, metrics, the log level and a look inside.
//!
//! `/livez`, `/readyz` and `/metrics` answer everyone (`?verbose` lists the checks). `/debug/state` and `PUT /log-level`
//! answer only callers on the loopback interface, which is where `kubectl port-forward` arrives.

use crate::metrics::Metrics;
use crate::telemetry::LogHandle;
use axum::Router;
use axum::extract::{ConnectInfo, RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

type Check = Arc<dyn Fn() -> Result<(), String> + Send + Sync>;
type DebugState = Arc<dyn Fn() -> BoxFuture<'static, serde_json::Value> + Send + Sync>;

/// Named checks behind `/livez` and `/readyz`; clones share them.
#[derive(Clone, Default)]
pub struct Health {
    checks: Arc<Mutex<Vec<NamedCheck>>>,
}

#[derive(Clone)]
struct NamedCheck {
    name: &'static str,
    probe: Probe,
    check: Check,
}

/// Which endpoint a check belongs to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Probe {
    /// `/livez`: a failure means that the process should be restarted.
    Live,
    /// `/readyz`: a failure means that the process cannot do its work now.
    Ready,
}

impl Health {
    /// Adds a check; an `Err` says what is wrong.
    pub fn add(
        &self,
        probe: Probe,
        name: &'static str,
        check: impl Fn() -> Result<(), String> + Send + Sync + 'static,
    ) {
        self.checks.lock().push(NamedCheck { name, probe, check: Arc::new(check) });
    }

    /// Runs the checks of a probe: whether all passed, and a line for each.
    #[must_use]
    pub fn report(&self, probe: Probe) -> (bool, String) {
        let checks: Vec<NamedCheck> = self.checks.lock().iter().filter(|c| c.probe == probe).cloned().collect();
        let mut healthy = true;
        let mut text = String::new();
        for NamedCheck { name, check, .. } in checks {
            match check() {
                Ok(()) => text.push_str(&format!("[+]{name} ok\n")),
                Err(why) => {
                    healthy = false;
                    text.push_str(&format!("[-]{name} failed: {why}\n"));
                }
            }
        }
        (healthy, text)
    }
}

/// The admin server of one process.
#[derive(Clone)]
pub struct Admin {
    metrics: Metrics,
    health: Health,
    log: LogHandle,
    debug: DebugState,
}

impl Admin {
    /// A server for these metrics and checks; `debug` answers `/debug/state`.
    pub fn new<F>(
        metrics: Metrics,
        health: Health,
        log: LogHandle,
        debug: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self
    where
        F: Future<Output = serde_json::Value> + Send + 'static,
    {
        Self { metrics, health, log, debug: Arc::new(move || Box::pin(debug())) }
    }

    /// Binds the address and serves until `shutdown`; answers the address bound.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub async fn serve(self, listen: SocketAddr, shutdown: CancellationToken) -> std::io::Result<SocketAddr> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let service = self.router().into_make_service_with_connect_info::<SocketAddr>();
        tokio::spawn(async move {
            let served = axum::serve(listener, service).with_graceful_shutdown(shutdown.cancelled_owned()).await;
            if let Err(error) = served {
                tracing::error!(%error, "the admin server ended");
            }
        });
        tracing::info!(%address, "admin HTTP");
        Ok(address)
    }

    fn router(self) -> Router {
        Router::new()
            .route("/livez", get(livez))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .route("/debug/state", get(debug_state))
            .route("/log-level", put(set_log_level).get(log_level))
            .with_state(self)
    }
}

fn probe_answer(health: &Health, probe: Probe, query: Option<&str>) -> Response {
    let (healthy, report) = health.report(probe);
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = query.is_some_and(|query| query.split('&').any(|part| part.starts_with("verbose")));
    let body = if healthy && !verbose { "ok".to_owned() } else { report };
    (status, body).into_response()
}

async fn livez(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    probe_answer(&admin.health, Probe::Live, query.as_deref())
}

async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> Response {
    probe_answer(&admin.health, Probe::Ready, query.as_deref())
}

async fn metrics(State(admin): State<Admin>) -> Response {
    match admin.metrics.encode() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn debug_state(State(admin): State<Admin>, ConnectInfo(peer): ConnectInfo<SocketAddr>) -> Response {
    if let Some(refusal) = refuse_strangers(peer) {
        return refusal;
    }
    axum::Json((admin.debug)().await).into_response()
}

async fn log_level(State(admin): State<Admin>) -> String {
    admin.log.get()
}

async fn set_log_level(
    State(admin): State<Admin>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    filter: String,
) -> Response {
    if let Some(refusal) = refuse_strangers(peer) {
        return refusal;
    }
    match admin.log.set(filter.trim()) {
        Ok(()) => {
            tracing::info!(filter = filter.trim(), "log level changed");
            admin.log.get().into_response()
        }
        Err(why) => (StatusCode::BAD_REQUEST, why).into_response(),
    }
}

fn refuse_strangers(peer: SocketAddr) -> Option<Response> {
    let local = peer.ip().to_canonical().is_loopback();
    (!local).then(|| (StatusCode::FORBIDDEN, "only from the loopback interface (kubectl port-forward)").into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_failed_check_makes_its_probe_fail_and_only_that() {
        let health = Health::default();
        health.add(Probe::Ready, "synced", || Err("pods are not listed yet".to_owned()));
        health.add(Probe::Ready, "config", || Ok(()));
        health.add(Probe::Live, "engine", || Ok(()));
        assert_eq!(
            health.report(Probe::Ready),
            (false, "[-]synced failed: pods are not listed yet\n[+]config ok\n".to_owned())
        );
        assert_eq!(health.report(Probe::Live), (true, "[+]engine ok\n".to_owned()));
    }

    #[test]
    fn strangers_see_neither_state_nor_the_log_level() {
        let refused = refuse_strangers("10.1.2.3:999".parse().expect("address")).expect("refused");
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        assert!(refuse_strangers("127.0.0.1:999".parse().expect("address")).is_none());
        assert!(refuse_strangers("[::ffff:127.0.0.1]:999".parse().expect("address")).is_none());
    }
}
