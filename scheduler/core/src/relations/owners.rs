//! Who selects a pod: Services and the controllers that own it. Pods that somebody selects are spread by default.

use crate::labels::{LabelRequirement, LabelSelector, Labels};
use crate::model::Owner;
use hashbrown::HashMap;
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// What selects.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum SelectorKind {
    /// `v1` Service.
    Service,
    /// `v1` ReplicationController.
    ReplicationController,
    /// `apps/v1` ReplicaSet.
    ReplicaSet,
    /// `apps/v1` StatefulSet.
    StatefulSet,
}

impl SelectorKind {
    fn of(owner: &Owner) -> Option<Self> {
        match (owner.api_version.as_str(), owner.kind.as_str()) {
            ("v1", "ReplicationController") => Some(Self::ReplicationController),
            ("apps/v1", "ReplicaSet") => Some(Self::ReplicaSet),
            ("apps/v1", "StatefulSet") => Some(Self::StatefulSet),
            _ => None,
        }
    }
}

/// Something that selects pods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelectorInfo {
    /// What it is.
    pub kind: SelectorKind,
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// Its selector; None selects nothing.
    pub selector: Option<LabelSelector>,
}

/// All of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Owners {
    services: BTreeMap<SmolStr, BTreeMap<SmolStr, LabelSelector>>,
    controllers: HashMap<(SelectorKind, SmolStr, SmolStr), LabelSelector, foldhash::fast::FixedState>,
}

impl Owners {
    pub(crate) fn set(&mut self, info: SelectorInfo) {
        let SelectorInfo { kind, namespace, name, selector } = info;
        match (selector, kind) {
            (Some(selector), SelectorKind::Service) => {
                self.services.entry(namespace).or_default().insert(name, selector);
            }
            (Some(selector), _) => {
                self.controllers.insert((kind, namespace, name), selector);
            }
            (None, _) => self.remove(kind, &namespace, &name),
        }
    }

    pub(crate) fn remove(&mut self, kind: SelectorKind, namespace: &SmolStr, name: &SmolStr) {
        if kind == SelectorKind::Service {
            if let Some(services) = self.services.get_mut(namespace) {
                services.remove(name);
                if services.is_empty() {
                    self.services.remove(namespace);
                }
            }
        } else {
            self.controllers.remove(&(kind, namespace.clone(), name.clone()));
        }
    }

    /// A list of this kind came: what it does not name is gone.
    pub(crate) fn retain(&mut self, kind: SelectorKind, listed: &BTreeSet<(SmolStr, SmolStr)>) {
        if kind == SelectorKind::Service {
            for (namespace, services) in &mut self.services {
                services.retain(|name, _| listed.contains(&(namespace.clone(), name.clone())));
            }
            self.services.retain(|_, services| !services.is_empty());
        } else {
            self.controllers
                .retain(|(of, namespace, name), _| *of != kind || listed.contains(&(namespace.clone(), name.clone())));
        }
    }

    /// Upstream's `DefaultSelector`: what the Services that match the pod and its controller select together; None where
    /// nothing selects it.
    pub(crate) fn selector(&self, namespace: &str, labels: &Labels, owner: Option<&Owner>) -> Option<LabelSelector> {
        let mut merged: BTreeMap<SmolStr, LabelRequirement> = BTreeMap::new();
        let mut merge = |selector: &LabelSelector| {
            merged.extend(selector.requirements.iter().map(|r| (r.key.clone(), r.clone())));
        };
        let services = self.services.get(namespace).into_iter().flat_map(BTreeMap::values);
        services.filter(|selector| selector.matches(labels)).for_each(&mut merge);
        let controller = owner.and_then(|owner| {
            let kind = SelectorKind::of(owner)?;
            Some((kind, self.controllers.get(&(kind, namespace.into(), owner.name.clone()))?))
        });
        // A ReplicationController's labels take the place of those of Services; the others' requirements come on top.
        if let Some((SelectorKind::ReplicationController, selector)) = controller {
            merge(selector);
        }
        let mut all = LabelSelector { requirements: merged.into_values().collect() };
        if let Some((SelectorKind::ReplicaSet | SelectorKind::StatefulSet, selector)) = controller {
            all.requirements.extend(selector.requirements.iter().cloned());
        }
        (!all.is_empty()).then_some(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    fn info(kind: SelectorKind, name: &str, pairs: &[(&str, &str)]) -> SelectorInfo {
        let selector = Some(LabelSelector::of(&labels(pairs)));
        SelectorInfo { kind, namespace: "ns".into(), name: name.into(), selector }
    }

    fn owner(api_version: &str, kind: &str) -> Owner {
        Owner { api_version: api_version.into(), kind: kind.into(), name: "o".into(), uid: "u".into() }
    }

    #[test]
    fn services_that_match_and_the_controller_select_together() {
        let mut owners = Owners::default();
        owners.set(info(SelectorKind::Service, "web", &[("app", "web")]));
        owners.set(info(SelectorKind::Service, "db", &[("app", "db")]));
        owners.set(info(SelectorKind::ReplicaSet, "o", &[("rev", "1")]));
        let pod = labels(&[("app", "web"), ("rev", "1")]);
        let select = |owners: &Owners, owner: Option<&Owner>| owners.selector("ns", &pod, owner);
        assert_eq!(select(&owners, None), Some(LabelSelector::of(&labels(&[("app", "web")]))));
        let both = select(&owners, Some(&owner("apps/v1", "ReplicaSet"))).unwrap();
        assert_eq!(both, LabelSelector::of(&pod));
        assert_eq!(select(&owners, Some(&owner("batch/v1", "Job"))), select(&owners, None));
        assert_eq!(owners.selector("elsewhere", &pod, None), None);
    }

    #[test]
    fn a_replication_controllers_labels_take_the_place_of_a_services() {
        let mut owners = Owners::default();
        owners.set(info(SelectorKind::Service, "web", &[("app", "web")]));
        owners.set(info(SelectorKind::ReplicationController, "o", &[("app", "other")]));
        let found = owners.selector("ns", &labels(&[("app", "web")]), Some(&owner("v1", "ReplicationController")));
        assert_eq!(found, Some(LabelSelector::of(&labels(&[("app", "other")]))));
    }

    #[test]
    fn what_a_list_does_not_name_no_longer_selects() {
        let mut owners = Owners::default();
        owners.set(info(SelectorKind::Service, "a", &[("app", "web")]));
        owners.set(info(SelectorKind::StatefulSet, "o", &[("app", "web")]));
        owners.retain(SelectorKind::Service, &BTreeSet::new());
        assert!(owners.services.is_empty() && owners.controllers.len() == 1);
        owners.retain(SelectorKind::StatefulSet, &BTreeSet::new());
        assert!(owners.controllers.is_empty());
    }
}
