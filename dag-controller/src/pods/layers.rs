//! The layers of a pod: defaults of the workflow under the pod template, fields of the node over it.

use flowforge_api::workflow::{NodeDefaults, WorkflowNode};
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};

use super::merge::{Wins, joined, map_opt, named, named_opt, scalar};

/// Lays the pod-wide and main-container values of `layer` over `spec` and `main`.
pub(super) fn lay(spec: &mut PodSpec, main: &mut Container, layer: &NodeDefaults, wins: Wins) {
    scalar(&mut spec.service_account_name, layer.service_account_name.as_ref(), wins);
    scalar(&mut spec.affinity, layer.affinity.as_ref(), wins);
    scalar(&mut spec.security_context, layer.pod_security_context.as_ref(), wins);
    scalar(&mut spec.runtime_class_name, layer.runtime_class_name.as_ref(), wins);
    scalar(&mut spec.priority_class_name, layer.priority_class_name.as_ref(), wins);
    scalar(&mut spec.host_ipc, layer.host_ipc.as_ref(), wins);
    scalar(&mut spec.host_network, layer.host_network.as_ref(), wins);
    scalar(&mut spec.termination_grace_period_seconds, layer.termination_grace_period_seconds.as_ref(), wins);
    map_opt(&mut spec.node_selector, &layer.node_selector, wins);
    named_opt(&mut spec.image_pull_secrets, &layer.image_pull_secrets, |s| s.name.as_str(), wins);
    named_opt(&mut spec.volumes, &layer.volumes, |v| v.name.as_str(), wins);
    joined(&mut spec.tolerations, &layer.tolerations, wins);

    scalar(&mut main.image_pull_policy, layer.image_pull_policy.as_ref(), wins);
    scalar(&mut main.security_context, layer.security_context.as_ref(), wins);
    named_opt(&mut main.volume_mounts, &layer.volume_mounts, |m| m.mount_path.as_str(), wins);
    joined(&mut main.env_from, &layer.env_from, wins);
    // Environment: the weaker side stands first, so that the stronger one may refer to it as $(NAME).
    let own = main.env.take().unwrap_or_default();
    let (mut env, over) = if wins == Wins::Layer { (own, &layer.env) } else { (layer.env.clone(), &own) };
    named(&mut env, over, |e| e.name.as_str(), Wins::Layer);
    main.env = (!env.is_empty()).then_some(env);
    if let Some(resources) = &layer.resources {
        lay_resources(main.resources.get_or_insert_default(), resources, wins);
    }
}

fn lay_resources(base: &mut ResourceRequirements, layer: &ResourceRequirements, wins: Wins) {
    if let Some(limits) = &layer.limits {
        map_opt(&mut base.limits, limits, wins);
    }
    if let Some(requests) = &layer.requests {
        map_opt(&mut base.requests, requests, wins);
    }
    if let Some(claims) = &layer.claims {
        named_opt(&mut base.claims, claims, |c| c.name.as_str(), wins);
    }
}

/// Lays the fields that only a node has over its main container.
pub(super) fn lay_node(main: &mut Container, node: &WorkflowNode) {
    scalar(&mut main.image, node.image.as_ref(), Wins::Layer);
    scalar(&mut main.working_dir, node.working_dir.as_ref(), Wins::Layer);
    if !node.command.is_empty() {
        main.command = Some(node.command.clone());
    }
    if !node.args.is_empty() {
        main.args = Some(node.args.clone());
    }
}
