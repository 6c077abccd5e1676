//! What is wrong with a `podTemplate`, by field: the part of the checks that needs Kubernetes' own types.
//!
//! Unknown fields are found by decoding, encoding again and comparing: what did not survive is not a field. The API server
//! does not find them, because the CRD leaves the template open.

use flowforge_dag_controller_core::frontend::FieldError;
use k8s_openapi::api::core::v1::PodTemplateSpec;
use serde::Deserialize as _;
use serde_json::Value;

const MAX_UNKNOWN: usize = 20;

/// Complaints about a template at `path` (`spec.nodes[3].podTemplate`).
pub(crate) fn check(path: &str, raw: &Value) -> Vec<FieldError> {
    let template = match PodTemplateSpec::deserialize(raw) {
        Ok(template) => template,
        Err(error) => {
            let fix = "write it as the `template` of a Deployment: `metadata` and `spec` of a Pod";
            return vec![complaint(path.to_owned(), format!("is no pod template: {error}"), fix.to_owned())];
        }
    };
    let mut errors = Vec::new();
    if let Ok(known) = serde_json::to_value(&template) {
        unknown_fields(raw, &known, path, &mut errors);
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

    #[expect(clippy::needless_pass_by_value, reason = "templates are written in place")]
    fn paths(template: Value) -> Vec<String> {
        let mut paths: Vec<String> =
            check("spec.nodes[0].podTemplate", &template).into_iter().map(|e| e.path).collect();
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
        assert_eq!(paths(template), Vec::<String>::new());
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
        assert_eq!(paths(template), expected);
    }

    #[test]
    fn a_value_of_the_wrong_type_is_refused() {
        assert_eq!(paths(json!({"spec": {"containers": "main"}})), ["spec.nodes[0].podTemplate"]);
    }
}
