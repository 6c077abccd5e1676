//! Labels, and selectors over them as `metav1.LabelSelector` means them.

use serde::{Deserialize, Serialize};
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// Labels of an object.
pub type Labels = BTreeMap<SmolStr, SmolStr>;

/// ANDed requirements; none match everything. Where the API has no selector at all (`null`), there is no `LabelSelector`
/// either, and nothing matches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LabelSelector {
    /// The requirements; `matchLabels` are requirements with one value.
    pub requirements: Vec<LabelRequirement>,
}

/// One requirement.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LabelRequirement {
    /// Label key.
    pub key: SmolStr,
    /// Operator.
    pub operator: LabelOperator,
    /// Values, for `In` and `NotIn`.
    pub values: Vec<SmolStr>,
}

/// Operator of a requirement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LabelOperator {
    /// The value is one of.
    In,
    /// The value is none of, or the key is absent.
    NotIn,
    /// The key is present.
    Exists,
    /// The key is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// A selector for exactly these labels.
    #[must_use]
    pub fn of(labels: &Labels) -> Self {
        let requirement = |(key, value): (&SmolStr, &SmolStr)| LabelRequirement::equals(key.clone(), value.clone());
        Self { requirements: labels.iter().map(requirement).collect() }
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }

    /// Whether all requirements hold.
    #[must_use]
    pub fn matches(&self, labels: &Labels) -> bool {
        self.requirements.iter().all(|r| r.matches(labels))
    }
}

impl LabelRequirement {
    /// The key has this value.
    #[must_use]
    pub fn equals(key: SmolStr, value: SmolStr) -> Self {
        Self { key, operator: LabelOperator::In, values: vec![value] }
    }

    fn matches(&self, labels: &Labels) -> bool {
        let value = labels.get(&self.key);
        match self.operator {
            LabelOperator::In => value.is_some_and(|v| self.values.contains(v)),
            LabelOperator::NotIn => value.is_none_or(|v| !self.values.contains(v)),
            LabelOperator::Exists => value.is_some(),
            LabelOperator::DoesNotExist => value.is_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    fn requirement(operator: LabelOperator, values: &[&str]) -> LabelSelector {
        let values = values.iter().map(|v| (*v).into()).collect();
        LabelSelector { requirements: vec![LabelRequirement { key: "k".into(), operator, values }] }
    }

    #[test]
    fn operators_mean_what_upstreams_do() {
        let (with, without) = (labels(&[("k", "v")]), labels(&[("other", "v")]));
        for (selector, on_with, on_without) in [
            (requirement(LabelOperator::In, &["u", "v"]), true, false),
            (requirement(LabelOperator::In, &["u"]), false, false),
            (requirement(LabelOperator::NotIn, &["v"]), false, true),
            (requirement(LabelOperator::NotIn, &["u"]), true, true),
            (requirement(LabelOperator::Exists, &[]), true, false),
            (requirement(LabelOperator::DoesNotExist, &[]), false, true),
        ] {
            assert_eq!((selector.matches(&with), selector.matches(&without)), (on_with, on_without), "{selector:?}");
        }
    }

    #[test]
    fn no_requirement_matches_everything_and_all_must_hold() {
        assert!(LabelSelector::default().matches(&labels(&[])));
        let both = LabelSelector::of(&labels(&[("a", "1"), ("b", "2")]));
        assert!(both.matches(&labels(&[("a", "1"), ("b", "2"), ("c", "3")])));
        assert!(!both.matches(&labels(&[("a", "1")])));
    }
}
