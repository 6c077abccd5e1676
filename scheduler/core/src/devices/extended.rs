//! Extended resources that a DeviceClass stands for: a pod asks for them as for any resource, and gets devices on nodes whose
//! device plugins do not offer them.
//!
//! ```text
//!   class.extendedResourceName ─┐                     node offers it? ──> NodeResourcesFit counts it, nothing to do here
//!   deviceclass.…/<class name> ─┴─> resource -> class      └─ no ──> requests of one special claim, which its pod owns
//! ```
//! The special claim lives in memory until its pod is prepared ([`crate::preparation`]). One that is found on the server while
//! its pod waits is left over from an attempt that failed: it keeps the pod from every node until it is deleted.
//!
//! Requests are named after their containers. An init container that ends before the others start uses their devices first, and
//! what such containers need beyond that they share. Source: `extendeddynamicresources.go` and
//! `deviceclass/extendedresourcecache` of Kubernetes 1.37.

use super::facts::{Ask, ClaimInfo, ClassInfo, Count, Request, RequestKind};
use super::store::Devices;
use crate::explain::Reason;
use crate::model::{NodeInfo, PodInfo};
use crate::profile::is_extended;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Prefix of the resource that every class stands for, before its name.
const IMPLICIT: &str = "deviceclass.resource.kubernetes.io/";
/// Annotation of special claims; its value is `true`.
pub const ANNOTATION: &str = "resource.kubernetes.io/extended-resource-claim";
/// Name of a special claim in memory.
const NAME: &str = "<extended-resources>";
/// What the name of a special claim has after that of its pod.
const NAME_SUFFIX: &str = "-extended-resources-";
/// Characters that names of generated objects end with, and what is before them at most.
const GENERATED: (&[u8; 27], usize, usize) = (b"bcdfghjklmnpqrstvwxz2456789", 5, 58);
/// Identity of a special claim before the server gives it one, before the UID of its pod.
const UID: &str = "extended resources of pod ";

/// Whether a class may stand for a resource of this name (`IsDRAExtendedResourceName`).
#[must_use]
pub fn may_be_devices(resource: &str) -> bool {
    is_extended(resource) || resource.starts_with(IMPLICIT)
}

/// A container that asks for resources that a class may stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerAsk {
    /// Name.
    pub name: SmolStr,
    /// Position among init containers and containers, in this order.
    pub index: usize,
    /// Whether it has ended before the containers start: an init container that is no sidecar.
    pub passing: bool,
    /// By resource: its position among all names that the container asks for, and how many.
    pub asks: BTreeMap<SmolStr, (usize, i64)>,
}

/// Which class stands for which resource.
#[derive(Clone, Debug, Default)]
pub(super) struct Mapping {
    by_resource: BTreeMap<SmolStr, SmolStr>,
    /// Grows when anything of it changes.
    version: u64,
}

impl Mapping {
    /// Of several classes with one resource the newest counts, then the one whose name comes first. `O(classes)`.
    pub(super) fn follow<'a>(&mut self, classes: impl Iterator<Item = &'a ClassInfo>) {
        let mut found: BTreeMap<SmolStr, &ClassInfo> = BTreeMap::new();
        for class in classes {
            found.insert(format!("{IMPLICIT}{}", class.name).into(), class);
            let Some(resource) = &class.extended_resource else { continue };
            let newer = |known: &&ClassInfo| class.created_at_ms > known.created_at_ms;
            if found.get(resource).is_none_or(newer) {
                found.insert(resource.clone(), class);
            }
        }
        let found = found.into_iter().map(|(resource, class)| (resource, class.name.clone())).collect();
        if self.by_resource != found {
            self.by_resource = found;
            self.version += 1;
        }
    }
}

/// The device of a container comes from this request of the special claim.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mapped {
    container: SmolStr,
    resource: SmolStr,
    request: SmolStr,
}

/// A special claim as it was chosen for a node.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Special {
    pub(super) claim: ClaimInfo,
    mapped: Vec<Mapped>,
}

/// What a pod asks for of resources that classes stand for.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// Nothing can be chosen: a special claim of the pod is there already.
    Leftover(Arc<ClaimInfo>),
    /// These resources with their classes, by these containers of the pod.
    Fresh {
        /// By resource: the class; None: a vendor's resource that no class stands for.
        resources: BTreeMap<SmolStr, Option<SmolStr>>,
        /// Containers.
        containers: Vec<ContainerAsk>,
        /// The pod's namespace and UID.
        pod: (SmolStr, SmolStr),
    },
}

impl Devices {
    /// The class that stands for a resource.
    pub(crate) fn class_for(&self, resource: &str) -> Option<&SmolStr> {
        // Most names have no class, and most clusters no such name.
        if !resource.contains('/') {
            return None;
        }
        self.mapping.by_resource.get(resource)
    }

    /// Changes when a class stands for another resource than before.
    pub(crate) fn mapping_version(&self) -> u64 {
        self.mapping.version
    }

    /// Whether a class stands for anything that a pod asks for.
    pub(crate) fn stands_for_any(&self, pod: &PodInfo) -> bool {
        !pod.containers.is_empty() && pod.requests.iter().any(|(name, n)| *n != 0 && self.class_for(name).is_some())
    }

    pub(super) fn wanted(&self, pod: &PodInfo) -> Option<Wanted> {
        if !self.stands_for_any(pod) {
            return None;
        }
        if let Some(claim) = self.special_of(&pod.key.uid) {
            return Some(Wanted::Leftover(Arc::clone(claim)));
        }
        let asked = pod.requests.iter().filter(|(name, amount)| **amount != 0 && may_be_devices(name));
        Some(Wanted::Fresh {
            resources: asked.map(|(name, _)| (name.clone(), self.class_for(name).cloned())).collect(),
            containers: pod.containers.clone(),
            pod: (pod.key.namespace.clone(), pod.key.uid.clone()),
        })
    }
}

impl Wanted {
    /// The special claim for a node; None where its device plugins offer everything.
    ///
    /// # Errors
    /// Why the node is refused.
    pub(super) fn on(&self, node: &NodeInfo) -> Result<Option<Special>, Reason> {
        let Self::Fresh { resources, containers, pod } = self else { return Err(Reason::LeftoverClaim) };
        let mut by_devices = BTreeMap::new();
        for (resource, class) in resources {
            let offered = node.allocatable.get(resource).is_some_and(|amount| *amount != 0);
            match class {
                Some(class) if !offered => drop(by_devices.insert(resource, class)),
                None if !offered && !node.without.contains(resource) => return Err(Reason::NoSuchResource),
                _ => {}
            }
        }
        if by_devices.is_empty() {
            return Ok(None);
        }
        let (mut requests, mut mapped) = (Vec::new(), Vec::new());
        for (resource, class) in by_devices {
            let (of, to) = requests_for(resource, class, containers);
            requests.extend(of);
            mapped.extend(to);
        }
        requests.sort_by(|a, b| a.name.cmp(&b.name));
        let (namespace, uid) = pod.clone();
        let uid = special_uid(&uid);
        let claim = ClaimInfo { namespace, name: SmolStr::new_static(NAME), uid, requests, ..ClaimInfo::default() };
        Ok(Some(Special { claim, mapped }))
    }
}

/// The requests for one resource, and which container uses which.
fn requests_for(resource: &SmolStr, class: &SmolStr, containers: &[ContainerAsk]) -> (Vec<Request>, Vec<Mapped>) {
    let of = |container: &ContainerAsk| container.asks.get(resource).copied().filter(|(_, count)| *count > 0);
    let named = |container: &ContainerAsk, place: usize| {
        SmolStr::from(format!("container-{}-request-{place}", container.index))
    };
    let mapped = |container: &ContainerAsk, request: &SmolStr| Mapped {
        container: container.name.clone(),
        resource: resource.clone(),
        request: request.clone(),
    };
    let mut lasting: Vec<(usize, SmolStr, i64)> = Vec::new();
    let mut all = Vec::new();
    for container in containers.iter().filter(|container| !container.passing) {
        let Some((place, count)) = of(container) else { continue };
        let name = named(container, place);
        all.push(mapped(container, &name));
        lasting.push((container.index, name, count));
    }
    // What containers need that end before, beyond what the others have: the largest of these serves them all.
    let mut largest: Option<(SmolStr, i64)> = None;
    let mut short: BTreeSet<SmolStr> = BTreeSet::new();
    let mut passing = Vec::new();
    for container in containers.iter().filter(|container| container.passing) {
        let Some((place, count)) = of(container) else { continue };
        let mut left = count;
        for (_, name, count) in lasting.iter().filter(|(index, ..)| *index >= container.index) {
            passing.push(mapped(container, name));
            left -= count;
            if left <= 0 {
                break;
            }
        }
        if left > 0 {
            let name = named(container, place);
            passing.push(mapped(container, &name));
            if largest.as_ref().is_none_or(|(_, most)| *most < left) {
                largest = Some((name.clone(), left));
            }
            short.insert(name);
        }
    }
    if let Some((name, _)) = &largest {
        for one in passing.iter_mut().filter(|one| short.contains(&one.request)) {
            one.request = name.clone();
        }
    }
    all.append(&mut passing);
    let lasting = lasting.into_iter().map(|(_, name, count)| (name, count));
    (largest.into_iter().chain(lasting).map(|(name, count)| request(name, class, count)).collect(), all)
}

fn request(name: SmolStr, class: &SmolStr, count: i64) -> Request {
    let ask = Ask {
        class: class.clone(),
        selectors: Vec::new(),
        count: Count::Exactly(count),
        admin: false,
        tolerations: Vec::new(),
        written_tolerations: Vec::new(),
        capacity: BTreeMap::new(),
        derived: false,
    };
    Request { name, kind: RequestKind::Exactly(ask) }
}

/// Identity of a pod's special claim while it is in memory.
pub(crate) fn special_uid(pod: &str) -> SmolStr {
    format!("{UID}{pod}").into()
}

/// Whether this is such an identity.
pub(super) fn is_special_uid(uid: &str) -> bool {
    uid.starts_with(UID)
}

/// Name of a pod's special claim: it looks as if it were generated, and is the same each time, so that a request to make it
/// whose fate is unknown can be sent again.
pub(crate) fn special_name(pod: &str, uid: &str) -> SmolStr {
    let (letters, length, longest) = GENERATED;
    let mut name: String = format!("{pod}{NAME_SUFFIX}").chars().take(longest).collect();
    // FNV-1a.
    let mut hash =
        uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3));
    for _ in 0..length {
        name.push(char::from(letters[usize::try_from(hash % 27).unwrap_or(0)]));
        hash /= 27;
    }
    name.into()
}

impl Special {
    /// The claim as it is created.
    pub(super) fn manifest(&self, pod: &PodInfo) -> Value {
        let key = &pod.key;
        let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": key.name, "uid": key.uid, "controller": true});
        json!({
            "apiVersion": "resource.k8s.io/v1", "kind": "ResourceClaim",
            "metadata": {
                "name": special_name(&key.name, &key.uid), "namespace": key.namespace,
                "generateName": format!("{}{NAME_SUFFIX}", key.name),
                "annotations": {ANNOTATION: "true"}, "ownerReferences": [owner],
            },
            "spec": {"devices": {"requests": self.claim.requests.iter().map(written).collect::<Vec<Value>>()}},
        })
    }

    /// `requestMappings` of the pod's status.
    pub(super) fn mappings(&self) -> Value {
        let one =
            |m: &Mapped| json!({"containerName": m.container, "resourceName": m.resource, "requestName": m.request});
        self.mapped.iter().map(one).collect()
    }
}

fn written(request: &Request) -> Value {
    let RequestKind::Exactly(Ask { class, count: Count::Exactly(count), .. }) = &request.kind else {
        return Value::Null;
    };
    let exactly = json!({"deviceClassName": class, "allocationMode": "ExactCount", "count": count});
    json!({"name": request.name, "exactly": exactly})
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(index: usize, passing: bool, count: i64) -> ContainerAsk {
        let asks = [("example.com/gpu".into(), (1, count))].into();
        ContainerAsk { name: format!("c{index}").into(), index, passing, asks }
    }

    /// Requests as `name×count`, and mappings as `container:request`.
    fn check(containers: &[ContainerAsk], requests: &[&str], mappings: &[&str]) {
        let (found, mapped) = requests_for(&"example.com/gpu".into(), &"gpu".into(), containers);
        let shown = |request: &Request| match &request.kind {
            RequestKind::Exactly(Ask { count: Count::Exactly(count), .. }) => format!("{}×{count}", request.name),
            other => format!("{other:?}"),
        };
        assert_eq!(found.iter().map(shown).collect::<Vec<_>>(), requests);
        assert_eq!(mapped.iter().map(|m| format!("{}:{}", m.container, m.request)).collect::<Vec<_>>(), mappings);
    }

    #[test]
    fn every_container_that_stays_has_devices_of_its_own() {
        check(
            &[container(0, false, 2), container(1, false, 1)],
            &["container-0-request-1×2", "container-1-request-1×1"],
            &["c0:container-0-request-1", "c1:container-1-request-1"],
        );
    }

    #[test]
    fn init_containers_use_the_devices_of_those_that_come_later_and_share_what_they_need_beyond() {
        check(
            &[container(0, true, 1), container(1, false, 2)],
            &["container-1-request-1×2"],
            &["c1:container-1-request-1", "c0:container-1-request-1"],
        );
        // A sidecar that starts before has its devices to itself.
        check(
            &[container(0, false, 1), container(1, true, 3), container(2, true, 2), container(3, false, 1)],
            &["container-1-request-1×2", "container-0-request-1×1", "container-3-request-1×1"],
            &[
                "c0:container-0-request-1",
                "c3:container-3-request-1",
                "c1:container-3-request-1",
                "c1:container-1-request-1",
                "c2:container-3-request-1",
                "c2:container-1-request-1",
            ],
        );
    }

    #[test]
    fn the_newest_class_stands_for_a_resource_and_each_for_its_own_name() {
        let class = |name: &str, created_at_ms, resource: Option<&str>| ClassInfo {
            name: name.into(),
            created_at_ms,
            extended_resource: resource.map(SmolStr::from),
            ..ClassInfo::default()
        };
        let gpu = Some("example.com/gpu");
        let mut mapping = Mapping::default();
        let classes = [class("a", 1, gpu), class("b", 2, gpu), class("c", 2, gpu), class("d", 3, None)];
        mapping.follow(classes.iter());
        let of = |mapping: &Mapping, name: &str| mapping.by_resource.get(name).cloned();
        assert_eq!(of(&mapping, "example.com/gpu"), Some("b".into()));
        assert_eq!(of(&mapping, "deviceclass.resource.kubernetes.io/a"), Some("a".into()));
        assert_eq!(of(&mapping, "deviceclass.resource.kubernetes.io/d"), Some("d".into()));
        let before = mapping.version;
        mapping.follow(classes.iter());
        assert_eq!(mapping.version, before, "nothing changed");
        mapping.follow(classes[..1].iter());
        assert_eq!((of(&mapping, "example.com/gpu"), mapping.version), (Some("a".into()), before + 1));
    }

    #[test]
    fn a_special_claim_has_one_name_for_each_pod_that_is_not_too_long() {
        let name = special_name("pod", "uid-1");
        assert!(name.starts_with("pod-extended-resources-") && name.len() == 28, "{name}");
        assert_eq!(name, special_name("pod", "uid-1"));
        assert_ne!(name, special_name("pod", "uid-2"));
        assert_eq!(special_name(&"p".repeat(200), "uid-1").len(), 63);
    }
}
