//! Lists and watches one kind, for as long as a term lasts.
//!
//! ```text
//!   list (consistent) ──> Listed(names) ──> watch from its version ──> facts
//!        ^                                     |      ^ ends, error: again from the last version seen
//!        └──────────── 410: too old ───────────┘──────┘
//! ```
//! A list is one request, whose objects are decoded while the server still writes: pages would take turns with it. A server
//! gives a request a minute, so that a list that did not come whole is asked for again in pages.
//!
//! Invariants: a list is a quorum read, so that a new leader sees at least what the former one wrote; what a list does
//! not hold is gone; one object that cannot be decoded is skipped and counted, and stops nothing; an API that was served in
//! this term is gone only when discovery has said so for a while ([`Absence`]).

use crate::clock::Clock;
use crate::convert::{self, Ours, types};
use crate::dispatch::PodFacts;
use crate::input::{Fact, Input, PodFact};
use crate::metrics::Metrics;
use crate::pieces::{Part, Pieces};
use futures::{AsyncBufReadExt, StreamExt};
use kube::core::WatchEvent;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use smol_str::SmolStr;
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, watch};

/// Objects per page of a list that did not come at once.
const PAGE: u32 = 5_000;
/// A list of which nothing more comes for so long is given up.
const LIST_SILENCE: Duration = Duration::from_secs(60);
/// How long the server keeps one watch; bookmarks come about once a minute.
const WATCH_S: u32 = 290;
/// A watch without even a bookmark for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(150);
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A kind whose API is absent is looked for again after this.
const ABSENT_PAUSE: Duration = Duration::from_secs(10);

/// Longest time to ask discovery.
const DISCOVERY_LIMIT: Duration = Duration::from_secs(10);
/// An API that was listed in this term must be missing in discovery for so long before its objects count as gone.
const GONE_AFTER: Duration = Duration::from_secs(60);

/// A kind that can be watched.
pub(crate) trait Watched: Send + Sync + 'static {
    /// The object as decoded.
    type Object: DeserializeOwned + Clone + Send + Sync + 'static;
    /// Label of its metrics and readiness.
    const KIND: &'static str;
    /// Path of the collection over all namespaces.
    const PATH: &'static str;
    /// Whether the API may be absent, which counts as an empty list.
    const OPTIONAL: bool = false;
    /// Whether it is of somebody else: where we may not read it, it is as if it were absent.
    const FOREIGN: bool = false;
    /// Metadata.
    fn meta(object: &Self::Object) -> &types::Meta;
    /// Added or changed.
    fn upsert(&self, object: &Self::Object) -> Fact;
    /// Gone.
    fn gone(object: &Self::Object) -> Fact;
    /// Everything there is.
    fn listed(metas: Vec<Listed>) -> Fact;
}

/// Identity of a listed object.
pub(crate) struct Listed {
    pub(crate) namespace: SmolStr,
    pub(crate) name: SmolStr,
    uid: SmolStr,
}

/// Pods.
pub(crate) struct Pods(pub(crate) Ours);
/// Nodes.
pub(crate) struct Nodes;
/// Gangs.
pub(crate) struct Gangs;

impl Watched for Pods {
    type Object = types::Pod;
    const KIND: &'static str = "pods";
    const PATH: &'static str = "/api/v1/pods";

    fn meta(object: &types::Pod) -> &types::Meta {
        &object.metadata
    }

    fn upsert(&self, object: &types::Pod) -> Fact {
        Fact::Pod(Box::new(pod_fact(object, &self.0)))
    }

    fn gone(object: &types::Pod) -> Fact {
        Fact::PodGone(convert::pod_key(&object.metadata))
    }

    fn listed(metas: Vec<Listed>) -> Fact {
        Fact::PodsListed(metas.into_iter().map(|listed| listed.uid).collect())
    }
}

/// A pod with what only the shell needs of it.
pub(crate) fn pod_fact(object: &types::Pod, ours: &Ours) -> PodFact {
    let info = convert::pod(object, |name| ours.serves(name));
    let facts = PodFacts {
        generation: object.metadata.generation,
        conditioned: info.scheduled_condition.is_some(),
        profile: info.scheduler_name.clone(),
    };
    PodFact { info, facts }
}

impl Watched for Nodes {
    type Object = types::Node;
    const KIND: &'static str = "nodes";
    const PATH: &'static str = "/api/v1/nodes";

    fn meta(object: &types::Node) -> &types::Meta {
        &object.metadata
    }

    fn upsert(&self, object: &types::Node) -> Fact {
        Fact::Node(Box::new(convert::node(object)))
    }

    fn gone(object: &types::Node) -> Fact {
        Fact::NodeGone(object.metadata.name.clone())
    }

    fn listed(metas: Vec<Listed>) -> Fact {
        Fact::NodesListed(metas.into_iter().map(|listed| listed.name).collect())
    }
}

impl Watched for Gangs {
    type Object = types::Gang;
    const KIND: &'static str = "gangs";
    const PATH: &'static str = "/apis/flowforge.dev/v1alpha1/gangs";
    const OPTIONAL: bool = true;

    fn meta(object: &types::Gang) -> &types::Meta {
        &object.metadata
    }

    fn upsert(&self, object: &types::Gang) -> Fact {
        convert::gang(object).map_or_else(|| Self::gone(object), |gang| Fact::Gang(Box::new(gang)))
    }

    fn gone(object: &types::Gang) -> Fact {
        let types::Meta { namespace, name, uid, .. } = object.metadata.clone();
        Fact::GangGone { namespace, name, uid }
    }

    fn listed(metas: Vec<Listed>) -> Fact {
        Fact::GangsListed(metas.into_iter().map(|listed| listed.uid).collect())
    }
}

/// Watches one kind until its task is aborted.
pub(crate) struct Watcher<W> {
    kind: W,
    client: kube::Client,
    input: mpsc::Sender<Input>,
    clock: Clock,
    metrics: Metrics,
    listed: watch::Sender<bool>,
}

/// What a 404 on an optional API means.
///
/// At the start of a term: it is not installed, and the list is empty. Later it may be an API server that has just started
/// and does not know the resource yet. An empty list would end every declared gang and delete its bound pods, so that
/// nothing changes until discovery has confirmed it for [`GONE_AFTER`].
#[derive(Debug, Default)]
struct Absence {
    /// It was listed, and not taken for gone since.
    listed: bool,
    /// Since when discovery does not show it.
    since: Option<Instant>,
}

impl Absence {
    /// It was listed.
    fn served(&mut self) {
        *self = Self { listed: true, since: None };
    }

    /// Whether its objects count as gone.
    fn is_certain(&mut self, discovered: bool, now: Instant) -> bool {
        if !self.listed {
            return true;
        }
        if discovered {
            self.since = None;
            return false;
        }
        let since = *self.since.get_or_insert(now);
        let certain = now.saturating_duration_since(since) >= GONE_AFTER;
        self.listed = !certain;
        certain
    }
}

/// Why a list or watch ended.
#[derive(Debug)]
enum End {
    /// The engine's thread is gone: the term is over.
    Closed,
    /// The version is too old: list again.
    Gone,
    /// The server ended the watch in time.
    Finished,
    /// The API is not served.
    Absent,
    /// Anything else.
    Failed(String),
}

/// The resources of a group and version.
#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct PageMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    next: String,
}

impl<W: Watched> Watcher<W> {
    /// A watcher, and a flag that turns true when its first list is in.
    pub(crate) fn new(
        kind: W,
        client: kube::Client,
        input: mpsc::Sender<Input>,
        clock: Clock,
        metrics: Metrics,
    ) -> (Self, watch::Receiver<bool>) {
        let (listed, receiver) = watch::channel(false);
        (Self { kind, client, input, clock, metrics, listed }, receiver)
    }

    /// Lists and watches until the term is over.
    pub(crate) async fn run(self) {
        let mut version: Option<String> = None;
        let mut pause = FIRST_PAUSE;
        let mut absence = Absence::default();
        let mut paged = false;
        loop {
            let end = match version.take() {
                None => match self.list(paged).await {
                    Ok(at) => {
                        absence.served();
                        version = Some(at);
                        pause = FIRST_PAUSE;
                        continue;
                    }
                    Err(end) => {
                        paged = matches!(end, End::Failed(_));
                        end
                    }
                },
                Some(mut at) => {
                    let before = at.clone();
                    let end = self.watch(&mut at).await;
                    if at != before {
                        pause = FIRST_PAUSE;
                    }
                    if !matches!(end, End::Gone | End::Absent) {
                        version = Some(at);
                    }
                    end
                }
            };
            match end {
                End::Closed => return,
                End::Finished => continue,
                End::Gone => tracing::info!(kind = W::KIND, "the watch is too old: listing again"),
                End::Absent if W::OPTIONAL && absence.is_certain(self.is_discovered().await, Instant::now()) => {
                    if self.send(W::listed(Vec::new())).await.is_err() {
                        return;
                    }
                    self.listed.send_replace(true);
                    pause = ABSENT_PAUSE;
                }
                End::Absent => self.failed("the API server does not serve it"),
                End::Failed(why) => self.failed(&why),
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether discovery shows the API; also true while that is not known.
    async fn is_discovered(&self) -> bool {
        let Some((group, resource)) = W::PATH.rsplit_once('/') else { return true };
        let Ok(request) = http::Request::get(group).body(Vec::new()) else { return true };
        match tokio::time::timeout(DISCOVERY_LIMIT, self.client.request::<Resources>(request)).await {
            Ok(Ok(found)) => found.resources.iter().any(|have| have.name == resource),
            Ok(Err(kube::Error::Api(status))) => status.code != 404,
            Ok(Err(_)) | Err(_) => true,
        }
    }

    fn failed(&self, why: &str) {
        self.metrics.watch_failures.with_label_values(&[W::KIND]).inc();
        tracing::warn!(kind = W::KIND, why, "list or watch failed");
    }

    async fn send(&self, fact: Fact) -> Result<(), End> {
        let at_ms = self.clock.now_ms();
        self.input.send(Input::Fact { fact, at_ms }).await.map_err(|_| End::Closed)
    }

    /// Lists everything by quorum reads; answers the version to watch from.
    async fn list(&self, paged: bool) -> Result<String, End> {
        let mut listed = Vec::new();
        let mut next = String::new();
        loop {
            let mut path = W::PATH.to_owned();
            if paged {
                path.push_str(&format!("?limit={PAGE}"));
            }
            if !next.is_empty() {
                path.push_str("&continue=");
                path.push_str(&escape(&next));
            }
            let page = self.page(&path, &mut listed).await?;
            if page.next.is_empty() {
                self.send(W::listed(listed)).await?;
                self.metrics.relists.with_label_values(&[W::KIND]).inc();
                self.listed.send_replace(true);
                return Ok(page.resource_version);
            }
            next = page.next;
        }
    }

    /// Reads a list, and sends each of its objects as soon as it is here.
    async fn page(&self, path: &str, listed: &mut Vec<Listed>) -> Result<PageMeta, End> {
        let request = http::Request::get(path).body(Vec::new()).map_err(|error| End::Failed(error.to_string()))?;
        let silent = |_| End::Failed(format!("nothing of the list came within {LIST_SILENCE:?}"));
        let opened = tokio::time::timeout(LIST_SILENCE, self.client.request_stream(request)).await;
        let body = opened.map_err(silent)?.map_err(|error| self.end_of(&error))?;
        tokio::pin!(body);
        let mut pieces = Pieces::new();
        let mut meta = PageMeta::default();
        loop {
            let read = tokio::time::timeout(LIST_SILENCE, body.fill_buf()).await.map_err(silent)?;
            let bytes = read.map_err(|error| End::Failed(error.to_string()))?;
            if bytes.is_empty() {
                break;
            }
            pieces.push(bytes);
            let read = bytes.len();
            body.consume_unpin(read);
            while let Some(part) = pieces.next() {
                match part {
                    Part::Metadata(json) => {
                        meta = serde_json::from_slice(json).map_err(|error| End::Failed(error.to_string()))?;
                    }
                    Part::Item(json) => self.take_listed(json, listed).await?,
                }
            }
        }
        if pieces.is_complete() { Ok(meta) } else { Err(End::Failed("the list ended early".to_owned())) }
    }

    /// Sends an object of a list; one that cannot be decoded is left out.
    async fn take_listed(&self, json: &[u8], listed: &mut Vec<Listed>) -> Result<(), End> {
        let object: W::Object = match serde_json::from_slice(json) {
            Ok(object) => object,
            Err(error) => {
                self.metrics.undecodable.with_label_values(&[W::KIND]).inc();
                tracing::warn!(kind = W::KIND, %error, "a list holds an object that cannot be decoded");
                return Ok(());
            }
        };
        let meta = W::meta(&object);
        listed.push(Listed { namespace: meta.namespace.clone(), name: meta.name.clone(), uid: meta.uid.clone() });
        self.send(self.kind.upsert(&object)).await
    }

    /// Watches from `version`, which moves along with what was seen.
    async fn watch(&self, version: &mut String) -> End {
        let path = format!(
            "{}?watch=true&allowWatchBookmarks=true&timeoutSeconds={WATCH_S}&resourceVersion={}",
            W::PATH,
            escape(version)
        );
        let request = match http::Request::get(path).body(Vec::new()) {
            Ok(request) => request,
            Err(error) => return End::Failed(error.to_string()),
        };
        let opened = tokio::time::timeout(SILENCE, self.client.request_events::<W::Object>(request)).await;
        let events = match opened {
            Err(_) => return End::Failed("the watch did not open".to_owned()),
            Ok(Err(error)) => return self.end_of(&error),
            Ok(Ok(events)) => events,
        };
        tokio::pin!(events);
        loop {
            let event = match tokio::time::timeout(SILENCE, events.next()).await {
                Err(_) => return End::Failed("the watch fell silent".to_owned()),
                Ok(None) => return End::Finished,
                Ok(Some(Ok(event))) => event,
                Ok(Some(Err(kube::Error::SerdeError(error)))) => {
                    self.metrics.undecodable.with_label_values(&[W::KIND]).inc();
                    tracing::warn!(kind = W::KIND, %error, "an object cannot be decoded");
                    continue;
                }
                Ok(Some(Err(error))) => return self.end_of(&error),
            };
            if let Err(end) = self.take(event, version).await {
                return end;
            }
        }
    }

    async fn take(&self, event: WatchEvent<W::Object>, version: &mut String) -> Result<(), End> {
        let (fact, object) = match &event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => (self.kind.upsert(object), object),
            WatchEvent::Deleted(object) => (W::gone(object), object),
            WatchEvent::Bookmark(bookmark) => {
                version.clone_from(&bookmark.metadata.resource_version);
                return Ok(());
            }
            WatchEvent::Error(status) if status.code == 410 => return Err(End::Gone),
            WatchEvent::Error(status) => return Err(End::Failed(status.to_string())),
        };
        self.send(fact).await?;
        version.clear();
        version.push_str(&W::meta(object).resource_version);
        Ok(())
    }

    fn end_of(&self, error: &kube::Error) -> End {
        match error {
            kube::Error::Api(status) if status.code == 410 => End::Gone,
            kube::Error::Api(status) if status.code == 404 => End::Absent,
            kube::Error::Api(status) if status.code == 403 && W::FOREIGN => {
                tracing::warn!(kind = W::KIND, why = status.message, "not permitted to read it: it counts as absent");
                End::Absent
            }
            kube::Error::Api(status) => End::Failed(format!("{} {}", status.code, status.message)),
            error => End::Failed(error.to_string()),
        }
    }
}

/// Percent-encodes what a query value may not hold.
fn escape(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continue_tokens_survive_the_query_string() {
        assert_eq!(escape("aZ9-_.~"), "aZ9-_.~");
        assert_eq!(escape("a+b/c= &é"), "a%2Bb%2Fc%3D%20%26%C3%A9");
    }

    #[test]
    fn an_api_that_was_never_listed_is_not_installed() {
        let now = Instant::now();
        assert!(Absence::default().is_certain(false, now));
        assert!(Absence::default().is_certain(true, now));
    }

    #[test]
    fn an_api_that_was_listed_is_gone_only_when_discovery_says_so_for_a_while() {
        let start = Instant::now();
        let mut absence = Absence::default();
        absence.served();
        assert!(!absence.is_certain(true, start), "a 404 by itself says nothing");
        assert!(!absence.is_certain(false, start));
        assert!(!absence.is_certain(false, start + GONE_AFTER / 2));
        assert!(!absence.is_certain(true, start + GONE_AFTER), "it is there again");
        let again = start + GONE_AFTER;
        assert!(!absence.is_certain(false, again));
        assert!(absence.is_certain(false, again + GONE_AFTER));
        assert!(absence.is_certain(true, again + GONE_AFTER), "gone, and installed anew without a list yet");
    }

    #[test]
    fn a_gang_that_another_controller_manages_is_gone_for_us() {
        let gang: types::Gang = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "g", "namespace": "n", "uid": "u"},
            "spec": {"minMember": 1, "roles": [{"name": "worker", "replicas": 1}], "managedBy": "Other"},
        }))
        .expect("a gang");
        assert!(matches!(Gangs.upsert(&gang), Fact::GangGone { .. }));
    }
}
