//! Writes the CRDs of FlowForge as YAML: one file per kind, and a kustomization that lists them.
//!
//! ```text
//! cargo run -p flowforge-api --example crdgen                        # writes manifests/crds/
//! cargo run -p flowforge-api --example crdgen -- --check             # exit 1 when a file there is stale or left over
//! cargo run -p flowforge-api --example crdgen -- [--check] DIR       # another folder
//! ```
//! The output is a function of the types in `api/src` alone: no time, no version, keys sorted.
//!
//! A workflow node embeds large types of core/v1 (affinity, volumes, …) twice, and their texts alone would push the CRD
//! past the 256 KiB that `kubectl apply` can remember in an annotation. Inside such fields the descriptions are left
//! out, as their reference is Kubernetes' own; every field of ours, and every small type, keeps its text.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::Value;

/// Properties from the root of an object down to a field of a workflow node (`spec`, `nodes`, field).
const OWN_DEPTH: usize = 3;
/// JSON bytes of a field's schema above which the descriptions inside it are left out.
const LARGE_BYTES: usize = 2_048;
/// What `kubectl apply` can hold in its annotation, which is the whole object.
const APPLY_LIMIT_BYTES: usize = 256 * 1_024;

const HEAD: &str = "# Generated from api/src by `cargo run -p flowforge-api --example crdgen`; do not edit.\n";

fn main() -> ExitCode {
    match run() {
        Ok(stale) if stale.is_empty() => ExitCode::SUCCESS,
        Ok(stale) => {
            for problem in stale {
                eprintln!("{problem}");
            }
            eprintln!("run `cargo run -p flowforge-api --example crdgen` and commit the result");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("crdgen: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes or checks; returns what is stale (always nothing when it wrote).
fn run() -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut check = false;
    let mut dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/crds");
    for arg in std::env::args().skip(1) {
        match arg.as_str() {
            "--check" => check = true,
            flag if flag.starts_with('-') => return Err(format!("unknown flag {flag}: only --check is known").into()),
            path => dir = PathBuf::from(path),
        }
    }
    let files = render()?;
    if check { compare(&dir, &files) } else { write(&dir, &files) }
}

/// File name to content.
fn render() -> Result<BTreeMap<String, String>, Box<dyn std::error::Error>> {
    let mut files = BTreeMap::new();
    let mut index = format!("{HEAD}apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:\n");
    for (stem, crd) in flowforge_api::crds() {
        let mut crd = serde_json::to_value(crd)?;
        without_nulls(&mut crd);
        if let Some(versions) = crd.pointer_mut("/spec/versions").and_then(Value::as_array_mut) {
            for schema in versions.iter_mut().filter_map(|v| v.pointer_mut("/schema/openAPIV3Schema")) {
                trim(schema, 0);
            }
        }
        let bytes = crd.to_string().len();
        if bytes > APPLY_LIMIT_BYTES {
            return Err(format!("{stem} has {bytes} bytes, more than the {APPLY_LIMIT_BYTES} of kubectl apply").into());
        }
        files.insert(format!("{stem}.yaml"), format!("{HEAD}{}", serde_saphyr::to_string(&crd)?));
        writeln!(index, "  - {stem}.yaml")?;
    }
    files.insert("kustomization.yaml".into(), index);
    Ok(files)
}

fn write(dir: &Path, files: &BTreeMap<String, String>) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    std::fs::create_dir_all(dir)?;
    for (name, content) in files {
        std::fs::write(dir.join(name), content)?;
    }
    Ok(Vec::new())
}

fn compare(dir: &Path, files: &BTreeMap<String, String>) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut stale = Vec::new();
    for (name, content) in files {
        match std::fs::read_to_string(dir.join(name)) {
            Ok(found) if found == *content => {}
            Ok(_) => stale.push(format!("{name} is stale")),
            Err(error) => stale.push(format!("{name}: {error}")),
        }
    }
    for entry in std::fs::read_dir(dir)? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if !files.contains_key(&name) {
            stale.push(format!("{name} belongs to no kind of api/src: remove it"));
        }
    }
    Ok(stale)
}

/// Drops `null`s, which the API server would drop as well.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(without_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// Leaves out the descriptions inside large fields at `OWN_DEPTH` and below.
fn trim(schema: &mut Value, depth: usize) {
    if depth >= OWN_DEPTH {
        if schema.to_string().len() > LARGE_BYTES {
            nested(schema).into_iter().for_each(|(inner, _)| without_descriptions(inner));
        }
        return;
    }
    for (inner, step) in nested(schema) {
        trim(inner, depth + step);
    }
}

fn without_descriptions(schema: &mut Value) {
    if let Some(map) = schema.as_object_mut() {
        map.remove("description");
    }
    nested(schema).into_iter().for_each(|(inner, _)| without_descriptions(inner));
}

/// The schemas directly inside one, each with the number of properties between them (0 for the items of a list).
fn nested(schema: &mut Value) -> Vec<(&mut Value, usize)> {
    let mut found = Vec::new();
    for (key, value) in schema.as_object_mut().into_iter().flatten() {
        match (key.as_str(), value) {
            ("properties", Value::Object(map)) => found.extend(map.values_mut().map(|v| (v, 1))),
            ("items" | "additionalProperties", inner @ Value::Object(_)) => found.push((inner, 0)),
            _ => {}
        }
    }
    found
}
