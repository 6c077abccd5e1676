//! The decision on one admission review. Pure: bytes in, an answer out.
//!
//! | Request | Answer |
//! |---|---|
//! | status, finalizers, deletion, an object that is being deleted, our own ServiceAccount | allowed |
//! | create, or an update that changes nothing but metadata, `cancel` and `ttlSecondsAfterFinished` | checked, allowed |
//! | create or update of a WorkTemplate | checked |
//! | update of any other field of `spec` | refused: submit a new Workflow |
//! | bytes that are no review | 400 |

use flowforge_api::workflow::{FROZEN, MUTABLE};
use flowforge_dag_controller_check::{check, is_template};
use flowforge_dag_controller_core::frontend::{FieldError, Levels, Options};
use serde_json::Value;

use super::review::{Cause, Request, ReviewIn, ReviewOut};

const SHOWN: usize = 10;

/// Decides reviews.
#[derive(Clone, Debug)]
pub struct Admission {
    own_user: String,
    levels: Vec<String>,
}

impl Admission {
    /// For a controller that runs as this ServiceAccount, in a cluster with these topology levels.
    #[must_use]
    pub fn new(namespace: &str, service_account: &str, levels: &[String]) -> Self {
        Self { own_user: format!("system:serviceaccount:{namespace}:{service_account}"), levels: levels.to_vec() }
    }

    /// Decides one review.
    ///
    /// # Errors
    /// A sentence, when the bytes are no review.
    pub fn review(&self, body: &[u8]) -> Result<ReviewOut, String> {
        self.request(body).map(|request| self.decide(request))
    }

    /// The request in the bytes of a review.
    ///
    /// # Errors
    /// A sentence, when the bytes are no review.
    pub fn request(&self, body: &[u8]) -> Result<Request, String> {
        let review: ReviewIn =
            serde_json::from_slice(body).map_err(|e| format!("the body is no AdmissionReview: {e}\n"))?;
        Ok(review.request)
    }

    fn decide(&self, request: Request) -> ReviewOut {
        if self.is_exempt(&request) {
            return ReviewOut::allow(request.uid);
        }
        let errors = match request.operation.as_str() {
            "CREATE" => {
                let levels: Vec<&str> = self.levels.iter().map(String::as_str).collect();
                check(&request.object, Options { levels: Levels::These(&levels), ..Options::default() })
            }
            // Nothing that runs depends on a template: it may change like new.
            "UPDATE" if is_template(&request.object) => check(&request.object, Options::default()),
            "UPDATE" => {
                let mut errors = frozen(&request.old_object, &request.object);
                errors.extend(forged(&request.old_object, &request.object, &request.user_info.username));
                errors
            }
            _ => Vec::new(),
        };
        answer(request.uid, &errors)
    }

    /// Whether nothing is to be decided.
    #[must_use]
    pub fn is_exempt(&self, request: &Request) -> bool {
        request.sub_resource.as_ref().is_some_and(|s| !s.is_empty())
            || request.user_info.username == self.own_user
            || request.object.pointer("/metadata/deletionTimestamp").is_some_and(|t| !t.is_null())
    }
}

/// What an update must not change. The policy of `manifests/base/frozen.yaml` refuses it first; this
/// speaks where that is not installed.
fn frozen(old: &Value, new: &Value) -> Vec<FieldError> {
    let empty = serde_json::Map::new();
    let spec = |v: &'_ Value| v.get("spec").and_then(Value::as_object).cloned().unwrap_or_else(|| empty.clone());
    let (old, new) = (spec(old), spec(new));
    let mut names: Vec<&String> = old.keys().chain(new.keys()).collect();
    names.sort();
    names.dedup();
    let changed = names.into_iter().filter(|n| !MUTABLE.contains(&n.as_str()) && old.get(*n) != new.get(*n));
    let (problem, fix) = FROZEN.split_once("; ").unwrap_or((FROZEN, ""));
    let mut errors: Vec<FieldError> = changed
        .map(|name| FieldError { path: format!("spec.{name}"), problem: problem.to_owned(), fix: fix.to_owned() })
        .collect();
    for wish in ["cancel", "terminate"] {
        let wished = |spec: &serde_json::Map<String, Value>| spec.get(wish) == Some(&Value::Bool(true));
        if wished(&old) && !wished(&new) {
            errors.push(FieldError {
                path: format!("spec.{wish}"),
                problem: "cannot be taken back".to_owned(),
                fix: "submit a new Workflow".to_owned(),
            });
        }
    }
    errors
}

/// Approvals are only added, and each in one's own name.
fn forged(old: &Value, new: &Value, user: &str) -> Vec<FieldError> {
    let approvals = |v: &Value| v.pointer("/spec/approvals").and_then(Value::as_array).cloned().unwrap_or_default();
    let (old, new) = (approvals(old), approvals(new));
    let mut errors = Vec::new();
    let mut refuse = |path: String, problem: String, fix: &str| {
        errors.push(FieldError { path, problem, fix: fix.to_owned() });
    };
    if !old.iter().all(|known| new.contains(known)) {
        let problem = "what was decided cannot be changed or taken back".to_owned();
        refuse("spec.approvals".to_owned(), problem, "leave the entries that are there, and add others");
    }
    for (at, approval) in new.iter().enumerate().filter(|(_, approval)| !old.contains(approval)) {
        let by = approval.get("by").and_then(Value::as_str).unwrap_or_default();
        if by != user {
            let problem = format!("is {by:?}, and you are {user:?}");
            refuse(format!("spec.approvals[{at}].by"), problem, "decide in your own name: flowforge approve does");
        }
    }
    errors
}

fn answer(uid: String, errors: &[FieldError]) -> ReviewOut {
    if errors.is_empty() {
        return ReviewOut::allow(uid);
    }
    let mut lines: Vec<String> = errors.iter().take(SHOWN).map(ToString::to_string).collect();
    if errors.len() > SHOWN {
        lines.push(format!("and {} more", errors.len() - SHOWN));
    }
    let causes = errors
        .iter()
        .map(|e| Cause {
            reason: "FieldValueInvalid",
            field: e.path.clone(),
            message: format!("{}; {}", e.problem, e.fix),
        })
        .collect();
    ReviewOut::deny(uid, lines.join("\n"), causes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use serde_json::json;

    fn admission() -> Admission {
        Admission::new("flowforge-system", "flowforge-dag-controller", &Config::default().topology_levels)
    }

    fn workflow(nodes: &Value) -> Value {
        json!({"apiVersion": "flowforge.dev/v1alpha1", "kind": "Workflow",
            "metadata": {"name": "wf", "namespace": "ns"}, "spec": {"nodes": nodes}})
    }

    fn good() -> Value {
        workflow(&json!([{"id": "a", "replicas": 1, "image": "x"}]))
    }

    fn ask(request: &Value) -> ReviewOut {
        let body = serde_json::to_vec(&json!({"apiVersion": "admission.k8s.io/v1", "request": request})).unwrap();
        admission().review(&body).unwrap()
    }

    fn create(object: &Value) -> ReviewOut {
        ask(&json!({"uid": "u", "operation": "CREATE", "object": object}))
    }

    fn update(old: &Value, new: &Value) -> ReviewOut {
        ask(&json!({"uid": "u", "operation": "UPDATE", "oldObject": old, "object": new}))
    }

    #[test]
    fn a_decision_is_made_in_ones_own_name_and_stays() {
        let with = |approvals: Value| {
            let mut object = good();
            object["spec"]["approvals"] = approvals;
            object
        };
        let ask = |old: &Value, new: &Value| {
            ask(
                &json!({"uid": "u", "operation": "UPDATE", "oldObject": old, "object": new, "userInfo": {"username": "alice"}}),
            )
        };
        let alice = json!([{"node": "a", "approved": true, "by": "alice"}]);
        assert!(ask(&good(), &with(alice.clone())).allowed());
        let bob = json!([{"node": "a", "approved": true, "by": "bob"}]);
        let refused = ask(&good(), &with(bob.clone()));
        assert!(refused.message().contains("spec.approvals[0].by"), "{}", refused.message());
        assert!(ask(&with(bob.clone()), &with(bob)).allowed(), "what was there is not asked about");
        assert!(ask(&with(alice), &good()).message().contains("cannot be changed or taken back"));
    }

    #[test]
    fn a_good_workflow_passes() {
        let out = create(&good());
        assert!(out.allowed(), "{}", out.message());
    }

    #[test]
    fn every_mistake_is_named_with_its_path_and_its_fix() {
        let bad = workflow(&json!([
            {"id": "a", "replicas": 1, "image": "x", "dependsOn": ["b"]},
            {"id": "b", "replicas": 1, "image": "x", "dependsOn": ["a"]},
            {"id": "c", "replicas": 0, "podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}]}}},
        ]));
        let out = create(&bad);
        assert!(!out.allowed());
        assert!(out.message().contains("spec.nodes[2].replicas"), "{}", out.message());
        let cyclic = workflow(&json!([
            {"id": "a", "replicas": 1, "image": "x", "dependsOn": ["b"]},
            {"id": "b", "replicas": 1, "image": "x", "dependsOn": ["a"]},
        ]));
        assert!(create(&cyclic).message().contains("dependsOn"), "{}", create(&cyclic).message());
    }

    #[test]
    fn a_pod_template_is_checked_against_kubernetes_own_types() {
        let nodes = json!([{"id": "a", "replicas": 1, "podTemplate": {"spec": {
            "restartPolicy": "Always", "containers": [{"name": "main", "image": "x", "imgae": "y"}]}}}]);
        let out = create(&workflow(&nodes));
        assert!(out.message().contains("imgae"), "{}", out.message());
        assert!(out.message().contains("restartPolicy"), "{}", out.message());
    }

    #[test]
    fn a_topology_level_is_one_of_the_clusters_own() {
        let nodes = |level: &str| workflow(&json!([{"id": "a", "image": "x", "topology": {"required": level}}]));
        let review = |admission: Admission, level: &str| {
            let request = json!({"request": {"uid": "u", "operation": "CREATE", "object": nodes(level)}});
            admission.review(&serde_json::to_vec(&request).unwrap()).unwrap()
        };
        assert!(review(admission(), "rack").allowed());
        assert!(review(admission(), "pod").message().contains("write one of zone, block, rack"));
        let own = Admission::new("flowforge-system", "flowforge-dag-controller", &["pod".to_owned()]);
        assert!(review(own.clone(), "pod").allowed());
        assert!(review(own, "rack").message().contains("write one of pod"));
    }

    #[test]
    fn a_template_is_checked_whenever_it_is_written() {
        let template = |node: Value| {
            json!({"apiVersion": "flowforge.dev/v1alpha1", "kind": "WorkTemplate",
            "metadata": {"name": "t", "namespace": "ns"}, "spec": {"node": node}})
        };
        let (good, bad) = (template(json!({"image": "x"})), template(json!({"imgae": "x"})));
        assert!(create(&good).allowed());
        assert!(create(&bad).message().contains("spec.node.imgae"), "{}", create(&bad).message());
        assert!(update(&good, &template(json!({"image": "y"}))).allowed());
        assert!(update(&good, &bad).message().contains("did you mean \"image\""));
    }

    #[test]
    fn only_cancel_and_ttl_may_change_and_cancel_only_once() {
        let mut canceled = good();
        canceled["spec"]["cancel"] = json!(true);
        canceled["spec"]["ttlSecondsAfterFinished"] = json!(60);
        assert!(update(&good(), &canceled).allowed());
        assert!(update(&canceled, &good()).message().contains("spec.cancel"));
        let other = workflow(&json!([{"id": "a", "replicas": 2, "image": "x"}]));
        assert!(update(&good(), &other).message().contains("spec.nodes"));
    }

    #[test]
    fn statuses_deletions_dying_objects_and_our_own_account_are_left_alone() {
        let bad = workflow(&json!([]));
        assert!(!create(&bad).allowed());
        let mut dying = bad.clone();
        dying["metadata"]["deletionTimestamp"] = json!("2026-11-23T10:00:00Z");
        assert!(create(&dying).allowed());
        let own = "system:serviceaccount:flowforge-system:flowforge-dag-controller";
        for request in [
            json!({"uid": "u", "operation": "CREATE", "subResource": "status", "object": bad}),
            json!({"uid": "u", "operation": "CREATE", "object": bad, "userInfo": {"username": own}}),
            json!({"uid": "u", "operation": "DELETE", "object": null, "oldObject": bad}),
        ] {
            assert!(ask(&request).allowed(), "{request}");
        }
    }

    #[test]
    fn garbage_is_no_review_and_does_no_harm() {
        for body in
            [b"".as_slice(), b"\xff\xfe\x00", b"[]", b"{}", b"{\"request\": 3}", b"{\"request\": {\"uid\": []}}"]
        {
            assert!(admission().review(body).is_err());
        }
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(admission().review(deep.as_bytes()).is_err());
        let request = json!({"uid": "u", "operation": "CREATE", "object": [1, null, {"spec": {"nodes": "x"}}]});
        assert!(!ask(&request).allowed());
    }

    #[test]
    fn a_large_cyclic_graph_is_refused_in_good_time() {
        let nodes: Vec<Value> = (0..5000)
            .map(|i| json!({"id": format!("n{i}"), "replicas": 1, "image": "x", "dependsOn": [format!("n{}", (i + 1) % 5000)]}))
            .collect();
        // As the server runs it: on a thread with an ordinary stack.
        let out = std::thread::spawn(move || create(&workflow(&json!(nodes)))).join().unwrap();
        assert!(!out.allowed());
        assert!(out.message().len() < 16 * 1024, "{} bytes", out.message().len());
    }
}
