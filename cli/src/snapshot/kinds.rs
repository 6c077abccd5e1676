//! What the scheduler reads of a cluster, kind by kind, and what each object says to it.

use flowforge_scheduler_convert::gangs::beside::{BesideFact, BesideKind};
use flowforge_scheduler_convert::gangs::{
    CoschedulingPodGroup, Declaration, Declared, HyperNode, JobSet, KaiPodGroup, NativePodGroup, VolcanoJob,
    VolcanoPodGroup, VolcanoQueue,
};
use flowforge_scheduler_convert::kinds::{Plain, budgets, devices, selecting, storing};
use flowforge_scheduler_core::event::Event;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Why an object cannot be read, with the field.
type Unreadable = serde_path_to_error::Error<serde_json::Error>;

/// What is done with an object of a kind.
pub(super) enum Reading {
    /// It becomes one event.
    Plain(fn(Value) -> Result<Event, Unreadable>),
    /// A node.
    Node,
    /// A pod.
    Pod,
    /// A Gang of ours.
    Gang,
    /// The levels.
    Topology,
    /// A priority, which pods of a file do not have yet.
    PriorityClass,
    /// An object by which somebody else declares a gang.
    Declared(fn(Value) -> Result<Box<dyn Declaration>, Unreadable>),
    /// What stands beside such an object.
    Beside(fn(Value) -> Result<BesideFact, Unreadable>),
}

/// A kind.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    /// Path of the collection over all namespaces.
    pub(crate) path: &'static str,
    /// Whether nothing can be said without it; others may be absent, or closed to who asks.
    pub(crate) needed: bool,
    pub(super) reading: Reading,
}

impl Kind {
    /// `v1`, or `group/version`.
    pub(crate) fn api_version(&self) -> &'static str {
        let inside = self.path.strip_prefix("/apis/").or(self.path.strip_prefix("/api/")).unwrap_or_default();
        inside.rsplit_once('/').map_or("", |(version, _)| version)
    }

    /// Name of the collection.
    pub(crate) fn plural(&self) -> &'static str {
        self.path.rsplit_once('/').map_or("", |(_, plural)| plural)
    }

    fn group(&self) -> &'static str {
        group(self.api_version())
    }
}

fn group(api_version: &str) -> &str {
    api_version.rsplit_once('/').map_or("", |(group, _)| group)
}

/// The kind of an object; versions of a group are alike as far as they are read.
pub(crate) fn kind_of(object: &Value) -> Option<&'static Kind> {
    let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
    let (name, group) = (text("kind"), group(text("apiVersion")));
    KINDS.iter().find(|kind| kind.name == name && kind.group() == group)
}

pub(super) fn read<T: DeserializeOwned>(value: Value) -> Result<T, Unreadable> {
    serde_path_to_error::deserialize(value)
}

fn plain<P: Plain>(value: Value) -> Result<Event, Unreadable> {
    read(value).map(|object| P::upsert(&object))
}

fn declared<D: Declared>(value: Value) -> Result<Box<dyn Declaration>, Unreadable> {
    Ok(Box::new(read::<D>(value)?))
}

fn beside<K: BesideKind>(value: Value) -> Result<BesideFact, Unreadable> {
    let object: K = read(value)?;
    let key = (object.meta().namespace.clone(), object.meta().name.clone());
    Ok(BesideFact::Is(K::PLURAL, key, object.said()))
}

const fn needed(name: &'static str, path: &'static str, reading: Reading) -> Kind {
    Kind { name, path, needed: true, reading }
}

const fn other(name: &'static str, path: &'static str, reading: Reading) -> Kind {
    Kind { name, path, needed: false, reading }
}

const fn as_is<P: Plain>(name: &'static str) -> Kind {
    other(name, P::PATH, Reading::Plain(plain::<P>))
}

const fn of_others<D: Declared>(name: &'static str) -> Kind {
    other(name, D::PATH, Reading::Declared(declared::<D>))
}

const fn stands_beside<K: BesideKind>(name: &'static str) -> Kind {
    other(name, K::PATH, Reading::Beside(beside::<K>))
}

/// All of them, in the order in which the scheduler may take them in.
pub(crate) const KINDS: [Kind; 30] = [
    other("ClusterTopology", "/apis/flowforge.dev/v1alpha1/clustertopologies", Reading::Topology),
    other("PriorityClass", "/apis/scheduling.k8s.io/v1/priorityclasses", Reading::PriorityClass),
    as_is::<selecting::Namespaces>("Namespace"),
    as_is::<selecting::Service>("Service"),
    as_is::<selecting::ReplicationController>("ReplicationController"),
    as_is::<selecting::ReplicaSet>("ReplicaSet"),
    as_is::<selecting::StatefulSet>("StatefulSet"),
    as_is::<budgets::Budgets>("PodDisruptionBudget"),
    as_is::<storing::Claims>("PersistentVolumeClaim"),
    as_is::<storing::Volumes>("PersistentVolume"),
    as_is::<storing::Classes>("StorageClass"),
    as_is::<storing::CsiNodes>("CSINode"),
    as_is::<storing::CsiDrivers>("CSIDriver"),
    as_is::<storing::Capacities>("CSIStorageCapacity"),
    as_is::<storing::Attachments>("VolumeAttachment"),
    as_is::<devices::Slices>("ResourceSlice"),
    as_is::<devices::Classes>("DeviceClass"),
    as_is::<devices::TaintRules>("DeviceTaintRule"),
    as_is::<devices::Claims>("ResourceClaim"),
    needed("Node", "/api/v1/nodes", Reading::Node),
    other("Gang", "/apis/flowforge.dev/v1alpha1/gangs", Reading::Gang),
    needed("Pod", "/api/v1/pods", Reading::Pod),
    stands_beside::<VolcanoQueue>("Queue"),
    stands_beside::<VolcanoJob>("Job"),
    stands_beside::<HyperNode>("HyperNode"),
    of_others::<NativePodGroup>("PodGroup"),
    of_others::<CoschedulingPodGroup>("PodGroup"),
    of_others::<VolcanoPodGroup>("PodGroup"),
    of_others::<KaiPodGroup>("PodGroup"),
    of_others::<JobSet>("JobSet"),
];

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_kind_is_told_by_its_group_and_name() {
        let path = |api: &str, kind: &str| kind_of(&json!({"apiVersion": api, "kind": kind})).map(|kind| kind.path);
        assert_eq!(path("v1", "Pod"), Some("/api/v1/pods"));
        let coscheduling = "/apis/scheduling.x-k8s.io/v1alpha1/podgroups";
        assert_eq!(path("scheduling.x-k8s.io/v1alpha1", "PodGroup"), Some(coscheduling));
        assert_eq!(path("batch.volcano.sh/v1alpha1", "Job"), Some("/apis/batch.volcano.sh/v1alpha1/jobs"));
        assert_eq!(path("batch/v1", "Job"), None);
        let pods = KINDS.iter().find(|kind| kind.name == "Pod").expect("pods");
        assert_eq!((pods.api_version(), pods.plural()), ("v1", "pods"));
        let gangs = KINDS.iter().find(|kind| kind.name == "Gang").expect("gangs");
        assert_eq!((gangs.api_version(), gangs.plural()), ("flowforge.dev/v1alpha1", "gangs"));
    }
}
