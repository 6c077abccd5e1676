//! Every mistake in a Workflow, as the admission webhook and `flowforge lint` say it: one check, the same texts.
//!
//! ```text
//!   document ──> the core's front end: fields, names, mounts, graph ──┐
//!            └─> Kubernetes' own types: the spec, each podTemplate  ──┴─> one list, each place named once
//! ```
//! The core knows no Kubernetes types, and the command line depends on no shell: what both need of the two stands here.

mod template;

use flowforge_api::template::WorkTemplateSpec;
use flowforge_api::workflow::WorkflowSpec;
use flowforge_dag_controller_core::frontend::{self, FieldError, Options};
use serde::Deserialize as _;
use serde_json::Value;

/// Every mistake in a Workflow manifest or its short form, or in a WorkTemplate, the front end's first. Linear in its size.
#[must_use]
pub fn check(document: &Value, options: Options<'_>) -> Vec<FieldError> {
    if is_template(document) {
        return check_template(document, options);
    }
    let (mut errors, plain) = match frontend::compile(document, options) {
        Ok(compiled) => (Vec::new(), compiled.spec),
        Err(errors) => (errors, None),
    };
    let manifest = frontend::to_manifest(document);
    let (root, spec) = match &manifest {
        Some(manifest) => ("workflow", manifest.get("spec")),
        None => ("spec", document.get("spec")),
    };
    let Some(spec) = spec else { return errors };
    check_templates(root, plain.as_ref().unwrap_or(spec), &mut errors);
    // What no rule above names, decoding still finds; its text knows no path.
    for decoded in [Some(spec), plain.as_ref()].into_iter().flatten() {
        if errors.is_empty()
            && let Err(error) = WorkflowSpec::deserialize(decoded)
        {
            errors.push(undecoded(root, &error, "see `kubectl explain workflow.spec`"));
        }
    }
    errors
}

/// Whether a document is a `WorkTemplate`.
#[must_use]
pub fn is_template(document: &Value) -> bool {
    document.get("kind").and_then(Value::as_str) == Some("WorkTemplate")
}

fn check_template(document: &Value, options: Options<'_>) -> Vec<FieldError> {
    let mut errors = frontend::check_template(document, options);
    if errors.is_empty()
        && let Some(spec) = document.get("spec")
        && let Err(error) = WorkTemplateSpec::deserialize(spec)
    {
        errors.push(undecoded("spec", &error, "see `kubectl explain worktemplate.spec`"));
    }
    errors
}

fn undecoded(path: &str, error: &serde_json::Error, fix: &str) -> FieldError {
    FieldError { path: path.to_owned(), problem: error.to_string(), fix: fix.to_owned() }.bounded()
}

fn check_templates(root: &str, spec: &Value, errors: &mut Vec<FieldError>) {
    let nodes = spec.get("nodes").and_then(Value::as_array);
    for (at, node) in nodes.into_iter().flatten().enumerate() {
        if errors.len() >= frontend::MAX_ERRORS {
            return;
        }
        // What could not be filled is told already, and is no pod template yet.
        let known = |t: &&Value| !t.is_null() && !frontend::has_texts(t);
        let Some(raw) = node.get("podTemplate").filter(known) else { continue };
        for error in template::check(&format!("{root}.nodes[{at}].podTemplate"), raw) {
            if errors.iter().all(|known| known.path != error.path) {
                errors.push(error.bounded());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn paths(document: &Value, strict: bool) -> Vec<String> {
        check(document, Options { strict, ..Options::default() }).into_iter().map(|e| e.path).collect()
    }

    fn manifest(nodes: &Value) -> Value {
        json!({"apiVersion": "flowforge.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": "wf"},
            "spec": {"nodes": nodes}})
    }

    #[test]
    fn a_good_workflow_has_no_mistake_in_either_form() {
        let nodes = json!([{"id": "a", "podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}}]);
        assert_eq!(paths(&manifest(&nodes), true), Vec::<String>::new());
        let short = json!({"workflow": {"name": "wf", "storage": {"claimRef": "nas"}, "nodes": nodes}});
        assert_eq!(paths(&short, true), Vec::<String>::new());
    }

    #[test]
    fn both_halves_speak_and_each_place_is_named_once() {
        let nodes = json!([
            {"id": "a", "replicas": 0, "image": "x"},
            {"id": "b", "podTemplate": {"sepc": 1, "spec": {"restartPolicy": "Always",
                "containers": [{"name": "main", "image": "x", "imgae": "y"}]}}},
        ]);
        let expected = [
            "spec.nodes[0].replicas",
            "spec.nodes[1].podTemplate.sepc",
            "spec.nodes[1].podTemplate.spec.restartPolicy",
            "spec.nodes[1].podTemplate.spec.containers[0].imgae",
        ];
        assert_eq!(paths(&manifest(&nodes), true), expected);
        let short = json!({"workflow": {"name": "wf", "nodes": nodes}});
        assert_eq!(paths(&short, true), expected.map(|path| path.replacen("spec", "workflow", 1)));
    }

    #[test]
    fn a_value_that_only_kubernetes_types_refuse_is_found() {
        let nodes = json!([{"id": "a", "image": "x", "affinity": {"nodeAffinity": 3}}]);
        assert_eq!(paths(&manifest(&nodes), false), ["spec"]);
    }

    #[test]
    fn a_text_repeats_only_so_much_of_the_users() {
        let long = "x".repeat(100_000);
        let node = |fields: Value| {
            let mut node = json!({"id": "a", "image": "x"});
            node.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            manifest(&json!([node]))
        };
        for document in [
            node(json!({long.clone(): 1})),
            node(json!({"affinity": long})),
            node(json!({"podTemplate": {"spec": {long.clone(): 1}}})),
            node(json!({"podTemplate": {"spec": {"containers": long}}})),
            node(json!({"podTemplate": {"spec": {"containers": [{"name": "main", "image": "x", "lifecycle": long}]}}})),
        ] {
            let errors = check(&document, Options { strict: true, ..Options::default() });
            assert!(!errors.is_empty());
            for error in errors {
                assert!(error.to_string().len() < 3 * 1100, "{} bytes", error.to_string().len());
            }
        }
    }

    #[test]
    fn what_is_no_document_at_all_has_one_mistake() {
        for document in [json!(null), json!([1]), json!("x"), json!({"spec": [], "kind": 1}), json!({"workflow": 3})] {
            assert!(!paths(&document, true).is_empty(), "{document}");
        }
    }
}
