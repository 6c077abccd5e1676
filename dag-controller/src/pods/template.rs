//! The pod of one attempt, made once and stamped per member.

use flowforge_api::names::{self, annotation, finalizer, label};
use flowforge_api::workflow::{NodeRole, WorkflowNode, WorkflowSpec};
use flowforge_api::{GROUP, Gang};
use flowforge_dag_controller_core::names::{hostname, pod as pod_name};
use flowforge_dag_controller_core::ranks::pack;
use flowforge_dag_controller_core::role::WORKER;
use k8s_openapi::api::core::v1::{
    Container, NodeSelectorRequirement, NodeSelectorTerm, Pod, PodSpec, PodTemplateSpec, PreferredSchedulingTerm,
    Toleration,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use std::collections::BTreeMap;

use super::env::{MemberEnv, RoleEnv};
use super::layers::{lay, lay_gang, lay_node, lay_role};
use super::merge::{Wins, map_opt};
use super::volumes::{mount_shm, mount_storage};

/// Name of the main container where the template does not name one.
pub(super) const MAIN_CONTAINER: &str = "main";
const DEFAULT_TOLERATION_SECONDS: i64 = 30;
/// The highest weight of a preference.
const MOST_PREFERRED: i32 = 100;

/// Why a node has no pod.
#[derive(Debug, thiserror::Error)]
pub enum TemplateError {
    /// `podTemplate` is not one.
    #[error("podTemplate: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The main container has no image.
    #[error("no image: set `image`, or an image in the main container of `podTemplate`")]
    NoImage,
    /// A text cannot be filled.
    #[error("{0}")]
    Text(String),
}

/// The attempt a pod is made for.
#[derive(Clone, Debug)]
pub struct AttemptRef {
    /// Namespace of the workflow.
    pub namespace: String,
    /// Name of the workflow.
    pub workflow: String,
    /// Name of the attempt's Gang.
    pub gang: String,
    /// UID of the attempt's Gang.
    pub gang_uid: String,
    /// Name of the headless Service; none for a gang of one.
    pub service: Option<String>,
    /// Attempt, from 1.
    pub attempt: u32,
    /// Machines on which earlier attempts failed.
    pub avoid: Vec<String>,
}

/// The member pods of an attempt, with everything but their ranks.
#[derive(Clone, Debug)]
pub struct MemberTemplate {
    /// By rank; one where the node has no roles.
    roles: Vec<RoleTemplate>,
    attempt: AttemptRef,
    node: String,
    replicas: u32,
    /// The ranks of every role, where the node has roles.
    all: Option<String>,
    shared: Option<String>,
}

/// The pods of one role.
#[derive(Clone, Debug)]
struct RoleTemplate {
    name: String,
    first: u32,
    replicas: u32,
    meta: ObjectMeta,
    spec: PodSpec,
    nproc: u32,
}

/// Machines that failed before are taken only where there is no other.
fn avoid(spec: &mut PodSpec, machines: &[String]) {
    if machines.is_empty() {
        return;
    }
    // A field of a node can be compared with one value at a time.
    let term = |machine: &String| PreferredSchedulingTerm {
        weight: MOST_PREFERRED,
        preference: NodeSelectorTerm {
            match_fields: Some(vec![NodeSelectorRequirement {
                key: "metadata.name".to_owned(),
                operator: "NotIn".to_owned(),
                values: Some(vec![machine.clone()]),
            }]),
            ..NodeSelectorTerm::default()
        },
    };
    let affinity = spec.affinity.get_or_insert_default().node_affinity.get_or_insert_default();
    affinity
        .preferred_during_scheduling_ignored_during_execution
        .get_or_insert_default()
        .extend(machines.iter().map(term));
}

impl MemberTemplate {
    /// The pods of `node` in one attempt.
    ///
    /// # Errors
    /// When `podTemplate` does not decode, or no image is given.
    pub fn new(workflow: &WorkflowSpec, node: &WorkflowNode, attempt: AttemptRef) -> Result<Self, TemplateError> {
        let replicas = u32::try_from(node.members()).unwrap_or(1);
        let shared = workflow.storage.iter().find(|s| !s.read_only).map(|s| s.mount_path.clone());
        let mut roles = Vec::new();
        let mut first = 0u32;
        for role in &node.roles {
            let made = RoleTemplate::new(workflow, node, Some(role), first, &attempt)?;
            first = first.saturating_add(made.replicas);
            roles.push(made);
        }
        if roles.is_empty() {
            roles.push(RoleTemplate::new(workflow, node, None, 0, &attempt)?);
        }
        let ranks = |role: &RoleTemplate| {
            let ranks = pack(&(role.first..role.first.saturating_add(role.replicas)).collect());
            format!("{}={ranks}", role.name)
        };
        let all = (!node.roles.is_empty()).then(|| roles.iter().map(ranks).collect::<Vec<_>>().join(","));
        Ok(Self { roles, attempt, node: node.id.clone(), replicas, all, shared })
    }

    fn role(&self, rank: u32) -> Option<&RoleTemplate> {
        self.roles.iter().rev().find(|role| role.first <= rank)
    }

    /// The pod of `rank`. Its host name does not depend on the incarnation: peers keep finding it.
    #[must_use]
    pub fn member(&self, rank: u32, incarnation: u32) -> Pod {
        let Some(role) = self.role(rank) else { return Pod::default() };
        let mut meta = role.meta.clone();
        meta.name = Some(pod_name(&self.attempt.gang, rank, incarnation).into());
        meta.labels.get_or_insert_default().insert(label::RANK.to_owned(), rank.to_string());
        meta.annotations.get_or_insert_default().insert(annotation::INCARNATION.to_owned(), incarnation.to_string());
        let mut spec = role.spec.clone();
        spec.hostname = Some(hostname(&self.attempt.gang, rank).into());
        spec.subdomain.clone_from(&self.attempt.service);
        let master = self.master(role);
        let env = MemberEnv {
            workflow: &self.attempt.workflow,
            namespace: &self.attempt.namespace,
            node: &self.node,
            gang: &self.attempt.gang,
            attempt: self.attempt.attempt,
            rank,
            replicas: self.replicas,
            role: RoleEnv { name: &role.name, first: role.first, replicas: role.replicas, all: self.all.as_deref() },
            nproc: role.nproc,
            master: &master,
            shared: self.shared.as_deref(),
        };
        for container in spec.init_containers.iter_mut().flatten().chain(spec.containers.iter_mut()) {
            env.add_to(container);
        }
        Pod { metadata: meta, spec: Some(spec), status: None }
    }

    fn master(&self, role: &RoleTemplate) -> String {
        match &self.attempt.service {
            Some(service) => format!("{}.{service}", hostname(&self.attempt.gang, role.first)),
            None => "localhost".to_owned(),
        }
    }
}

impl RoleTemplate {
    fn new(
        workflow: &WorkflowSpec,
        node: &WorkflowNode,
        role: Option<&NodeRole>,
        first: u32,
        attempt: &AttemptRef,
    ) -> Result<Self, TemplateError> {
        let template = parse(node)?;
        let mut spec = template.spec.unwrap_or_default();
        let mut main = take_main(&mut spec);
        lay(&mut spec, &mut main, &workflow.defaults, Wins::Base);
        lay(&mut spec, &mut main, &node.overrides, Wins::Layer);
        lay_node(&mut main, node);
        if let Some(gang) = &node.gang {
            lay_gang(&mut spec, &mut main, gang);
        }
        if let Some(role) = role {
            lay_role(&mut spec, &mut main, role);
        }
        if main.image.as_deref().unwrap_or_default().is_empty() {
            return Err(TemplateError::NoImage);
        }
        let stated = role.and_then(|role| role.nproc_per_node).or(node.overrides.nproc_per_node);
        let nproc = processes(stated.or(workflow.defaults.nproc_per_node), &main);
        if let Some(size) = node.overrides.shm_size.as_ref().or(workflow.defaults.shm_size.as_ref()) {
            mount_shm(&mut spec, &mut main, size);
        }
        avoid(&mut spec, &attempt.avoid);
        let main_name = main.name.clone();
        spec.containers.insert(0, main);
        mount_storage(&mut spec, &workflow.storage);
        finish_spec(&mut spec, workflow, node);
        let meta = metadata(template.metadata.unwrap_or_default(), workflow, node, role, attempt, &main_name);
        let name = role.map_or(WORKER, |role| role.name.as_str()).to_owned();
        let replicas = u32::try_from(role.map_or(node.replicas, |role| role.replicas)).unwrap_or(1);
        Ok(Self { name, first, replicas, meta, spec, nproc })
    }
}

fn parse(node: &WorkflowNode) -> Result<PodTemplateSpec, serde_json::Error> {
    match &node.pod_template {
        Some(value) => serde_json::from_value(value.clone()),
        None => Ok(PodTemplateSpec::default()),
    }
}

/// Name of a node's main container, without decoding its template.
pub(crate) fn main_container(node: &WorkflowNode) -> &str {
    let containers = node.pod_template.as_ref().and_then(|t| t.pointer("/spec/containers")?.as_array());
    let names = containers.into_iter().flatten().filter_map(|c| c.get("name")?.as_str());
    let mut first = None;
    for name in names {
        if name == MAIN_CONTAINER {
            return MAIN_CONTAINER;
        }
        first = first.or(Some(name));
    }
    first.filter(|n| !n.is_empty()).unwrap_or(MAIN_CONTAINER)
}

/// The main container is the one named `main`, else the first; without any, a new one.
pub(super) fn take_main(spec: &mut PodSpec) -> Container {
    let at = spec.containers.iter().position(|c| c.name == MAIN_CONTAINER).unwrap_or(0);
    if spec.containers.is_empty() {
        return Container { name: MAIN_CONTAINER.to_owned(), ..Container::default() };
    }
    let mut main = spec.containers.remove(at);
    if main.name.is_empty() {
        MAIN_CONTAINER.clone_into(&mut main.name);
    }
    main
}

/// `nprocPerNode` as it is stated, else the GPUs of the main container, else 1.
fn processes(stated: Option<i32>, main: &Container) -> u32 {
    if let Some(n) = stated.and_then(|n| u32::try_from(n).ok()).filter(|n| *n >= 1) {
        return n;
    }
    let limits = main.resources.as_ref().and_then(|r| r.limits.as_ref());
    let gpus: u64 = limits
        .into_iter()
        .flatten()
        .filter(|(name, _)| name.ends_with("/gpu") || name.starts_with("nvidia.com/mig-"))
        .filter_map(|(_, quantity)| quantity.0.parse::<u64>().ok())
        .fold(0, u64::saturating_add);
    u32::try_from(gpus.clamp(1, 1024)).unwrap_or(1)
}

fn finish_spec(spec: &mut PodSpec, workflow: &WorkflowSpec, node: &WorkflowNode) {
    spec.restart_policy = Some("Never".to_owned());
    if spec.scheduler_name.is_none() {
        let stated = workflow.scheduler_name.clone();
        spec.scheduler_name = Some(stated.unwrap_or_else(|| names::SCHEDULER_NAME.to_owned()));
    }
    if spec.host_network == Some(true) && spec.dns_policy.is_none() {
        spec.dns_policy = Some("ClusterFirstWithHostNet".to_owned());
    }
    let seconds = node
        .overrides
        .toleration_seconds
        .or(workflow.defaults.toleration_seconds)
        .unwrap_or(DEFAULT_TOLERATION_SECONDS);
    let tolerations = spec.tolerations.get_or_insert_default();
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        if !tolerations.iter().any(|t| tolerates_no_execute(t, key)) {
            tolerations.push(Toleration {
                key: Some(key.to_owned()),
                operator: Some("Exists".to_owned()),
                effect: Some("NoExecute".to_owned()),
                toleration_seconds: Some(seconds),
                value: None,
            });
        }
    }
}

/// As the admission plugin DefaultTolerationSeconds asks: no key stands for every key.
fn tolerates_no_execute(toleration: &Toleration, key: &str) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let own = toleration.key.as_deref().unwrap_or_default();
    (own == key || own.is_empty()) && (effect.is_empty() || effect == "NoExecute")
}

fn metadata(
    template: ObjectMeta,
    workflow: &WorkflowSpec,
    node: &WorkflowNode,
    role: Option<&NodeRole>,
    attempt: &AttemptRef,
    main: &str,
) -> ObjectMeta {
    let of_role = |fields: fn(&NodeRole) -> &BTreeMap<String, String>| role.map(fields).into_iter();
    let mut labels = template.labels;
    map_opt(&mut labels, &workflow.defaults.labels, Wins::Base);
    map_opt(&mut labels, &node.overrides.labels, Wins::Layer);
    of_role(|role| &role.labels).for_each(|own| map_opt(&mut labels, own, Wins::Layer));
    map_opt(&mut labels, &attempt_labels(&attempt.workflow, &node.id, attempt), Wins::Layer);
    let name = role.map_or(WORKER, |role| role.name.as_str());
    map_opt(&mut labels, &strings([(label::ROLE, name)]), Wins::Layer);
    let mut annotations = template.annotations;
    map_opt(&mut annotations, &workflow.defaults.annotations, Wins::Base);
    map_opt(&mut annotations, &node.overrides.annotations, Wins::Layer);
    of_role(|role| &role.annotations).for_each(|own| map_opt(&mut annotations, own, Wins::Layer));
    let advised = strings([
        ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
        ("karpenter.sh/do-not-disrupt", "true"),
        ("kubectl.kubernetes.io/default-container", main),
    ]);
    map_opt(&mut annotations, &advised, Wins::Base);
    map_opt(&mut annotations, &strings([(annotation::GANG_UID, attempt.gang_uid.as_str())]), Wins::Layer);
    ObjectMeta {
        namespace: Some(attempt.namespace.clone()),
        labels,
        annotations,
        finalizers: Some(vec![finalizer::RESULT.to_owned()]),
        owner_references: Some(vec![gang_owner(&attempt.gang, &attempt.gang_uid)]),
        ..ObjectMeta::default()
    }
}

/// Labels of every object of an attempt.
pub(crate) fn attempt_labels(workflow: &str, node: &str, attempt: &AttemptRef) -> BTreeMap<String, String> {
    let number = attempt.attempt.to_string();
    strings([
        (label::MANAGED_BY, names::MANAGED_BY_CONTROLLER),
        (label::WORKFLOW, workflow),
        (label::NODE, node),
        (label::ATTEMPT, number.as_str()),
        (label::GANG, attempt.gang.as_str()),
    ])
}

/// The owner reference of what belongs to a Gang.
pub(crate) fn gang_owner(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: format!("{GROUP}/v1alpha1"),
        kind: <Gang as kube::Resource>::kind(&()).into_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

fn strings<const N: usize>(pairs: [(&str, &str); N]) -> BTreeMap<String, String> {
    pairs.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}
