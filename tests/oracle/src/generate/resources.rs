//! Amounts: every notation of a quantity, zero, and none at all.

use crate::random::Random;
use serde_json::{Map, Value, json};

/// Resources that nodes have and pods ask for; the last is on no node.
const EXTENDED: [&str; 4] = ["nvidia.com/gpu", "example.com/nic", "hugepages-2Mi", "example.com/absent"];

const NODE_CPU: [&str; 8] = ["4", "8", "0.5", "3900m", "1e1", "2.5", "0", "64"];
const NODE_MEMORY: [&str; 8] = ["8Gi", "16384Mi", "129e6", "128974848", "1e10", "0.5Gi", "123Mi", "0"];
const NODE_PODS: [&str; 6] = ["110", "110", "3", "2", "1", "0"];
/// What most nodes have, so that there is a choice left to score.
const ROOMY: [(&str, &[&str]); 3] =
    [("cpu", &["64", "96", "31500m", "1.28e2"]), ("memory", &["256Gi", "1e12", "98304Mi"]), ("pods", &["110", "250"])];
const POD_CPU: [&str; 10] = ["0", "1", "0.5", "250m", "100500u", "1e0", "2", "1n", "1.5e0", "12"];
const POD_MEMORY: [&str; 10] = ["0", "128974848", "129e6", "123Mi", "1Gi", "1e3", "0.5Gi", "1e9", "400000u", "5000M"];

/// A node's allocatable.
pub(super) fn allocatable(random: &mut Random) -> Value {
    let mut all = Map::new();
    let odd: [(&str, &[&str]); 3] = [("cpu", &NODE_CPU), ("memory", &NODE_MEMORY), ("pods", &NODE_PODS)];
    let roomy = random.percent(70);
    for (name, amounts) in if roomy { ROOMY } else { odd } {
        if roomy || random.percent(95) {
            all.insert(name.to_owned(), json!(random.pick(amounts)));
        }
    }
    if random.percent(70) {
        all.insert("ephemeral-storage".to_owned(), json!(random.pick(&["10Gi", "1e9", "0"])));
    }
    for name in &EXTENDED[..3] {
        if random.percent(50) {
            all.insert((*name).to_owned(), json!(extended(random, name)));
        }
    }
    Value::Object(all)
}

fn extended(random: &mut Random, name: &str) -> &'static str {
    if name.starts_with("hugepages") {
        random.word(&["0", "4Mi", "64Mi"])
    } else {
        random.word(&["0", "1", "1", "2", "8", "1k"])
    }
}

/// A container's requests; None where the API has no map at all.
pub(super) fn requests(random: &mut Random) -> Option<Value> {
    if random.percent(20) {
        return None;
    }
    let mut all = cpu_and_memory(random);
    if random.percent(15) {
        all.insert("ephemeral-storage".to_owned(), json!(random.pick(&["0", "1Gi", "900M", "1"])));
    }
    for (name, percent) in EXTENDED.iter().zip([8, 5, 5, 1]) {
        if random.percent(percent) {
            all.insert((*name).to_owned(), json!(extended(random, name)));
        }
    }
    Some(Value::Object(all))
}

/// CPU and memory, each perhaps.
pub(super) fn cpu_and_memory(random: &mut Random) -> Map<String, Value> {
    let mut all = Map::new();
    if random.percent(60) {
        all.insert("cpu".to_owned(), json!(random.pick(&POD_CPU)));
    }
    if random.percent(60) {
        all.insert("memory".to_owned(), json!(random.pick(&POD_MEMORY)));
    }
    all
}

/// Pod-level requests.
pub(super) fn pod_level(random: &mut Random) -> Value {
    let mut all = cpu_and_memory(random);
    if random.percent(10) {
        all.insert("hugepages-2Mi".to_owned(), json!("4Mi"));
    }
    Value::Object(all)
}
