//! Every manifest against a real API server: accepted under strict field validation, without wildcards, and with a
//! webhook that is asked only where it must be.

use anyhow::{Context as _, Result, ensure};
use flowforge_api::workflow::WorkflowNode;
use flowforge_api::{Gang, GangSpec, Workflow, WorkflowSpec};
use flowforge_testbed::Testbed;
use flowforge_tests::eventually;
use flowforge_tests::install::{CONTROLLER, NAMESPACE, WEBHOOK, repository};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhookConfiguration, ValidatingWebhookConfiguration};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::io::Write as _;
use std::process::Stdio;
use std::time::Duration;

/// What is applied whole; each is a folder for kustomize or a file.
const RENDERED: &[&str] = &[
    "manifests/base",
    "manifests/install.yaml",
    "manifests/only-scheduler",
    "manifests/only-scheduler/static-pod.yaml",
    "manifests/components/example",
];
/// Kinds of operators that the testbed does not run.
const FOREIGN_KINDS: &[&str] = &["ServiceMonitor"];
const SOON: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_manifest_is_accepted_and_the_webhook_is_asked_only_where_it_must_be() {
    let testbed = Testbed::builder().start().await.expect("a testbed");
    // Definitions and namespace must be there before a dry run knows the kinds.
    testbed.apply_manifests(repository().join("manifests/base")).await.expect("base applies");
    for path in RENDERED {
        accepted(&testbed, path).unwrap_or_else(|error| panic!("{path}: {error:#}"));
    }
    webhook_conditions(&testbed).await.expect("webhook conditions");
    users(&testbed).await.expect("aggregated roles");
}

#[test]
fn roles_name_what_they_allow() {
    let text = std::fs::read_to_string(repository().join("manifests/install.yaml")).expect("install.yaml");
    let mut names = BTreeSet::new();
    for object in documents(&text).expect("yaml") {
        let kind = object["kind"].as_str().unwrap_or_default();
        if kind == "Role" || kind == "ClusterRole" {
            for rule in object["rules"].as_array().expect("rules") {
                assert!(!rule.to_string().contains("\"*\""), "{kind} {}: {rule}", object["metadata"]["name"]);
                names.extend(rule["resourceNames"].as_array().into_iter().flatten().map(ToString::to_string));
            }
        }
    }
    // A generated name (with the hash of a ConfigMap, say) would allow nothing.
    let wanted = [r#""flowforge-dag-controller""#, r#""flowforge-scheduler""#, r#""flowforge-webhook-tls""#];
    assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
}

#[test]
fn the_committed_definitions_are_those_of_the_types() {
    for (stem, definition) in flowforge_api::crds() {
        let path = repository().join(format!("manifests/crds/{stem}.yaml"));
        let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut written: Value = serde_saphyr::from_str(&text).expect("yaml");
        let mut wanted = serde_json::to_value(definition).expect("json");
        plain(&mut written);
        plain(&mut wanted);
        assert!(written == wanted, "{stem} is stale: run `make manifests`");
    }
}

/// Drops what the generator drops: descriptions and nulls; numbers become what JSON compares as equal.
fn plain(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|key, inner| !(inner.is_null() || (key == "description" && inner.is_string())));
            map.values_mut().for_each(plain);
        }
        Value::Array(items) => items.iter_mut().for_each(plain),
        Value::Number(number) => *value = json!(number.as_f64()),
        _ => {}
    }
}

fn documents(yaml: &str) -> Result<Vec<Value>> {
    Ok(serde_saphyr::from_multiple(yaml)?)
}

/// Server-side dry run of everything at `path` with strict field validation.
fn accepted(testbed: &Testbed, path: &str) -> Result<()> {
    let full = repository().join(path);
    let yaml = if full.is_dir() {
        let rendered = testbed.kubectl().arg("kustomize").arg(&full).output()?;
        ensure!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
        String::from_utf8(rendered.stdout)?
    } else {
        std::fs::read_to_string(&full)?
    };
    let known = |object: &Value| !FOREIGN_KINDS.contains(&object["kind"].as_str().unwrap_or_default());
    let objects: Vec<Value> = documents(&yaml)?.into_iter().filter(known).collect();
    ensure!(!objects.is_empty(), "it renders nothing");
    let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
    let mut kubectl = testbed.kubectl();
    kubectl.args(["apply", "--server-side", "--force-conflicts", "--dry-run=server", "--validate=strict", "-f", "-"]);
    let mut child = kubectl.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let mut stdin = child.stdin.take().context("stdin")?;
    let writer = std::thread::spawn(move || stdin.write_all(list.as_bytes()));
    let output = child.wait_with_output()?;
    writer.join().map_err(|_| anyhow::anyhow!("the writer panicked"))??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let accepted = String::from_utf8_lossy(&output.stdout).lines().count();
    ensure!(accepted == objects.len(), "{accepted} of {} objects were accepted", objects.len());
    Ok(())
}

/// A right that the controller does not have in production.
const MAY_PATCH: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-may-patch-workflows}
rules: [{apiGroups: [flowforge.dev], resources: [workflows], verbs: [patch]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-may-patch-workflows}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-may-patch-workflows}
subjects: [{kind: ServiceAccount, name: flowforge-dag-controller, namespace: flowforge-system}]
";

/// Nobody answers for the webhook here, so whatever asks it is refused: that shows exactly when it is asked.
async fn webhook_conditions(testbed: &Testbed) -> Result<()> {
    let client = testbed.client();
    let workflows: Api<Workflow> = Api::namespaced(client.clone(), "default");
    store_without_webhook(testbed, &workflows).await?;

    // Asked, and therefore refused: a new workflow, and a changed spec.
    eventually("a new workflow asks the webhook", SOON, || async {
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        match workflows.create(&dry, &workflow("new")).await {
            Err(error) if error.to_string().contains("workflows.flowforge.dev") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await?;
    let params = PatchParams::default();
    let cancel = Patch::Merge(json!({"spec": {"cancel": true}}));
    let changed = workflows.patch("stored", &params, &cancel).await;
    let text = changed.err().context("a changed spec did not ask the webhook")?.to_string();
    ensure!(text.contains("workflows.flowforge.dev"), "{text}");

    // Not asked: status, labels, finalizers, what is being deleted, our own controller, our own namespace.
    let status = Patch::Merge(json!({"status": {"phase": "Running"}}));
    workflows.patch_status("stored", &params, &status).await.context("status")?;
    let meta = |metadata: Value| Patch::Merge(json!({"metadata": metadata}));
    workflows.patch("stored", &params, &meta(json!({"labels": {"a": "b"}}))).await.context("label")?;
    let finalizer = meta(json!({"finalizers": ["example.com/hold"]}));
    workflows.patch("stored", &params, &finalizer).await.context("finalizer")?;
    // The controller writes no spec and may not; here it may, to see that the webhook would not be asked about it.
    testbed.apply_yaml(MAY_PATCH).await?;
    let own: Api<Workflow> = Api::namespaced(testbed.client_as(NAMESPACE, CONTROLLER).await?, "default");
    eventually("our own controller changes a spec without the webhook", SOON, || async {
        own.patch("stored", &params, &cancel).await.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    workflows.delete("stored", &DeleteParams::default()).await.context("delete")?;
    let late = Patch::Merge(json!({"spec": {"ttlSecondsAfterFinished": 1}}));
    workflows.patch("stored", &params, &late).await.context("while it is being deleted")?;
    own.patch("stored", &params, &meta(json!({"finalizers": null}))).await.context("release")?;
    let system: Api<Workflow> = Api::namespaced(client.clone(), NAMESPACE);
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    system.create(&dry, &workflow("inside")).await.context("in our own namespace")?;
    Ok(())
}

/// Takes the webhooks away, stores a workflow, and puts the validating one back.
async fn store_without_webhook(testbed: &Testbed, workflows: &Api<Workflow>) -> Result<()> {
    let configurations: Api<ValidatingWebhookConfiguration> = Api::all(testbed.client().clone());
    let configuration = configurations.get(WEBHOOK).await?;
    configurations.delete(WEBHOOK, &DeleteParams::default()).await?;
    let mutating: Api<MutatingWebhookConfiguration> = Api::all(testbed.client().clone());
    mutating.delete(WEBHOOK, &DeleteParams::default()).await?;
    eventually("a workflow is stored without the webhook", SOON, || async {
        let made = workflows.create(&PostParams::default(), &workflow("stored")).await;
        made.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    let mut again = ValidatingWebhookConfiguration { webhooks: configuration.webhooks, ..Default::default() };
    again.metadata.name = Some(WEBHOOK.into());
    configurations.create(&PostParams::default(), &again).await?;
    Ok(())
}

fn workflow(name: &str) -> Workflow {
    let node = WorkflowNode { id: "a".into(), replicas: 1, image: Some("i".into()), ..WorkflowNode::default() };
    Workflow::new(name, WorkflowSpec { nodes: vec![node], ..WorkflowSpec::default() })
}

/// A user with the cluster's `edit` role may write; one with `view` may only look.
async fn users(testbed: &Testbed) -> Result<()> {
    for (account, role) in [("editor", "edit"), ("viewer", "view")] {
        let yaml = format!(
            "
apiVersion: v1
kind: ServiceAccount
metadata: {{name: {account}, namespace: default}}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {{name: {account}, namespace: default}}
roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {role}}}
subjects: [{{kind: ServiceAccount, name: {account}, namespace: default}}]
"
        );
        testbed.apply_yaml(&yaml).await?;
    }
    let spec: GangSpec = serde_json::from_value(json!({"minMember": 1, "roles": [{"name": "worker", "replicas": 1}]}))?;
    let dry = PostParams { dry_run: true, ..PostParams::default() };
    let viewer: Api<Gang> = Api::namespaced(testbed.client_as("default", "viewer").await?, "default");
    let editor: Api<Gang> = Api::namespaced(testbed.client_as("default", "editor").await?, "default");
    // The aggregation is a controller's work and takes a moment.
    eventually("an editor creates gangs and a viewer lists them", SOON, || async {
        editor.create(&dry, &Gang::new("g", spec.clone())).await.map_err(|error| error.to_string())?;
        viewer.list(&Default::default()).await.map(drop).map_err(|error| error.to_string())
    })
    .await?;
    let refused = viewer.create(&dry, &Gang::new("g", spec)).await.err().context("a viewer created a gang")?;
    ensure!(refused.to_string().contains("forbidden"), "{refused}");
    Ok(())
}
