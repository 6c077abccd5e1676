//! Copies the templates that a Workflow refers to into it, before it is stored: from then on they are frozen with its spec.
//!
//! | Request | `spec.templates` gets |
//! |---|---|
//! | create | the WorkTemplates of the namespace that nodes name and that are not there yet |
//! | update | what the stored object has: an apply of the same file does not change what runs |
//!
//! A template that does not exist is left out: the validating webhook, which comes after, says so with its place.

use flowforge_api::WorkTemplate;
use flowforge_dag_controller_core::frontend::templates_wanted;
use kube::Client;
use kube::api::Api;
use serde_json::{Value, json};

use super::review::Request;

/// Templates that are to be read, by name: those of a new Workflow.
#[must_use]
pub fn to_read(request: &Request) -> Vec<String> {
    match (request.operation.as_str(), request.object.get("spec")) {
        ("CREATE", Some(spec)) => templates_wanted(spec).into_iter().map(str::to_owned).collect(),
        _ => Vec::new(),
    }
}

/// Reads templates of a namespace; those that do not exist are left out. Consistent reads: a template that was applied just
/// before the workflow is seen.
///
/// # Errors
/// When the API server does not answer.
pub async fn read(client: &Client, namespace: &str, names: Vec<String>) -> Result<Vec<Value>, kube::Error> {
    let api: Api<WorkTemplate> = Api::namespaced(client.clone(), namespace);
    let mut found = Vec::new();
    for name in names {
        if let Some(template) = api.get_opt(&name).await? {
            let mut spec = serde_json::to_value(&template.spec).map_err(kube::Error::SerdeError)?;
            if let Some(fields) = spec.as_object_mut() {
                fields.insert("name".to_owned(), Value::String(name));
            }
            found.push(spec);
        }
    }
    Ok(found)
}

/// The operations of a JSON patch that put templates into the object; `read` holds those that were read for it.
#[must_use]
pub fn operations(request: &Request, read: Vec<Value>) -> Vec<Value> {
    let Some(spec) = request.object.get("spec").filter(|spec| spec.is_object()) else { return Vec::new() };
    let stored = request.old_object.pointer("/spec/templates").and_then(Value::as_array);
    let wanted = templates_wanted(spec);
    let is_wanted =
        |template: &&Value| template.get("name").and_then(Value::as_str).is_some_and(|n| wanted.contains(&n));
    let stored = stored.into_iter().flatten().filter(is_wanted).cloned();
    let missing: Vec<Value> = stored.chain(read).collect();
    if missing.is_empty() {
        return Vec::new();
    }
    if spec.get("templates").is_some_and(Value::is_array) {
        return missing.into_iter().map(|t| json!({"op": "add", "path": "/spec/templates/-", "value": t})).collect();
    }
    vec![json!({"op": "add", "path": "/spec/templates", "value": missing})]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(operation: &str, spec: &Value, old: &Value) -> Request {
        let request = json!({"uid": "u", "operation": operation, "object": {"spec": spec}, "oldObject": {"spec": old}});
        serde_json::from_value(request).unwrap()
    }

    #[test]
    fn a_new_workflow_gets_what_it_names_and_does_not_hold() {
        let spec = json!({
            "templates": [{"name": "own"}],
            "nodes": [{"template": {"name": "own"}}, {"template": {"name": "far"}}, {"template": {"name": "far"}}, {"id": "x"}],
        });
        let request = request("CREATE", &spec, &Value::Null);
        assert_eq!(to_read(&request), ["far"]);
        let far = json!({"name": "far", "node": {}});
        let expected = json!({"op": "add", "path": "/spec/templates/-", "value": far});
        assert_eq!(operations(&request, vec![far]), [expected]);
    }

    #[test]
    fn an_update_keeps_what_is_stored() {
        let stored = json!({"templates": [{"name": "far", "node": {"image": "old"}}], "nodes": []});
        let spec = json!({"nodes": [{"template": {"name": "far"}}]});
        let request = request("UPDATE", &spec, &stored);
        assert_eq!(to_read(&request), Vec::<String>::new());
        let expected = json!([{"op": "add", "path": "/spec/templates", "value": stored["templates"]}]);
        assert_eq!(json!(operations(&request, Vec::new())), expected);
    }

    #[test]
    fn what_is_no_workflow_is_left_as_it_is() {
        for spec in [json!(null), json!([]), json!({"nodes": 3}), json!({"nodes": [{"template": 4}], "templates": {}})]
        {
            assert_eq!(operations(&request("CREATE", &spec, &Value::Null), Vec::new()), Vec::<Value>::new());
        }
    }
}
