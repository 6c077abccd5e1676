//! `podTemplate`: the parts of a pod that FlowForge itself depends on. The rest is the API server's to judge.

use super::Options;
use super::errors::{Errors, Path, echo};
use super::schema::{self, get};
use super::storage::Taken;
use super::syntax;
use serde_json::{Map, Value};

/// Fields of the pod's spec that FlowForge sets itself.
const OURS: &[(&str, &str)] = &[
    ("hostname", "members get their own, by rank"),
    ("subdomain", "members get the Service of their gang"),
    ("nodeName", "it would bypass the scheduler: use nodeSelector or affinity"),
    ("schedulerName", "use spec.schedulerName"),
];

/// What a template says about its main container.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Template {
    /// It has an image.
    pub(super) has_image: bool,
}

/// Checks a template. The main container is the one named `main`, else the first.
pub(super) fn check(
    path: &Path,
    value: &Value,
    taken: &mut Taken,
    options: Options<'_>,
    errors: &mut Errors,
) -> Template {
    let Some(template) = schema::object(path, value, errors) else { return Template { has_image: true } };
    if options.strict {
        schema::unknown_fields(template, path, || ["metadata", "spec"].into_iter(), errors);
    }
    if let Some(metadata) = get(template, "metadata") {
        check_metadata(&path.field("metadata"), metadata, options, errors);
    }
    let Some(spec) = get(template, "spec") else { return Template::default() };
    let path = path.field("spec");
    let Some(spec) = schema::object(&path, spec, errors) else { return Template { has_image: true } };
    for (key, fix) in OURS {
        if get(spec, key).is_some() {
            errors.push(path.field(key), "is set by FlowForge", format!("remove it: {fix}"));
        }
    }
    if get(spec, "restartPolicy").is_some_and(|policy| policy.as_str() != Some("Never")) {
        let fix = "remove it: a failed member fails its gang, and the gang is what is tried again";
        errors.push(path.field("restartPolicy"), "must be Never", fix);
    }
    for key in ["initContainers", "volumes"] {
        if let Some(list) = get(spec, key) {
            schema::named(&path.field(key), list, "name", true, errors);
        }
    }
    check_containers(&path.field("containers"), spec, taken, errors)
}

fn check_metadata(path: &Path, metadata: &Value, options: Options<'_>, errors: &mut Errors) {
    const METADATA: &[schema::Field] = &[("labels", schema::Kind::Labels), ("annotations", schema::Kind::Annotations)];
    if let Some(metadata) = schema::object(path, metadata, errors) {
        schema::check(metadata, path, &[METADATA], options, errors);
    }
}

fn check_containers(path: &Path, spec: &Map<String, Value>, taken: &mut Taken, errors: &mut Errors) -> Template {
    let Some(containers) = get(spec, "containers") else { return Template::default() };
    let named = schema::named(path, containers, "name", true, errors);
    let Some(entries) = containers.as_array() else { return Template { has_image: true } };
    if named.len() < entries.len() {
        // Which one is the main container is not known before each has a name.
        return Template { has_image: true };
    }
    for (at, (_, name)) in named.iter().enumerate() {
        if !name.is_empty() && !syntax::is_label(name) {
            let fix = "use lower-case letters, digits and '-', at most 63";
            errors.push(path.at(at).field("name"), format!("{} is no name of a container", echo(name)), fix);
        }
    }
    let main = named.iter().position(|(_, name)| *name == "main").unwrap_or(0);
    for (at, (container, _)) in named.iter().enumerate() {
        if at == main {
            taken.take_mounts(&path.at(at), container, errors);
        } else if !has_image(container) {
            errors.push(path.at(at), "has no image", "add image");
        }
    }
    Template { has_image: named.get(main).is_some_and(|(container, _)| has_image(container)) }
}

fn has_image(container: &Map<String, Value>) -> bool {
    get(container, "image").is_some_and(|image| image.as_str().is_none_or(|text| !text.trim().is_empty()))
}
