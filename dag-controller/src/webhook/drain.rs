//! How the webhook ends without refusing anybody.
//!
//! ```text
//!   SIGTERM ──(delay)──> closed ──> what is being answered is answered
//!      └ answers as before, and asks each connection to be closed after its answer
//! ```
//! The API server learns of the end of a pod a little later than the pod does, and keeps connections open. Whoever is met
//! with a closed port or a cut connection is refused, because the webhook's `failurePolicy` is `Fail`.
//! The delay is what kube-apiserver calls `--shutdown-delay-duration`.

use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Response};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The way from being asked to end to taking no connection any more; clones share it.
#[derive(Clone, Debug)]
pub struct Drain {
    asked: CancellationToken,
    closed: CancellationToken,
}

impl Drain {
    /// Begins when `asked` is cancelled and takes `delay`. Must be called on a runtime.
    #[must_use]
    pub fn new(asked: CancellationToken, delay: Duration) -> Self {
        let closed = CancellationToken::new();
        let (begin, end) = (asked.clone(), closed.clone());
        tokio::spawn(async move {
            begin.cancelled().await;
            tokio::time::sleep(delay).await;
            end.cancel();
        });
        Self { asked, closed }
    }

    /// Waits until no connection is taken any more.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Cancelled when no connection is taken any more.
    #[must_use]
    pub fn end(&self) -> CancellationToken {
        self.closed.clone()
    }

    /// Asks the client, once the end is near, to send nothing more on this connection (HTTP/1.1; HTTP/2 has no such
    /// header, and is told at the end).
    pub fn mark<B>(&self, mut response: Response<B>) -> Response<B> {
        if self.asked.is_cancelled() {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[tokio::test]
    async fn answers_ask_for_the_end_of_their_connection_from_the_signal_on_and_the_port_closes_later() {
        let (asked, delay) = (CancellationToken::new(), Duration::from_millis(50));
        let drain = Drain::new(asked.clone(), delay);
        assert!(drain.mark(Response::new(())).headers().is_empty());
        let start = Instant::now();
        asked.cancel();
        assert_eq!(drain.mark(Response::new(())).headers()[CONNECTION], "close");
        drain.closed().await;
        assert!(start.elapsed() >= delay, "closed after {:?}", start.elapsed());
    }
}
