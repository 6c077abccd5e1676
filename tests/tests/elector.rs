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
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

const LEASE: &str = "contended";
const NAMESPACE: &str = "kube-system";
const TIMING: LeaseTiming = LeaseTiming {
    duration: Duration::from_secs(3),
    renew_deadline: Duration::from_millis(2_000),
    retry_period: Duration::from_millis(400),
};

/// A contender on a thread and a runtime of its own, so that it can be paused like a process.
struct Contender {
    current: Arc<Mutex<Option<Leadership>>>,
    pauses: mpsc::Sender<Duration>,
    stop: CancellationToken,
    thread: thread::JoinHandle<()>,
}

/// Every term that began, in order: contender and epoch.
type Terms = Arc<Mutex<Vec<(usize, i64)>>>;

impl Contender {
    fn start(index: usize, kubeconfig: PathBuf, terms: Terms) -> Self {
        let current: Arc<Mutex<Option<Leadership>>> = Arc::default();
        let (pauses, requested) = mpsc::channel::<Duration>();
        let stop = CancellationToken::new();
        let (shown, stopped) = (current.clone(), stop.clone());
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                tokio::spawn(async move {
                    loop {
                        while let Ok(pause) = requested.try_recv() {
                            // Blocks the only thread of this runtime: nothing of this contender moves meanwhile.
                            thread::sleep(pause);
                        }
                        tokio::time::sleep(Duration::from_millis(5)).await;
                    }
                });
                contend(index, kubeconfig, &shown, &terms, stopped).await;
            });
        });
        Self { current, pauses, stop, thread }
    }

    fn leads(&self) -> bool {
        self.current.lock().unwrap().as_ref().is_some_and(|leadership| leadership.permits(Duration::from_millis(1)))
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

/// Looks at all contenders for so long, every other millisecond. Answers the longest time without any leader.
fn observe(contenders: &[Contender], period: Duration) -> Duration {
    let (start, mut led_at, mut longest) = (Instant::now(), Instant::now(), Duration::ZERO);
    while start.elapsed() < period {
        let leaders: Vec<usize> = (0..contenders.len()).filter(|&index| contenders[index].leads()).collect();
        assert!(leaders.len() <= 1, "contenders {leaders:?} lead at the same moment");
        if leaders.len() == 1 {
            led_at = Instant::now();
        }
        longest = longest.max(led_at.elapsed());
        thread::sleep(Duration::from_millis(2));
    }
    longest
}

fn wait_for_leader(contenders: &[Contender], limit: Duration) -> usize {
    let start = Instant::now();
    loop {
        observe(contenders, Duration::from_millis(20));
        if let Some(leader) = contenders.iter().position(Contender::leads) {
            return leader;
        }
        assert!(start.elapsed() < limit, "nobody leads after {limit:?}");
    }
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
    wait_for_leader(&contenders, Duration::from_secs(10));

    // The leader keeps the lease while nothing happens.
    let gap = observe(&contenders, Duration::from_secs(4));
    assert!(gap < Duration::from_millis(100), "a healthy leader was not leading for {gap:?}");
    assert_eq!(terms.lock().unwrap().len(), 1);

    // Paused past its lease, the leader is replaced, and learns of it when it goes on.
    for round in 0_u64..4 {
        let leader = wait_for_leader(&contenders, Duration::from_secs(10));
        let pause = Duration::from_millis(3_600 + 300 * round);
        contenders[leader].pauses.send(pause).unwrap();
        observe(&contenders, pause + Duration::from_secs(2));
        let successor = wait_for_leader(&contenders, Duration::from_secs(10));
        assert_ne!(successor, leader, "round {round}: the paused contender still leads");
    }
    // Pauses shorter than what is left of the lease change nothing.
    let before = terms.lock().unwrap().len();
    for _ in 0..3 {
        let leader = wait_for_leader(&contenders, Duration::from_secs(10));
        contenders[leader].pauses.send(Duration::from_millis(700)).unwrap();
        observe(&contenders, Duration::from_millis(1_500));
    }
    assert_eq!(terms.lock().unwrap().len(), before, "a short pause cost the leadership");

    // All paused at once, and the API server restarted: someone leads again, never two.
    for contender in &contenders {
        contender.pauses.send(Duration::from_secs(4)).unwrap();
    }
    observe(&contenders, Duration::from_secs(5));
    wait_for_leader(&contenders, Duration::from_secs(15));
    testbed.restart_apiserver().await.unwrap();
    wait_for_leader(&contenders, Duration::from_secs(20));

    // Whoever takes or keeps a Lease that is deleted, also while its holder is paused, leads alone, and epochs go on.
    for pause in [0, 3_600] {
        let leader = wait_for_leader(&contenders, Duration::from_secs(10));
        contenders[leader].pauses.send(Duration::from_millis(pause)).unwrap();
        observe(&contenders, Duration::from_millis(50));
        lease.delete(LEASE, &DeleteParams::default()).await.unwrap();
        observe(&contenders, Duration::from_secs(5));
        wait_for_leader(&contenders, Duration::from_secs(10));
    }

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
    let leader = wait_for_leader(&contenders, Duration::from_secs(10));
    let leadership = contenders[leader].current.lock().unwrap().clone().expect("it leads");
    assert!(leadership.raise_epoch(1_000).await);
    let held = lease.get(LEASE).await.unwrap().spec.and_then(|spec| spec.lease_transitions);
    assert_eq!((held, leadership.epoch()), (Some(1_000), 1_000));

    // A graceful end releases the Lease: the next one need not wait for it to expire.
    let leader = wait_for_leader(&contenders, Duration::from_secs(10));
    let released = Instant::now();
    contenders.remove(leader).end();
    wait_for_leader(&contenders, Duration::from_secs(5));
    assert!(released.elapsed() < Duration::from_millis(1_500), "took over {:?} after the release", released.elapsed());
    assert!(terms.lock().unwrap().last().is_some_and(|(_, epoch)| *epoch > 1_000), "the raised epoch was forgotten");
    for contender in contenders {
        contender.end();
    }
    assert_eq!(holder(&lease).await, "", "the last one leaves the Lease free");
}
