//! PodDisruptionBudgets: how many more of the pods that they select may be evicted.

use crate::convert::{self, types};
use crate::input::Fact;
use crate::watch::{Listed, Watched};
use flowforge_scheduler_core::event::{Event, RelistedKind};

/// PodDisruptionBudgets.
pub(crate) struct Budgets;

impl Watched for Budgets {
    type Object = types::Budget;
    const KIND: &'static str = "poddisruptionbudgets";
    const PATH: &'static str = "/apis/policy/v1/poddisruptionbudgets";

    fn meta(object: &types::Budget) -> &types::Meta {
        &object.metadata
    }

    fn upsert(&self, object: &types::Budget) -> Fact {
        Fact::Plain(Box::new(Event::BudgetUpsert(Box::new(convert::budget(object)))))
    }

    fn gone(object: &types::Budget) -> Fact {
        let types::Meta { namespace, name, .. } = object.metadata.clone();
        Fact::Plain(Box::new(Event::BudgetDelete { namespace, name }))
    }

    fn listed(metas: Vec<Listed>) -> Fact {
        let names = metas.into_iter().map(|listed| (listed.namespace, listed.name)).collect();
        Fact::Plain(Box::new(Event::Relisted(RelistedKind::Budgets(names))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_keeps_what_is_allowed_and_who_is_counted_already() {
        let object = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "b", "namespace": "n"},
            "spec": {"minAvailable": 1, "selector": {"matchLabels": {"app": "web"}}},
            "status": {"disruptionsAllowed": 2, "disruptedPods": {"web-0": "2026-01-02T03:04:05Z"}},
        }));
        let Fact::Plain(event) = Budgets.upsert(&object.expect("a budget")) else { panic!("not for the engine") };
        let Event::BudgetUpsert(budget) = *event else { panic!("{event:?}") };
        assert_eq!((budget.namespace.as_str(), budget.name.as_str(), budget.allowed), ("n", "b", 2));
        assert!(budget.disrupted.contains("web-0"));
        assert!(budget.selector.is_some_and(|selector| selector.requirements.len() == 1));
    }
}
