//! One term of leadership: watches, shards and the announcer live exactly as long as the lease.
//!
//! ```text
//!   term begins ──> watches list ──> every list in ──> shards rebuild ──> leading
//!   lease lost, or shutdown ──> everything is dropped; the next term derives it again from the API server
//! ```

use flowforge_runtime::{Leadership, Pressure};
use kube::Client;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;

use crate::announce::Announcer;
use crate::config::Config;
use crate::inputs::{Input, Router};
use crate::metrics::{Metrics, Queue};
use crate::shard::{Shard, Shared};
use crate::watch::{self, Nodes, StorageTable};
use crate::writer::Writer;

const FOLLOWING: u8 = 0;
const LISTING: u8 = 1;
const LEADING: u8 = 2;

/// What the process can tell about its term.
#[derive(Clone, Debug, Default)]
pub struct Progress(Arc<AtomicU8>);

impl Progress {
    fn set(&self, stage: u8) {
        self.0.store(stage, Ordering::Release);
    }

    /// Ready as a standby, or as a leader whose lists are in.
    ///
    /// # Errors
    /// What is missing.
    pub fn ready(&self) -> Result<(), String> {
        match self.0.load(Ordering::Acquire) {
            LISTING => Err("the lists are not in yet".to_owned()),
            _ => Ok(()),
        }
    }

    fn text(&self) -> &'static str {
        match self.0.load(Ordering::Acquire) {
            FOLLOWING => "following",
            LISTING => "listing",
            _ => "leading",
        }
    }
}

/// What every term starts from.
#[derive(Clone)]
pub struct Controller {
    client: Client,
    pressure: Pressure,
    config: Arc<Config>,
    timeout: Duration,
    metrics: Arc<Metrics>,
    progress: Progress,
}

impl Controller {
    /// A controller; `timeout` bounds a request and fits into the lease.
    #[must_use]
    pub fn new(client: Client, pressure: Pressure, config: Config, timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self { client, pressure, config: Arc::new(config), timeout, metrics, progress: Progress::default() }
    }

    /// What the process can tell about its term.
    #[must_use]
    pub fn progress(&self) -> Progress {
        self.progress.clone()
    }

    /// For `/debug/state`.
    #[must_use]
    pub fn inspect(&self) -> Value {
        let queue = |q: Queue| {
            json!({
                "in": self.metrics.queue_in.with(q).get(),
                "out": self.metrics.queue_out.with(q).get(),
                "dropped": self.metrics.queue_dropped.with(q).get(),
            })
        };
        json!({
            "term": self.progress.text(),
            "workflows": self.metrics.workflows.get(),
            "releases": self.metrics.releases.get(),
            "queues": {"shard": queue(Queue::Shard), "jobs": queue(Queue::Jobs), "events": queue(Queue::Events)},
        })
    }

    /// Works for one term; returns when nothing of it is left.
    pub async fn serve(&self, leadership: &Leadership) {
        self.progress.set(LISTING);
        let mut tasks = JoinSet::new();
        let (router, inboxes) = Router::new(self.config.workers, Arc::clone(&self.metrics));
        let (storage, nodes) = (Arc::new(StorageTable::default()), Nodes::default());
        let (announcer, announcing) =
            Announcer::new(self.client.clone(), leadership.clone(), self.timeout, Arc::clone(&self.metrics));
        let shared = Shared {
            writer: self.writer(leadership),
            storage: Arc::clone(&storage),
            nodes: Arc::clone(&nodes),
            announcer,
            metrics: Arc::clone(&self.metrics),
            config: Arc::clone(&self.config),
        };
        tasks.spawn(announcing);
        let mut shards = JoinSet::new();
        for inbox in inboxes {
            shards.spawn(Shard::new(shared.clone()).run(inbox, leadership.clone()));
        }
        drop(shared);
        let listed = watch::start(&mut tasks, &self.client, &router, &storage, &nodes);
        let started = async {
            if listed.all().await && router.broadcast(|| Input::ListsIn).await {
                self.progress.set(LEADING);
                tracing::info!("every list is in");
            }
            leadership.lost().await;
        };
        tokio::select! {
            () = started => {}
            // A shard ends only with the term, unless it panicked: then the term is given up.
            _ = shards.join_next() => tracing::error!("a shard ended before its term"),
        }
        self.progress.set(FOLLOWING);
        tasks.shutdown().await;
        shards.shutdown().await;
    }

    fn writer(&self, leadership: &Leadership) -> Writer {
        Writer::new(
            self.client.clone(),
            leadership.clone(),
            self.pressure.clone(),
            self.timeout,
            self.config.concurrent_writes,
            Arc::clone(&self.metrics),
        )
    }
}
