//! What a pod asks for, as kube-scheduler computes it.
//!
//! Follows `k8s.io/component-helpers/resource.PodRequests` and `framework.PodInfo.CalculateResource` of 1.37 with the
//! default feature gates:
//! - containers and sidecars are summed; an init container needs its own plus the sidecars started before it; the
//!   larger of both counts, per resource;
//! - pod-level requests replace CPU, memory and huge pages; overhead comes on top;
//! - a pod that has a place is charged the largest of what its spec, its allocation and its actuation say, each taken
//!   as a pod aggregate first; the spec does not count while a resize is infeasible;
//! - for scoring, a container that asks for no CPU or memory is taken for 100m and 200 MiB.

use super::quantity::{Quantity, QuantityMap};
use super::types::{Container, ContainerStatus, Pod};
use flowforge_scheduler_core::model::{CPU, EPHEMERAL_STORAGE, HUGE_PAGES, MEMORY, PODS, Resources};
use smol_str::SmolStr;
use std::collections::BTreeSet;

const DEFAULT_CPU: Quantity = Quantity::millis(100);
const DEFAULT_MEMORY: Quantity = Quantity::units(200 << 20);

/// What a pod asks for and counts for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Requests {
    /// What it takes of its node.
    pub resources: Resources,
    /// What it counts for in scores where it stands: CPU in millicores, memory in bytes.
    pub scored: (i64, i64),
    /// What it counts for in scores while it looks for a place.
    pub asking: (i64, i64),
    /// Huge pages that it counts for in scores while it looks for a place, where pod-level requests hide them.
    pub asking_huge_pages: Option<Resources>,
}

/// What a pod asks for. For scores upstream takes a container without requests for 100m and 200 MiB. Two rules of it are
/// followed to the letter: for a placed pod with pod-level requests that is done only where those do not name the
/// resource (`getNonMissingContainerRequests`), and while a pod looks for a place its pod-level requests do not count in
/// scores at all (`Fit` sets `enablePodLevelResources` on itself, its embedded `resourceAllocationScorer` has its own).
#[must_use]
pub fn pod_requests(pod: &Pod) -> Requests {
    let requests = total(pod, &QuantityMap::new());
    let defaults =
        QuantityMap::from([(SmolStr::new_static(CPU), DEFAULT_CPU), (SmolStr::new_static(MEMORY), DEFAULT_MEMORY)]);
    let mut asking = aggregate(pod, &defaults, |container, _| container.resources.requests.as_ref());
    add(&mut asking, &pod.spec.overhead);
    let pod_level = pod_level_requests(pod).is_some();
    let missing = defaults.into_iter().filter(|(name, _)| !pod_level || !requests.contains_key(name)).collect();
    Requests {
        resources: to_resources(&requests),
        scored: scored(&total(pod, &missing)),
        asking: scored(&asking),
        asking_huge_pages: pod_level.then(|| {
            let huge_pages = asking.into_iter().filter(|(name, _)| name.starts_with(HUGE_PAGES));
            to_resources(&huge_pages.collect())
        }),
    }
}

fn scored(total: &QuantityMap) -> (i64, i64) {
    let cpu = total.get(CPU).copied().unwrap_or_default().milli_value();
    let memory = total.get(MEMORY).copied().unwrap_or_default().value();
    (cpu, memory)
}

/// Quantities as the core counts them: CPU in thousandths, all else in units; nothing asked for is left out.
#[must_use]
pub fn to_resources(quantities: &QuantityMap) -> Resources {
    let counted = quantities.iter().filter(|(name, _)| is_counted(name));
    counted
        .map(|(name, quantity)| (name.clone(), if name == CPU { quantity.milli_value() } else { quantity.value() }))
        .filter(|(_, amount)| *amount != 0)
        .collect()
}

/// Extended resources that are named with nothing of them.
#[must_use]
pub fn of_nothing(quantities: &QuantityMap) -> BTreeSet<SmolStr> {
    let nothing = quantities.iter().filter(|(name, amount)| name.contains('/') && amount.value() == 0);
    nothing.map(|(name, _)| name.clone()).collect()
}

/// Names that kube-scheduler's `framework.Resource` holds; `pods` only makes sense on nodes.
fn is_counted(name: &str) -> bool {
    matches!(name, CPU | MEMORY | EPHEMERAL_STORAGE | PODS)
        || (name.contains('/') && !name.starts_with("requests."))
        || name.starts_with("hugepages-")
        || name.starts_with("attachable-volumes-")
}

fn total(pod: &Pod, missing: &QuantityMap) -> QuantityMap {
    let mut sum = containers(pod, missing);
    if let Some(pod_level) = pod_level_requests(pod) {
        let status = pod.status.resources.as_ref().map(|resources| resources.requests.as_ref());
        let mut effective =
            if status.is_some() && resize_infeasible(pod) { QuantityMap::new() } else { pod_level.clone() };
        if let Some(actuated) = status {
            for other in [actuated, pod.status.allocated_resources.as_ref()].into_iter().flatten() {
                raise(&mut effective, other);
            }
        }
        for (name, quantity) in effective.iter().filter(|(name, _)| is_pod_level(name)) {
            sum.insert(name.clone(), *quantity);
        }
    }
    add(&mut sum, &pod.spec.overhead);
    sum
}

/// Pod-level requests, when they name a resource that can be set for a whole pod.
fn pod_level_requests(pod: &Pod) -> Option<&QuantityMap> {
    pod.spec.resources.requests.as_ref().filter(|requests| requests.keys().any(|name| is_pod_level(name)))
}

fn is_pod_level(name: &str) -> bool {
    matches!(name, CPU | MEMORY) || name.starts_with("hugepages-")
}

/// Containers as spec, allocation and actuation say: each summed over the pod, then the largest per resource.
fn containers(pod: &Pod, missing: &QuantityMap) -> QuantityMap {
    let infeasible = resize_infeasible(pod);
    let mut sum = if infeasible {
        QuantityMap::new()
    } else {
        aggregate(pod, missing, |container, _| container.resources.requests.as_ref())
    };
    let actuated_pod = pod.status.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    if let Some((allocated, actuated)) = pod.status.allocated_resources.as_ref().zip(actuated_pod) {
        raise(&mut sum, allocated);
        raise(&mut sum, actuated);
    } else if infeasible || has_container_statuses(pod) {
        raise(
            &mut sum,
            &aggregate(pod, missing, |c, status| status.and_then(allocated_of).or_else(|| requests_of(c, infeasible))),
        );
        raise(
            &mut sum,
            &aggregate(pod, missing, |c, status| status.and_then(actuated_of).or_else(|| requests_of(c, infeasible))),
        );
    }
    sum
}

fn requests_of(container: &Container, infeasible: bool) -> Option<&QuantityMap> {
    container.resources.requests.as_ref().filter(|_| !infeasible)
}

fn allocated_of(status: &ContainerStatus) -> Option<&QuantityMap> {
    status.allocated_resources.as_ref()
}

fn actuated_of(status: &ContainerStatus) -> Option<&QuantityMap> {
    let actuated = status.resources.as_ref().and_then(|resources| resources.requests.as_ref());
    actuated.or(status.allocated_resources.as_ref())
}

fn has_container_statuses(pod: &Pod) -> bool {
    let mut statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    statuses.any(|status| status.allocated_resources.is_some() || status.resources.is_some())
}

fn resize_infeasible(pod: &Pod) -> bool {
    let pending = pod.status.conditions.iter().find(|condition| condition.type_ == "PodResizePending");
    pending.is_some_and(|condition| condition.reason == "Infeasible")
}

/// KEP-753: sum(containers, sidecars) against max over init containers i of (sidecars before i + i).
fn aggregate<'a>(
    pod: &'a Pod,
    missing: &QuantityMap,
    amount: impl Fn(&'a Container, Option<&'a ContainerStatus>) -> Option<&'a QuantityMap>,
) -> QuantityMap {
    let of = |container: &'a Container| {
        let mut requests = amount(container, status_of(pod, &container.name)).cloned().unwrap_or_default();
        for (name, default) in missing {
            requests.entry(name.clone()).or_insert(*default);
        }
        requests
    };
    let mut sum = QuantityMap::new();
    for container in &pod.spec.containers {
        add(&mut sum, &of(container));
    }
    let mut sidecars = QuantityMap::new();
    let mut initial = QuantityMap::new();
    for container in &pod.spec.init_containers {
        let mut requests = of(container);
        if container.restart_policy == "Always" {
            add(&mut sum, &requests);
            add(&mut sidecars, &requests);
            raise(&mut initial, &sidecars);
        } else {
            add(&mut requests, &sidecars);
            raise(&mut initial, &requests);
        }
    }
    raise(&mut sum, &initial);
    sum
}

fn status_of<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStatus> {
    let mut statuses = pod.status.container_statuses.iter().chain(&pod.status.init_container_statuses);
    statuses.find(|status| status.name == container)
}

fn add(sum: &mut QuantityMap, other: &QuantityMap) {
    for (name, quantity) in other {
        *sum.entry(name.clone()).or_default() += *quantity;
    }
}

fn raise(sum: &mut QuantityMap, other: &QuantityMap) {
    for (name, quantity) in other {
        let current = sum.entry(name.clone()).or_default();
        *current = (*current).max(*quantity);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn requests(pod: Value) -> (Vec<(String, i64)>, (i64, i64)) {
        let pod: Pod = serde_json::from_value(pod).expect("a pod");
        let Requests { resources, scored, .. } = pod_requests(&pod);
        (resources.into_iter().map(|(name, amount)| (name.to_string(), amount)).collect(), scored)
    }

    fn named(expected: &[(&str, i64)]) -> Vec<(String, i64)> {
        expected.iter().map(|(name, amount)| ((*name).to_owned(), *amount)).collect()
    }

    fn container(name: &str, requests: &Value) -> Value {
        json!({"name": name, "resources": {"requests": requests}})
    }

    fn sidecar(name: &str, requests: &Value) -> Value {
        json!({"name": name, "restartPolicy": "Always", "resources": {"requests": requests}})
    }

    const MIB: i64 = 1 << 20;

    #[test]
    fn containers_are_summed_and_rounded_up_once() {
        let (resources, scored) = requests(json!({"spec": {"containers": [
            container("a", &json!({"cpu": "100500u", "memory": "1Gi", "nvidia.com/gpu": "8"})),
            container("b", &json!({"cpu": "250m", "hugepages-2Mi": "4Mi"})),
        ]}}));
        let expected = [("cpu", 351), ("hugepages-2Mi", 4 * MIB), ("memory", 1024 * MIB), ("nvidia.com/gpu", 8)];
        assert_eq!(resources, named(&expected));
        assert_eq!(scored, (351, 1224 * MIB), "the second container counts for 200 MiB");
    }

    #[test]
    fn an_init_container_counts_only_where_it_is_larger() {
        let (resources, _) = requests(json!({"spec": {
            "initContainers": [container("i", &json!({"cpu": "3", "memory": "1Mi"}))],
            "containers": [container("a", &json!({"cpu": "1", "memory": "5Mi"}))],
        }}));
        assert_eq!(resources, named(&[("cpu", 3000), ("memory", 5 * MIB)]));
    }

    #[test]
    fn sidecars_run_beside_later_init_containers_and_beside_the_containers() {
        let (resources, _) = requests(json!({"spec": {
            "initContainers": [
                container("before", &json!({"cpu": "7"})),
                sidecar("s1", &json!({"cpu": "2"})),
                container("after", &json!({"cpu": "6"})),
                sidecar("s2", &json!({"cpu": "1"})),
            ],
            "containers": [container("a", &json!({"cpu": "1"}))],
        }}));
        assert_eq!(resources, named(&[("cpu", 8000)]), "after + s1 = 8 beats before = 7 and a + s1 + s2 = 4");
    }

    #[test]
    fn pod_level_requests_replace_cpu_and_memory_but_not_devices_and_overhead_is_added() {
        let (resources, scored) = requests(json!({"spec": {
            "resources": {"requests": {"cpu": "4", "nvidia.com/gpu": "99"}},
            "overhead": {"cpu": "250m", "memory": "120Mi"},
            "containers": [container("a", &json!({"cpu": "1", "nvidia.com/gpu": 2}))],
        }}));
        assert_eq!(resources, named(&[("cpu", 4250), ("memory", 120 * MIB), ("nvidia.com/gpu", 2)]));
        assert_eq!(scored, (4250, 120 * MIB), "memory is named by the overhead, so no default is added");
    }

    #[test]
    fn a_pod_without_requests_asks_for_nothing_and_scores_with_defaults() {
        let (resources, scored) = requests(json!({"spec": {"containers": [
            {"name": "a"}, container("b", &json!({"cpu": "0"})),
        ]}}));
        assert_eq!(resources, named(&[]));
        assert_eq!(scored, (100, 400 * MIB), "an explicit zero stays zero");
    }

    #[test]
    fn a_placed_pod_is_charged_the_largest_pod_aggregate_of_spec_allocated_and_actuated() {
        let status = |name: &str, allocated: &str, actuated: &str| json!({"name": name, "allocatedResources": {"cpu": allocated}, "resources": {"requests": {"cpu": actuated}}});
        let mut pod = json!({
            "spec": {"containers": [container("a", &json!({"cpu": "1"})), container("b", &json!({"cpu": "5"}))]},
            "status": {"containerStatuses": [status("a", "4", "4"), status("b", "1", "3")]},
        });
        assert_eq!(requests(pod.clone()).0, named(&[("cpu", 7000)]), "spec 6, allocated 5, actuated 7; not 4 + 5 = 9");
        pod["status"]["conditions"] = json!([{"type": "PodResizePending", "status": "True", "reason": "Infeasible"}]);
        pod["status"]["containerStatuses"] = json!([status("a", "1", "1"), status("b", "1", "2")]);
        assert_eq!(requests(pod).0, named(&[("cpu", 3000)]), "the infeasible spec does not count");
    }

    #[test]
    fn while_it_looks_for_a_place_a_pod_counts_in_scores_as_if_it_had_no_pod_level_requests() {
        let pod = json!({"spec": {
            "resources": {"requests": {"cpu": "4"}},
            "overhead": {"memory": "1Mi"},
            "containers": [{"name": "a"}, {"name": "b"}],
        }});
        let requests = pod_requests(&serde_json::from_value(pod).expect("a pod"));
        assert_eq!((requests.scored, requests.asking), ((4000, MIB), (200, 401 * MIB)));
    }

    #[test]
    fn pod_level_status_is_used_where_the_node_reports_it() {
        let (resources, _) = requests(json!({
            "spec": {
                "resources": {"requests": {"cpu": "2"}},
                "containers": [container("a", &json!({"cpu": "1", "nvidia.com/gpu": 1}))],
            },
            "status": {
                "allocatedResources": {"cpu": "3", "nvidia.com/gpu": "1"},
                "resources": {"requests": {"cpu": "2500m"}},
                "containerStatuses": [{"name": "a", "allocatedResources": {"cpu": "9"}}],
            },
        }));
        assert_eq!(resources, named(&[("cpu", 3000), ("nvidia.com/gpu", 1)]));
    }

    #[test]
    fn a_request_for_more_than_exists_in_the_world_is_just_a_large_number() {
        let (resources, _) = requests(json!({"spec": {"containers": [
            container("a", &json!({"nvidia.com/gpu": "1e18"})), container("b", &json!({"nvidia.com/gpu": "9e18"})),
        ]}}));
        assert_eq!(resources, named(&[("nvidia.com/gpu", i64::MAX)]));
    }

    #[test]
    fn names_that_no_node_can_offer_as_a_resource_are_not_counted() {
        let (resources, _) = requests(json!({"spec": {"containers": [
            container("a", &json!({"storage": "1Gi", "requests.cpu/x": "1", "example.com/x": "2"})),
        ]}}));
        assert_eq!(resources, named(&[("example.com/x", 2)]));
    }
}
