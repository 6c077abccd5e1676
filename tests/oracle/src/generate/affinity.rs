//! Node selectors and node affinity: every operator, terms that are empty or cannot be parsed, names as fields.

use super::{NODE_KEYS, node};
use crate::random::Random;
use serde_json::{Map, Value, json};

/// What `Gt` and `Lt` compare with.
const BOUNDS: [&str; 3] = ["7", "8", "0"];
/// The same in required terms, where one that is no number makes its term match nothing. In a preferred term it makes
/// kube-scheduler fail the whole cycle (SchedulerError); FlowForge leaves the term out, so there is nothing to compare.
const REQUIRED_BOUNDS: [&str; 7] = ["7", "8", "0", "-4", "+5", "x", "9223372036854775808"];

pub(super) fn selector(random: &mut Random) -> Value {
    let mut all = Map::new();
    if random.percent(20) {
        let key = *random.pick(&NODE_KEYS);
        all.insert(key.to_owned(), json!(node::label_value(random, key)));
    }
    Value::Object(all)
}

/// `spec.affinity.nodeAffinity`, or none.
pub(super) fn node_affinity(random: &mut Random, nodes: &[String]) -> Option<Value> {
    let mut all = Map::new();
    if random.percent(30) {
        let terms: Vec<Value> = (0..1 + random.below(2)).map(|_| term(random, nodes, &REQUIRED_BOUNDS)).collect();
        all.insert("requiredDuringSchedulingIgnoredDuringExecution".to_owned(), json!({"nodeSelectorTerms": terms}));
    }
    if random.percent(40) {
        let preferred: Vec<Value> = (0..1 + random.below(3))
            .map(|_| json!({"weight": 1 + random.below(100), "preference": term(random, nodes, &BOUNDS)}))
            .collect();
        all.insert("preferredDuringSchedulingIgnoredDuringExecution".to_owned(), json!(preferred));
    }
    (!all.is_empty()).then_some(Value::Object(all))
}

fn term(random: &mut Random, nodes: &[String], bounds: &[&str]) -> Value {
    let expressions: Vec<Value> = (0..random.below(3)).map(|_| expression(random, nodes, bounds)).collect();
    let fields: Vec<Value> =
        if random.percent(25) { (0..1 + random.below(2)).map(|_| field(random, nodes)).collect() } else { Vec::new() };
    let mut all = Map::new();
    if !expressions.is_empty() {
        all.insert("matchExpressions".to_owned(), json!(expressions));
    }
    if !fields.is_empty() {
        all.insert("matchFields".to_owned(), json!(fields));
    }
    Value::Object(all)
}

fn expression(random: &mut Random, nodes: &[String], bounds: &[&str]) -> Value {
    if random.percent(10) {
        return json!({"key": "kubernetes.io/hostname", "operator": random.pick(&["In", "NotIn"]), "values": [name(random, nodes)]});
    }
    let key = *random.pick(&NODE_KEYS);
    let operator = *random.pick(&["In", "In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"]);
    let values: Vec<&str> = match operator {
        "In" | "NotIn" => (0..1 + random.below(2)).map(|_| node::label_value(random, key)).collect(),
        "Gt" | "Lt" => vec![*random.pick(bounds)],
        _ => Vec::new(),
    };
    let key = if matches!(operator, "Gt" | "Lt") && random.percent(80) { "size" } else { key };
    json!({"key": key, "operator": operator, "values": values})
}

fn field(random: &mut Random, nodes: &[String]) -> Value {
    json!({"key": "metadata.name", "operator": random.pick(&["In", "In", "NotIn"]), "values": [name(random, nodes)]})
}

fn name(random: &mut Random, nodes: &[String]) -> String {
    if nodes.is_empty() || random.percent(10) { "no-such-node".to_owned() } else { random.pick(nodes).clone() }
}
