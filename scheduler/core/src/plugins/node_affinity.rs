//! NodeAffinity: `nodeSelector` AND one of the ORed required terms; scores by the summed weights of the preferred terms
//! that match, normalised, weight 2. Unresolvable by preemption.
//!
//! As upstream, an empty term matches nothing, a term that cannot be parsed matches nothing, and terms that all name nodes
//! by `metadata.name` limit the search to those nodes ([`pinned`]); terms whose names contradict refuse the pod at once.

use super::Cures;
use crate::model::{NodeOperator, NodeRequirement, NodeSelectorTerm};
use smol_str::SmolStr;
use std::collections::{BTreeMap, BTreeSet};

/// kube-scheduler's name.
pub const NAME: &str = "NodeAffinity";
/// Reason text.
pub const REASON: &str = "node(s) didn't match Pod's node affinity/selector";
/// Reason text of the affinity that the profile adds.
pub const REASON_ADDED: &str = "node(s) didn't match scheduler-enforced node affinity";
/// Reason text when the terms' node names contradict each other.
pub const REASON_CONFLICT: &str = "pod affinity terms conflict";
/// Reason text of the nodes that were left out because the terms name others.
pub const REASON_NOT_NAMED: &str = "node(s) didn't satisfy plugin(s) [NodeAffinity]";
/// What cures it.
pub const CURED_BY: Cures = Cures::NODE_ADDED.and(Cures::NODE_LABELS).and(Cures::POD_CHANGED);
/// Weight of the score.
pub const WEIGHT: i64 = 2;

const NAME_FIELD: &str = "metadata.name";

/// Whether a node satisfies the selector and the required terms.
#[must_use]
pub fn fits(
    selector: &BTreeMap<SmolStr, SmolStr>,
    required: Option<&[NodeSelectorTerm]>,
    name: &str,
    labels: &BTreeMap<SmolStr, SmolStr>,
) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
        && required.is_none_or(|terms| any_matches(terms, name, labels))
}

/// Whether a node satisfies one of the ORed terms.
#[must_use]
pub fn any_matches(terms: &[NodeSelectorTerm], name: &str, labels: &BTreeMap<SmolStr, SmolStr>) -> bool {
    terms.iter().any(|term| term_matches(term, name, labels))
}

/// Raw score: summed weights of the preferred terms that match.
#[must_use]
pub fn score(preferred: &[(i32, NodeSelectorTerm)], name: &str, labels: &BTreeMap<SmolStr, SmolStr>) -> i64 {
    let matching = preferred.iter().filter(|(weight, term)| *weight != 0 && term_matches(term, name, labels));
    matching.map(|(weight, _)| i64::from(*weight)).sum()
}

/// The nodes that the required terms name, where every term names some: then no other node is looked at.
/// `Some` of an empty set: the names contradict each other.
#[must_use]
pub fn pinned(required: Option<&[NodeSelectorTerm]>) -> Option<BTreeSet<SmolStr>> {
    let terms = required.filter(|terms| !terms.is_empty())?;
    let mut all = BTreeSet::new();
    for term in terms {
        let mut named: Option<BTreeSet<SmolStr>> = None;
        for r in term.match_fields.iter().filter(|r| r.key == NAME_FIELD && r.operator == NodeOperator::In) {
            let values: BTreeSet<SmolStr> = r.values.iter().cloned().collect();
            named = Some(match named {
                Some(before) => before.intersection(&values).cloned().collect(),
                None => values,
            });
        }
        all.append(&mut named?);
    }
    Some(all)
}

/// Label keys that the selector and all terms look at.
pub fn keys<'a>(
    selector: &'a BTreeMap<SmolStr, SmolStr>,
    required: Option<&'a [NodeSelectorTerm]>,
    preferred: &'a [(i32, NodeSelectorTerm)],
) -> impl Iterator<Item = &'a SmolStr> {
    let terms = required.unwrap_or_default().iter().chain(preferred.iter().map(|(_, t)| t));
    selector.keys().chain(terms.flat_map(|t| t.match_expressions.iter().map(|r| &r.key)))
}

fn term_matches(term: &NodeSelectorTerm, name: &str, labels: &BTreeMap<SmolStr, SmolStr>) -> bool {
    let empty = term.match_expressions.is_empty() && term.match_fields.is_empty();
    !empty
        && term.match_expressions.iter().all(is_valid)
        && term.match_fields.iter().all(|r| r.values.len() == 1)
        && term.match_expressions.iter().all(|r| label_matches(r, labels.get(&r.key)))
        // Volumes are compared with a node without a name; then fields say nothing.
        && (name.is_empty() || term.match_fields.iter().all(|r| field_matches(r, name)))
}

/// Whether upstream's parser takes the requirement; one that it does not take makes its term match nothing.
fn is_valid(r: &NodeRequirement) -> bool {
    let counted = match r.operator {
        NodeOperator::In | NodeOperator::NotIn => !r.values.is_empty(),
        NodeOperator::Exists | NodeOperator::DoesNotExist => r.values.is_empty(),
        NodeOperator::Gt | NodeOperator::Lt => r.values.len() == 1 && r.values.iter().all(|v| integer(v).is_some()),
    };
    counted && r.values.iter().all(|v| is_label_value(v))
}

fn label_matches(r: &NodeRequirement, value: Option<&SmolStr>) -> bool {
    let compare = |holds: fn(i64, i64) -> bool| {
        let (have, want) = (value.and_then(|v| integer(v)), r.values.first().and_then(|v| integer(v)));
        have.zip(want).is_some_and(|(have, want)| holds(have, want))
    };
    match r.operator {
        NodeOperator::In => value.is_some_and(|v| r.values.contains(v)),
        NodeOperator::NotIn => value.is_none_or(|v| !r.values.contains(v)),
        NodeOperator::Exists => value.is_some(),
        NodeOperator::DoesNotExist => value.is_none(),
        NodeOperator::Gt => compare(|have, want| have > want),
        NodeOperator::Lt => compare(|have, want| have < want),
    }
}

fn field_matches(r: &NodeRequirement, name: &str) -> bool {
    let field = if r.key == NAME_FIELD { name } else { "" };
    let equal = r.values.first().is_some_and(|v| v == field);
    match r.operator {
        NodeOperator::In => equal,
        NodeOperator::NotIn => !equal,
        _ => false,
    }
}

/// Go's `strconv.ParseInt(v, 10, 64)`.
fn integer(value: &str) -> Option<i64> {
    value.parse().ok()
}

/// Whether a text can be a label value: at most 63 of `[-A-Za-z0-9_.]`, alphanumeric at both ends, or empty.
fn is_label_value(value: &str) -> bool {
    let bytes = value.as_bytes();
    let ends = [bytes.first(), bytes.last()];
    bytes.len() <= 63
        && ends.iter().flatten().all(|b| b.is_ascii_alphanumeric())
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use NodeOperator::{DoesNotExist, Exists, Gt, In, Lt, NotIn};

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<SmolStr, SmolStr> {
        pairs.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
    }

    fn req(key: &str, operator: NodeOperator, values: &[&str]) -> NodeRequirement {
        NodeRequirement { key: key.into(), operator, values: values.iter().map(|v| (*v).into()).collect() }
    }

    fn term(expressions: &[NodeRequirement], fields: &[NodeRequirement]) -> NodeSelectorTerm {
        NodeSelectorTerm { match_expressions: expressions.to_vec(), match_fields: fields.to_vec() }
    }

    fn matches(r: NodeRequirement) -> bool {
        fits(&BTreeMap::new(), Some(&[term(&[r], &[])]), "n1", &labels(&[("zone", "a"), ("size", "8"), ("word", "x")]))
    }

    #[test]
    fn operators_follow_upstream() {
        assert!(matches(req("zone", In, &["b", "a"])));
        assert!(!matches(req("zone", In, &["b"])));
        assert!(matches(req("zone", NotIn, &["b"])) && matches(req("absent", NotIn, &["b"])));
        assert!(matches(req("zone", Exists, &[])) && !matches(req("absent", Exists, &[])));
        assert!(matches(req("absent", DoesNotExist, &[])) && !matches(req("zone", DoesNotExist, &[])));
        assert!(matches(req("size", Gt, &["7"])) && !matches(req("size", Gt, &["8"])));
        assert!(
            matches(req("size", Lt, &["9"]))
                && !matches(req("word", Lt, &["9"]))
                && !matches(req("absent", Gt, &["1"]))
        );
    }

    #[test]
    fn what_cannot_be_parsed_matches_nothing() {
        for bad in
            [req("zone", In, &[]), req("zone", Exists, &["a"]), req("size", Gt, &["x"]), req("absent", NotIn, &["-"])]
        {
            assert!(!matches(bad));
        }
        assert!(!fits(&BTreeMap::new(), Some(&[]), "n1", &labels(&[])));
        assert!(!fits(&BTreeMap::new(), Some(&[term(&[], &[])]), "n1", &labels(&[])));
    }

    #[test]
    fn terms_are_ored_and_the_selector_is_added() {
        let terms = [term(&[req("zone", In, &["b"])], &[]), term(&[req("zone", In, &["a"])], &[])];
        let node = labels(&[("zone", "a"), ("pool", "gpu")]);
        assert!(fits(&labels(&[("pool", "gpu")]), Some(&terms), "n1", &node));
        assert!(!fits(&labels(&[("pool", "cpu")]), Some(&terms), "n1", &node));
        assert!(!fits(&labels(&[]), Some(&terms[..1]), "n1", &node));
    }

    #[test]
    fn fields_match_the_name() {
        let named =
            |op, v: &[&str]| fits(&BTreeMap::new(), Some(&[term(&[], &[req(NAME_FIELD, op, v)])]), "n1", &labels(&[]));
        assert!(named(In, &["n1"]) && !named(In, &["n2"]) && !named(In, &["n1", "n2"]));
        assert!(named(NotIn, &["n2"]) && !named(NotIn, &["n1"]));
    }

    #[test]
    fn names_pin_only_when_every_term_has_them() {
        let n = |v: &[&str]| req(NAME_FIELD, In, v);
        let set = |v: &[&str]| Some(v.iter().map(|x| SmolStr::from(*x)).collect::<BTreeSet<_>>());
        assert_eq!(pinned(None), None);
        assert_eq!(pinned(Some(&[])), None);
        assert_eq!(pinned(Some(&[term(&[], &[n(&["a"])]), term(&[], &[n(&["b"])])])), set(&["a", "b"]));
        assert_eq!(pinned(Some(&[term(&[], &[n(&["a"])]), term(&[req("k", Exists, &[])], &[])])), None);
        assert_eq!(pinned(Some(&[term(&[], &[n(&["a"]), n(&["b"])])])), set(&[]));
    }

    #[test]
    fn preferred_weights_add_up() {
        let preferred = [
            (10, term(&[req("zone", In, &["a"])], &[])),
            (5, term(&[req("pool", Exists, &[])], &[])),
            (7, term(&[], &[])),
        ];
        assert_eq!(score(&preferred, "n1", &labels(&[("zone", "a"), ("pool", "x")])), 15);
        assert_eq!(score(&preferred, "n1", &labels(&[("zone", "b")])), 0);
    }
}
