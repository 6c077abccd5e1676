//! `WorkTemplate`: a node written once, with parameters, and used by workflows of its namespace by reference.
//!
//! The admission webhook copies the templates that a new Workflow refers to into `spec.templates`, where they are frozen with
//! the rest of the spec: a template that changes later, or goes away, does not concern a workflow that exists.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{CustomResource, CustomResourceExt};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// A node to be used by reference.
#[derive(CustomResource, Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[kube(
    group = "flowforge.dev",
    version = "v1alpha1",
    kind = "WorkTemplate",
    plural = "worktemplates",
    namespaced,
    shortname = "fft",
    category = "flowforge",
    printcolumn = r#"{"name":"Description","type":"string","jsonPath":".spec.description"}"#,
    printcolumn = r#"{"name":"Age","type":"date","jsonPath":".metadata.creationTimestamp"}"#,
    derive = "PartialEq",
    derive = "Default"
)]
#[serde(rename_all = "camelCase")]
pub struct WorkTemplateSpec {
    /// What a reference may or must give.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub parameters: Vec<Parameter>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
    /// Fields of a workflow's node, but for `id`, `dependsOn` and `template`. `${{ params.NAME }}` in a text is filled; a text
    /// that is nothing else takes the parameter's type, so that it may stand for a number.
    #[schemars(schema_with = "any_object")]
    pub node: Value,
}

/// The CRD of [`WorkTemplate`].
#[must_use]
pub fn crd() -> CustomResourceDefinition {
    WorkTemplate::crd()
}

/// A template inside a workflow: a WorkTemplate's spec with a name.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct InlineTemplate {
    /// Name by which nodes refer to it.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The template.
    #[serde(flatten)]
    pub spec: WorkTemplateSpec,
}

/// A declared parameter.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Parameter {
    /// Name, as in `params.NAME`.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Type of the value.
    #[serde(default, rename = "type")]
    pub kind: ParameterType,
    /// Value where none is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_value")]
    pub default: Option<Value>,
    /// The values that are allowed.
    #[serde(default, rename = "enum", skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "any_values")]
    pub allowed: Vec<Value>,
    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

/// A parameter of a workflow: the declaration, and the value of this run.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkflowParameter {
    /// The declaration.
    #[serde(flatten)]
    pub declared: Parameter,
    /// Value of this run; `flowforge submit -p NAME=VALUE` sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_value")]
    pub value: Option<Value>,
}

/// Type of a parameter.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ParameterType {
    /// A text.
    #[default]
    String,
    /// A whole number.
    Int,
    /// Any number.
    Float,
    /// True or false.
    Bool,
    /// A list.
    List,
    /// An object.
    Map,
}

/// What a node is run for; exactly one of the three.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ForEach {
    /// A list, or a text `${{ … }}` that is one, also of what an upstream node puts out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_value")]
    pub items: Option<Value>,
    /// So many times, with items from 0; a number, or a text `${{ … }}` that is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_value")]
    pub count: Option<Value>,
    /// Whole numbers `from` (0) up to `to`, which is not one of them, by `step` (1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub range: Option<Value>,
    /// Most items; 10,000 when absent, and 64 of items that an upstream node puts out (1,000 at most).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub limit: Option<i32>,
}

/// What a node says when it ends well.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeOutput {
    /// Name: a key of the JSON object that the member writes as its termination message (`/dev/termination-log`).
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z_][A-Za-z0-9_]*$"))]
    pub name: String,
    /// Type of the value; of a collected output that of each entry.
    #[serde(default, rename = "type")]
    pub kind: ParameterType,
    /// Value where the message has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_value")]
    pub default: Option<Value>,
    /// It may be missing, and is null then; else the node fails with OutputMissing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// Collect it from every member of this role as a list in the order of the ranks; rank 0 alone speaks when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub collect: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub description: Option<String>,
}

/// Which template a node is made from, and with what.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateReference {
    /// A WorkTemplate of the workflow's namespace, or one of `spec.templates`.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Values of the template's parameters.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "any_object")]
    pub parameters: BTreeMap<String, Value>,
    /// Changes to the template's node, applied in this order before the node's own fields are laid over it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub patches: Vec<TemplatePatch>,
}

/// One change; exactly one of the three.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplatePatch {
    /// Kubernetes' strategic merge: containers, volumes, env and the like are merged by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub strategic: Option<Value>,
    /// A merge patch (RFC 7396): lists are replaced, null removes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub merge: Option<Value>,
    /// A JSON patch (RFC 6902); paths begin at the template's node.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_objects")]
    pub json: Option<Vec<Value>>,
}

pub(crate) fn any_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"x-kubernetes-preserve-unknown-fields": true})
}

fn any_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "array", "maxItems": 256, "items": {"x-kubernetes-preserve-unknown-fields": true}})
}

pub(crate) fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

fn any_objects(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 256,
        "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
    })
}
