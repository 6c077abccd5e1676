//! PodDisruptionBudgets: how many more of the pods that they select may be evicted.

use super::plain;
use crate::types;
use flowforge_scheduler_core::event::{Event, RelistedKind};
use smol_str::SmolStr;

plain!(
    /// PodDisruptionBudgets.
    Budgets: types::Budget, "poddisruptionbudgets", "/apis/policy/v1/poddisruptionbudgets",
    upsert |budget| Event::BudgetUpsert(Box::new(crate::budget(budget))),
    gone |namespace, name| Event::BudgetDelete { namespace, name },
    listed RelistedKind::Budgets
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Plain as _;

    #[test]
    fn a_budget_keeps_what_is_allowed_and_who_is_counted_already() {
        let object = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "b", "namespace": "n"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"disruptionsAllowed": 2, "disruptedPods": {"web-0": "2026-01-02T03:04:05Z"}},
        }));
        let event = Budgets::upsert(&object.expect("a budget"));
        let Event::BudgetUpsert(budget) = event else { panic!("{event:?}") };
        assert_eq!((budget.namespace.as_str(), budget.name.as_str(), budget.allowed), ("n", "b", 2));
        assert!(budget.disrupted.contains("web-0"));
        assert!(budget.selector.is_some_and(|selector| selector.requirements.len() == 1));
    }
}
