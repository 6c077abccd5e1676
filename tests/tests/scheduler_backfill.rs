//! Reservations in time on a real control plane: a big gang waits its turn, short work runs meanwhile, and it starts.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::metrics::Scrape;
use scheduler::{
    assert_no_overcommit, bound, create, delete, gang, install, is_live, namespace, pod, pods, refused, until,
};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::time::Duration;

/// What ends for certain, however busy the machine is.
const AT_LAST: Duration = Duration::from_secs(120);
const NS: &str = "turns";

fn declares(mut pod: Value, duration: &str) -> Value {
    pod["metadata"]["annotations"] = json!({"flowforge.dev/expected-duration": duration});
    pod
}

async fn is_bound(testbed: &Testbed, name: &str) {
    until(&format!("{name} is bound"), AT_LAST, || async {
        let found = pods(testbed, NS, &format!("name={name}")).await;
        if found.iter().any(is_live) {
            Ok(())
        } else {
            Err(format!("{:?}", found.iter().find_map(scheduler::unscheduled)))
        }
    })
    .await;
}

async fn measured(scheduler: SocketAddr, metric: &str, expected: f64) {
    until(&format!("{metric} is {expected}"), AT_LAST, || async {
        let value = Scrape::of(scheduler).await.unwrap().sum(metric, "");
        if value == expected { Ok(()) } else { Err(format!("it is {value}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_big_gang_is_promised_its_turn_and_only_short_work_runs_meanwhile() {
    let testbed = scheduler::testbed(Profile::DgxH100, 2).await;
    let installation = install(&testbed, "").await;
    namespace(&testbed, NS).await;
    // One node is busy, the other has 6 of 8 GPUs idle; both have ends that are declared, one by its deadline.
    create(&testbed, NS, vec![declares(pod("whole", "8"), "10m")]).await;
    is_bound(&testbed, "whole").await;
    let mut part = pod("part", "2");
    part["spec"]["activeDeadlineSeconds"] = json!(600);
    create(&testbed, NS, vec![part]).await;
    is_bound(&testbed, "part").await;
    create(&testbed, NS, gang("big", 2, "8")).await;
    refused(&testbed, NS, "flowforge.dev/gang=big", "Insufficient nvidia.com/gpu").await;
    measured(installation.scheduler, "flowforge_reservations_active", 1.0).await;

    create(&testbed, NS, vec![pod("long", "1"), declares(pod("wrong", "1"), "2 hours")]).await;
    let (reason, message) = refused(&testbed, NS, "name=long", "reserved for gang turns/big until 20").await;
    assert_eq!(reason, "Unschedulable", "{message}");
    refused(&testbed, NS, "name=wrong", "annotation flowforge.dev/expected-duration is no duration").await;
    create(&testbed, NS, vec![declares(pod("short", "1"), "1m")]).await;
    is_bound(&testbed, "short").await;
    measured(installation.scheduler, "flowforge_backfilled_pods_total", 1.0).await;

    for name in ["whole", "part", "short"] {
        delete(&testbed, NS, &format!("name={name}")).await;
    }
    bound(&testbed, NS, "big", 2, AT_LAST).await;
    measured(installation.scheduler, "flowforge_reservations_active", 0.0).await;
    assert!(!pods(&testbed, NS, "name=long").await.iter().any(is_live), "the gang has both nodes");
    assert_no_overcommit(&testbed, "nvidia.com/gpu").await;
    delete(&testbed, NS, "flowforge.dev/gang=big").await;
    is_bound(&testbed, "long").await;
    is_bound(&testbed, "wrong").await;
}
