//! Extended resources that a DeviceClass stands for, on a real control plane: pods ask for them as for any resource, and get devices
//! by a claim of their own that is made before they are bound, named in their status, and gone with them.
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
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kube::api::{Api, Patch, PatchParams, PostParams};
use scheduler::devices::{assert_held_once, claims, devices_of, is_bound};
use scheduler::{
    create, delete, gang, install, install_with_short_lease, members, namespace, node_names, node_of, open_intents,
    pod, pods, unscheduled, until,
};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);
const DRIVER: &str = "gpu.example";
const SPACE: &str = "extended";
const GPU: &str = "example.com/gpu";
const IMPLICIT: &str = "deviceclass.resource.kubernetes.io/gpu";

/// One test at a time: each has a control plane of its own.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

/// Gives a node so many devices.
async fn give(testbed: &Testbed, node: &str, count: usize) {
    let devices: Vec<Value> = (0..count).map(|number| json!({"name": format!("gpu-{number}")})).collect();
    let slice = json!({
        "metadata": {"name": node},
        "spec": {
            "driver": DRIVER, "nodeName": node, "devices": devices,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        },
    });
    let slices: Api<ResourceSlice> = Api::all(testbed.client().clone());
    slices.create(&PostParams::default(), &serde_json::from_value(slice).unwrap()).await.unwrap();
}

/// The class of all devices, which stands for the resource.
async fn declare(testbed: &Testbed) {
    let class = json!({"metadata": {"name": "gpu"}, "spec": {
        "selectors": [{"cel": {"expression": format!("device.driver == '{DRIVER}'")}}], "extendedResourceName": GPU,
    }});
    let classes: Api<DeviceClass> = Api::all(testbed.client().clone());
    classes.create(&PostParams::default(), &serde_json::from_value(class).unwrap()).await.unwrap();
}

/// A pod that asks for so many of a resource.
fn asking(mut pod: Value, resource: &str, count: usize) -> Value {
    let amount = json!({resource: count.to_string()});
    pod["spec"]["containers"][0]["resources"] = json!({"requests": amount, "limits": amount});
    pod["metadata"]["labels"]["asks"] = json!("devices");
    pod
}

/// Checks that no device is held twice, and that every live pod has a special claim of its own that is reserved for it, has
/// devices of its node and is named in its status; answers how many devices are held.
async fn assert_sound(testbed: &Testbed) -> usize {
    assert_held_once(testbed, SPACE, assert_served).await
}

fn assert_served(pod: &Pod, claims: &[ResourceClaim]) {
    let uid = pod.metadata.uid.as_ref().unwrap();
    let owned = |claim: &&ResourceClaim| {
        let mut owners = claim.metadata.owner_references.iter().flatten();
        owners.any(|owner| owner.uid == *uid && owner.controller == Some(true))
    };
    let own: Vec<&ResourceClaim> = claims.iter().filter(owned).collect();
    let [claim] = own[..] else { panic!("{} claims for {:?}", own.len(), pod.metadata.name) };
    let annotations = claim.metadata.annotations.as_ref().unwrap();
    assert_eq!(annotations["resource.kubernetes.io/extended-resource-claim"], "true");
    let reserved = claim.status.as_ref().and_then(|status| status.reserved_for.as_ref()).unwrap();
    assert_eq!(reserved.iter().map(|consumer| consumer.uid.as_str()).collect::<Vec<_>>(), [uid]);
    let node = node_of(pod).unwrap();
    assert!(devices_of(claim).iter().all(|device| device.starts_with(node)), "{claim:?} on {node}");
    let told = pod.status.as_ref().and_then(|status| status.extended_resource_claim_status.as_ref());
    let told = told.unwrap_or_else(|| panic!("the status of {:?} names no claim", pod.metadata.name));
    assert_eq!(Some(&told.resource_claim_name), claim.metadata.name.as_ref());
    let devices = claim.spec.as_ref().and_then(|spec| spec.devices.as_ref());
    let requests = devices.and_then(|devices| devices.requests.as_ref()).unwrap();
    assert_eq!(told.request_mappings.len(), requests.len());
    assert!(told.request_mappings.iter().zip(requests).all(|(mapped, request)| mapped.request_name == request.name));
}

async fn is_refused(testbed: &Testbed, name: &str, why: &[&str]) {
    until(&format!("{name} is refused"), SOON, || async {
        let pods = pods(testbed, SPACE, "").await;
        let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).ok_or("it is not there")?;
        assert_eq!(node_of(pod), None, "{name} has a place");
        let told = unscheduled(pod).ok_or("no condition yet")?;
        if why.iter().all(|why| told.1.contains(why)) { Ok(()) } else { Err(told.1) }
    })
    .await;
}

async fn nothing_is_held(testbed: &Testbed) {
    until("claims have gone with their pods", SOON, || async {
        let left = claims(testbed, SPACE).await.len();
        if left == 0 { Ok(()) } else { Err(format!("{left} are left")) }
    })
    .await;
}

/// A device plugin offers so many of the resource on a node.
async fn offer(testbed: &Testbed, node: &str, count: usize) {
    let nodes: Api<Node> = Api::all(testbed.client().clone());
    let amount = json!({GPU: count.to_string()});
    let patch = json!({"status": {"capacity": amount, "allocatable": amount}});
    nodes.patch_status(node, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_get_devices_for_extended_resources_by_a_claim_that_goes_with_them() {
    let _turn = TURN.lock().await;
    let testbed = scheduler::testbed(Profile::DgxH100, 3).await;
    install(&testbed, "").await;
    namespace(&testbed, SPACE).await;
    let nodes = node_names(&testbed).await;
    give(&testbed, &nodes[0], 3).await;
    give(&testbed, &nodes[1], 3).await;
    create(&testbed, SPACE, vec![asking(pod("early", "0"), GPU, 3)]).await;
    is_refused(&testbed, "early", &["3 Insufficient example.com/gpu"]).await;
    declare(&testbed).await;
    let first = is_bound(&testbed, SPACE, "early").await;
    create(&testbed, SPACE, vec![asking(pod("implicit", "0"), IMPLICIT, 2)]).await;
    let second = is_bound(&testbed, SPACE, "implicit").await;
    assert_ne!(first, second, "{first} has nothing left");
    assert_eq!(assert_sound(&testbed).await, 5);

    // Two are refused beside one free device, and a gang of two as a whole.
    create(&testbed, SPACE, vec![asking(pod("large", "0"), GPU, 2)]).await;
    is_refused(&testbed, "large", &["3 cannot allocate all claims"]).await;
    delete(&testbed, SPACE, "asks=devices").await;
    nothing_is_held(&testbed).await;
    give(&testbed, &nodes[2], 1).await;
    let wide: Vec<Value> = gang("wide", 3, "0").into_iter().map(|member| asking(member, GPU, 3)).collect();
    create(&testbed, SPACE, wide).await;
    until("every member is refused", SOON, || async {
        let refused: Vec<_> = members(&testbed, SPACE, "wide").await.iter().filter_map(unscheduled).collect();
        let told = refused.iter().filter(|(_, message)| message.contains("cannot allocate all claims")).count();
        if told == 3 { Ok(()) } else { Err(format!("{refused:?}")) }
    })
    .await;
    assert_eq!(claims(&testbed, SPACE).await.len(), 0, "no claim is made for a gang that does not fit");
    // What the plugin of the third node offers makes it whole; that member needs no claim.
    offer(&testbed, &nodes[2], 3).await;
    scheduler::bound(&testbed, SPACE, "wide", 3, SOON).await;
    assert_eq!(claims(&testbed, SPACE).await.iter().flat_map(devices_of).count(), 6);
    let named = members(&testbed, SPACE, "wide").await.into_iter().filter(|pod| {
        let claim = pod.status.as_ref().and_then(|status| status.extended_resource_claim_status.as_ref());
        assert_eq!(claim.is_none(), node_of(pod) == Some(&nodes[2]), "{:?}", pod.metadata.name);
        claim.is_some()
    });
    assert_eq!(named.count(), 2);
    delete(&testbed, SPACE, "flowforge.dev/gang=wide").await;
    nothing_is_held(&testbed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scheduler_that_dies_leaves_no_claim_without_its_pod_bound() {
    const GANGS: usize = 6;
    const SIZE: usize = 4;
    let _turn = TURN.lock().await;
    let testbed = scheduler::testbed(Profile::DgxH100, 6).await;
    let installation = install_with_short_lease(&testbed, "binding: {parallelRequests: 3}\n").await;
    namespace(&testbed, SPACE).await;
    for node in node_names(&testbed).await {
        give(&testbed, &node, 8).await;
    }
    declare(&testbed).await;
    for round in 0..3 {
        let all = (0..GANGS).flat_map(|number| gang(&format!("g{round}-{number}"), SIZE, "0"));
        create(&testbed, SPACE, all.map(|member| asking(member, GPU, 2)).collect()).await;
        until("some claims are made", SOON, || async {
            let made = claims(&testbed, SPACE).await.len();
            if made > 4 * round { Ok(()) } else { Err(format!("{made}")) }
        })
        .await;
        testbed.kill(SCHEDULER).unwrap();
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
        delete(&testbed, SPACE, "asks=devices").await;
        nothing_is_held(&testbed).await;
    }
}
