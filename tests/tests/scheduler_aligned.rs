//! Which devices pods get, on a real control plane: bridges that an agent reports, and NICs beside their GPUs.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{Profile, Testbed};
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceSlice};
use kube::api::{Api, ApiResource, DynamicObject, PostParams};
use scheduler::devices::{assert_held_once, devices_of, is_bound};
use scheduler::{create, install, namespace, node_names, patiently, pod, until};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;
use std::time::Duration;

const SPACE: &str = "aligned";
const GPUS: &str = "gpu.nvidia.com";
const NICS: &str = "dra.net";
const REPORTS: &str = "topology.node.k8s.io";

async fn make<K>(api: &Api<K>, object: Value)
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    let parameters = PostParams::default();
    patiently("create an object", || api.create(&parameters, &object)).await;
}

/// A device on a NUMA node and a PCIe root, with further attributes.
fn device(name: &str, numa: usize, root: usize, more: &[(&str, &str)]) -> Value {
    let mut attributes = json!({
        "resource.kubernetes.io/numaNode": {"int": numa},
        "resource.kubernetes.io/pcieRoot": {"string": format!("pci0000:{root:02x}")},
    });
    for (key, value) in more {
        attributes[key] = json!({"string": value});
    }
    json!({"name": name, "attributes": attributes})
}

/// A GPU with a root of its own, which it shares with the NIC of its number.
fn gpu(node: &str, minor: usize, numa: usize) -> Value {
    let uuid = format!("GPU-{node}-{minor}");
    let more = [("type", "gpu"), ("uuid", &*uuid), ("productName", "NVIDIA A100-PCIE-40GB")];
    device(&format!("gpu-{minor}"), numa, minor, &more)
}

async fn give(testbed: &Testbed, node: &str, driver: &str, devices: Vec<Value>) {
    let slice = json!({
        "metadata": {"name": format!("{node}-{driver}").to_lowercase()},
        "spec": {
            "driver": driver, "nodeName": node, "devices": devices,
            "pool": {"name": node, "generation": 1, "resourceSliceCount": 1},
        },
    });
    make::<ResourceSlice>(&Api::all(testbed.client().clone()), slice).await;
}

/// A claim of so many devices of each driver, and a pod on a node that uses it.
async fn claim(testbed: &Testbed, name: &str, node: &str, asks: &[(&str, usize, &str)]) {
    let request = |(driver, count, selector): &(&str, usize, &str)| {
        json!({"name": driver.replace('.', "-"), "exactly": {
            "deviceClassName": driver, "count": count, "selectors": [{"cel": {"expression": selector}}],
        }})
    };
    let requests: Vec<Value> = asks.iter().map(request).collect();
    let claim = json!({"metadata": {"name": name}, "spec": {"devices": {"requests": requests}}});
    make::<ResourceClaim>(&Api::namespaced(testbed.client().clone(), SPACE), claim).await;
    let mut pod = pod(name, "0");
    pod["spec"]["containers"][0]["resources"] = json!({"requests": {"cpu": "100m"}, "claims": [{"name": "devices"}]});
    pod["spec"]["resourceClaims"] = json!([{"name": "devices", "resourceClaimName": name}]);
    pod["spec"]["nodeSelector"] = json!({"kubernetes.io/hostname": node});
    create(testbed, SPACE, vec![pod]).await;
}

/// The devices that a bound pod's claim has, without their pool.
async fn got(testbed: &Testbed, name: &str, node: &str) -> Vec<String> {
    assert_eq!(is_bound(testbed, SPACE, name).await, node);
    let claims: Api<ResourceClaim> = Api::namespaced(testbed.client().clone(), SPACE);
    let claim = patiently("get a claim", || claims.get(name)).await;
    let mut devices: Vec<String> =
        devices_of(&claim).iter().filter_map(|device| Some(device.split_once('/')?.1.to_owned())).collect();
    devices.sort();
    devices
}

fn reports() -> ApiResource {
    ApiResource {
        group: REPORTS.into(),
        version: "v1alpha2".into(),
        api_version: format!("{REPORTS}/v1alpha2"),
        kind: "NodeResourceTopology".into(),
        plural: "noderesourcetopologies".into(),
    }
}

/// The definition of NodeResourceTopologies, as far as any object of it is taken.
fn definition() -> String {
    let schema = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let version = json!({"name": "v1alpha2", "served": true, "storage": true, "schema": {"openAPIV3Schema": schema}});
    let names = json!({"kind": "NodeResourceTopology", "plural": "noderesourcetopologies",
        "singular": "noderesourcetopology", "listKind": "NodeResourceTopologyList"});
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("noderesourcetopologies.{REPORTS}"), "annotations": {
            "api-approved.kubernetes.io": "https://github.com/kubernetes/enhancements/pull/1870",
        }},
        "spec": {"group": REPORTS, "scope": "Cluster", "names": names, "versions": [version]},
    })
    .to_string()
}

/// Bridges between the GPUs 0 and 2, and 1 and 3.
async fn report_bridges(testbed: &Testbed, node: &str) {
    let zone = |minor: usize| {
        json!({"name": format!("gpu-{minor}"), "type": "GPU", "parent": "node-0", "attributes": [
            {"name": "uuid", "value": format!("GPU-{node}-{minor}")},
            {"name": "nvlink", "value": format!("gpu-{}=12", (minor + 2) % 4)},
        ]})
    };
    let zones: Vec<Value> =
        std::iter::once(json!({"name": "node-0", "type": "Node"})).chain((0..4).map(zone)).collect();
    let object = json!({
        "apiVersion": format!("{REPORTS}/v1alpha2"), "kind": "NodeResourceTopology",
        "metadata": {"name": node}, "zones": zones,
    });
    let object: DynamicObject = serde_json::from_value(object).unwrap();
    let api: Api<DynamicObject> = Api::all_with(testbed.client().clone(), &reports());
    let parameters = PostParams::default();
    patiently("create a report", || api.create(&parameters, &object)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gpus_are_bridged_and_nics_are_beside_them() {
    let testbed = scheduler::testbed(Profile::DgxH100, 2).await;
    testbed.apply_yaml(&definition()).await.unwrap();
    let nodes = node_names(&testbed).await;
    let (bridged, aligned) = (&*nodes[0], &*nodes[1]);
    report_bridges(&testbed, bridged).await;
    install(&testbed, "").await;
    namespace(&testbed, SPACE).await;
    for driver in [GPUS, NICS] {
        let selector = json!({"cel": {"expression": format!("device.driver == '{driver}'")}});
        let class = json!({"metadata": {"name": driver}, "spec": {"selectors": [selector]}});
        make::<DeviceClass>(&Api::all(testbed.client().clone()), class).await;
    }
    give(&testbed, bridged, GPUS, (0..4).map(|minor| gpu(bridged, minor, 0)).collect()).await;
    give(&testbed, aligned, GPUS, (0..4).map(|minor| gpu(aligned, minor, minor / 2)).collect()).await;
    let nic = |at: usize| device(&format!("nic-{at}"), at / 2, at, &[("rdmaDevice", "mlx5")]);
    give(&testbed, aligned, NICS, (0..4).map(nic).collect()).await;

    claim(&testbed, "two", bridged, &[(GPUS, 2, "true")]).await;
    assert_eq!(got(&testbed, "two", bridged).await, ["gpu-0", "gpu-2"]);
    claim(&testbed, "rest", bridged, &[(GPUS, 2, "true")]).await;
    assert_eq!(got(&testbed, "rest", bridged).await, ["gpu-1", "gpu-3"]);

    // Of the first GPU and the second NIC each counterpart is held: the first free ones of each kind are not neighbours.
    claim(&testbed, "gpu", aligned, &[(GPUS, 1, &format!("device.attributes['{GPUS}'].uuid == 'GPU-{aligned}-0'"))])
        .await;
    assert_eq!(got(&testbed, "gpu", aligned).await, ["gpu-0"]);
    let second = "device.attributes['resource.kubernetes.io'].pcieRoot == 'pci0000:01'";
    claim(&testbed, "nic", aligned, &[(NICS, 1, second)]).await;
    assert_eq!(got(&testbed, "nic", aligned).await, ["nic-1"]);
    claim(&testbed, "both", aligned, &[(GPUS, 1, "true"), (NICS, 1, "true")]).await;
    assert_eq!(got(&testbed, "both", aligned).await, ["gpu-2", "nic-2"]);
    until("every device is held once", Duration::from_secs(10), || async {
        let held = assert_held_once(&testbed, SPACE, |_, _| ()).await;
        if held == 8 { Ok(()) } else { Err(format!("{held} are held")) }
    })
    .await;
}
