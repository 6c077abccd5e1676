//! Claims of devices, as the tests of devices look at them.

use super::{is_live, node_of, patiently, pods, unscheduled, until};
use flowforge_testbed::Testbed;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::resource::v1::ResourceClaim;
use kube::api::{Api, ListParams};
use std::collections::BTreeMap;
use std::time::Duration;

/// How long a place for a pod may take.
const SOON: Duration = Duration::from_secs(90);

/// All claims of a namespace.
pub(crate) async fn claims(testbed: &Testbed, namespace: &str) -> Vec<ResourceClaim> {
    let api: Api<ResourceClaim> = Api::namespaced(testbed.client().clone(), namespace);
    let all = ListParams::default();
    patiently("list claims", || api.list(&all)).await.items
}

/// The devices of a claim, as `pool/device`.
pub(crate) fn devices_of(claim: &ResourceClaim) -> Vec<String> {
    let allocation = claim.status.as_ref().and_then(|status| status.allocation.as_ref());
    let results = allocation.and_then(|allocation| allocation.devices.as_ref()?.results.as_ref());
    results.into_iter().flatten().map(|result| format!("{}/{}", result.pool, result.device)).collect()
}

/// Checks that no device is held by two claims, and every live pod by `served`; answers how many devices are held.
pub(crate) async fn assert_held_once(
    testbed: &Testbed,
    namespace: &str,
    served: impl Fn(&Pod, &[ResourceClaim]),
) -> usize {
    let pods = pods(testbed, namespace, "").await;
    let claims = claims(testbed, namespace).await;
    let mut holders: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for claim in &claims {
        for device in devices_of(claim) {
            holders.entry(device).or_default().push(claim.metadata.name.clone().unwrap());
        }
    }
    let twice: Vec<_> = holders.iter().filter(|(_, claims)| claims.len() > 1).collect();
    assert!(twice.is_empty(), "devices that are held twice: {twice:?}");
    for pod in pods.iter().filter(|pod| is_live(pod)) {
        served(pod, &claims);
    }
    holders.len()
}

/// Waits until a pod has its node; answers the node.
pub(crate) async fn is_bound(testbed: &Testbed, namespace: &str, name: &str) -> String {
    until(&format!("{name} is bound"), SOON, || async {
        let pods = pods(testbed, namespace, "").await;
        let pod = pods.iter().find(|pod| pod.metadata.name.as_deref() == Some(name)).ok_or("it is not there")?;
        node_of(pod).map(str::to_owned).ok_or_else(|| format!("{:?}", unscheduled(pod)))
    })
    .await
}
