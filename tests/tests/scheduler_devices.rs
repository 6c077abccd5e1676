//! Devices (DRA) on a real control plane: claims are allocated and reserved before their pods are bound, a gang gets all its
//! devices or none, no device is held twice, and what ends gives its devices back.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::SCHEDULER;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::resource::v1::{
    DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use scheduler::devices::{assert_held_once, claims, devices_of, is_bound};
use scheduler::{
    create, delete, gang, install, install_with_short_lease, members, namespace, node_names, node_of, open_intents,
    patiently, pod, pods, unscheduled, until,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const DRIVER: &str = "gpu.example";
const SPACE: &str = "devices";

/// One test at a time: each has a control plane of its own.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

async fn make<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    let parameters = PostParams::default();
    patiently("create an object", || api.create(&parameters, &object)).await;
}

/// Gives a node so many devices of a model, numbered from 0.
async fn give(testbed: &Testbed, node: &str, count: usize, model: &str, more: Value) {
    let device = |number: usize| {
        let mut device = json!({"name": format!("gpu-{number}"), "attributes": {"model": {"string": model}}});
        for (key, value) in more.as_object().into_iter().flatten() {
            device[key] = value.clone();
        }
        device
    };
    let devices: Vec<Value> = (0..count).map(device).collect();
    let slice = json!({
        "metadata": {"name": format!("{node}-{model}").to_lowercase()},
        "spec": {
            "driver": DRIVER, "nodeName": node, "devices": devices,
            "pool": {"name": format!("{node}-{model}").to_lowercase(), "generation": 1, "resourceSliceCount": 1},
        },
    });
    make::<ResourceSlice>(&Api::all(testbed.client().clone()), slice).await;
}

/// The class of all devices, and a template for claims of so many devices that a selector takes.
async fn declare(testbed: &Testbed, templates: &[(&str, usize, &str)]) {
    let class = json!({"metadata": {"name": "gpu"}, "spec": {"selectors": [
        {"cel": {"expression": format!("device.driver == '{DRIVER}'")}},
    ]}});
    make::<DeviceClass>(&Api::all(testbed.client().clone()), class).await;
    for (name, count, selector) in templates {
        let request = json!({"name": "gpus", "exactly": {
            "deviceClassName": "gpu", "count": count, "selectors": [{"cel": {"expression": selector}}],
        }});
        let template = json!({"metadata": {"name": name}, "spec": {"spec": {"devices": {"requests": [request]}}}});
        make::<ResourceClaimTemplate>(&Api::namespaced(testbed.client().clone(), SPACE), template).await;
    }
}

/// A pod that asks for devices as a template says.
fn claiming(name: &str, template: &str) -> Value {
    with_claim(pod(name, "0"), template)
}

fn with_claim(mut pod: Value, template: &str) -> Value {
    pod["metadata"]["labels"]["template"] = json!(template);
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}, "claims": [{"name": "gpus"}]});
    pod["spec"]["resourceClaims"] = json!([{"name": "gpus", "resourceClaimTemplateName": template}]);
    pod
}

/// Checks that no device is held by two claims, that every live pod's claim is reserved for it, and that its devices are
/// those of its node; answers how many devices are held.
async fn assert_sound(testbed: &Testbed) -> usize {
    assert_held_once(testbed, SPACE, assert_served).await
}

fn assert_served(pod: &Pod, claims: &[ResourceClaim]) {
    let node = node_of(pod).unwrap();
    for claim in claim_names(pod) {
        let Some(claim) = claims.iter().find(|found| found.metadata.name.as_deref() == Some(&claim)) else {
            panic!("claim {claim} of a live pod is gone");
        };
        let reserved = claim.status.as_ref().and_then(|status| status.reserved_for.as_ref());
        let for_it = |uid: &str| Some(uid) == pod.metadata.uid.as_deref();
        assert!(reserved.into_iter().flatten().any(|consumer| for_it(&consumer.uid)), "{claim:?} for {pod:?}");
        let devices = devices_of(claim);
        assert!(!devices.is_empty() && devices.iter().all(|device| device.starts_with(node)), "{devices:?} on {node}");
    }
}

/// Names of a pod's claims that were made from templates.
fn claim_names(pod: &Pod) -> Vec<String> {
    let statuses = pod.status.as_ref().and_then(|status| status.resource_claim_statuses.as_ref());
    statuses.into_iter().flatten().filter_map(|status| status.resource_claim_name.clone()).collect()
}

async fn is_refused(testbed: &Testbed, name: &str, why: &str) {
    until(&format!("{name} is refused"), SOON, || async {
        let pods = pods(testbed, SPACE, "").await;
        let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).ok_or("it is not there")?;
        assert_eq!(node_of(pod), None, "{name} has a place");
        let told = unscheduled(pod).ok_or("no condition yet")?;
        if told.1.contains(why) { Ok(()) } else { Err(told.1) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_are_allocated_before_their_pods_are_bound_and_free_after_them() {
    let _turn = TURN.lock().await;
    let testbed = scheduler::testbed(Profile::DgxH100, 3).await;
    install(&testbed, "").await;
    namespace(&testbed, SPACE).await;
    let nodes = node_names(&testbed).await;
    give(&testbed, &nodes[0], 2, "a100", json!({})).await;
    give(&testbed, &nodes[1], 1, "h100", json!({})).await;
    let model = |model: &str| format!("device.attributes['{DRIVER}'].model == '{model}'");
    declare(&testbed, &[("one-h100", 1, &model("h100")), ("two-a100", 2, &model("a100")), ("none", 1, &model("b200"))])
        .await;
    create(&testbed, SPACE, vec![claiming("first", "one-h100"), claiming("pair", "two-a100")]).await;
    assert_eq!(
        [is_bound(&testbed, SPACE, "first").await, is_bound(&testbed, SPACE, "pair").await],
        [nodes[1].clone(), nodes[0].clone()]
    );
    assert_eq!(assert_sound(&testbed).await, 3);

    create(&testbed, SPACE, vec![claiming("waits", "one-h100"), claiming("never", "none")]).await;
    is_refused(&testbed, "waits", "3 cannot allocate all claims").await;
    is_refused(&testbed, "never", "3 cannot allocate all claims").await;
    delete(&testbed, SPACE, "template=two-a100").await;
    is_refused(&testbed, "waits", "3 cannot allocate all claims").await;
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), SPACE);
    api.delete("first", &DeleteParams::default()).await.unwrap();
    assert_eq!(is_bound(&testbed, SPACE, "waits").await, nodes[1]);
    assert_eq!(assert_sound(&testbed).await, 1, "what ended holds nothing");

    // A new slice is enough for the one that waits for its model.
    give(&testbed, &nodes[2], 1, "b200", json!({})).await;
    assert_eq!(is_bound(&testbed, SPACE, "never").await, nodes[2]);
    a_claim_by_name_is_shared(&testbed, &nodes[0]).await;
    a_stuck_claim_is_given_up(&testbed, &nodes[0], &nodes[2]).await;
    conditions_are_waited_for(&testbed, &nodes[2]).await;
}

/// A claim that is there already is for all pods that name it, on the node that it was allocated for.
async fn a_claim_by_name_is_shared(testbed: &Testbed, node: &str) {
    let request = json!({"name": "gpus", "exactly": {"deviceClassName": "gpu", "count": 2, "selectors": [
        {"cel": {"expression": format!("device.attributes['{DRIVER}'].model == 'a100'")}},
    ]}});
    let claim = json!({"metadata": {"name": "common"}, "spec": {"devices": {"requests": [request]}}});
    let sharing = |name: &str| {
        let mut pod = claiming(name, "common");
        pod["spec"]["resourceClaims"] = json!([{"name": "gpus", "resourceClaimName": "common"}]);
        pod
    };
    create(testbed, SPACE, vec![sharing("early")]).await;
    is_refused(testbed, "early", "could not find ResourceClaim").await;
    make::<ResourceClaim>(&Api::namespaced(testbed.client().clone(), SPACE), claim).await;
    create(testbed, SPACE, vec![sharing("late")]).await;
    assert_eq!([is_bound(testbed, SPACE, "early").await, is_bound(testbed, SPACE, "late").await], [node, node]);
    let api: Api<ResourceClaim> = Api::namespaced(testbed.client().clone(), SPACE);
    let common = api.get("common").await.unwrap();
    assert_eq!(common.status.unwrap().reserved_for.unwrap_or_default().len(), 2);
    delete(testbed, SPACE, "template=common").await;
    until("the claim is free again", SOON, || async {
        let status = api.get("common").await.unwrap().status.unwrap_or_default();
        if status.allocation.is_none() { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
}

/// A claim that is allocated where its pod may not stand, and that nobody reserves, gets other devices.
async fn a_stuck_claim_is_given_up(testbed: &Testbed, node: &str, other: &str) {
    give(testbed, other, 1, "a100", json!({})).await;
    let request = json!({"name": "gpus", "exactly": {"deviceClassName": "gpu", "selectors": [
        {"cel": {"expression": format!("device.attributes['{DRIVER}'].model == 'a100'")}},
    ]}});
    let claim = json!({"metadata": {"name": "stuck"}, "spec": {"devices": {"requests": [request]}}});
    let api: Api<ResourceClaim> = Api::namespaced(testbed.client().clone(), SPACE);
    make(&api, claim).await;
    let only = json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}]);
    let pool = format!("{node}-a100").to_lowercase();
    let result = json!({"request": "gpus", "driver": DRIVER, "pool": pool, "device": "gpu-0"});
    let allocation = json!({"devices": {"results": [result]}, "nodeSelector": {"nodeSelectorTerms": only}});
    let patch = json!({"status": {"allocation": allocation}});
    api.patch_status("stuck", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    let cordon = |cordoned: bool| {
        let patch = json!({"spec": {"unschedulable": cordoned}});
        let nodes = nodes.clone();
        async move { nodes.patch(node, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap() }
    };
    cordon(true).await;
    let mut pod = claiming("unstuck", "stuck");
    pod["spec"]["resourceClaims"] = json!([{"name": "gpus", "resourceClaimName": "stuck"}]);
    create(testbed, SPACE, vec![pod]).await;
    assert_eq!(is_bound(testbed, SPACE, "unstuck").await, other);
    assert_eq!(devices_of(&api.get("stuck").await.unwrap()), [format!("{other}-a100/gpu-0").to_lowercase()]);
    cordon(false).await;
    delete(testbed, SPACE, "template=stuck").await;
}

/// A device that has to be attached first: its pod is bound when the driver says that it is.
async fn conditions_are_waited_for(testbed: &Testbed, node: &str) {
    let more = json!({"bindingConditions": ["attached"], "bindingFailureConditions": ["broken"], "bindsToNode": true});
    give(testbed, node, 1, "remote", more).await;
    let selector = format!("device.attributes['{DRIVER}'].model == 'remote'");
    let request = json!({"name": "gpus", "exactly": {
        "deviceClassName": "gpu", "selectors": [{"cel": {"expression": selector}}],
    }});
    let template = json!({"metadata": {"name": "remote"}, "spec": {"spec": {"devices": {"requests": [request]}}}});
    make::<ResourceClaimTemplate>(&Api::namespaced(testbed.client().clone(), SPACE), template).await;
    create(testbed, SPACE, vec![claiming("patient", "remote")]).await;
    let (name, device) = until("the device is allocated", SOON, || async {
        let claims = claims(testbed, SPACE).await;
        let found = claims.iter().find(|claim| devices_of(claim).iter().any(|device| device.contains("remote")));
        found.map(|claim| (claim.metadata.name.clone().unwrap(), devices_of(claim)[0].clone())).ok_or("no".to_owned())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let patient = pods(testbed, SPACE, "template=remote").await;
    assert_eq!(node_of(&patient[0]), None, "bound before its device is attached");
    let (pool, device) = device.split_once('/').unwrap();
    let condition = json!({"type": "attached", "status": "True", "reason": "Test", "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"driver": DRIVER, "pool": pool, "device": device, "conditions": [condition]});
    let api: Api<ResourceClaim> = Api::namespaced(testbed.client().clone(), SPACE);
    let patch = json!({"status": {"devices": [status]}});
    api.patch_status(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(is_bound(testbed, SPACE, "patient").await, node);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gang_gets_all_its_devices_or_none() {
    let _turn = TURN.lock().await;
    let testbed = scheduler::testbed(Profile::DgxH100, 3).await;
    install(&testbed, "").await;
    namespace(&testbed, SPACE).await;
    let nodes = node_names(&testbed).await;
    give(&testbed, &nodes[0], 4, "gpu", json!({})).await;
    give(&testbed, &nodes[1], 4, "gpu", json!({})).await;
    declare(&testbed, &[("two", 2, "true")]).await;
    // One device is unhealthy: of four members of two devices each only three fit.
    let rules: Api<DeviceTaintRule> = Api::all(testbed.client().clone());
    let rule = json!({"metadata": {"name": "unhealthy"}, "spec": {
        "deviceSelector": {"driver": DRIVER, "pool": format!("{}-gpu", nodes[1]), "device": "gpu-3"},
        "taint": {"key": "unhealthy", "effect": "NoSchedule"},
    }});
    make(&rules, rule).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let wide: Vec<Value> = gang("wide", 4, "0").into_iter().map(|member| with_claim(member, "two")).collect();
    create(&testbed, SPACE, wide).await;
    until("every member is refused", SOON, || async {
        let refused: Vec<_> = members(&testbed, SPACE, "wide").await.iter().filter_map(unscheduled).collect();
        let told = refused.iter().filter(|(_, message)| message.contains("cannot allocate all claims")).count();
        if told == 4 { Ok(()) } else { Err(format!("{refused:?}")) }
    })
    .await;
    for _ in 0..20 {
        assert!(members(&testbed, SPACE, "wide").await.iter().all(|pod| node_of(pod).is_none()));
        assert_eq!(assert_sound(&testbed).await, 0, "nothing is allocated for a gang that does not fit");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    rules.delete("unhealthy", &DeleteParams::default()).await.unwrap();
    scheduler::bound(&testbed, SPACE, "wide", 4, SOON).await;
    assert_eq!(assert_sound(&testbed).await, 8);
    delete(&testbed, SPACE, "flowforge.dev/gang=wide").await;
    until("the devices are free", SOON, || async {
        let held = assert_sound(&testbed).await;
        if held == 0 { Ok(()) } else { Err(format!("{held} are held")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_dies_among_claims_leaves_nothing_half_done() {
    const GANGS: usize = 6;
    const SIZE: usize = 4;
    let _turn = TURN.lock().await;
    let testbed = scheduler::testbed(Profile::DgxH100, 6).await;
    let installation = install_with_short_lease(&testbed, "binding: {parallelRequests: 3}\n").await;
    namespace(&testbed, SPACE).await;
    for node in node_names(&testbed).await {
        give(&testbed, &node, 8, "gpu", json!({})).await;
    }
    declare(&testbed, &[("two", 2, "true")]).await;
    for round in 0..3 {
        let all = (0..GANGS).flat_map(|number| gang(&format!("g{round}-{number}"), SIZE, "0"));
        create(&testbed, SPACE, all.map(|member| with_claim(member, "two")).collect()).await;
        until("some claims are allocated", SOON, || async {
            let held = claims(&testbed, SPACE).await.iter().filter(|claim| !devices_of(claim).is_empty()).count();
            let why: BTreeSet<String> =
                pods(&testbed, SPACE, "").await.iter().filter_map(unscheduled).map(|(_, message)| message).collect();
            if held > round { Ok(()) } else { Err(format!("{held}; {why:?}")) }
        })
        .await;
        testbed.kill(SCHEDULER).unwrap();
        assert_sound(&testbed).await;
        installation.start_scheduler(SCHEDULER, installation.scheduler).await.unwrap();
        for number in 0..GANGS {
            scheduler::bound(&testbed, SPACE, &format!("g{round}-{number}"), SIZE, SOON * 2).await;
        }
        until("no intent is open", SOON, || async {
            let open = open_intents(&testbed).await;
            if open == 0 { Ok(()) } else { Err(format!("{open} are open")) }
        })
        .await;
        assert_eq!(assert_sound(&testbed).await, GANGS * SIZE * 2);
        delete(&testbed, SPACE, "template=two").await;
        until("the devices are free", SOON, || async {
            let held: BTreeSet<String> = claims(&testbed, SPACE).await.iter().flat_map(devices_of).collect();
            if held.is_empty() { Ok(()) } else { Err(format!("{} are held", held.len())) }
        })
        .await;
    }
}
