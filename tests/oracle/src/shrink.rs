//! Makes a case that shows a disagreement as small as it can be while still showing one.

use serde_json::Value;

/// The smallest case found: parts are taken away one by one as long as `shows` still holds of what is left.
pub(crate) fn shrink(mut case: Value, mut shows: impl FnMut(&Value) -> bool) -> Value {
    loop {
        let before = case.clone();
        for path in paths(&case) {
            let mut smaller = case.clone();
            if remove(&mut smaller, &path) && shows(&smaller) {
                case = smaller;
            }
        }
        if case == before {
            return case;
        }
    }
}

/// JSON pointers of everything that can be taken away, what holds most first, later elements before earlier ones so that
/// a removal leaves the other paths right.
fn paths(case: &Value) -> Vec<String> {
    let mut all = Vec::new();
    collect(case, "", &mut all);
    all.sort_by_key(|path: &String| path.matches('/').count());
    all.retain(|path| !is_identity(path));
    all
}

/// Names hold a case together.
fn is_identity(path: &str) -> bool {
    ["/pod", "/nodes", "/pods", "/namespaces", "/preempt"].contains(&path)
        // Every other configuration is a profile that takes kube-scheduler long to make.
        || path.starts_with("/configuration/")
        || [
            "/metadata",
            "/name",
            "/namespace",
            "/uid",
            "/schedulerName",
            "/nodeName",
            "/spec",
            "/status",
            "/cel",
            "/expression",
        ]
        .iter()
        .any(|end| path.ends_with(end))
}

fn collect(value: &Value, at: &str, all: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let path = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
                all.push(path.clone());
                collect(inner, &path, all);
            }
        }
        Value::Array(elements) => {
            for (index, inner) in elements.iter().enumerate().rev() {
                let path = format!("{at}/{index}");
                all.push(path.clone());
                collect(inner, &path, all);
            }
        }
        _ => {}
    }
}

fn remove(case: &mut Value, path: &str) -> bool {
    let Some((parent, last)) = path.rsplit_once('/') else { return false };
    let last = last.replace("~1", "/").replace("~0", "~");
    match case.pointer_mut(parent) {
        Some(Value::Object(fields)) => fields.remove(&last).is_some(),
        Some(Value::Array(elements)) => match last.parse::<usize>() {
            Ok(index) if index < elements.len() => {
                elements.remove(index);
                true
            }
            _ => false,
        },
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_shows_the_problem_is_left() {
        let case = json!({
            "pod": {"metadata": {"name": "p"}, "spec": {"x": 1}},
            "nodes": [{"metadata": {"name": "a"}}, {"metadata": {"name": "b", "labels": {"k/y": "v", "z": "1"}}}],
        });
        let small = shrink(case, |case| {
            let nodes = case["nodes"].as_array().into_iter().flatten();
            nodes.into_iter().any(|n| n["metadata"]["labels"]["k/y"] == "v")
        });
        let left = json!({
            "pod": {"metadata": {"name": "p"}, "spec": {}},
            "nodes": [{"metadata": {"name": "b", "labels": {"k/y": "v"}}}],
        });
        assert_eq!(small, left);
    }
}
