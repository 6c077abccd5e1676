//! Single pods on a real control plane: placed, refused with kube-scheduler's words, and counted.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::SCHEDULER;
use flowforge_tests::metrics::{Scrape, get};
use flowforge_tests::skip;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{ListParams, PostParams};
use scheduler::{create, install, is_live, namespace, node_of, pod, pods, refused, unscheduled, until};
use serde_json::json;
use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn single_pods_are_placed_or_refused_as_kube_scheduler_would() {
    let testbed = scheduler::testbed(Profile::DgxH100, 3).await;
    let installation = install(&testbed, "schedulerNames: [flowforge, other-name]\n").await;
    // Before that a list may be refused: the API server learns its roles and bindings by watches of its own.
    let ready_at = testbed.logs(SCHEDULER).text().len();
    a_pod_is_bound_with_its_event(&testbed).await;
    both_scheduler_names_are_served_and_others_are_not(&testbed).await;
    a_refusal_reads_as_kube_schedulers(&testbed).await;
    an_absurd_request_does_no_harm(&testbed).await;
    a_gated_pod_waits_for_its_gate(&testbed).await;
    a_pod_waits_for_its_claim(&testbed).await;
    metrics_are_sound(installation.scheduler).await;
    nothing_was_forbidden(&testbed, ready_at);
}

async fn a_pod_is_bound_with_its_event(testbed: &Testbed) {
    namespace(testbed, "single").await;
    create(testbed, "single", vec![pod("one", "8")]).await;
    let node = until("the pod runs", SOON, || async {
        let found = pods(testbed, "single", "").await;
        let phase = found[0].status.as_ref().and_then(|status| status.phase.clone());
        node_of(&found[0])
            .filter(|_| phase.as_deref() == Some("Running"))
            .map(str::to_owned)
            .ok_or(format!("{phase:?}"))
    })
    .await;
    let events: Api<Event> = Api::namespaced(testbed.client().clone(), "single");
    let event = until("its event is written", SOON, || async {
        let found = events.list(&ListParams::default()).await.unwrap().items;
        found.into_iter().find(|event| event.reason.as_deref() == Some("Scheduled")).ok_or("none yet".to_owned())
    })
    .await;
    assert_eq!(event.note.as_deref(), Some(format!("Successfully assigned single/one to {node}").as_str()));
    assert_eq!(event.reporting_controller.as_deref(), Some("flowforge"));
    assert_eq!((event.action.as_deref(), event.type_.as_deref()), (Some("Binding"), Some("Normal")));
    assert_eq!(event.regarding.unwrap().name.as_deref(), Some("one"));
}

async fn both_scheduler_names_are_served_and_others_are_not(testbed: &Testbed) {
    namespace(testbed, "names").await;
    let mut ours = pod("ours", "1");
    ours["spec"]["schedulerName"] = json!("other-name");
    let mut foreign = pod("foreign", "1");
    foreign["spec"]["schedulerName"] = json!("nobody");
    create(testbed, "names", vec![foreign, ours]).await;
    until("the pod of the second name is bound", SOON, || async {
        let found = pods(testbed, "names", "").await;
        found
            .iter()
            .any(|pod| pod.metadata.name.as_deref() == Some("ours") && is_live(pod))
            .then_some(())
            .ok_or_else(|| "no".to_owned())
    })
    .await;
    let found = pods(testbed, "names", "").await;
    let foreign = found.iter().find(|pod| pod.metadata.name.as_deref() == Some("foreign")).unwrap();
    assert_eq!((node_of(foreign), unscheduled(foreign)), (None, None), "a stranger's pod was touched");
}

async fn a_refusal_reads_as_kube_schedulers(testbed: &Testbed) {
    namespace(testbed, "refused").await;
    let mut selects = pod("selects", "1");
    selects["spec"]["nodeSelector"] = json!({"no-such-label": "x"});
    create(testbed, "refused", vec![pod("many", "9"), selects]).await;
    let (reason, message) = refused(testbed, "refused", "name=many", "").await;
    assert_eq!(reason, "Unschedulable");
    assert!(message.starts_with("0/3 nodes are available: 3 Insufficient nvidia.com/gpu."), "{message}");
    let (_, message) = refused(testbed, "refused", "name=selects", "").await;
    assert!(
        message.starts_with("0/3 nodes are available: 3 node(s) didn't match Pod's node affinity/selector."),
        "{message}"
    );
    let events: Api<Event> = Api::namespaced(testbed.client().clone(), "refused");
    until("the refusals are events", SOON, || async {
        let found = events.list(&ListParams::default()).await.unwrap().items;
        let failed = found.iter().filter(|event| event.reason.as_deref() == Some("FailedScheduling")).count();
        if failed >= 2 { Ok(()) } else { Err(format!("{failed} events")) }
    })
    .await;
}

async fn an_absurd_request_does_no_harm(testbed: &Testbed) {
    namespace(testbed, "absurd").await;
    // More thousandths than 64 bits hold: the API server itself refuses what asks for 10^18.
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "absurd");
    let beyond = serde_json::from_value(pod("beyond", "1000000000000000000")).unwrap();
    assert!(
        matches!(api.create(&PostParams::default(), &beyond).await, Err(kube::Error::Api(status)) if status.code == 422)
    );
    // The most that it lets through, in two containers, so that the sum is beyond it.
    let mut huge = pod("huge", "9000000000000000");
    let second = huge["spec"]["containers"][0].clone();
    huge["spec"]["containers"].as_array_mut().unwrap().push(second);
    huge["spec"]["containers"][1]["name"] = json!("second");
    create(testbed, "absurd", vec![huge]).await;
    let (_, message) = refused(testbed, "absurd", "name=huge", "").await;
    assert!(message.contains("3 Insufficient nvidia.com/gpu"), "{message}");
    create(testbed, "absurd", vec![pod("small", "1")]).await;
    until("the next pod is bound", SOON, || async {
        let live = pods(testbed, "absurd", "").await.iter().filter(|pod| is_live(pod)).count();
        if live == 1 { Ok(()) } else { Err(format!("{live}")) }
    })
    .await;
}

async fn a_gated_pod_waits_for_its_gate(testbed: &Testbed) {
    namespace(testbed, "gated").await;
    let mut gated = pod("gated", "1");
    gated["spec"]["schedulingGates"] = json!([{"name": "example.com/wait"}]);
    create(testbed, "gated", vec![gated]).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!is_live(&pods(testbed, "gated", "").await[0]));
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "gated");
    let open = json!({"spec": {"schedulingGates": null}});
    api.patch("gated", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(open)).await.unwrap();
    until("the pod is bound", SOON, || async {
        is_live(&pods(testbed, "gated", "").await[0]).then_some(()).ok_or_else(|| "no".to_owned())
    })
    .await;
}

async fn a_pod_waits_for_its_claim(testbed: &Testbed) {
    namespace(testbed, "claims").await;
    let mut mounts = pod("mounts", "1");
    mounts["spec"]["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "absent-claim"}}]);
    create(testbed, "claims", vec![mounts]).await;
    let (_, message) = refused(testbed, "claims", "name=mounts", "").await;
    assert!(message.contains("persistentvolumeclaim \"absent-claim\" not found"), "{message}");
    testbed
        .apply_yaml(
            "
apiVersion: v1
kind: PersistentVolume
metadata: {name: claims-pv}
spec:
  capacity: {storage: 1Gi}
  accessModes: [ReadWriteMany]
  storageClassName: manual
  hostPath: {path: /tmp/claims}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: absent-claim, namespace: claims}
spec:
  accessModes: [ReadWriteMany]
  storageClassName: manual
  resources: {requests: {storage: 1Gi}}
",
        )
        .await
        .unwrap();
    until("the pod is bound once its claim is", Duration::from_secs(60), || async {
        let found = pods(testbed, "claims", "").await;
        is_live(&found[0]).then_some(()).ok_or_else(|| format!("{:?}", unscheduled(&found[0])))
    })
    .await;
}

async fn metrics_are_sound(address: SocketAddr) {
    let scrape = Scrape::of(address).await.unwrap();
    assert!(scrape.sum("scheduler_schedule_attempts_total", "result=\"scheduled\"") >= 4.0);
    assert!(scrape.sum("scheduler_schedule_attempts_total", "result=\"unschedulable\"") >= 3.0);
    assert!(scrape.sum("scheduler_pod_scheduling_sli_duration_seconds_count", "") >= 4.0);
    assert!(scrape.sum("scheduler_pending_pods", "queue=\"unschedulable\"") >= 3.0);
    assert!(scrape.sum("scheduler_unschedulable_pods", "plugin=\"NodeResourcesFit\"") >= 2.0);
    assert_eq!(scrape.sum("flowforge_leader", ""), 1.0);
    assert_eq!(scrape.sum("scheduler_cache_size", "type=\"nodes\""), 3.0);
    assert_eq!(scrape.sum("flowforge_queue_items_total", "direction=\"dropped\""), 0.0);
    let text = get(address, "/metrics").await.unwrap();
    promtool(&text);
}

/// Prometheus's own linter; a machine without it cannot run this part.
fn promtool(text: &str) {
    use std::io::Write as _;
    let mut promtool = std::process::Command::new("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = match promtool.spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return skip("prometheus", "there is no promtool here (Debian: apt-get install prometheus)");
        }
        Err(error) => panic!("promtool: {error}"),
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.trim().is_empty(), "promtool: {said}");
}

/// From this byte of its log on the scheduler could do all that it wanted to.
fn nothing_was_forbidden(testbed: &Testbed, ready_at: usize) {
    let log = testbed.logs(SCHEDULER).text();
    for bad in ["panicked", "cannot be decoded"] {
        assert!(!log.contains(bad), "{bad:?} is in the scheduler's log:\n{log}");
    }
    for line in log[ready_at..].lines() {
        let line = line.to_lowercase();
        assert!(!line.contains("forbidden") && !line.contains("a report was refused"), "{line}");
    }
}
