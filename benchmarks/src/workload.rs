//! What the pods of a load ask for.
//!
//! Each workload is one rule of the scheduler put to work by every pod: the pods of a load are alike, as those of a
//! Deployment are, and what concerns other pods concerns those of the same load.

use serde_json::{Value, json};
use std::fmt;
use std::str::FromStr;

/// What the scheduler has to look at besides requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Workload {
    /// Nothing.
    Plain,
    /// Hard spread over zones, skew 1.
    Spread,
    /// Required anti-affinity on the hostname: one pod a node.
    AntiAffinity,
    /// Required affinity to the other pods' zone.
    Affinity,
    /// Required affinity to nodes of an instance type.
    NodeAffinity,
    /// A claim of its own name, which waits for it.
    Claim,
    /// A ResourceClaim of one device, made from a template.
    Devices,
}

/// The class of the devices.
pub(crate) const DEVICE_CLASS: &str = "load";
/// The template of the claims.
pub(crate) const DEVICE_TEMPLATE: &str = "one-device";

/// The label that says what a pod belongs to.
const APP: &str = "load";
const ZONE: &str = "topology.kubernetes.io/zone";
const HOSTNAME: &str = "kubernetes.io/hostname";
const INSTANCE_TYPE: &str = "node.kubernetes.io/instance-type";

impl Workload {
    /// All, in the order they run.
    pub(crate) const ALL: [Self; 7] =
        [Self::Plain, Self::Spread, Self::AntiAffinity, Self::Affinity, Self::NodeAffinity, Self::Claim, Self::Devices];

    /// The name on the command line and in namespaces.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Spread => "spread",
            Self::AntiAffinity => "anti-affinity",
            Self::Affinity => "affinity",
            Self::NodeAffinity => "node-affinity",
            Self::Claim => "claim",
            Self::Devices => "devices",
        }
    }

    /// What its row is called.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Plain => "plain pods",
            Self::Spread => "topology spread over zones",
            Self::AntiAffinity => "required anti-affinity on the hostname",
            Self::Affinity => "required pod affinity to the zone",
            Self::NodeAffinity => "required node affinity",
            Self::Claim => "PVC WaitForFirstConsumer per pod",
            Self::Devices => "a DRA claim each",
        }
    }

    /// How many of `pods` fit on so many nodes.
    pub(crate) fn fitting(self, pods: usize, nodes: usize) -> usize {
        if self == Self::AntiAffinity { pods.min(nodes) } else { pods }
    }

    /// A pod.
    pub(crate) fn pod(self, name: &str, scheduler: &str) -> Value {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"app": APP}},
            "spec": {
                "schedulerName": scheduler,
                "containers": [{
                    "name": "main", "image": "load",
                    "resources": {"requests": {"cpu": "100m", "memory": "128Mi"}},
                }],
            },
        });
        let alike = json!({"matchLabels": {"app": APP}});
        let required = |term: Value| json!({"requiredDuringSchedulingIgnoredDuringExecution": [term]});
        let spec = &mut pod["spec"];
        match self {
            Self::Plain => {}
            Self::Spread => {
                spec["topologySpreadConstraints"] = json!([{
                    "maxSkew": 1, "topologyKey": ZONE, "whenUnsatisfiable": "DoNotSchedule", "labelSelector": alike,
                }]);
            }
            Self::AntiAffinity => {
                let term = json!({"labelSelector": alike, "topologyKey": HOSTNAME});
                spec["affinity"] = json!({"podAntiAffinity": required(term)});
            }
            Self::Affinity => {
                let term = json!({"labelSelector": alike, "topologyKey": ZONE});
                spec["affinity"] = json!({"podAffinity": required(term)});
            }
            Self::NodeAffinity => {
                let of_type = json!({"key": INSTANCE_TYPE, "operator": "In", "values": ["cpu", "another"]});
                let terms = json!({"nodeSelectorTerms": [{"matchExpressions": [of_type]}]});
                spec["affinity"] = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": terms}});
            }
            Self::Claim => spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": name}}]),
            Self::Devices => {
                spec["resourceClaims"] = json!([{"name": "device", "resourceClaimTemplateName": DEVICE_TEMPLATE}]);
                spec["containers"][0]["resources"]["claims"] = json!([{"name": "device"}]);
            }
        }
        pod
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let known = Self::ALL.map(Self::name).join(", ");
        Self::ALL.into_iter().find(|load| load.name() == name).ok_or_else(|| format!("{name:?} is none of {known}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn each_workload_is_a_pod_of_the_api_that_says_what_it_asks_for() {
        for workload in Workload::ALL {
            let value = workload.pod("p", "s");
            let pod: Pod = serde_json::from_value(value.clone()).unwrap();
            let kept = serde_json::to_value(pod).unwrap();
            assert_eq!(kept["spec"], value["spec"], "{workload}: a field that the API does not know");
            assert_eq!(workload.name().parse(), Ok(workload));
        }
    }

    #[test]
    fn anti_affinity_has_no_more_pods_than_nodes() {
        assert_eq!(Workload::AntiAffinity.fitting(1000, 500), 500);
        assert_eq!(Workload::Plain.fitting(1000, 500), 1000);
    }
}
