//! PodDisruptionBudgets: how many more of the pods that they select may be evicted. They are respected as far as possible: a
//! pod whose budget is spent is evicted only where nothing else helps, as with kube-scheduler.

use crate::labels::{LabelSelector, Labels};
use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// A PodDisruptionBudget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// Pods; None and an empty selector select none.
    pub selector: Option<LabelSelector>,
    /// `status.disruptionsAllowed`.
    pub allowed: i32,
    /// Names in `status.disruptedPods`: their eviction is counted already.
    pub disrupted: BTreeSet<SmolStr>,
}

/// All budgets, by namespace and name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Budgets {
    all: BTreeMap<SmolStr, BTreeMap<SmolStr, Budget>>,
    version: u64,
}

impl Budgets {
    /// A budget was added or changed.
    pub fn set(&mut self, budget: Budget) {
        self.version += 1;
        self.all.entry(budget.namespace.clone()).or_default().insert(budget.name.clone(), budget);
    }

    /// A budget is gone.
    pub fn remove(&mut self, namespace: &SmolStr, name: &SmolStr) {
        self.version += 1;
        if let Some(budgets) = self.all.get_mut(namespace) {
            budgets.remove(name);
            if budgets.is_empty() {
                self.all.remove(namespace);
            }
        }
    }

    /// A list of all budgets came: what it does not name is gone.
    pub fn retain(&mut self, listed: &BTreeSet<(SmolStr, SmolStr)>) {
        self.version += 1;
        self.all.retain(|namespace, budgets| {
            budgets.retain(|name, _| listed.contains(&(namespace.clone(), name.clone())));
            !budgets.is_empty()
        });
    }

    /// Changes with every change.
    #[must_use]
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Begins to spend them on trial.
    pub(crate) fn spend(&self) -> Spending<'_> {
        Spending { budgets: self, spent: BTreeMap::new() }
    }
}

/// Budgets of which something is spent.
#[derive(Debug)]
pub(crate) struct Spending<'a> {
    budgets: &'a Budgets,
    /// What is left, of those that were touched.
    spent: BTreeMap<(&'a SmolStr, &'a SmolStr), i32>,
}

impl Spending<'_> {
    /// Whether the eviction of a pod breaks a budget. `O(budgets of the namespace)`.
    pub(crate) fn breaks(&mut self, namespace: &SmolStr, pod: &SmolStr, labels: &Labels) -> bool {
        if labels.is_empty() {
            return false;
        }
        for budget in self.budgets.all.get(namespace).into_iter().flat_map(BTreeMap::values) {
            let selects = budget.selector.as_ref().is_some_and(|s| !s.is_empty() && s.matches(labels));
            if !selects || budget.disrupted.contains(pod) {
                continue;
            }
            let left = self.spent.entry((&budget.namespace, &budget.name)).or_insert(budget.allowed);
            *left = left.saturating_sub(1);
            if *left < 0 {
                return true;
            }
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget(name: &str, allowed: i32) -> Budget {
        let selector = LabelSelector::of(&[("app".into(), "web".into())].into());
        Budget { namespace: "ns".into(), name: name.into(), selector: Some(selector), allowed, ..Budget::default() }
    }

    fn broken(budgets: &Budgets, pods: &[&str]) -> Vec<bool> {
        let web = Labels::from([("app".into(), "web".into())]);
        let mut spending = budgets.spend();
        pods.iter().map(|pod| spending.breaks(&"ns".into(), &(*pod).into(), &web)).collect()
    }

    #[test]
    fn a_budget_is_spent_pod_by_pod_and_those_counted_already_are_free() {
        let mut budgets = Budgets::default();
        budgets.set(Budget { disrupted: ["b".into()].into(), ..budget("web", 1) });
        assert_eq!(broken(&budgets, &["a", "b", "c"]), [false, false, true]);
        budgets.set(budget("web", 0));
        assert_eq!(broken(&budgets, &["a"]), [true]);
        budgets.retain(&BTreeSet::new());
        assert_eq!(broken(&budgets, &["a"]), [false]);
    }

    #[test]
    fn empty_selectors_other_namespaces_and_unlabelled_pods_have_no_budget() {
        let mut budgets = Budgets::default();
        budgets.set(Budget { selector: Some(LabelSelector::default()), ..budget("empty", 0) });
        budgets.set(Budget { namespace: "other".into(), ..budget("web", 0) });
        assert_eq!(broken(&budgets, &["a"]), [false]);
        budgets.set(budget("web", 0));
        assert!(!budgets.spend().breaks(&"ns".into(), &"a".into(), &Labels::new()));
        budgets.remove(&"ns".into(), &"web".into());
        assert_eq!(broken(&budgets, &["a"]), [false]);
    }
}
