//! Merging of Kubernetes lists and maps: entries are replaced as a whole, never mixed.
//!
//! A mixed entry is nearly always invalid (an environment variable with both `value` and `valueFrom`, a volume with two
//! sources), which is why this is not `k8s_openapi::DeepMerge`.

use std::collections::BTreeMap;

/// Which side keeps an entry that both have.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Wins {
    /// What is there already.
    Base,
    /// What is laid over it.
    Layer,
}

/// Lays `layer` over `base`.
pub(super) fn scalar<T: Clone>(base: &mut Option<T>, layer: Option<&T>, wins: Wins) {
    if let Some(value) = layer
        && (base.is_none() || wins == Wins::Layer)
    {
        *base = Some(value.clone());
    }
}

/// Merges named things by name: an entry both have is kept or replaced in place, others are appended in order.
pub(super) fn named<T: Clone>(base: &mut Vec<T>, layer: &[T], key: impl Fn(&T) -> &str, wins: Wins) {
    let index: BTreeMap<String, usize> = base.iter().enumerate().map(|(i, t)| (key(t).to_owned(), i)).collect();
    let mut appended: BTreeMap<String, usize> = BTreeMap::new();
    for item in layer {
        let name = key(item);
        if let Some(&at) = index.get(name) {
            if wins == Wins::Layer {
                base[at] = item.clone();
            }
        } else if let Some(&at) = appended.get(name) {
            base[at] = item.clone();
        } else {
            appended.insert(name.to_owned(), base.len());
            base.push(item.clone());
        }
    }
}

/// [`named`] for the optional lists of Kubernetes types; an empty layer leaves the list absent.
pub(super) fn named_opt<T: Clone>(base: &mut Option<Vec<T>>, layer: &[T], key: impl Fn(&T) -> &str, wins: Wins) {
    if !layer.is_empty() {
        named(base.get_or_insert_default(), layer, key, wins);
    }
}

/// Merges maps by key.
pub(super) fn map<V: Clone>(base: &mut BTreeMap<String, V>, layer: &BTreeMap<String, V>, wins: Wins) {
    for (key, value) in layer {
        if wins == Wins::Layer || !base.contains_key(key) {
            base.insert(key.clone(), value.clone());
        }
    }
}

/// [`map`] for optional maps; an empty layer leaves the map absent.
pub(super) fn map_opt<V: Clone>(base: &mut Option<BTreeMap<String, V>>, layer: &BTreeMap<String, V>, wins: Wins) {
    if !layer.is_empty() {
        map(base.get_or_insert_default(), layer, wins);
    }
}

/// Joins lists whose entries have no name, without repeating an equal entry; the weaker side stands first.
pub(super) fn joined<T: Clone + PartialEq>(base: &mut Option<Vec<T>>, layer: &[T], wins: Wins) {
    if layer.is_empty() {
        return;
    }
    let old = base.take().unwrap_or_default();
    let (first, second) = if wins == Wins::Layer { (old.as_slice(), layer) } else { (layer, old.as_slice()) };
    let mut out: Vec<T> = Vec::with_capacity(first.len() + second.len());
    for item in first.iter().chain(second) {
        if !out.contains(item) {
            out.push(item.clone());
        }
    }
    *base = Some(out);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_replaced_in_place_by_a_stronger_layer_and_kept_against_a_weaker_one() {
        let mut base = vec![("a", 1), ("b", 2)];
        named(&mut base, &[("b", 3), ("c", 4)], |t| t.0, Wins::Layer);
        assert_eq!(base, [("a", 1), ("b", 3), ("c", 4)]);
        named(&mut base, &[("a", 9), ("d", 5)], |t| t.0, Wins::Base);
        assert_eq!(base, [("a", 1), ("b", 3), ("c", 4), ("d", 5)]);
    }

    #[test]
    fn joined_lists_keep_the_weaker_side_first_and_repeat_nothing() {
        let mut base = Some(vec![1, 2]);
        joined(&mut base, &[2, 3], Wins::Layer);
        assert_eq!(base.as_deref(), Some([1, 2, 3].as_slice()));
        joined(&mut base, &[9], Wins::Base);
        assert_eq!(base.as_deref(), Some([9, 1, 2, 3].as_slice()));
    }

    #[test]
    fn an_absent_layer_changes_nothing() {
        let mut list: Option<Vec<(&str, i32)>> = None;
        named_opt(&mut list, &[], |t| t.0, Wins::Layer);
        assert_eq!(list, None);
        let mut value = Some(1);
        scalar(&mut value, None, Wins::Layer);
        scalar(&mut value, Some(&2), Wins::Base);
        assert_eq!(value, Some(1));
    }
}
