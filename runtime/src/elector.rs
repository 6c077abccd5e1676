//! The Lease elector: drives [`crate::election`] against the API server and hands out terms.
//!
//! ```text
//!   Terms::next ──> Leadership (clones go to whoever writes) ──> lost | shutdown
//!        ^                                                          |
//!        └───────────── Leadership::finish, all work stopped ───────┘
//! ```
//! Invariants: [`Leadership::permits`] answers false whenever less of the lease remains than the request may take; a new
//! term begins only after the last one was finished; the Lease is released only after the work has stopped.

use crate::election::{Action, Claim, Election, LeaseTiming, Record};
use crate::metrics::{Metrics, register};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, ObjectMeta, PostParams};
use prometheus::{IntCounter, IntGauge};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

/// A contender for one Lease.
pub struct Elector {
    api: Api<Lease>,
    name: String,
    identity: String,
    timing: LeaseTiming,
    gauges: Gauges,
}

#[derive(Clone)]
struct Gauges {
    leader: IntGauge,
    epoch: IntGauge,
    terms: IntCounter,
    failures: IntCounter,
}

/// The right to act as the leader, for as long as the lease lasts.
#[derive(Clone)]
pub struct Leadership {
    inner: Arc<Inner>,
}

struct Inner {
    started: Instant,
    deadline_ms: AtomicU64,
    epoch: AtomicI64,
    /// Told when the epoch was raised.
    raised: Notify,
    /// The epoch that the Lease holds.
    recorded: watch::Sender<i64>,
    lost: CancellationToken,
    finished: CancellationToken,
}

/// The terms of leadership of this process, one after the other.
pub struct Terms {
    receiver: mpsc::Receiver<Leadership>,
    task: tokio::task::JoinHandle<()>,
}

impl Terms {
    /// The next term; None when the process shuts down.
    pub async fn next(&mut self) -> Option<Leadership> {
        self.receiver.recv().await
    }

    /// Waits until the Lease was released after a shutdown.
    pub async fn closed(self) {
        if let Err(error) = self.task.await {
            tracing::error!(%error, "the elector ended abnormally");
        }
    }
}

impl Leadership {
    /// A leadership without a Lease and without rivals, which nothing renews: for tests and tools.
    #[must_use]
    pub fn alone(lasts: Duration) -> Self {
        Self::new(Instant::now(), 1, u64::try_from(lasts.as_millis()).unwrap_or(u64::MAX))
    }

    fn new(started: Instant, epoch: i64, deadline_ms: u64) -> Self {
        let inner = Inner {
            started,
            deadline_ms: AtomicU64::new(deadline_ms),
            epoch: AtomicI64::new(epoch),
            raised: Notify::new(),
            recorded: watch::Sender::new(epoch),
            lost: CancellationToken::new(),
            finished: CancellationToken::new(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Time left without another renewal; zero once the leadership is lost.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        if self.inner.lost.is_cancelled() {
            return Duration::ZERO;
        }
        let deadline = self.inner.deadline_ms.load(Ordering::Acquire);
        Duration::from_millis(deadline.saturating_sub(elapsed_ms(self.inner.started)))
    }

    /// Whether a request that may take this long can be started.
    #[must_use]
    pub fn permits(&self, timeout: Duration) -> bool {
        let remaining = self.remaining();
        !remaining.is_zero() && remaining >= timeout
    }

    /// Epoch of this term, larger than that of every former leader.
    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.inner.epoch.load(Ordering::Acquire)
    }

    /// Raises the epoch, where a record of a higher one was found than the Lease knew. Answers true when the Lease holds it,
    /// so that no other term can come to the same one; false when the leadership was lost before.
    pub async fn raise_epoch(&self, at_least: i64) -> bool {
        self.inner.epoch.fetch_max(at_least, Ordering::AcqRel);
        self.inner.raised.notify_one();
        let mut recorded = self.inner.recorded.subscribe();
        tokio::select! {
            () = self.lost() => false,
            held = recorded.wait_for(|held| *held >= at_least) => held.is_ok(),
        }
    }

    /// Resolves when the leadership is lost or the process shuts down.
    pub async fn lost(&self) {
        self.inner.lost.cancelled().await;
    }

    /// The token behind [`Self::lost`], to be handed to tasks.
    #[must_use]
    pub fn lost_token(&self) -> CancellationToken {
        self.inner.lost.clone()
    }

    /// Gives the leadership up: no request may start any more; [`Self::finish`] must follow when the work has stopped.
    pub fn give_up(&self) {
        self.inner.lost.cancel();
    }

    /// Says that all work under this term has stopped; the Lease may now be released or contended for again.
    pub fn finish(&self) {
        self.inner.lost.cancel();
        self.inner.finished.cancel();
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

impl Elector {
    /// A contender for Lease `name` in `namespace`.
    ///
    /// # Errors
    /// When its metrics are already registered.
    pub fn new(
        client: kube::Client,
        namespace: &str,
        name: &str,
        timing: LeaseTiming,
        metrics: &Metrics,
    ) -> prometheus::Result<Self> {
        let gauges = Gauges {
            leader: register(metrics, IntGauge::new("flowforge_leader", "1 while this process leads, else 0.")?)?,
            epoch: register(metrics, IntGauge::new("flowforge_leader_epoch", "Epoch of the last term led.")?)?,
            terms: register(metrics, IntCounter::new("flowforge_leader_terms_total", "Terms led by this process.")?)?,
            failures: register(
                metrics,
                IntCounter::new(
                    "flowforge_lease_failures_total",
                    "Lease reads and writes that failed or were refused.",
                )?,
            )?,
        };
        Ok(Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            identity: process_identity(),
            timing,
            gauges,
        })
    }

    /// Name under which this process holds the Lease.
    #[must_use]
    pub fn identity(&self) -> &str {
        &self.identity
    }

    /// Starts to contend; ends, with the Lease released, when `shutdown` is cancelled and the last term is finished.
    #[must_use]
    pub fn start(self, shutdown: CancellationToken) -> Terms {
        let (sender, receiver) = mpsc::channel(1);
        let task = tokio::spawn(async move { self.run(sender, shutdown).await });
        Terms { receiver, task }
    }

    async fn run(self, terms: mpsc::Sender<Leadership>, shutdown: CancellationToken) {
        let clock = Instant::now();
        let mut election = Election::new(self.identity.clone(), &self.timing);
        while let Some(deadline_ms) = self.campaign(&mut election, clock, &shutdown).await {
            let epoch = election.epoch().unwrap_or_default();
            let leadership = Leadership::new(clock, epoch, deadline_ms);
            self.gauges.leader.set(1);
            self.gauges.epoch.set(epoch);
            self.gauges.terms.inc();
            tracing::info!(lease = %self.name, identity = %self.identity, epoch, "leading");
            if terms.send(leadership.clone()).await.is_err() {
                leadership.finish();
            }
            self.lead(&mut election, clock, &leadership, &shutdown).await;
            leadership.inner.lost.cancel();
            self.gauges.leader.set(0);
            tracing::info!(lease = %self.name, epoch, "no longer leading");
            self.await_finish(&mut election, clock, &leadership).await;
            self.release(&mut election).await;
        }
    }

    /// Contends until the Lease is ours; None on shutdown.
    async fn campaign(&self, election: &mut Election, clock: Instant, shutdown: &CancellationToken) -> Option<u64> {
        loop {
            if shutdown.is_cancelled() {
                return None;
            }
            let wait = self.step(election, clock).await;
            if election.leads(elapsed_ms(clock)) {
                return election.deadline_ms();
            }
            tokio::select! {
                () = shutdown.cancelled() => return None,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Renews until the term ends.
    async fn lead(
        &self,
        election: &mut Election,
        clock: Instant,
        leadership: &Leadership,
        shutdown: &CancellationToken,
    ) {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = leadership.inner.lost.cancelled() => return,
                () = leadership.inner.raised.notified() => {}
                () = tokio::time::sleep(self.timing.retry_period) => {}
            }
            if !self.renew(election, clock, leadership).await {
                return;
            }
        }
    }

    /// After a loss by shutdown the Lease is kept alive until the work has stopped.
    async fn await_finish(&self, election: &mut Election, clock: Instant, leadership: &Leadership) {
        loop {
            tokio::select! {
                () = leadership.inner.finished.cancelled() => return,
                () = tokio::time::sleep(self.timing.retry_period) => {}
            }
            if election.leads(elapsed_ms(clock)) {
                self.renew(election, clock, leadership).await;
            }
        }
    }

    async fn renew(&self, election: &mut Election, clock: Instant, leadership: &Leadership) -> bool {
        if !election.leads(elapsed_ms(clock)) {
            return false;
        }
        let term = election.terms();
        election.raise_epoch(leadership.epoch());
        let deadline_ms = election.deadline_ms().unwrap_or_default();
        let left = Duration::from_millis(deadline_ms.saturating_sub(elapsed_ms(clock)));
        if tokio::time::timeout(left, self.step(election, clock)).await.is_err() {
            election.on_write_failed();
        }
        // A Lease that was deleted and made again begins another term, also when we made it.
        if !election.leads(elapsed_ms(clock)) || election.terms() != term {
            return false;
        }
        if let Some(deadline_ms) = election.deadline_ms() {
            leadership.inner.deadline_ms.store(deadline_ms, Ordering::Release);
        }
        if let Some(epoch) = election.written_epoch() {
            leadership.inner.recorded.send_replace(epoch);
            self.gauges.epoch.set(epoch);
        }
        true
    }

    /// One look or write; answers how long to wait before the next.
    async fn step(&self, election: &mut Election, clock: Instant) -> Duration {
        let pause = jittered(self.timing.retry_period);
        let mut action = election.next();
        if action == Action::Read {
            match self.read().await {
                Ok(read) => action = election.on_read(read, elapsed_ms(clock)),
                Err(error) => {
                    self.failed("read", &error);
                    return pause;
                }
            }
        }
        let (claim, resource_version) = match action {
            Action::Read => return pause,
            Action::Wait { expires_ms } => {
                let left = Duration::from_millis(expires_ms.saturating_sub(elapsed_ms(clock)));
                return left.saturating_add(Duration::from_millis(1)).min(pause);
            }
            Action::Create(claim) => (claim, None),
            Action::Replace { resource_version, claim } => (claim, Some(resource_version)),
        };
        let started_ms = elapsed_ms(clock);
        match self.write(&claim, election, resource_version).await {
            Ok((record, resource_version)) => election.on_written(&claim, record, resource_version, started_ms),
            Err(error) => {
                election.on_write_failed();
                self.failed("write", &error);
            }
        }
        pause
    }

    fn failed(&self, what: &'static str, error: &LeaseError) {
        self.gauges.failures.inc();
        tracing::warn!(lease = %self.name, %error, "lease {what} failed");
    }

    async fn read(&self) -> Result<Option<(Record, String)>, LeaseError> {
        let lease = self.bounded(self.api.get_opt(&self.name)).await?;
        Ok(lease.map(|lease| (record_of(&lease), lease.metadata.resource_version.unwrap_or_default())))
    }

    async fn write(
        &self,
        claim: &Claim,
        election: &Election,
        resource_version: Option<String>,
    ) -> Result<(Record, String), LeaseError> {
        let acquired = election.acquire_time().filter(|_| !claim.begins).and_then(|at| at.parse().ok());
        let now = Timestamp::now();
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.timing.duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(acquired.unwrap_or(now))),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(i32::try_from(claim.epoch).unwrap_or(i32::MAX)),
            ..LeaseSpec::default()
        };
        let written = self.put(spec, resource_version).await?;
        Ok((record_of(&written), written.metadata.resource_version.unwrap_or_default()))
    }

    async fn put(&self, spec: LeaseSpec, resource_version: Option<String>) -> Result<Lease, LeaseError> {
        let creates = resource_version.is_none();
        let metadata = ObjectMeta { name: Some(self.name.clone()), resource_version, ..ObjectMeta::default() };
        let lease = Lease { metadata, spec: Some(spec) };
        let params = PostParams::default();
        if creates {
            self.bounded(self.api.create(&params, &lease)).await
        } else {
            self.bounded(self.api.replace(&self.name, &params, &lease)).await
        }
    }

    /// Lets the others know that they need not wait. A failure only costs them the lease duration.
    async fn release(&self, election: &mut Election) {
        let Some((resource_version, epoch)) = election.stand_down() else { return };
        let now = Timestamp::now();
        let spec = LeaseSpec {
            holder_identity: Some(String::new()),
            lease_duration_seconds: Some(1),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(i32::try_from(epoch).unwrap_or(i32::MAX)),
            ..LeaseSpec::default()
        };
        match self.put(spec, Some(resource_version)).await {
            Ok(_) => tracing::info!(lease = %self.name, epoch, "lease released"),
            Err(error) => self.failed("release", &error),
        }
    }

    async fn bounded<T>(&self, request: impl Future<Output = kube::Result<T>>) -> Result<T, LeaseError> {
        let limit = self.timing.renew_deadline / 2;
        match tokio::time::timeout(limit, request).await {
            Ok(answer) => answer.map_err(LeaseError::from),
            Err(_) => Err(LeaseError::Timeout(limit)),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum LeaseError {
    #[error("{code} {message}")]
    Answered { code: u16, message: String },
    #[error("{0}")]
    Unanswered(#[source] kube::Error),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl From<kube::Error> for LeaseError {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::Answered { code: status.code, message: status.message },
            error => Self::Unanswered(error),
        }
    }
}

fn record_of(lease: &Lease) -> Record {
    let spec = lease.spec.as_ref();
    let time = |time: Option<&MicroTime>| time.map(|at| at.0.to_string()).unwrap_or_default();
    let seconds = spec.and_then(|spec| spec.lease_duration_seconds).unwrap_or_default();
    Record {
        holder: spec.and_then(|spec| spec.holder_identity.clone()).unwrap_or_default(),
        duration_ms: u64::try_from(seconds).unwrap_or_default().saturating_mul(1_000),
        transitions: spec.and_then(|spec| spec.lease_transitions).unwrap_or_default().into(),
        acquire_time: time(spec.and_then(|spec| spec.acquire_time.as_ref())),
        renew_time: time(spec.and_then(|spec| spec.renew_time.as_ref())),
    }
}

/// client-go's jitter: up to a fifth more, so that contenders do not march in step.
fn jittered(period: Duration) -> Duration {
    let spread = u32::try_from(RandomState::new().build_hasher().finish() % 200).unwrap_or_default();
    period + period * spread / 1_000
}

/// `HOSTNAME_RANDOM`: unique to this run of this process, because the election relies on that.
fn process_identity() -> String {
    let host = std::env::var("HOSTNAME")
        .ok()
        .filter(|name| !name.is_empty())
        .or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok().map(|name| name.trim().to_owned()))
        .unwrap_or_else(|| "localhost".to_owned());
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    format!("{host}_{:016x}", hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_leadership_permits_only_what_fits_into_the_rest_of_the_lease() {
        let leadership = Leadership::new(Instant::now(), 3, 60_000);
        assert!(leadership.permits(Duration::from_secs(59)));
        assert!(!leadership.permits(Duration::from_secs(61)));
        leadership.finish();
        assert!(!leadership.permits(Duration::ZERO));
        assert_eq!(leadership.remaining(), Duration::ZERO);
    }

    #[tokio::test]
    async fn an_epoch_is_raised_when_the_lease_holds_it_and_never_lowered() {
        let leadership = Leadership::new(Instant::now(), 3, 60_000);
        let raising = tokio::spawn({
            let leadership = leadership.clone();
            async move { leadership.raise_epoch(7).await }
        });
        leadership.inner.raised.notified().await;
        assert!(!raising.is_finished());
        leadership.inner.recorded.send_replace(7);
        assert!(raising.await.expect("no panic"));
        assert!(leadership.raise_epoch(5).await);
        assert_eq!(leadership.epoch(), 7);
        let raising = leadership.raise_epoch(9);
        leadership.finish();
        assert!(!raising.await, "lost before the lease held it");
    }

    #[test]
    fn two_processes_on_one_host_have_different_identities() {
        assert_ne!(process_identity(), process_identity());
    }

    #[test]
    fn a_lease_reads_back_as_the_record_that_was_written() {
        let at: Timestamp = "2026-01-02T03:04:05.678901Z".parse().expect("a timestamp");
        let lease = Lease {
            metadata: ObjectMeta::default(),
            spec: Some(LeaseSpec {
                holder_identity: Some("a".to_owned()),
                lease_duration_seconds: Some(15),
                renew_time: Some(MicroTime(at)),
                lease_transitions: Some(4),
                ..LeaseSpec::default()
            }),
        };
        let record = record_of(&lease);
        assert_eq!((record.holder.as_str(), record.duration_ms, record.transitions), ("a", 15_000, 4));
        assert_eq!(record.renew_time, "2026-01-02T03:04:05.678901Z");
        assert_eq!(record_of(&Lease::default()), Record::default());
    }
}
