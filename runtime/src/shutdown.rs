//! Graceful shutdown: the first SIGTERM or SIGINT asks, the second one insists.

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// A token that is cancelled by the first SIGTERM or SIGINT; a second signal ends the process with status 1.
///
/// # Errors
/// When signal handlers cannot be installed.
pub fn on_signals() -> std::io::Result<CancellationToken> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let mut asked = false;
        loop {
            let received = tokio::select! {
                received = terminate.recv() => received,
                received = interrupt.recv() => received,
            };
            if received.is_none() {
                return;
            }
            if asked {
                tracing::warn!("second signal: leaving without waiting");
                std::process::exit(1);
            }
            asked = true;
            tracing::info!("shutting down");
            cancelled.cancel();
        }
    });
    Ok(token)
}
