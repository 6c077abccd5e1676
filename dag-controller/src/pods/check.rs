//! What is wrong with a `podTemplate`, by field: the part of the checks that needs Kubernetes' own types.
//!
//! Unknown fields are found by decoding, encoding again and comparing: what did not survive is not a field.

use flowforge_api::workflow::WorkflowNode;
use flowforge_dag_controller_core::frontend::FieldError;
use serde_json::Value;

use super::template::parse;

const MAX_UNKNOWN: usize = 20;

/// Complaints about the template of `node`, whose path in the Workflow is `path` (`spec.nodes[3]`).
#[must_use]
pub fn check_node(path: &str, node: &WorkflowNode) -> Vec<FieldError> {
    let Some(raw) = &node.pod_template else { return Vec::new() };
    let path = format!("{path}.podTemplate");
    let template = match parse(node) {
        Ok(template) => template,
        Err(error) => {
            let fix = "write it as the `template` of a Deployment: `metadata` and `spec` of a Pod";
            return vec![complaint(path, format!("is no pod template: {error}"), fix.to_owned())];
        }
    };
    let mut errors = Vec::new();
    let policy = template.spec.as_ref().and_then(|s| s.restart_policy.as_deref());
    if let Some(policy) = policy.filter(|p| *p != "Never") {
        let problem = format!("is {policy:?}, but members of a gang are not restarted in place");
        errors.push(complaint(format!("{path}.spec.restartPolicy"), problem, "remove it, or set Never".to_owned()));
    }
    if let Ok(known) = serde_json::to_value(&template) {
        unknown_fields(raw, &known, &path, &mut errors);
    }
    errors
}

fn complaint(path: String, problem: String, fix: String) -> FieldError {
    FieldError { path, problem, fix }
}

/// Iterative: a hostile document may be nested deeply.
fn unknown_fields(raw: &Value, known: &Value, path: &str, errors: &mut Vec<FieldError>) {
    let mut open = vec![(raw, known, path.to_owned())];
    while let Some((raw, known, path)) = open.pop() {
        match (raw, known) {
            (Value::Object(raw), Value::Object(known)) => {
                for (key, value) in raw.iter().filter(|(_, v)| !v.is_null()) {
                    let path = format!("{path}.{key}");
                    match known.get(key) {
                        Some(kept) => open.push((value, kept, path)),
                        None if errors.len() < MAX_UNKNOWN => {
                            let fix = "check its name and its place; indentation moves fields".to_owned();
                            errors.push(complaint(path, "is no field of a pod template".to_owned(), fix));
                        }
                        None => return,
                    }
                }
            }
            (Value::Array(raw), Value::Array(known)) => {
                for (i, (value, kept)) in raw.iter().zip(known).enumerate() {
                    open.push((value, kept, format!("{path}[{i}]")));
                }
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(template: Value) -> Vec<String> {
        let node = WorkflowNode { id: "a".into(), pod_template: Some(template), ..WorkflowNode::default() };
        let mut paths: Vec<String> = check_node("spec.nodes[0]", &node).into_iter().map(|e| e.path).collect();
        paths.sort();
        paths
    }

    #[test]
    fn a_template_of_known_fields_passes() {
        let template = json!({
            "metadata": {"labels": {"a": "b"}, "creationTimestamp": null},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{"name": "main", "image": "x", "ports": [{"containerPort": 80}],
                    "resources": {"limits": {"nvidia.com/gpu": 8, "cpu": "1500m"}}}],
                "volumes": [{"name": "v", "emptyDir": {}}],
            },
        });
        assert_eq!(check(template), Vec::<String>::new());
    }

    #[test]
    fn unknown_fields_are_named_with_their_path() {
        let template = json!({
            "sepc": {},
            "spec": {"containers": [{"name": "main", "imgae": "x"}], "hostNetwrok": true},
        });
        let expected = [
            "spec.nodes[0].podTemplate.sepc",
            "spec.nodes[0].podTemplate.spec.containers[0].imgae",
            "spec.nodes[0].podTemplate.spec.hostNetwrok",
        ];
        assert_eq!(check(template), expected);
    }

    #[test]
    fn a_value_of_the_wrong_type_and_another_restart_policy_are_refused() {
        assert_eq!(check(json!({"spec": {"containers": "main"}})), ["spec.nodes[0].podTemplate"]);
        let always = json!({"spec": {"containers": [], "restartPolicy": "Always"}});
        assert_eq!(check(always), ["spec.nodes[0].podTemplate.spec.restartPolicy"]);
    }
}
