//! Extended resources that DeviceClasses stand for: by a name of their own or that of the class, offered by the device plugins
//! of some nodes and by devices on others, asked for by containers of every kind.

use crate::random::Random;
use serde_json::{Value, json};

/// Resources that classes stand for in some cases; the last never, and nodes may have it.
const NAMES: [&str; 3] = ["example.com/backed", "vendor.example/backed", "vendor.example/plain"];
const IMPLICIT: [&str; 3] = [
    "deviceclass.resource.kubernetes.io/gpu",
    "deviceclass.resource.kubernetes.io/any",
    "deviceclass.resource.kubernetes.io/none",
];

/// Some classes stand for extended resources, and the pod asks for such.
pub(super) fn extended(random: &Random, case: &mut Value, classes: &mut [Value], claims: &mut Vec<Value>) {
    let mut facts = random.fork("facts");
    if !facts.percent(40) {
        return;
    }
    for class in classes.iter_mut() {
        class["metadata"]["creationTimestamp"] = json!(facts.word(&["2026-01-02T03:04:05Z", "2026-01-02T03:04:06Z"]));
        if facts.percent(50) {
            class["spec"]["extendedResourceName"] = json!(facts.word(&NAMES[..2]));
        }
    }
    for node in case["nodes"].as_array_mut().into_iter().flatten() {
        for name in NAMES.iter().chain(&IMPLICIT[..1]) {
            if facts.percent(20) {
                node["status"]["allocatable"][*name] = json!(facts.word(&["0", "1", "2", "8"]));
            }
        }
    }
    for pod in case["pods"].as_array_mut().into_iter().flatten() {
        if facts.percent(10) {
            pod["spec"]["containers"][0]["resources"]["requests"][facts.word(&NAMES)] = json!("1");
        }
    }
    let pod = &mut case["pod"];
    if facts.percent(60)
        && let Some(spec) = pod["spec"].as_object_mut()
    {
        spec.remove("resourceClaims");
    }
    let mut asks = random.fork("asks");
    for list in ["containers", "initContainers"] {
        for container in pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            while asks.percent(45) {
                let name = if asks.percent(70) { asks.word(&NAMES) } else { asks.word(&IMPLICIT) };
                container["resources"]["requests"][name] = json!(asks.word(&["0", "1", "1", "1", "2", "3"]));
            }
        }
    }
    if facts.percent(3) {
        claims.push(leftover(pod));
    }
}

/// The special claim of an attempt that failed.
fn leftover(pod: &Value) -> Value {
    let owner = json!({"apiVersion": "v1", "kind": "Pod", "name": pod["metadata"]["name"], "uid": pod["metadata"]["uid"],
        "controller": true});
    json!({
        "metadata": {
            "name": "leftover", "namespace": pod["metadata"]["namespace"], "uid": "uid-leftover",
            "annotations": {"resource.kubernetes.io/extended-resource-claim": "true"}, "ownerReferences": [owner],
        },
        "spec": {"devices": {"requests": [{"name": "container-0-request-0", "exactly": {"deviceClassName": "gpu", "count": 1}}]}},
        "status": {},
    })
}
