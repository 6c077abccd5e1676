//! Applying manifests the way a careful person does: server-side, with strict
//! field validation, definitions before the objects that need them.
//!
//! The order is: CustomResourceDefinitions (and then until each is established),
//! namespaces, everything else as given, admission webhooks last, because a
//! webhook without its server would refuse what follows.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
    core::GroupVersionKind,
    discovery::{self, Scope},
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

/// The field manager of what the testbed applies.
const FIELD_MANAGER: &str = "testbed";

/// How long a definition may take to be served.
const ESTABLISH_LIMIT: Duration = Duration::from_secs(30);

/// Renders a directory: with kustomize if it has a `kustomization.yaml`, else all
/// of its YAML files by name. A file is read as it is.
pub(crate) fn render(kubectl: &[String], path: &Path) -> Result<String> {
    if path.is_file() {
        return fs::read_to_string(path).with_context(|| path.display().to_string());
    }
    if path.join("kustomization.yaml").is_file() {
        let (program, args) = kubectl.split_first().context("no kubectl")?;
        let output = Command::new(program).args(args).arg("kustomize").arg(path).output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "kubectl kustomize {}: {said}", path.display());
        return Ok(String::from_utf8(output.stdout)?);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).with_context(|| path.display().to_string())? {
        let file = entry?.path();
        if file.extension().is_some_and(|extension| extension == "yaml" || extension == "yml") {
            files.push(file);
        }
    }
    files.sort();
    let texts: Vec<String> = files.iter().map(fs::read_to_string).collect::<Result<_, _>>()?;
    Ok(texts.join("\n---\n"))
}

/// Applies every document of `yaml`; returns how many there were.
pub(crate) async fn apply(client: &Client, yaml: &str) -> Result<usize> {
    let mut objects = parse(yaml)?;
    objects.sort_by_key(phase); // stable: as given within a phase
    let mut kinds = BTreeMap::new();
    let mut established = false;
    for object in &objects {
        if !established && phase(object) > Phase::Definitions {
            await_established(client, &objects).await?;
            established = true;
        }
        apply_one(client, object, &mut kinds).await?;
    }
    if !established {
        await_established(client, &objects).await?;
    }
    Ok(objects.len())
}

/// The documents of `yaml` as objects, lists taken apart.
pub(crate) fn parse(yaml: &str) -> Result<Vec<DynamicObject>> {
    // As kubectl reads it: `n` and `on` are strings. There is no limit on size,
    // because the manifests are a test's own.
    let options = serde_saphyr::options! { strict_booleans: true, budget: None };
    let documents: Vec<Value> = serde_saphyr::from_multiple_with_options(yaml, options)?;
    let mut objects = Vec::new();
    for document in documents {
        match document.get("items").and_then(Value::as_array) {
            Some(items) if document["kind"].as_str().is_some_and(|kind| kind.ends_with("List")) => {
                for item in items {
                    objects.push(serde_json::from_value(item.clone())?);
                }
            }
            _ if document.is_null() => {}
            _ => objects.push(serde_json::from_value(document)?),
        }
    }
    Ok(objects)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    Definitions,
    Namespaces,
    Objects,
    Webhooks,
}

fn phase(object: &DynamicObject) -> Phase {
    match kind(object) {
        "CustomResourceDefinition" => Phase::Definitions,
        "Namespace" => Phase::Namespaces,
        "ValidatingWebhookConfiguration" | "MutatingWebhookConfiguration" => Phase::Webhooks,
        _ => Phase::Objects,
    }
}

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| types.kind.as_str())
}

async fn apply_one(
    client: &Client,
    object: &DynamicObject,
    kinds: &mut BTreeMap<(String, String), (ApiResource, Scope)>,
) -> Result<()> {
    let types = object.types.clone().context("a document has no apiVersion and kind")?;
    let name = object.metadata.name.clone().context("a document has no metadata.name")?;
    let what = format!("{} {name}", types.kind);
    let key = (types.api_version.clone(), types.kind.clone());
    if !kinds.contains_key(&key) {
        let gvk = GroupVersionKind::try_from(&types)?;
        let (resource, capabilities) = discovery::pinned_kind(client, &gvk).await.with_context(|| what.clone())?;
        kinds.insert(key.clone(), (resource, capabilities.scope));
    }
    let (resource, scope) = &kinds[&key];
    let api: Api<DynamicObject> = match scope {
        Scope::Cluster => Api::all_with(client.clone(), resource),
        Scope::Namespaced => {
            let namespace = object.metadata.namespace.as_deref().unwrap_or("default");
            Api::namespaced_with(client.clone(), namespace, resource)
        }
    };
    let params = PatchParams::apply(FIELD_MANAGER).force().validation_strict();
    api.patch(&name, &params, &Patch::Apply(object)).await.with_context(|| format!("apply {what}"))?;
    Ok(())
}

async fn await_established(client: &Client, objects: &[DynamicObject]) -> Result<()> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let deadline = Instant::now() + ESTABLISH_LIMIT;
    for object in objects.iter().filter(|object| phase(object) == Phase::Definitions) {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        while !is_established(&definitions.get(name).await?) {
            ensure!(Instant::now() < deadline, "{name} is not established");
            sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    definition
        .status
        .iter()
        .flat_map(|status| status.conditions.iter().flatten())
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn definitions_come_first_and_webhooks_last() {
        let yaml = "
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingWebhookConfiguration
metadata: { name: w }
---
---
apiVersion: v1
kind: List
items:
- { apiVersion: v1, kind: ConfigMap, metadata: { name: b } }
- { apiVersion: v1, kind: Namespace, metadata: { name: n } }
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: { name: c }
---
apiVersion: v1
kind: ConfigMap
metadata: { name: a }
";
        let mut objects = parse(yaml).unwrap();
        objects.sort_by_key(phase);
        let names: Vec<_> = objects.iter().filter_map(|object| object.metadata.name.as_deref()).collect();
        assert_eq!(names, ["c", "n", "b", "a", "w"]);
    }

    #[test]
    fn thousands_of_documents_are_no_bomb() {
        let one = "apiVersion: v1\nkind: ConfigMap\nmetadata: { name: a }\n---\n";
        assert_eq!(parse(&one.repeat(5000)).unwrap().len(), 5000);
    }
}
