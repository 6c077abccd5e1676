//! Gangs that do not exist yet: the pods that documents would come to, as the API server would store them.
//!
//! ```text
//!   Gang + Pod | PodTemplate | Job (one for each role, or one for all) ──> its replicas, ranked role after role
//!   Pod, Job, with labels of a gang of their own                       ──> the pods, beside the object that declares them
//!   a Pod without                                                      ──> a gang of one
//! ```
//! What the API server would fill in and scheduling reads is filled in: requests from limits, the priority of the class, the
//! scheduler's name.

use flowforge_api::names::{SCHEDULER_NAME, annotation, label};
use flowforge_api::{Gang, GangSpec};
use flowforge_scheduler_convert as convert;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

use super::documents::Document;
use crate::failure::Failure;
use crate::snapshot::{kind_of, title};

/// UID of what does not exist yet.
const UID: &str = "not-there-yet";
/// Most pods that a document may ask for.
const MOST: u32 = 100_000;

/// Namespace and name.
pub(crate) type Key = (String, String);

/// What documents come to.
#[derive(Debug, Default)]
pub(crate) struct Members {
    /// The objects, with `apiVersion` and `kind`.
    pub(crate) objects: Vec<Value>,
    /// The gangs, in order.
    pub(crate) gangs: Vec<Key>,
}

/// What pods are made after.
struct Template<'a> {
    source: &'a str,
    metadata: Value,
    spec: Value,
    /// Pods of a Job; one of a Pod.
    count: u32,
    /// Name of the Job, where it is one.
    job: Option<String>,
}

/// Makes the pods. `namespace` is that of documents that name none, `priorities` those of the cluster's classes.
pub(crate) fn of(
    documents: &[Document],
    namespace: &str,
    priorities: &BTreeMap<String, i64>,
) -> Result<Members, Failure> {
    let mut members = Members::default();
    let (mut gangs, mut templates) = (Vec::new(), Vec::new());
    for document in documents {
        match (text(&document.value, "/kind"), text(&document.value, "/apiVersion")) {
            ("Gang", _) => gangs.push(gang(document, namespace)?),
            ("Pod", "v1") | ("PodTemplate", "v1") | ("Job", "batch/v1") => templates.push(template(document)?),
            ("Workflow", _) => return Err(of_workflow(document)),
            _ if kind_of(&document.value).is_some() => {
                members.objects.push(in_namespace(document.value.clone(), namespace));
            }
            _ => return Err(unknown(document)),
        }
    }
    if gangs.is_empty() {
        for template in &templates {
            let pods = (0..template.count).map(|rank| pod(template, &alone(template, rank), namespace, priorities));
            members.add(pods.collect::<Result<_, _>>()?, template)?;
        }
    }
    for (source, gang) in &gangs {
        members.of_gang(source, gang, &templates, priorities)?;
    }
    if members.gangs.is_empty() {
        let fix = "write a Gang and a Pod or PodTemplate for its roles into it; see docs/explain.md";
        return Err(Failure::new("the input holds nothing that would stand anywhere").fix(fix));
    }
    Ok(members)
}

impl Members {
    /// The replicas of every role of a gang.
    fn of_gang(
        &mut self,
        source: &str,
        gang: &Gang,
        templates: &[Template<'_>],
        priorities: &BTreeMap<String, i64>,
    ) -> Result<(), Failure> {
        let name = gang.metadata.name.clone().unwrap_or_default();
        let namespace = gang.metadata.namespace.clone().unwrap_or_default();
        let labelled = |template: &&Template<'_>, key: &str, value: &str| {
            let own = template.metadata.pointer("/labels").and_then(|labels| labels.get(key)).and_then(Value::as_str);
            own.is_none_or(|own| own == value)
        };
        let own: Vec<&Template<'_>> = templates.iter().filter(|t| labelled(t, label::GANG, &name)).collect();
        let mut rank = 0;
        for (at, role) in gang.spec.roles.iter().enumerate() {
            let Some(template) = own.iter().copied().find(|t| labelled(t, label::ROLE, &role.name)) else {
                let what = format!(
                    "{source}: spec.roles[{at}]: no Pod, PodTemplate or Job tells what a {} asks for",
                    role.name
                );
                let fix = format!("add one to the file, labelled {}: {} where roles differ", label::ROLE, role.name);
                return Err(Failure::new(what).fix(fix));
            };
            for _ in 0..role.replicas {
                let labels =
                    [(label::GANG, name.clone()), (label::ROLE, role.name.clone()), (label::RANK, rank.to_string())];
                let place = Place {
                    name: format!("{name}-{rank}"),
                    labels: labels.into(),
                    annotations: [(annotation::GANG_UID, UID.to_owned())].into(),
                };
                let class = gang.spec.priority_class_name.as_deref();
                let mut made = pod(template, &place, &namespace, priorities)?;
                if let Some(class) = class {
                    set_priority(&mut made, Some(class), priorities, source, "spec.priorityClassName")?;
                }
                self.objects.push(made);
                rank += 1;
            }
        }
        let stored = serde_json::to_value(gang).map_err(|error| Failure::new(format!("{source}: {error}")))?;
        self.objects.push(stored);
        self.gangs.push((namespace, name));
        Ok(())
    }

    /// Pods that say themselves which gang they belong to, or are a gang of one.
    fn add(&mut self, mut pods: Vec<Value>, template: &Template<'_>) -> Result<(), Failure> {
        for pod in &mut pods {
            let key = match gang_of(pod, template.source)? {
                Some(key) => key,
                None if template.count == 1 => {
                    let name = text(pod, "/metadata/name").to_owned();
                    pod["metadata"]["labels"][label::GANG] = name.clone().into();
                    pod["metadata"]["annotations"][annotation::GANG_SIZE] = "1".into();
                    (text(pod, "/metadata/namespace").to_owned(), name)
                }
                None => {
                    let what = format!(
                        "{}: its {} pods say of no gang that they belong to it",
                        template.source, template.count
                    );
                    let fix = format!(
                        "label the pod template {}: NAME and annotate it {}: \"{}\"",
                        label::GANG,
                        annotation::GANG_SIZE,
                        template.count
                    );
                    return Err(Failure::new(what).fix(fix));
                }
            };
            if !self.gangs.contains(&key) {
                self.gangs.push(key);
            }
        }
        self.objects.append(&mut pods);
        Ok(())
    }
}

/// What one pod has that its template does not say.
struct Place {
    name: String,
    labels: BTreeMap<&'static str, String>,
    annotations: BTreeMap<&'static str, String>,
}

/// The pod of a template by itself; that of an indexed Job has its index.
fn alone(template: &Template<'_>, index: u32) -> Place {
    let name = text(&template.metadata, "/name");
    let Some(job) = &template.job else {
        return Place { name: name.to_owned(), labels: BTreeMap::new(), annotations: BTreeMap::new() };
    };
    let labels = [
        ("batch.kubernetes.io/job-name", job.clone()),
        ("batch.kubernetes.io/job-completion-index", index.to_string()),
    ];
    Place { name: format!("{job}-{index}"), labels: labels.into(), annotations: BTreeMap::new() }
}

fn gang(document: &Document, namespace: &str) -> Result<(String, Gang), Failure> {
    let source = document.source.clone();
    let value = in_namespace(document.value.clone(), namespace);
    let mut gang: Gang =
        serde_path_to_error::deserialize(value).map_err(|why| unreadable(&source, &why.to_string()))?;
    let wrong = |field: &str, what: &str, fix: &str| Err(Failure::new(format!("{source}: {field}: {what}")).fix(fix));
    if gang.metadata.name.as_deref().unwrap_or_default().is_empty() {
        return wrong("metadata.name", "is missing", "give the gang a name");
    }
    let GangSpec { roles, min_member, .. } = &gang.spec;
    if roles.is_empty() {
        return wrong("spec.roles", "is empty", "name at least one role with its replicas");
    }
    let total: i64 = roles.iter().map(|role| i64::from(role.replicas)).sum();
    if let Some(at) = roles.iter().position(|role| role.replicas < 1) {
        return wrong(&format!("spec.roles[{at}].replicas"), "must be at least 1", "say how many pods the role has");
    }
    if total > i64::from(MOST) {
        return wrong(
            "spec.roles",
            &format!("{total} replicas together"),
            &format!("at most {MOST} can be planned here"),
        );
    }
    if i64::from(*min_member) > total || *min_member < 1 {
        let fix = format!("the roles have {total} replicas together");
        return wrong("spec.minMember", &format!("must be from 1 to {total}"), &fix);
    }
    gang.metadata.uid = Some(UID.to_owned());
    gang.status = None;
    Ok((document.source.clone(), gang))
}

fn template(document: &Document) -> Result<Template<'_>, Failure> {
    let value = &document.value;
    let (kind, source) = (text(value, "/kind"), document.source.as_str());
    let at = |pointer: &str| value.pointer(pointer).cloned().unwrap_or_else(|| json!({}));
    let job = kind == "Job";
    let (metadata, spec) = match kind {
        "Pod" => (at("/metadata"), at("/spec")),
        "PodTemplate" => (at("/template/metadata"), at("/template/spec")),
        _ => (at("/spec/template/metadata"), at("/spec/template/spec")),
    };
    if !spec.get("containers").is_some_and(Value::is_array) {
        let prefix = if job {
            "spec.template.spec"
        } else if kind == "Pod" {
            "spec"
        } else {
            "template.spec"
        };
        let what = format!("{source}: {prefix}.containers is missing");
        return Err(Failure::new(what).fix("list at least one container with what it requests"));
    }
    let mut metadata = if metadata.is_object() { metadata } else { json!({}) };
    for key in ["namespace", "name"] {
        if let (None, Some(outer)) = (metadata.get(key), value.pointer(&format!("/metadata/{key}"))) {
            metadata[key] = outer.clone();
        }
    }
    let parallel = value.pointer("/spec/parallelism").and_then(Value::as_u64).unwrap_or(1);
    let count = if job { u32::try_from(parallel).ok().filter(|n| *n <= MOST) } else { Some(1) };
    let Some(count) = count else {
        let what = format!("{source}: spec.parallelism: {parallel} pods");
        return Err(Failure::new(what).fix(format!("at most {MOST} can be planned here")));
    };
    Ok(Template { source, job: job.then(|| text(value, "/metadata/name").to_owned()), metadata, spec, count })
}

/// A pod as the API server would store it.
fn pod(
    template: &Template<'_>,
    place: &Place,
    namespace: &str,
    priorities: &BTreeMap<String, i64>,
) -> Result<Value, Failure> {
    let source = template.source;
    let mut metadata = template.metadata.as_object().cloned().unwrap_or_default();
    merge(&mut metadata, "labels", &place.labels);
    merge(&mut metadata, "annotations", &place.annotations);
    let namespace = metadata.get("namespace").and_then(Value::as_str).unwrap_or(namespace).to_owned();
    metadata.insert("uid".into(), format!("{UID}/{namespace}/{}", place.name).into());
    metadata.insert("namespace".into(), namespace.into());
    metadata.insert("name".into(), place.name.clone().into());
    let mut spec = template.spec.clone();
    match text(&spec, "/schedulerName") {
        "" => spec["schedulerName"] = SCHEDULER_NAME.into(),
        SCHEDULER_NAME => {}
        other => {
            let what = format!("{source}: schedulerName is {other}: another scheduler would place it");
            return Err(Failure::new(what).fix(format!("set it to {SCHEDULER_NAME}, or leave it out")));
        }
    }
    if !text(&spec, "/nodeName").is_empty() {
        return Err(Failure::new(format!("{source}: nodeName is set: nobody would be asked")).fix("leave it out"));
    }
    for list in ["/containers", "/initContainers"] {
        for container in spec.pointer_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            requests_from_limits(container);
        }
    }
    if let Some(spec) = spec.as_object_mut() {
        spec.remove("schedulingGates");
    }
    let mut pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec, "status": {"phase": "Pending"}});
    if pod.pointer("/spec/priority").is_none() {
        let class = text(&pod, "/spec/priorityClassName").to_owned();
        set_priority(&mut pod, Some(class.as_str()), priorities, source, "priorityClassName")?;
    }
    Ok(pod)
}

/// The priority of a class; that of the default class where none is named.
fn set_priority(
    pod: &mut Value,
    class: Option<&str>,
    priorities: &BTreeMap<String, i64>,
    source: &str,
    field: &str,
) -> Result<(), Failure> {
    let class = class.unwrap_or_default();
    let priority = match (priorities.get(class), class) {
        (Some(priority), _) => *priority,
        (None, "") => 0,
        (None, "system-node-critical") => 2_000_001_000,
        (None, "system-cluster-critical") => 2_000_000_000,
        (None, class) => {
            let known: Vec<&str> = priorities.keys().map(String::as_str).filter(|name| !name.is_empty()).collect();
            let known = if known.is_empty() {
                "the cluster has none".to_owned()
            } else {
                format!("there are {}", known.join(", "))
            };
            let what = format!("{source}: {field}: there is no PriorityClass {class}");
            return Err(Failure::new(what).fix(format!("name one that exists: {known}")));
        }
    };
    pod["spec"]["priority"] = priority.into();
    Ok(())
}

/// What a container may use at most it also asks for, where it asks for nothing else.
fn requests_from_limits(container: &mut Value) {
    let Some(Value::Object(limits)) = container.pointer("/resources/limits").cloned() else { return };
    if let Some(resources) = container.get_mut("resources").and_then(Value::as_object_mut) {
        let requests = resources.entry("requests").or_insert_with(|| json!({}));
        if let Some(requests) = requests.as_object_mut() {
            for (name, amount) in limits {
                requests.entry(name).or_insert(amount);
            }
        }
    }
}

fn merge(metadata: &mut Map<String, Value>, key: &str, more: &BTreeMap<&'static str, String>) {
    let entry = metadata.entry(key).or_insert_with(|| json!({}));
    if !entry.is_object() {
        *entry = json!({});
    }
    if let Some(map) = entry.as_object_mut() {
        more.iter().for_each(|(key, value)| drop(map.insert((*key).to_owned(), value.clone().into())));
    }
}

/// The gang that a pod says it belongs to, in any way that the scheduler reads.
fn gang_of(pod: &Value, source: &str) -> Result<Option<Key>, Failure> {
    let read: convert::types::Pod =
        serde_path_to_error::deserialize(pod).map_err(|why| unreadable(source, &why.to_string()))?;
    let info = convert::pod(&read, |name| name == SCHEDULER_NAME);
    Ok(info.gang.map(|gang| (info.key.namespace.to_string(), gang.name.to_string())))
}

fn in_namespace(mut object: Value, namespace: &str) -> Value {
    if object.pointer("/metadata").is_some_and(Value::is_object) && text(&object, "/metadata/namespace").is_empty() {
        object["metadata"]["namespace"] = namespace.into();
    }
    object
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn unreadable(source: &str, why: &str) -> Failure {
    Failure::new(format!("{source}: {why}")).fix("correct the field named above")
}

fn of_workflow(document: &Document) -> Failure {
    let what = format!("{} is a Workflow: its gangs are made when their turn comes", document.source);
    Failure::new(what)
        .fix("ask for one of its nodes: a Gang, and a PodTemplate with what a member requests; see docs/explain.md")
}

fn unknown(document: &Document) -> Failure {
    let shown = title(&document.value);
    Failure::new(format!("{}: {} is nothing that the scheduler reads", document.source, shown.trim()))
        .fix("give a Gang with Pods or PodTemplates for its roles, or pods that say which gang they belong to")
}

#[cfg(test)]
mod tests {
    use super::super::documents::parse;
    use super::*;

    fn made(text: &str) -> Result<Members, String> {
        let priorities = [("high".to_owned(), 1_000), (String::new(), 7)].into();
        parse("f.yaml", text)
            .and_then(|documents| of(&documents, "demo", &priorities))
            .map_err(|failure| failure.text())
    }

    const TEMPLATE: &str = "
---
{apiVersion: v1, kind: PodTemplate, metadata: {name: t}, template: {spec: {containers: [
  {name: main, image: i, resources: {limits: {nvidia.com/gpu: 8}, requests: {cpu: 4}}}]}}}
";

    fn gang(spec: &str) -> String {
        format!("{{apiVersion: flowforge.dev/v1alpha1, kind: Gang, metadata: {{name: g}}, spec: {spec}}}{TEMPLATE}")
    }

    #[test]
    fn the_replicas_of_every_role_are_made_as_the_api_server_would_store_them() {
        let roles =
            "{minMember: 3, priorityClassName: high, roles: [{name: worker, replicas: 2}, {name: ps, replicas: 1}]}";
        let members = made(&gang(roles)).expect("made");
        assert_eq!(members.gangs, [("demo".to_owned(), "g".to_owned())]);
        assert_eq!(members.objects.len(), 4);
        let last = &members.objects[2];
        assert_eq!(text(last, "/metadata/name"), "g-2");
        assert_eq!(last["metadata"]["labels"], json!({label::GANG: "g", label::ROLE: "ps", label::RANK: "2"}));
        assert_eq!(last["spec"]["priority"], 1_000);
        assert_eq!(last["spec"]["schedulerName"], SCHEDULER_NAME);
        let requests = &last["spec"]["containers"][0]["resources"]["requests"];
        assert_eq!(requests, &json!({"cpu": 4, "nvidia.com/gpu": 8}));
        assert_eq!(text(&members.objects[3], "/metadata/uid"), UID);
    }

    #[test]
    fn a_pod_by_itself_is_a_gang_of_one_and_pods_may_name_their_own() {
        let single = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: [{name: c}]}}";
        let members = made(single).expect("made");
        assert_eq!((members.gangs.len(), &members.objects[0]["spec"]["priority"]), (1, &json!(7)));
        assert_eq!(members.objects[0]["metadata"]["labels"][label::GANG], "p");
        let job = |labels: &str| {
            format!(
                "{{apiVersion: batch/v1, kind: Job, metadata: {{name: j}}, spec: {{parallelism: 3, template: {{metadata: {{labels: {labels}}}, spec: {{containers: [{{name: c}}]}}}}}}}}"
            )
        };
        let members = made(&job("{scheduling.x-k8s.io/pod-group: pg}")).expect("made");
        assert_eq!((members.gangs[0].1.as_str(), members.objects.len()), ("podgroup.scheduling.x-k8s.io/pg", 3));
        let refused = made(&job("{}")).expect_err("refused");
        assert!(refused.contains("its 3 pods say of no gang") && refused.contains(label::GANG), "{refused}");
    }

    #[test]
    fn what_is_wrong_names_the_field_and_what_would_help() {
        let refused = |text: &str| made(text).expect_err("refused");
        let has = |text: String, parts: &[&str]| assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        has(
            refused(&gang("{minMember: 1, roles: [{name: w, replicas: x}]}")),
            &["f.yaml#1: spec.roles[0].replicas: invalid type", "fix: "],
        );
        has(
            refused(&gang("{minMember: 9, roles: [{name: w, replicas: 2}]}")),
            &["spec.minMember: must be from 1 to 2"],
        );
        has(
            refused(&gang("{minMember: 1, priorityClassName: top, roles: [{name: w, replicas: 1}]}")),
            &["no PriorityClass top", "there are high"],
        );
        let bare = "{apiVersion: flowforge.dev/v1alpha1, kind: Gang, metadata: {name: g}, spec: {minMember: 1, roles: [{name: w, replicas: 1}]}}";
        has(refused(bare), &["f.yaml: spec.roles[0]: no Pod, PodTemplate or Job tells what a w asks for"]);
        has(
            refused("{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {}}"),
            &["f.yaml: spec.containers is missing"],
        );
        has(
            refused(
                "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {schedulerName: x, containers: [{name: c}]}}",
            ),
            &["schedulerName is x"],
        );
        has(
            refused("{apiVersion: v1, kind: ConfigMap, metadata: {name: m}}"),
            &["ConfigMap m is nothing that the scheduler reads"],
        );
        has(
            refused("{apiVersion: flowforge.dev/v1alpha1, kind: Workflow, metadata: {name: w}}"),
            &["is a Workflow", "PodTemplate"],
        );
        has(refused("{apiVersion: v1, kind: Node, metadata: {name: n}}"), &["nothing that would stand anywhere"]);
    }
}
