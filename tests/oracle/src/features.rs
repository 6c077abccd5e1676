//! Which features of devices a case uses, so that none of them is compared only where it has nothing to say.

use serde_json::Value;

/// Features of devices, and whether a case uses them.
type Feature = (&'static str, fn(&Value) -> bool);

/// By the names that the counter report has for them.
pub const FEATURES: [Feature; 9] = [
    ("devices: selectors", |case| asks(case).any(|ask| is_some(&ask["selectors"]))),
    ("devices: matchAttribute", |case| constraints(case).any(|of| of["matchAttribute"].is_string())),
    ("devices: distinctAttribute", |case| constraints(case).any(|of| of["distinctAttribute"].is_string())),
    ("devices: alternatives", |case| requests(case).any(|request| is_some(&request["firstAvailable"]))),
    ("devices: admin access", |case| asks(case).any(|ask| ask["adminAccess"] == true)),
    ("devices: taints", |case| {
        is_some(&case["deviceTaintRules"]) || devices(case).any(|device| is_some(&device["taints"]))
    }),
    ("devices: shared counters", |case| devices(case).any(|device| is_some(&device["consumesCounters"]))),
    ("devices: consumable capacity", |case| devices(case).any(|device| device["allowMultipleAllocations"] == true)),
    ("devices: binding conditions", |case| {
        let of_device = devices(case).any(|device| is_some(&device["bindingConditions"]));
        of_device || results(case).any(|result| is_some(&result["bindingConditions"]))
    }),
];

fn list(of: &Value) -> impl Iterator<Item = &Value> {
    of.as_array().into_iter().flatten()
}

fn is_some(of: &Value) -> bool {
    list(of).next().is_some()
}

/// Claims of the pod; those of others only hold devices.
fn own(case: &Value) -> impl Iterator<Item = &Value> {
    list(&case["resourceClaims"]).filter(|claim| is_some(&claim["spec"]["devices"]["requests"]))
}

fn requests(case: &Value) -> impl Iterator<Item = &Value> {
    own(case).flat_map(|claim| list(&claim["spec"]["devices"]["requests"]))
}

fn asks(case: &Value) -> impl Iterator<Item = &Value> {
    requests(case).flat_map(|request| list(&request["firstAvailable"]).chain([&request["exactly"]]))
}

fn constraints(case: &Value) -> impl Iterator<Item = &Value> {
    own(case).flat_map(|claim| list(&claim["spec"]["devices"]["constraints"]))
}

fn results(case: &Value) -> impl Iterator<Item = &Value> {
    own(case).flat_map(|claim| list(&claim["status"]["allocation"]["devices"]["results"]))
}

fn devices(case: &Value) -> impl Iterator<Item = &Value> {
    list(&case["resourceSlices"]).flat_map(|slice| list(&slice["spec"]["devices"]))
}
