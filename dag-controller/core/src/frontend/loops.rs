//! `for`: one node written once, run for each of many items.
//!
//! ```text
//!   {id: sweep, for: {items: [a, b]}, …}  ──>  sweep-0 (item a, index 0), sweep-1 (item b, index 1)
//!   dependsOn: [sweep]                    ──>  dependsOn: [sweep-0, sweep-1]
//! ```
//! Items that an upstream node puts out are known only later: there are as many instances as the limit allows, and those
//! beyond the items are passed over, as if their `when` were false.

use super::errors::{Errors, Path, echo};
use super::fill;
use super::schema::{self, Kind, get};
use super::{MAX_NODES, Options};
use crate::expr::{self, Reads};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Most instances where the items are known.
pub(super) const MAX_ITEMS: i64 = 10_000;
/// Most instances, and how many where nothing is said, of items that come later.
const MAX_LATE_ITEMS: i64 = 1_000;
const LATE_ITEMS: i64 = 64;
const FIELDS: &[schema::Field] = &[
    ("items", Kind::Special),
    ("count", Kind::Special),
    ("range", Kind::Special),
    ("limit", Kind::Whole(1, MAX_ITEMS)),
];
const RANGE: &[schema::Field] = &[
    ("from", Kind::Whole(i64::MIN, i64::MAX)),
    ("to", Kind::Whole(i64::MIN, i64::MAX)),
    ("step", Kind::Whole(i64::MIN, i64::MAX)),
];
const FIX: &str = "write for: {items: […]}, for: {count: 8} or for: {range: {from: 0, to: 10}}";

/// What a node is run for.
#[derive(Debug)]
pub(super) enum Items {
    /// These.
    Known(Vec<Value>),
    /// So many at most, of the list that this code evaluates to.
    Late { code: String, limit: usize, reads: Reads },
}

impl Items {
    /// Number of instances.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Known(items) => items.len(),
            Self::Late { limit, .. } => *limit,
        }
    }
}

/// Reads a filled `for`; `reads` is what its texts wait for.
pub(super) fn items(
    path: &Path,
    value: &Value,
    reads: Reads,
    options: Options<'_>,
    errors: &mut Errors,
) -> Option<Items> {
    let object = schema::object(path, value, errors)?;
    schema::check(object, path, &[FIELDS], options, errors);
    let limit = get(object, "limit").and_then(Value::as_i64);
    let given: Vec<(&str, &Value)> =
        ["items", "count", "range"].into_iter().filter_map(|key| get(object, key).map(|v| (key, v))).collect();
    let [(key, value)] = given[..] else {
        errors.push(path, "must hold exactly one of items, count and range", FIX);
        return None;
    };
    let at = path.field(key);
    let known = match key {
        "items" => match value {
            Value::String(text) if fill::waits(value) => {
                let limit = limit.unwrap_or(LATE_ITEMS);
                if limit > MAX_LATE_ITEMS {
                    let problem = format!(
                        "is {limit}, but of items that an upstream node puts out {MAX_LATE_ITEMS} are possible"
                    );
                    errors.push(path.field("limit"), problem, "write a smaller limit");
                    return None;
                }
                let limit = usize::try_from(limit).unwrap_or(0);
                return Some(Items::Late { code: fill::code_of(text), limit, reads });
            }
            _ => schema::list(&at, value, errors)?.clone(),
        },
        "count" => {
            let count = schema::whole(&at, value, 0, MAX_ITEMS, errors)?;
            (0..count).map(Value::from).collect()
        }
        _ => range(&at, value, options, errors)?,
    };
    if known.iter().any(fill::waits) {
        errors.push(&at, "waits for upstream nodes inside of a list", "give the whole list as one ${{ … }}");
        return None;
    }
    let most = limit.unwrap_or(MAX_ITEMS);
    if i64::try_from(known.len()).unwrap_or(i64::MAX) > most {
        errors.push(
            &at,
            format!("has {} items, at most {most} are possible", known.len()),
            "raise limit, or give fewer",
        );
        return None;
    }
    Some(Items::Known(known))
}

fn range(path: &Path, value: &Value, options: Options<'_>, errors: &mut Errors) -> Option<Vec<Value>> {
    let object = schema::object(path, value, errors)?;
    let before = errors.len();
    schema::check(object, path, &[RANGE], options, errors);
    let number = |key: &str| get(object, key).and_then(Value::as_i64);
    let (from, step) = (number("from").unwrap_or(0), number("step").unwrap_or(1));
    let Some(to) = number("to") else {
        if errors.len() == before {
            errors.push(path, "has no to", "add to: the end, which is not an item itself");
        }
        return None;
    };
    if step == 0 {
        errors.push(path.field("step"), "must not be 0", "write 1, or leave it out");
        return None;
    }
    let mut items = Vec::new();
    let mut at = i128::from(from);
    while if step > 0 { at < i128::from(to) } else { at > i128::from(to) } {
        if items.len() == usize::try_from(MAX_ITEMS).unwrap_or(0) {
            errors.push(path, format!("has more than {MAX_ITEMS} items"), "make the step larger");
            return None;
        }
        items.push(Value::from(i64::try_from(at).unwrap_or(i64::MAX)));
        at += i128::from(step);
    }
    Some(items)
}

/// The code of an instance's `when`: that there is such an item, and what the node says itself, over `item` and `index`.
pub(super) fn when(own: Option<&str>, items: &Items, index: usize) -> Option<String> {
    let item = match items {
        Items::Known(known) => known.get(index).map(ToString::to_string).unwrap_or_default(),
        Items::Late { code, .. } => format!("{code}[{index}]"),
    };
    let own = own.map(|own| bind(own, &item, index));
    match (items, own) {
        (Items::Known(_), own) => own,
        (Items::Late { code, .. }, None) => Some(format!("{index} < size({code})")),
        (Items::Late { code, .. }, Some(own)) => Some(format!("{index} < size({code}) && ({own})")),
    }
}

/// A code over `item` and `index` as one that knows neither.
fn bind(code: &str, item: &str, index: usize) -> String {
    let names = expr::VARIABLES;
    let Ok(expression) = expr::compile(code, &names) else { return code.to_owned() };
    let used = |name: &str| {
        let uses = expression.uses(name);
        uses.whole || !uses.fields.is_empty()
    };
    let mut bound = code.to_owned();
    if used("index") {
        bound = format!("cel.bind(index, {index}, {bound})");
    }
    if used("item") {
        bound = format!("cel.bind(item, dyn({item}), {bound})");
    }
    bound
}

/// The instances of every `for` by the id of its node.
#[derive(Debug, Default)]
pub(super) struct Groups(pub(super) BTreeMap<String, Vec<String>>);

impl Groups {
    /// Puts instances into a node's `dependsOn`; the groups that it waits for.
    pub(super) fn resolve(&self, node: &mut Map<String, Value>) -> Vec<String> {
        let Some(Value::Array(entries)) = node.get("dependsOn") else { return Vec::new() };
        let named = |entry: &Value| match entry {
            Value::String(id) => Some(id.clone()),
            Value::Object(entry) => entry.get("node").and_then(Value::as_str).map(str::to_owned),
            _ => None,
        };
        let mut waited = Vec::new();
        let mut resolved = Vec::with_capacity(entries.len());
        for entry in entries {
            let Some((group, instances)) = named(entry).and_then(|id| self.0.get_key_value(&id)) else {
                resolved.push(entry.clone());
                continue;
            };
            waited.push(group.clone());
            resolved.extend(instances.iter().map(|instance| match entry {
                Value::Object(fields) => {
                    let mut fields = fields.clone();
                    fields.insert("node".to_owned(), Value::from(instance.as_str()));
                    Value::Object(fields)
                }
                _ => Value::from(instance.as_str()),
            }));
        }
        if !waited.is_empty() {
            node.insert("dependsOn".to_owned(), Value::Array(resolved));
        }
        waited
    }

    /// Whether a node waits for a group.
    pub(super) fn is_waited(&self, node: &Map<String, Value>) -> bool {
        let Some(Value::Array(entries)) = node.get("dependsOn") else { return false };
        entries.iter().any(|entry| {
            let id = entry.as_str().or_else(|| entry.get("node")?.as_str());
            id.is_some_and(|id| self.0.contains_key(id))
        })
    }
}

/// Says that there would be too many nodes in all.
pub(super) fn check_total(path: &Path, total: usize, errors: &mut Errors) -> bool {
    if total > MAX_NODES {
        let problem = format!("stand for more than {MAX_NODES} nodes with every `for`");
        errors.push(path, problem, "give a `for` fewer items, or split the workflow");
    }
    total <= MAX_NODES
}

/// The id of an instance.
pub(super) fn id(path: &Path, node: &Map<String, Value>, errors: &mut Errors) -> Option<String> {
    match get(node, "id") {
        None => {
            errors.push(path, "has no id", "add an id, unique in the workflow");
            None
        }
        Some(Value::String(id)) => Some(id.clone()),
        Some(other) => {
            errors.push(path.field("id"), format!("must be a text, is {}", echo(&other.to_string())), "write a text");
            None
        }
    }
}
