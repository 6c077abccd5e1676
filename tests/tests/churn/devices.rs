//! What becomes of devices: slices of whole and of broken pools come, change and go, and so do classes, taint rules and claims
//! that pods name; pods ask for devices by such claims and by templates.

use super::{Churn, tolerate};
use flowforge_testbed::Testbed;
use k8s_openapi::api::resource::v1::{
    DeviceClass, DeviceTaintRule, ResourceClaim, ResourceClaimTemplate, ResourceSlice,
};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Debug;

const DRIVER: &str = "gpu.example";
/// Slices that there may be; two make a pool.
const SLICES: u64 = 16;
/// Claims that pods name.
const NAMED: u64 = 6;
const RULES: u64 = 2;
/// The device of each slice that is given out in parts.
const SHARED: u64 = 3;

/// What there is at the beginning and stays: the class of all devices, and templates of claims.
pub(super) async fn prepare(testbed: &Testbed, namespace: &str) {
    make::<DeviceClass>(&Api::all(testbed.client().clone()), class("gpu", None)).await;
    let templates: Api<ResourceClaimTemplate> = Api::namespaced(testbed.client().clone(), namespace);
    for (name, request) in [
        ("one", json!({"name": "r", "exactly": {"deviceClassName": "gpu"}})),
        (
            "part",
            json!({"name": "r", "exactly": {"deviceClassName": "gpu", "capacity": {"requests": {"memory": "10Gi"}}}}),
        ),
        (
            "either",
            json!({"name": "r", "firstAvailable": [
                {"name": "best", "deviceClassName": "extra"}, {"name": "two", "deviceClassName": "gpu", "count": 2},
            ]}),
        ),
    ] {
        make(&templates, json!({"metadata": {"name": name}, "spec": {"spec": devices(&request)}})).await;
    }
}

/// Creates it; that it is there already is part of the churn.
async fn make<K>(api: &Api<K>, object: Value) -> bool
where
    K: Clone + Debug + DeserializeOwned + Serialize,
{
    let object: K = serde_json::from_value(object).unwrap();
    tolerate(api.create(&PostParams::default(), &object).await.map(drop))
}

/// A class of the devices of a model, or of all.
fn class(name: &str, model: Option<&str>) -> Value {
    let selector = match model {
        None => format!("device.driver == '{DRIVER}'"),
        Some(model) => format!("device.attributes['{DRIVER}'].model == '{model}'"),
    };
    json!({"metadata": {"name": name}, "spec": {"selectors": [{"cel": {"expression": selector}}]}})
}

fn devices(request: &Value) -> Value {
    json!({"devices": {"requests": [request]}})
}

impl Churn<'_> {
    fn word(&mut self, of: &[&'static str]) -> &'static str {
        of[usize::try_from(self.random.below(of.len() as u64)).unwrap()]
    }

    /// A slice comes, goes, or has other devices.
    pub(super) async fn change_slice(&mut self) -> &'static str {
        let number = self.random.below(SLICES);
        let name = format!("slice-{number}");
        let api: Api<ResourceSlice> = Api::all(self.testbed.client().clone());
        let devices: Vec<Value> = (0..1 + self.random.below(5)).map(|at| self.device(at)).collect();
        // Some pools are never complete, and some have an outdated slice.
        let pool = json!({
            "name": format!("pool-{}", number / 2), "generation": 1 + self.random.below(8) / 7, "resourceSliceCount": 1 + number % 4 / 3,
        });
        match self.random.below(8) {
            0 => tolerate(api.delete(&name, &DeleteParams::default()).await.map(drop)),
            1..4 => {
                let patch = json!({"spec": {"devices": devices, "pool": pool}});
                tolerate(api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.map(drop))
            }
            dice => {
                let mut spec = json!({"driver": DRIVER, "pool": pool, "devices": devices});
                if dice == 4 {
                    spec["allNodes"] = json!(true);
                } else {
                    spec["nodeName"] = json!(self.node().await);
                }
                make(&api, json!({"metadata": {"name": name}, "spec": spec})).await
            }
        };
        "slice"
    }

    fn device(&mut self, at: u64) -> Value {
        let model = self.word(&["a", "a", "b"]);
        let mut device = json!({
            "name": format!("dev-{at}"), "attributes": {"model": {"string": model}},
            "capacity": {"memory": {"value": "40Gi"}},
        });
        if at == SHARED {
            device["allowMultipleAllocations"] = json!(true);
        }
        if self.random.below(10) == 0 {
            device["taints"] = json!([{"key": "churn", "value": "own", "effect": "NoSchedule"}]);
        }
        device
    }

    /// The class that claims may wait for comes, goes, or is of other devices.
    pub(super) async fn change_class(&mut self) -> &'static str {
        let api: Api<DeviceClass> = Api::all(self.testbed.client().clone());
        let object = class("extra", Some(self.word(&["a", "b"])));
        match self.random.below(4) {
            0 => tolerate(api.delete("extra", &DeleteParams::default()).await.map(drop)),
            1 => {
                let patch = Patch::Merge(json!({"spec": object["spec"]}));
                tolerate(api.patch("extra", &PatchParams::default(), &patch).await.map(drop))
            }
            _ => make(&api, object).await,
        };
        "class"
    }

    /// A claim that pods name comes or goes; one that is in use goes with its pods.
    pub(super) async fn change_claim(&mut self) -> &'static str {
        let name = format!("named-{}", self.random.below(NAMED));
        let api: Api<ResourceClaim> = Api::namespaced(self.testbed.client().clone(), super::NAMESPACE);
        if self.random.below(4) == 0 {
            tolerate(api.delete(&name, &DeleteParams::default()).await.map(drop));
        } else {
            let mut request = json!({"name": "r", "exactly": {
                "deviceClassName": self.word(&["gpu", "gpu", "extra"]), "count": 1 + self.random.below(3),
            }});
            if self.random.below(3) == 0 {
                request["exactly"]["tolerations"] = json!([{"key": "churn", "operator": "Exists"}]);
            }
            make(&api, json!({"metadata": {"name": name}, "spec": devices(&request)})).await;
        }
        "claim"
    }

    /// A rule that taints devices comes or goes.
    pub(super) async fn change_rule(&mut self) -> &'static str {
        let name = format!("rule-{}", self.random.below(RULES));
        let api: Api<DeviceTaintRule> = Api::all(self.testbed.client().clone());
        if self.random.below(2) == 0 {
            tolerate(api.delete(&name, &DeleteParams::default()).await.map(drop));
        } else {
            let pool = format!("pool-{}", self.random.below(SLICES / 2));
            let taint = json!({"key": "churn", "value": "rule", "effect": self.word(&["NoSchedule", "NoExecute"])});
            let spec = json!({"deviceSelector": {"driver": DRIVER, "pool": pool}, "taint": taint});
            make(&api, json!({"metadata": {"name": name}, "spec": spec})).await;
        }
        "taint rule"
    }

    /// A pod asks for devices: by a claim that others share, which may not be there, or by one of its own.
    pub(super) fn ask_for_devices(&mut self, spec: &mut Value) {
        let mut claim = json!({"name": "devices"});
        if self.random.below(3) == 0 {
            claim["resourceClaimName"] = json!(format!("named-{}", self.random.below(NAMED)));
        } else {
            claim["resourceClaimTemplateName"] = json!(self.word(&["one", "one", "part", "either"]));
        }
        spec["resourceClaims"] = json!([claim]);
        spec["containers"][0]["resources"]["claims"] = json!([{"name": "devices"}]);
    }
}

/// How many devices are held in a dump. No device is held alone twice, or alone and in parts.
pub(super) fn held(dump: &Value) -> usize {
    let held = dump["devices"]["held"].as_object().unwrap();
    for (device, by) in held {
        let (alone, shares) = (&by["held"]["exclusive"], &by["held"]["shares"]);
        assert!(*alone == 0 || (*alone == 1 && *shares == 0), "{device} is held by several: {by}");
    }
    held.len()
}
