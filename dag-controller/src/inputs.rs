//! What a shard is told, and how objects find their shard.
//!
//! ```text
//!   watch of each kind ──hash of namespace/workflow──> bounded channel of a shard ──> its workflows
//! ```
//! A full channel makes the watch wait; nothing is dropped. All objects of one workflow arrive at one shard, those of
//! one kind in the order of their resourceVersions.

use flowforge_api::{Gang, Workflow};
use std::hash::Hasher;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::mpsc;

use crate::convert::Place;
use crate::metrics::{Metrics, Queue};
use crate::watched::{MetadataOf, WatchedPod};

/// Events that a shard's channel holds.
const CHANNEL: usize = 4096;

/// A kind whose objects belong to workflows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    /// Workflows.
    Workflow,
    /// Gangs.
    Gang,
    /// Pods.
    Pod,
    /// Services.
    Service,
}

/// A workflow: namespace and name.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FlowKey {
    /// Namespace.
    pub namespace: Arc<str>,
    /// Name.
    pub name: Arc<str>,
}

impl FlowKey {
    /// The key of a workflow.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// An object of an attempt that went away.
#[derive(Clone, Debug)]
pub struct Departed {
    /// Where it claimed to belong.
    pub place: Place,
    /// Its UID.
    pub uid: String,
}

/// What a shard is told.
#[derive(Debug)]
pub enum Input {
    /// A list of a kind begins: what it does not hold is gone at [`Input::ListEnds`].
    ListBegins(Kind),
    /// A list of a kind is complete.
    ListEnds(Kind),
    /// A Workflow as it is.
    Workflow(Box<Workflow>),
    /// A Workflow went away.
    WorkflowGone(FlowKey, String),
    /// A Gang as it is.
    Gang(FlowKey, Box<Gang>),
    /// A Gang went away.
    GangGone(FlowKey, Departed),
    /// A pod as it is.
    Pod(FlowKey, Box<WatchedPod>),
    /// A pod went away.
    PodGone(FlowKey, Departed),
    /// A Service as it is.
    Service(FlowKey, Box<MetadataOf>),
    /// A Service went away.
    ServiceGone(FlowKey, Departed),
    /// A node is deleted or out of service (`true`), or back (`false`).
    Node(Arc<str>, bool),
    /// A claim changed, or went away.
    Claim(Arc<str>, Arc<str>),
    /// StorageClasses changed.
    Classes,
    /// Every kind was listed once: what was buffered is complete.
    ListsIn,
}

/// Takes inputs to their shards.
#[derive(Clone)]
pub struct Router {
    shards: Vec<mpsc::Sender<(Instant, Input)>>,
    metrics: Arc<Metrics>,
}

/// The receiving end of a shard's channel.
pub type Inbox = mpsc::Receiver<(Instant, Input)>;

impl Router {
    /// A router to `count` shards.
    #[must_use]
    pub fn new(count: usize, metrics: Arc<Metrics>) -> (Self, Vec<Inbox>) {
        let (shards, inboxes) = (0..count.max(1)).map(|_| mpsc::channel(CHANNEL)).unzip();
        (Self { shards, metrics }, inboxes)
    }

    /// To the shard of a workflow. False when the shards have stopped.
    pub async fn send(&self, key: &FlowKey, input: Input) -> bool {
        let mut hasher = Fnv::default();
        hasher.write(key.namespace.as_bytes());
        hasher.write_u8(b'/');
        hasher.write(key.name.as_bytes());
        let count = u64::try_from(self.shards.len()).unwrap_or(1);
        let shard = usize::try_from(hasher.finish() % count).unwrap_or(0);
        match self.shards.get(shard) {
            Some(sender) => self.put(sender, input).await,
            None => false,
        }
    }

    /// To every shard.
    pub async fn broadcast(&self, input: impl Fn() -> Input) -> bool {
        for sender in &self.shards {
            if !self.put(sender, input()).await {
                return false;
            }
        }
        true
    }

    async fn put(&self, sender: &mpsc::Sender<(Instant, Input)>, input: Input) -> bool {
        self.metrics.queue_in.with(Queue::Shard).inc();
        sender.send((Instant::now(), input)).await.is_ok()
    }
}

/// FNV-1a: the same shard for a name in every process, which makes logs and tests comparable.
#[derive(Debug)]
struct Fnv(u64);

impl Default for Fnv {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}

/// A seed that differs between objects and is the same in every process.
#[must_use]
pub fn seed_of(uid: &str) -> u64 {
    let mut hasher = Fnv::default();
    hasher.write(uid.as_bytes());
    hasher.finish()
}
