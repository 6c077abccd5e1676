//! The Lease elector against a real API server: three contenders, pauses, a restarted server, a graceful end.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

use flowforge_runtime::{Elector, Leadership, LeaseTiming, Metrics, Pressure, client};
use flowforge_testbed::Testbed;
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::DeleteParams;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const LEASE: &str = "contended";
const NAMESPACE: &str = "kube-system";
/// Long enough that neither a busy machine nor a slow API server costs the lease by itself.
const TIMING: LeaseTiming = LeaseTiming {
    duration: Duration::from_secs(8),
    renew_deadline: Duration::from_secs(5),
    retry_period: Duration::from_millis(800),
};
/// An API server that answers no sooner may cost a healthy leader its lease.
const STALL: Duration = Duration::from_secs(2);
/// Time for a new leader, also where the old lease has to expire and the machine is busy.
const LEADER_LIMIT: Duration = Duration::from_secs(60);

/// A contender on a thread and a runtime of its own, so that it can be paused like a process.
struct Contender {
    current: Arc<Mutex<Option<Leadership>>>,
    paused: Arc<AtomicBool>,
    stop: CancellationToken,
    thread: thread::JoinHandle<()>,
}

/// Every term that began, in order: contender and epoch.
type Terms = Arc<Mutex<Vec<(usize, i64)>>>;

impl Contender {
    fn start(index: usize, kubeconfig: PathBuf, terms: Terms) -> Self {
        let current: Arc<Mutex<Option<Leadership>>> = Arc::default();
        let paused: Arc<AtomicBool> = Arc::default();
        let stop = CancellationToken::new();
        let (shown, stopped, held) = (current.clone(), stop.clone(), paused.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                tokio::spawn(async move {
                    loop {
                        while held.load(Ordering::Acquire) {
                            // Blocks the only thread of this runtime: nothing of this contender moves meanwhile.
                            thread::sleep(Duration::from_millis(5));
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                });
                contend(index, kubeconfig, &shown, &terms, stopped).await;
            });
        });
        Self { current, paused, stop, thread }
    }

    /// The epoch under which it leads at this moment.
    fn leads(&self) -> Option<i64> {
        let current = self.current.lock().unwrap();
        current.as_ref().filter(|leadership| leadership.permits(Duration::from_millis(1))).map(Leadership::epoch)
    }

    /// Whether it knows of a term of its own, ended or not.
    fn believes(&self) -> bool {
        self.current.lock().unwrap().is_some()
    }

    fn pause(&self) {
        self.paused.store(true, Ordering::Release);
    }

    fn resume(&self) {
        self.paused.store(false, Ordering::Release);
    }

    fn end(self) {
        self.stop.cancel();
        self.thread.join().unwrap();
    }
}

async fn contend(
    index: usize,
    kubeconfig: PathBuf,
    shown: &Mutex<Option<Leadership>>,
    terms: &Mutex<Vec<(usize, i64)>>,
    stop: CancellationToken,
) {
    let metrics = Metrics::new("contender", "0").unwrap();
    let pressure = Pressure::new(&metrics).unwrap();
    let api = client::connect(Some(&kubeconfig), "contender", &pressure).await.unwrap();
    let mut leaderships = Elector::new(api, NAMESPACE, LEASE, TIMING, &metrics).unwrap().start(stop);
    while let Some(leadership) = leaderships.next().await {
        terms.lock().unwrap().push((index, leadership.epoch()));
        *shown.lock().unwrap() = Some(leadership.clone());
        leadership.lost().await;
        *shown.lock().unwrap() = None;
        leadership.finish();
    }
    leaderships.closed().await;
}

/// The one that leads now. The first is looked at again after the second: this thread may have slept between the two, and
/// a term that ended before another began is no conflict.
fn leader(contenders: &[Contender]) -> Option<usize> {
    let mut found: Option<(usize, i64)> = None;
    for (index, contender) in contenders.iter().enumerate() {
        let Some(epoch) = contender.leads() else { continue };
        if let Some((first, term)) = found {
            let still = contenders[first].leads();
            assert_ne!(still, Some(term), "{first} (epoch {term}) and {index} (epoch {epoch}) lead at the same moment");
        }
        found = Some((index, epoch));
    }
    found.map(|(index, _)| index)
}

/// Looks at all contenders for so long, every other millisecond. Answers the longest time without any leader.
fn observe(contenders: &[Contender], period: Duration) -> Duration {
    let (start, mut longest) = (Instant::now(), Duration::ZERO);
    let mut leaderless: Option<Instant> = None;
    while start.elapsed() < period {
        if leader(contenders).is_some() {
            leaderless = None;
        } else {
            longest = longest.max(leaderless.get_or_insert_with(Instant::now).elapsed());
        }
        thread::sleep(Duration::from_millis(2));
    }
    longest
}

/// Looks at all contenders until this holds.
fn observe_until(contenders: &[Contender], what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < LEADER_LIMIT, "not within {LEADER_LIMIT:?}: {what}");
        observe(contenders, Duration::from_millis(20));
    }
}

fn wait_for_leader(contenders: &[Contender]) -> usize {
    let mut found = None;
    observe_until(contenders, "somebody leads", || {
        found = leader(contenders);
        found.is_some()
    });
    found.expect("somebody leads")
}

/// Pauses the leader until another one leads and lets it go on then; answers the old and the new leader.
fn replace_leader(contenders: &[Contender], meanwhile: impl FnOnce()) -> (usize, usize) {
    let old = wait_for_leader(contenders);
    contenders[old].pause();
    observe(contenders, Duration::from_millis(50));
    meanwhile();
    observe_until(contenders, "another one leads", || leader(contenders).is_some_and(|found| found != old));
    contenders[old].resume();
    observe_until(contenders, "the paused one learns of its loss", || !contenders[old].believes());
    observe(contenders, Duration::from_secs(2));
    (old, wait_for_leader(contenders))
}

/// Does this while the API server is asked all the time, and again where its slowest answer alone may have cost a lease.
/// The one that counts is answered.
async fn while_it_answers<T>(lease: &Api<Lease>, mut work: impl FnMut() -> T) -> T {
    for _ in 0..5 {
        let (api, slowest) = (lease.clone(), Arc::new(Mutex::new(Duration::ZERO)));
        let kept = slowest.clone();
        let probe = tokio::spawn(async move {
            loop {
                let asked = Instant::now();
                // The pause belongs to it: a machine on which it takes seconds stalls the contenders as well.
                let _ = api.get_opt(LEASE).await;
                tokio::time::sleep(Duration::from_millis(20)).await;
                let mut kept = kept.lock().unwrap();
                *kept = kept.max(asked.elapsed());
            }
        });
        let done = tokio::task::block_in_place(&mut work);
        probe.abort();
        let slowest = *slowest.lock().unwrap();
        if slowest < STALL {
            return done;
        }
        println!("again: the API server took {slowest:?} for an answer");
    }
    panic!("the API server never answered in less than {STALL:?} for a while");
}

async fn holder(lease: &Api<Lease>) -> String {
    let found = lease.get(LEASE).await.unwrap();
    found.spec.and_then(|spec| spec.holder_identity).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_contenders_never_lead_together_and_one_always_takes_over() {
    let testbed = Testbed::builder().without_kwok().start().await.unwrap();
    let kubeconfig = testbed.admin_kubeconfig().to_path_buf();
    let lease: Api<Lease> = Api::namespaced(testbed.client().clone(), NAMESPACE);
    let terms = Terms::default();
    let mut contenders: Vec<Contender> =
        (0..3).map(|index| Contender::start(index, kubeconfig.clone(), terms.clone())).collect();
    wait_for_leader(&contenders);
    let started = Instant::now();

    // The leader keeps the lease while nothing happens, and nothing is lost by pauses shorter than what is left of it.
    let (gap, new_terms) = while_it_answers(&lease, || {
        let before = terms.lock().unwrap().len();
        let mut gap = observe(&contenders, Duration::from_secs(3));
        for _ in 0..3 {
            let paused = &contenders[wait_for_leader(&contenders)];
            paused.pause();
            gap = gap.max(observe(&contenders, Duration::from_millis(1_200)));
            paused.resume();
            gap = gap.max(observe(&contenders, Duration::from_millis(1_500)));
        }
        (gap, terms.lock().unwrap().len() - before)
    })
    .await;
    assert_eq!(gap, Duration::ZERO, "a leader that was paused shortly was not leading for {gap:?}");
    assert_eq!(new_terms, 0, "a short pause cost the leadership");
    println!("kept: {:?}", started.elapsed());

    // Paused past its lease, the leader is replaced, and learns of it when it goes on.
    for round in 0..2 {
        let (paused, successor) = replace_leader(&contenders, || ());
        assert_ne!(successor, paused, "round {round}: the paused contender still leads");
    }
    println!("replaced: {:?}", started.elapsed());

    // All paused at once past the lease, and the API server restarted: someone leads again, never two.
    contenders.iter().for_each(Contender::pause);
    observe(&contenders, TIMING.duration + Duration::from_secs(1));
    assert_eq!(leader(&contenders), None, "a contender leads that is paused past its lease");
    contenders.iter().for_each(Contender::resume);
    wait_for_leader(&contenders);
    testbed.restart_apiserver().await.unwrap();
    wait_for_leader(&contenders);
    println!("restarted: {:?}", started.elapsed());

    // Whoever takes or keeps a Lease that is deleted, also while its holder is paused, leads alone, and epochs go on.
    lease.delete(LEASE, &DeleteParams::default()).await.unwrap();
    observe(&contenders, TIMING.duration + Duration::from_secs(2));
    wait_for_leader(&contenders);
    let (runtime, api) = (tokio::runtime::Handle::current(), lease.clone());
    tokio::task::block_in_place(|| {
        replace_leader(&contenders, || {
            runtime.block_on(api.delete(LEASE, &DeleteParams::default())).unwrap();
        })
    });
    println!("deleted: {:?}", started.elapsed());

    // Epochs only grow.
    let seen: Vec<i64> = terms.lock().unwrap().iter().map(|(_, epoch)| *epoch).collect();
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "epochs do not grow: {seen:?}");
    let held = lease.get(LEASE).await.unwrap().spec.and_then(|spec| spec.lease_transitions).unwrap_or_default();
    assert!(
        seen.last().is_some_and(|last| i64::from(held) >= *last),
        "the Lease forgot epoch {:?}: {held}",
        seen.last()
    );

    // A raised epoch is one that the Lease holds, and the next term's is larger.
    let leader = wait_for_leader(&contenders);
    let leadership = contenders[leader].current.lock().unwrap().clone().expect("it leads");
    assert!(leadership.raise_epoch(1_000).await);
    let held = lease.get(LEASE).await.unwrap().spec.and_then(|spec| spec.lease_transitions);
    assert_eq!((held, leadership.epoch()), (Some(1_000), 1_000));

    // A graceful end releases the Lease: the next one need not wait for it to expire.
    let leader = wait_for_leader(&contenders);
    let released = Instant::now();
    contenders.remove(leader).end();
    wait_for_leader(&contenders);
    assert!(released.elapsed() < TIMING.duration / 2, "took over {:?} after the release", released.elapsed());
    assert!(terms.lock().unwrap().last().is_some_and(|(_, epoch)| *epoch > 1_000), "the raised epoch was forgotten");
    for contender in contenders {
        contender.end();
    }
    assert_eq!(holder(&lease).await, "", "the last one leaves the Lease free");
}
