//! One load: pods of one contender, created, bound and deleted, and what they cost.

use anyhow::{Context as _, Result};
use flowforge_tests::eventually;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::{Namespace, Pod, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use serde_json::json;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tokio::time::MissedTickBehavior;

use crate::claims::Claims;
use crate::contender::{Arena, Kind, Running};
use crate::devices;
use crate::follow::{Follower, Instants};
use crate::report::Measured;
use crate::workload::Workload;

/// How long a load may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(600);
/// Events that do not come for so long do not come any more.
const EVENTS_PAUSE: Duration = Duration::from_secs(3);

/// Pods for one scheduler.
#[derive(Clone)]
pub(crate) struct Load {
    /// Also the namespace, with the scheduler's name before it.
    pub(crate) name: String,
    pub(crate) workload: Workload,
    pub(crate) pods: usize,
    /// Members per gang; 1 makes single pods.
    pub(crate) gang: usize,
    /// How the pods arrive.
    pub(crate) arrival: Arrival,
}

/// How the pods of a load arrive.
#[derive(Clone, Copy)]
pub(crate) enum Arrival {
    /// As fast as the API server takes them, so many requests at once: shows cost.
    Burst(usize),
    /// One gang (or pod) after another, so far apart: shows latency without a queue before the scheduler.
    Paced(Duration),
    /// All are there before the contender starts, created by so many requests at once: shows throughput.
    Backlog(usize),
}

/// Where the pods of a load are.
struct Place {
    namespace: String,
    pods: Api<Pod>,
    events: Api<Event>,
    scheduler: &'static str,
}

impl Load {
    /// Runs it through one contender, which runs alone and is stopped again, and says what it has cost.
    ///
    /// # Errors
    /// When pods are not bound in time, or FlowForge or a client has not posted an Event for each.
    pub(crate) async fn run(&self, arena: &Arena<'_>, kind: Kind) -> Result<Measured> {
        let place = self.place(arena.testbed.client(), kind).await?;
        let claims = match self.workload {
            Workload::Claim => {
                Some(Claims::create(arena.testbed.client(), &place.namespace, (0..self.pods).map(pod_name)).await?)
            }
            _ => None,
        };
        let created = match self.arrival {
            Arrival::Backlog(_) => Some(self.create_all(&place).await?),
            Arrival::Burst(_) | Arrival::Paced(_) => None,
        };
        let follower = Follower::start(&place.pods, self.pods, LIMIT).await?;
        let running = if created.is_some() { arena.launch(kind).await? } else { arena.start(kind).await? };
        let measured = self.measure(arena, &place, &running, follower, created).await?;
        arena.stop(running).await?;
        delete_all(&place.pods).await?;
        if let Some(claims) = claims {
            claims.delete().await?;
        }
        if self.workload == Workload::Devices {
            devices::released(arena.testbed.client(), &place.namespace).await?;
        }
        Ok(measured)
    }

    async fn place(&self, client: &Client, kind: Kind) -> Result<Place> {
        let namespace = format!("{}-{}", kind.scheduler_name(), self.name);
        let client = client.clone();
        make_namespace(&client, &namespace).await?;
        if self.workload == Workload::Devices {
            devices::provide(&client, &namespace).await?;
        }
        Ok(Place {
            pods: Api::namespaced(client.clone(), &namespace),
            events: Api::namespaced(client, &namespace),
            namespace,
            scheduler: kind.scheduler_name(),
        })
    }

    async fn measure(
        &self,
        arena: &Arena<'_>,
        place: &Place,
        running: &Running,
        follower: Follower,
        created: Option<Instants>,
    ) -> Result<Measured> {
        let before = match &running.exporter {
            Some(exporter) if created.is_none() => Some(exporter.scrape().await?),
            _ => None,
        };
        let cpu_before = running.process.cpu_ms()?;
        let apiserver_before = arena.apiserver.cpu_ms()?;
        let start = Instant::now();
        let backlog = created.is_some();
        let created = match created {
            Some(created) => created,
            None => self.create_all(place).await?,
        };
        let bound = follower.bound(LIMIT).await?;
        let events = if running.kind == Kind::Plain { 0 } else { self.drained(place).await? };
        anyhow::ensure!(
            events >= self.pods || matches!(running.kind, Kind::KubeScheduler | Kind::Plain),
            "{} has posted {events} Events for {} pods",
            running.kind.title(),
            self.pods
        );
        // A client that has sent everything is gone, and with it the count of its time.
        let cpu = running.process.cpu_ms().map_or(f64::NAN, |cpu| cpu - cpu_before);
        let apiserver = arena.apiserver.cpu_ms()? - apiserver_before;
        let own = match (&running.exporter, before) {
            (Some(exporter), Some(before)) => Some(exporter.scrape().await?.since(&before)),
            _ => None,
        };
        let own_ms = |quantile| own.as_ref().and_then(|own| own.quantile(self.own_metric(), quantile)).map(|s| s * 1e3);
        #[expect(clippy::cast_precision_loss, reason = "counts of pods are small")]
        let count = self.pods as f64;
        Ok(Measured {
            cpu_ms_per_pod: cpu / count,
            apiserver_ms_per_pod: apiserver / count,
            pods_per_second: rate(&bound, (!backlog).then_some(start)),
            latencies_ms: self.latencies_ms(&created, &bound)?,
            own_p50_ms: own_ms(0.5),
            own_p99_ms: own_ms(0.99),
            peak_mib: running.process.peak_mib().unwrap_or(f64::NAN),
            events,
        })
    }

    /// Waits until each pod has its Event, or no more come; answers how many there are.
    async fn drained(&self, place: &Place) -> Result<usize> {
        let first = ListParams::default().limit(1);
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            let list = place.events.list_metadata(&first).await.context("count the Events")?;
            let more = list.metadata.remaining_item_count.unwrap_or_default();
            let found = list.items.len() + usize::try_from(more).unwrap_or_default();
            if found > seen {
                (seen, since) = (found, Instant::now());
            }
            if seen >= self.pods || since.elapsed() > EVENTS_PAUSE {
                return Ok(seen);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// The histogram in which a scheduler counts what is measured here from outside.
    fn own_metric(&self) -> &'static str {
        if self.gang > 1 {
            "flowforge_gang_placement_duration_seconds"
        } else {
            "scheduler_pod_scheduling_sli_duration_seconds"
        }
    }

    async fn create_all(&self, place: &Place) -> Result<Instants> {
        match self.arrival {
            Arrival::Burst(parallel) | Arrival::Backlog(parallel) => {
                let all = stream::iter(0..self.pods).map(|i| self.create(place, i));
                all.buffer_unordered(parallel).try_collect().await
            }
            Arrival::Paced(pause) => {
                let mut requests = tokio::task::JoinSet::new();
                let mut due = tokio::time::interval_at(tokio::time::Instant::now(), pause);
                due.set_missed_tick_behavior(MissedTickBehavior::Delay);
                for first in (0..self.pods).step_by(self.gang) {
                    due.tick().await;
                    // A reply that is late does not hold up the next pod, which would thin out the load just then.
                    for index in first..self.pods.min(first + self.gang) {
                        let (load, pods, scheduler) = (self.clone(), place.pods.clone(), place.scheduler);
                        requests.spawn(async move { load.create_in(&pods, scheduler, index).await });
                    }
                }
                let mut created = Instants::new();
                while let Some(reply) = requests.join_next().await {
                    let (name, at) = reply??;
                    created.insert(name, at);
                }
                Ok(created)
            }
        }
    }

    /// From the last create of a gang (or the pod's own) to its last (own) node seen, sorted. A binding that was seen before
    /// the reply took no time.
    fn latencies_ms(&self, created: &Instants, bound: &Instants) -> Result<Vec<f64>> {
        let mut gangs: BTreeMap<usize, (Instant, Instant)> = BTreeMap::new();
        for index in 0..self.pods {
            let name = pod_name(index);
            let at = (
                *created.get(&name).context("a pod was not created")?,
                *bound.get(&name).context("a pod was not bound")?,
            );
            let gang = gangs.entry(index / self.gang).or_insert(at);
            *gang = (gang.0.max(at.0), gang.1.max(at.1));
        }
        let waited =
            |(created, bound): (Instant, Instant)| bound.saturating_duration_since(created).as_secs_f64() * 1e3;
        let mut latencies: Vec<f64> = gangs.into_values().map(waited).collect();
        latencies.sort_by(f64::total_cmp);
        Ok(latencies)
    }

    async fn create(&self, place: &Place, index: usize) -> Result<(String, Instant)> {
        self.create_in(&place.pods, place.scheduler, index).await
    }

    /// Creates a pod; returns when the reply was there.
    async fn create_in(&self, pods: &Api<Pod>, scheduler: &str, index: usize) -> Result<(String, Instant)> {
        let name = pod_name(index);
        let mut pod = self.workload.pod(&name, scheduler);
        if self.gang > 1 {
            pod["metadata"]["labels"]["flowforge.dev/gang"] = json!(format!("g-{}", index / self.gang));
            pod["metadata"]["annotations"] = json!({"flowforge.dev/gang-size": self.gang.to_string()});
        }
        let pod = serde_json::from_value(pod)?;
        pods.create(&PostParams::default(), &pod).await?;
        Ok((name, Instant::now()))
    }
}

/// Bound pods per second: since `start`, or from the first to the last where nobody knows when the work began.
#[expect(clippy::cast_precision_loss, reason = "counts of pods are small")]
fn rate(bound: &Instants, start: Option<Instant>) -> f64 {
    let (Some(&first), Some(&last)) = (bound.values().min(), bound.values().max()) else { return f64::NAN };
    match start {
        Some(start) => bound.len() as f64 / (last - start).as_secs_f64(),
        None => (bound.len() - 1) as f64 / (last - first).as_secs_f64(),
    }
}

fn pod_name(index: usize) -> String {
    format!("p-{index:05}")
}

/// Makes a namespace; returns when pods are admitted to it.
pub(crate) async fn make_namespace(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let object = serde_json::from_value(json!({"metadata": {"name": name}}))?;
    namespaces.create(&PostParams::default(), &object).await.context("create the namespace")?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), name);
    eventually("the default ServiceAccount exists", LIMIT, || async {
        accounts.get("default").await.map(drop).map_err(|error| error.to_string())
    })
    .await
}

/// Deletes until nothing is left; a request that fails is made again.
async fn delete_all(pods: &Api<Pod>) -> Result<()> {
    let now = DeleteParams::default().grace_period(0);
    eventually("the load is deleted", LIMIT, || async {
        pods.delete_collection(&now, &ListParams::default()).await.map_err(|error| error.to_string())?;
        let first = ListParams::default().limit(1);
        let left = pods.list_metadata(&first).await.map_err(|error| error.to_string())?;
        if left.items.is_empty() { Ok(()) } else { Err("pods are left".to_owned()) }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(pods: usize, gang: usize) -> Load {
        Load { name: "l".into(), workload: Workload::Plain, pods, gang, arrival: Arrival::Burst(1) }
    }

    fn instants<const N: usize>(start: Instant, ms: [u64; N]) -> Instants {
        ms.into_iter().enumerate().map(|(i, ms)| (pod_name(i), start + Duration::from_millis(ms))).collect()
    }

    #[test]
    fn a_gang_waits_from_its_last_create_to_its_last_node() {
        let start = Instant::now();
        let (created, bound) = (instants(start, [0, 50, 10, 12]), instants(start, [90, 80, 20, 15]));
        let latencies = load(4, 2).latencies_ms(&created, &bound).unwrap();
        let rounded: Vec<f64> = latencies.into_iter().map(f64::round).collect();
        assert_eq!(rounded, [8.0, 40.0]);
    }

    #[test]
    fn a_binding_before_the_reply_took_no_time() {
        let start = Instant::now();
        let (created, bound) = (instants(start, [30]), instants(start, [20]));
        assert_eq!(load(1, 1).latencies_ms(&created, &bound).unwrap(), [0.0]);
    }

    #[test]
    fn a_backlog_is_bound_at_the_rate_from_its_first_to_its_last_pod() {
        let start = Instant::now();
        let bound = instants(start, [1_000, 1_250, 1_500]);
        assert_eq!(rate(&bound, None).round(), 4.0);
        assert_eq!(rate(&bound, Some(start)).round(), 2.0);
    }
}
