//! Workflow documents: files or stdin, YAML or JSON, one or many, and the bare `workflow:` form.
//!
//! A bare document has no `apiVersion` and `kind`: `workflow: {name, storage: {claimRef}, nodes, …}`. The front end of
//! the controller's core knows which manifest it stands for.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use flowforge_dag_controller_core::frontend;
use serde_json::Value;

use crate::failure::Failure;

/// Largest input; a workflow with more nodes than fit here is beyond what the API server stores.
const MAX_BYTES: u64 = 16 * 1024 * 1024;

/// One document and where it came from.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    /// File name, with `#n` where the file has several documents.
    pub(crate) source: String,
    pub(crate) value: Value,
}

/// Reads every document of every file; at least one must be there.
pub(crate) fn read(files: &[PathBuf]) -> Result<Vec<Document>, Failure> {
    let mut documents = Vec::new();
    for file in files {
        let (name, text) = text_of(file)?;
        documents.extend(parse(&name, &text)?);
    }
    if documents.is_empty() {
        return Err(Failure::new("the input holds no document").fix("write a Workflow into it; see examples/basic"));
    }
    Ok(documents)
}

fn text_of(file: &Path) -> Result<(String, String), Failure> {
    let stdin = file == Path::new("-");
    let name = if stdin { "stdin".to_owned() } else { file.display().to_string() };
    let cannot = |why: String| Failure::new(format!("cannot read {name}: {why}"));
    let mut bytes = Vec::new();
    let read = if stdin {
        std::io::stdin().lock().take(MAX_BYTES + 1).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(file).and_then(|open| open.take(MAX_BYTES + 1).read_to_end(&mut bytes))
    };
    read.map_err(|error| cannot(error.to_string()).fix("check the path given with -f"))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(cannot(format!("it is larger than {} MiB", MAX_BYTES / 1024 / 1024)).fix("split the workflow"));
    }
    let text =
        String::from_utf8(bytes).map_err(|_| cannot("it is not UTF-8 text".into()).fix("save it as UTF-8 YAML"))?;
    Ok((name, text))
}

/// Parses YAML (of which JSON is a part); empty documents are left out.
pub(crate) fn parse(name: &str, text: &str) -> Result<Vec<Document>, Failure> {
    // The defaults guard against hostile input, but are below what 20,000 nodes need.
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 8_000_000,
            max_nodes: 4_000_000,
        },
    };
    let values: Vec<Value> = serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        Failure::new(format!("{name} is not valid YAML: {error}")).fix("correct the place named above")
    })?;
    let several = values.len() > 1;
    Ok(values
        .into_iter()
        .enumerate()
        .map(|(i, value)| {
            let source = if several { format!("{name}#{}", i + 1) } else { name.to_owned() };
            Document { source, value }
        })
        .collect())
}

/// The Workflow object of a document; other kinds are refused by name.
pub(crate) fn into_object(document: &Document) -> Result<Value, Failure> {
    let source = &document.source;
    let Some(map) = document.value.as_object() else {
        return Err(Failure::new(format!("{source} is not an object")).fix("start it with `kind: Workflow`"));
    };
    if let Some(manifest) = frontend::to_manifest(&document.value) {
        return Ok(manifest);
    }
    let kind = map.get("kind").and_then(Value::as_str).unwrap_or("nothing");
    let version = map.get("apiVersion").and_then(Value::as_str).unwrap_or("none");
    if kind != "Workflow" || version != "flowforge.dev/v1alpha1" {
        return Err(Failure::new(format!("{source} has kind {kind} of apiVersion {version}, not a Workflow"))
            .fix("`apiVersion: flowforge.dev/v1alpha1` and `kind: Workflow`; apply other objects with kubectl"));
    }
    Ok(document.value.clone())
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, expected: &Expect) {
        let objects =
            parse("f.yaml", text).and_then(|docs| docs.iter().map(into_object).collect::<Result<Vec<_>, _>>());
        expected.assert_eq(&match objects {
            Ok(objects) => {
                objects.iter().map(|o| serde_saphyr::to_string(o).expect("yaml")).collect::<Vec<_>>().join("---\n")
            }
            Err(failure) => failure.text(),
        });
    }

    #[test]
    fn a_bare_document_becomes_an_object() {
        check(
            "workflow:\n  name: example\n  storage:\n    claimRef: nas\n  nodes:\n  - id: a\n    image: i\n",
            &expect![[r#"
                apiVersion: flowforge.dev/v1alpha1
                kind: Workflow
                metadata:
                  name: example
                spec:
                  nodes:
                  - id: a
                    image: i
                  storage:
                  - claimRef: nas
            "#]],
        );
    }

    #[test]
    fn json_is_read_as_well_and_empty_documents_are_left_out() {
        let docs = parse("f", "---\n---\n{\"kind\": \"Workflow\"}\n---\n").expect("parses");
        assert_eq!(docs.len(), 1);
        assert_eq!(docs[0].source, "f");
    }

    #[test]
    fn several_documents_are_numbered() {
        let docs = parse("f", "a: 1\n---\nb: 2\n").expect("parses");
        assert_eq!(docs.iter().map(|d| d.source.as_str()).collect::<Vec<_>>(), ["f#1", "f#2"]);
    }

    #[test]
    fn another_kind_is_refused_by_name() {
        check(
            "apiVersion: v1\nkind: ConfigMap\n",
            &expect![[r#"
                error: f.yaml has kind ConfigMap of apiVersion v1, not a Workflow
                  fix: `apiVersion: flowforge.dev/v1alpha1` and `kind: Workflow`; apply other objects with kubectl
            "#]],
        );
    }

    #[test]
    fn a_key_given_twice_is_an_error() {
        let failure = parse("f", "a: 1\na: 2\n").expect_err("refused");
        assert!(failure.text().contains("duplicate"), "{}", failure.text());
    }
}
