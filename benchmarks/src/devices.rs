//! Devices for the load whose pods each claim one: every node has some, and each pod's claim is made from a template.

use anyhow::{Context as _, Result};
use flowforge_tests::eventually;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::resource::v1::{DeviceClass, ResourceClaim, ResourceClaimTemplate, ResourceSlice};
use kube::api::{Api, ListParams, PostParams};
use kube::{Client, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

use crate::load::LIMIT;
use crate::workload::{DEVICE_CLASS, DEVICE_TEMPLATE};

const DRIVER: &str = "load.example";
/// Devices of a node.
const PER_NODE: usize = 8;
/// Requests at once.
const PARALLEL: usize = 32;

/// Gives every node its devices, where it has none yet, and a namespace the template of its claims.
pub(crate) async fn provide(client: &Client, namespace: &str) -> Result<()> {
    let selector = format!("device.driver == '{DRIVER}'");
    let class = json!({"metadata": {"name": DEVICE_CLASS}, "spec": {"selectors": [{"cel": {"expression": selector}}]}});
    create(&Api::<DeviceClass>::all(client.clone()), class).await?;
    let nodes = Api::<Node>::all(client.clone()).list_metadata(&ListParams::default()).await.context("list nodes")?;
    let names = nodes.items.into_iter().filter_map(|node| node.metadata.name);
    let slices = Api::<ResourceSlice>::all(client.clone());
    let all = stream::iter(names).map(|node| create(&slices, slice(&node)));
    all.buffer_unordered(PARALLEL).try_collect::<Vec<()>>().await?;
    let request = json!({"name": "device", "exactly": {"deviceClassName": DEVICE_CLASS}});
    let template =
        json!({"metadata": {"name": DEVICE_TEMPLATE}, "spec": {"spec": {"devices": {"requests": [request]}}}});
    create(&Api::<ResourceClaimTemplate>::namespaced(client.clone(), namespace), template).await
}

/// Waits until no claim of a load is left: the next one has all devices again.
pub(crate) async fn released(client: &Client, namespace: &str) -> Result<()> {
    let claims = Api::<ResourceClaim>::namespaced(client.clone(), namespace);
    eventually("the claims of the load are gone", LIMIT, || async {
        let first = ListParams::default().limit(1);
        let left = claims.list_metadata(&first).await.map_err(|error| error.to_string())?;
        if left.items.is_empty() { Ok(()) } else { Err("claims are left".to_owned()) }
    })
    .await
}

fn slice(node: &str) -> Value {
    let devices: Vec<Value> = (0..PER_NODE).map(|number| json!({"name": format!("device-{number}")})).collect();
    let pool = json!({"name": node, "generation": 1, "resourceSliceCount": 1});
    json!({
        "metadata": {"name": format!("{node}-devices")},
        "spec": {"driver": DRIVER, "nodeName": node, "pool": pool, "devices": devices},
    })
}

/// Creates an object that may be there already.
async fn create<K>(api: &Api<K>, object: Value) -> Result<()>
where
    K: Resource + Clone + Debug + DeserializeOwned + Serialize,
{
    match api.create(&PostParams::default(), &serde_json::from_value(object)?).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(error).context("create what devices need"),
    }
}
