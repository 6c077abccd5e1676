//! What a pod needs of its kubelet beyond what every kubelet can do: `InferForScheduling` of the features in
//! `k8s.io/component-helpers/nodedeclaredfeatures/features` of 1.37. The others in that list matter only to updates.

use super::types::{Container, PodSpec};
use smol_str::SmolStr;
use std::collections::BTreeSet;

const RESTART_ALL_CONTAINERS: SmolStr = SmolStr::new_static("RestartAllContainersOnContainerExits");
const USER_NAMESPACES_ON_HOST_NETWORK: SmolStr = SmolStr::new_static("UserNamespacesHostNetworkSupport");
const BIND_MOUNT_OPTIONS: SmolStr = SmolStr::new_static("VolumeBindMountOptions");

/// Names of the features that a node must declare.
pub(super) fn required(spec: &PodSpec) -> BTreeSet<SmolStr> {
    let restarts_all = |c: &Container| c.restart_policy_rules.iter().any(|rule| rule.action == "RestartAllContainers");
    let has_options = |c: &Container| c.volume_mounts.iter().any(|mount| !mount.bind_mount_options.is_empty());
    let mut lasting = spec.containers.iter().chain(&spec.init_containers);
    let mut all = lasting.clone().chain(&spec.ephemeral_containers);
    let needed = [
        (RESTART_ALL_CONTAINERS, lasting.any(restarts_all)),
        (USER_NAMESPACES_ON_HOST_NETWORK, spec.host_network && spec.host_users == Some(false)),
        (BIND_MOUNT_OPTIONS, all.any(has_options)),
    ];
    needed.into_iter().filter(|(_, needed)| *needed).map(|(name, _)| name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn needs(spec: Value) -> Vec<String> {
        let spec: PodSpec = serde_json::from_value(spec).expect("a pod spec");
        required(&spec).into_iter().map(String::from).collect()
    }

    #[test]
    fn features_are_inferred_from_the_spec() {
        let mount = |options: Value| json!([{"name": "v", "mountPath": "/v", "bindMountOptions": options}]);
        let table = [
            (json!({"containers": [{"name": "a", "volumeMounts": mount(json!([]))}]}), vec![]),
            (json!({"containers": [{"restartPolicyRules": [{"action": "Restart"}]}]}), vec![]),
            (
                json!({"initContainers": [{"restartPolicyRules": [{"action": "RestartAllContainers"}]}]}),
                vec!["RestartAllContainersOnContainerExits"],
            ),
            (json!({"hostNetwork": true}), vec![]),
            (json!({"hostUsers": false}), vec![]),
            (json!({"hostNetwork": true, "hostUsers": false}), vec!["UserNamespacesHostNetworkSupport"]),
            (
                json!({"ephemeralContainers": [{"volumeMounts": mount(json!(["noexec"]))}]}),
                vec!["VolumeBindMountOptions"],
            ),
        ];
        for (spec, expected) in table {
            assert_eq!(needs(spec.clone()), expected, "{spec}");
        }
    }
}
