//! The thread of a term's engine, and the news of its end.
//!
//! A panic ends only the thread it happens on: without this the process would go on to renew its lease, and nothing would be
//! scheduled by anybody.

use std::thread::JoinHandle;
use tokio::sync::oneshot;

/// A thread whose end can be awaited.
pub(crate) struct EngineThread {
    handle: JoinHandle<()>,
    ended: oneshot::Receiver<()>,
}

/// The engine's thread panicked; what it said is in the log.
#[derive(Debug, thiserror::Error)]
#[error("the engine's thread panicked")]
pub struct EnginePanicked;

impl EngineThread {
    /// Runs `body` on a thread of its own.
    ///
    /// # Errors
    /// When the system has no thread left.
    pub(crate) fn start(body: impl FnOnce() + Send + 'static) -> std::io::Result<Self> {
        let (alive, ended) = oneshot::channel();
        let handle = std::thread::Builder::new().name("engine".to_owned()).spawn(move || {
            // Dropped when the body returns, and when it panics.
            let _alive: oneshot::Sender<()> = alive;
            body();
        })?;
        Ok(Self { handle, ended })
    }

    /// Resolves when the body has returned or panicked. Once only.
    pub(crate) async fn ended(&mut self) {
        // The sender is only ever dropped.
        let _ = (&mut self.ended).await;
    }

    /// Waits for the end.
    ///
    /// # Errors
    /// When it was a panic.
    pub(crate) async fn join(self) -> Result<(), EnginePanicked> {
        match tokio::task::spawn_blocking(move || self.handle.join()).await {
            Ok(Ok(())) => Ok(()),
            _ => Err(EnginePanicked),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::Duration;

    #[tokio::test]
    async fn a_panic_is_noticed_when_it_happens_and_told_when_it_is_joined() {
        let mut thread = EngineThread::start(|| panic!("a broken invariant")).expect("a thread");
        tokio::time::timeout(Duration::from_secs(10), thread.ended()).await.expect("noticed");
        assert!(thread.join().await.is_err());
    }

    #[tokio::test]
    async fn a_thread_that_works_has_not_ended() {
        let (stop, stopped) = mpsc::channel::<()>();
        let mut thread = EngineThread::start(move || assert!(stopped.recv().is_err())).expect("a thread");
        {
            let ended = thread.ended();
            tokio::pin!(ended);
            assert!(futures::poll!(ended.as_mut()).is_pending());
            drop(stop);
            ended.await;
        }
        assert!(thread.join().await.is_ok());
    }
}
