//! The layers of a pod: defaults of the workflow under the pod template, fields of the node over it, those of its role on top.

use flowforge_api::workflow::{NodeDefaults, NodeGang, NodeRole, WorkflowNode};
use k8s_openapi::api::core::v1::{Container, PodSpec, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use std::collections::BTreeMap;

use super::merge::{Wins, joined, map_opt, named, named_opt, scalar};

/// Label of NVIDIA's feature discovery.
const GPU_PRODUCT: &str = "nvidia.com/gpu.product";

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

/// Lays the fields of a role over those of its node.
pub(super) fn lay_role(spec: &mut PodSpec, main: &mut Container, role: &NodeRole) {
    let fields = NodeDefaults {
        env: role.env.clone(),
        resources: role.resources.clone(),
        node_selector: role.node_selector.clone(),
        ..NodeDefaults::default()
    };
    lay(spec, main, &fields, Wins::Layer);
    lay_work(main, role.image.as_ref(), role.working_dir.as_ref(), &role.command, &role.args);
}

/// Lays what a node asks of its gang and its pods are to show.
pub(super) fn lay_gang(spec: &mut PodSpec, main: &mut Container, gang: &NodeGang) {
    scalar(&mut spec.priority_class_name, gang.priority_class_name.as_ref(), Wins::Layer);
    let Some(gpu) = &gang.gpu else { return };
    let limits = BTreeMap::from([(gpu.resource(), Quantity(gpu.count.to_string()))]);
    let resources = ResourceRequirements { limits: Some(limits), ..ResourceRequirements::default() };
    lay_resources(main.resources.get_or_insert_default(), &resources, Wins::Layer);
    if let Some(product) = &gpu.product {
        let selector = BTreeMap::from([(GPU_PRODUCT.to_owned(), product.clone())]);
        map_opt(&mut spec.node_selector, &selector, Wins::Layer);
    }
}

/// Lays the fields that only a node has over its main container.
pub(super) fn lay_node(main: &mut Container, node: &WorkflowNode) {
    lay_work(main, node.image.as_ref(), node.working_dir.as_ref(), &node.command, &node.args);
}

fn lay_work(main: &mut Container, image: Option<&String>, dir: Option<&String>, command: &[String], args: &[String]) {
    scalar(&mut main.image, image, Wins::Layer);
    scalar(&mut main.working_dir, dir, Wins::Layer);
    if !command.is_empty() {
        main.command = Some(command.to_vec());
    }
    if !args.is_empty() {
        main.args = Some(args.to_vec());
    }
}
