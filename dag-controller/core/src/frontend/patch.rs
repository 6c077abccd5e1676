//! Patches of a template at the place that refers to it: strategic merge for pod templates, merge patch (RFC 7396) and JSON
//! patch (RFC 6902), in the order in which they are written.
//!
//! The strategic merge follows Kubernetes' own for pods: lists of named things are merged by their key, `$patch: delete`
//! takes an entry away, `$patch: replace` puts a whole object or list in its place; every other list is replaced.

use super::errors::{Errors, Path};
use super::schema;
use serde_json::{Map, Value};

const DIRECTIVE: &str = "$patch";

/// The key by which the entries of a list are merged; none: the list is replaced. The names are those of core/v1.
fn merge_key(list: &str) -> Option<&'static str> {
    Some(match list {
        "containers"
        | "initContainers"
        | "ephemeralContainers"
        | "env"
        | "volumes"
        | "imagePullSecrets"
        | "resourceClaims"
        | "roles"
        | "claims" => "name",
        "volumeMounts" => "mountPath",
        "volumeDevices" => "devicePath",
        "ports" => "containerPort",
        "hostAliases" => "ip",
        "topologySpreadConstraints" => "topologyKey",
        _ => return None,
    })
}

/// Applies the patches of a reference, each an object with one of `strategic`, `merge` and `json`.
pub(super) fn apply(path: &Path, patches: &Value, target: &mut Value, errors: &mut Errors) {
    const KINDS: [&str; 3] = ["strategic", "merge", "json"];
    for (at, entry) in schema::list(path, patches, errors).into_iter().flatten().enumerate() {
        let path = path.at(at);
        let Some(entry) = schema::object(&path, entry, errors) else { continue };
        schema::unknown_fields(entry, &path, || KINDS.into_iter(), errors);
        let given: Vec<(&str, &Value)> =
            KINDS.into_iter().filter_map(|kind| schema::get(entry, kind).map(|v| (kind, v))).collect();
        let [(kind, patch)] = given[..] else {
            errors.push(&path, "must hold exactly one of strategic, merge and json", "write one entry for each patch");
            continue;
        };
        let path = path.field(kind);
        match kind {
            "json" => json(&path, patch, target, errors),
            _ if schema::object(&path, patch, errors).is_none() => {}
            "merge" => json_patch::merge(target, patch),
            _ => strategic(target, patch),
        }
    }
}

fn json(path: &Path, patch: &Value, target: &mut Value, errors: &mut Errors) {
    const FIX: &str =
        "write a list of {op, path, value} as in RFC 6902; paths begin at the template's node, like /replicas";
    if schema::list(path, patch, errors).is_none() {
        return;
    }
    let applied = serde_json::from_value::<json_patch::Patch>(patch.clone()).map_err(|error| error.to_string());
    let applied = applied.and_then(|patch| json_patch::patch(target, &patch).map_err(|error| error.to_string()));
    if let Err(error) = applied {
        errors.push(path, format!("cannot be applied: {error}"), FIX);
    }
}

/// Kubernetes' strategic merge. Recursion is bounded by the nesting that JSON may have.
fn strategic(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        *target = patch.clone();
        return;
    };
    if patch.get(DIRECTIVE).and_then(Value::as_str) == Some("replace") {
        *target = Value::Object(without_directive(patch));
        return;
    }
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Value::Object(target) = target else { return };
    for (key, value) in patch.iter().filter(|(key, _)| *key != DIRECTIVE) {
        match value {
            Value::Null => drop(target.remove(key)),
            Value::Object(inner) if inner.get(DIRECTIVE).and_then(Value::as_str) == Some("delete") => {
                target.remove(key);
            }
            Value::Array(entries) => merge_list(target.entry(key).or_insert(Value::Null), key, entries),
            _ => strategic(target.entry(key).or_insert(Value::Null), value),
        }
    }
}

fn without_directive(of: &Map<String, Value>) -> Map<String, Value> {
    of.iter().filter(|(key, _)| *key != DIRECTIVE).map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn merge_list(target: &mut Value, name: &str, entries: &[Value]) {
    let directive = |entry: &Value| entry.get(DIRECTIVE).and_then(Value::as_str).map(str::to_owned);
    let whole = entries.iter().any(|entry| directive(entry).as_deref() == Some("replace"));
    let (Some(key), false, Value::Array(known)) = (merge_key(name), whole, &mut *target) else {
        // An entry that holds nothing but the directive says that the others replace the list.
        let kept = entries.iter().filter(|e| directive(e).is_none()).cloned().collect();
        *target = Value::Array(kept);
        return;
    };
    for entry in entries {
        let at = known.iter().position(|k| k.get(key).is_some() && k.get(key) == entry.get(key));
        match (at, directive(entry).as_deref()) {
            (Some(at), Some("delete")) => drop(known.remove(at)),
            (None, Some("delete")) => {}
            (Some(at), _) => strategic(&mut known[at], entry),
            (None, _) => known.push(entry.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[track_caller]
    fn check(patches: &Value, expected: &Value) {
        let mut node = json!({
            "replicas": 2,
            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}],
            "podTemplate": {"spec": {
                "nodeSelector": {"a": "b"},
                "tolerations": [{"key": "x"}],
                "containers": [
                    {"name": "main", "image": "i:1", "ports": [{"containerPort": 80}],
                     "env": [{"name": "A", "valueFrom": {"fieldRef": {"fieldPath": "x"}}}]},
                    {"name": "side", "image": "s:1"},
                ],
            }},
        });
        let mut errors = Errors::default();
        apply(&Path::root("p"), patches, &mut node, &mut errors);
        let errors: Vec<String> = errors.into_list().iter().map(ToString::to_string).collect();
        assert_eq!(errors, Vec::<String>::new());
        for (pointer, value) in expected.as_object().expect("pointers") {
            assert_eq!(node.pointer(pointer).unwrap_or(&Value::Null), value, "{pointer} of {node}");
        }
    }

    #[test]
    fn a_strategic_merge_merges_named_entries_and_replaces_other_lists() {
        check(
            &json!([{"strategic": {"podTemplate": {"spec": {
                "nodeSelector": {"c": "d"},
                "tolerations": [{"key": "y"}],
                "containers": [
                    {"name": "main", "image": "i:2", "ports": [{"containerPort": 90}]},
                    {"name": "side", "$patch": "delete"},
                    {"name": "new", "image": "n:1"},
                ],
            }}}}]),
            &json!({
                "/podTemplate/spec/nodeSelector": {"a": "b", "c": "d"},
                "/podTemplate/spec/tolerations": [{"key": "y"}],
                "/podTemplate/spec/containers/0/image": "i:2",
                "/podTemplate/spec/containers/0/ports": [{"containerPort": 80}, {"containerPort": 90}],
                "/podTemplate/spec/containers/1/name": "new",
                "/podTemplate/spec/containers/2": null,
            }),
        );
    }

    #[test]
    fn directives_replace_and_delete() {
        check(
            &json!([{"strategic": {
                "env": [{"$patch": "replace"}, {"name": "C", "value": "3"}],
                "podTemplate": {"spec": {"nodeSelector": {"$patch": "replace", "z": "1"}, "tolerations": null}},
            }}]),
            &json!({
                "/env": [{"name": "C", "value": "3"}],
                "/podTemplate/spec/nodeSelector": {"z": "1"},
                "/podTemplate/spec/tolerations": null,
            }),
        );
    }

    #[test]
    fn merge_and_json_patches_follow_their_standards_and_the_order() {
        check(
            &json!([
                {"merge": {"env": [{"name": "Z", "value": "9"}], "replicas": 3}},
                {"json": [{"op": "test", "path": "/replicas", "value": 3}, {"op": "replace", "path": "/replicas", "value": 4}]},
            ]),
            &json!({"/env": [{"name": "Z", "value": "9"}], "/replicas": 4}),
        );
    }

    #[test]
    fn what_cannot_be_applied_is_told_with_its_place() {
        let cases = [
            (json!([{"json": [{"op": "remove", "path": "/nothing"}]}]), "p[0].json: cannot be applied"),
            (json!([{"merge": {}, "json": []}]), "p[0]: must hold exactly one"),
            (json!([{}]), "p[0]: must hold exactly one"),
            (json!([{"merge": 3}]), "p[0].merge: must be an object"),
            (json!([{"stragetic": {}}]), "did you mean \"strategic\"?"),
            (json!({"merge": {}}), "p: must be a list"),
        ];
        for (patches, expected) in cases {
            let mut errors = Errors::default();
            apply(&Path::root("p"), &patches, &mut json!({}), &mut errors);
            let text: Vec<String> = errors.into_list().iter().map(ToString::to_string).collect();
            assert!(text.join("\n").contains(expected), "{patches}: {text:?}");
        }
    }
}
