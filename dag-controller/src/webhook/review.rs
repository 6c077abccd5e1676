//! The wire form of `admission.k8s.io/v1`: only the fields that are read.
//!
//! Objects stay JSON values: a Workflow that does not fit the types still gets an answer that names its fields.

use k8s_openapi::ByteString;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the API server asks.
#[derive(Debug, Deserialize)]
pub struct ReviewIn {
    /// The request.
    pub request: Request,
}

/// One request.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// Echoed in the answer.
    pub uid: String,
    /// `CREATE`, `UPDATE`, `DELETE` or `CONNECT`.
    pub operation: String,
    /// Namespace of the object.
    #[serde(default)]
    pub namespace: String,
    /// Subresource, empty for the object itself.
    #[serde(default)]
    pub sub_resource: Option<String>,
    /// Who asks.
    #[serde(default)]
    pub user_info: UserInfo,
    /// The object as it shall become.
    #[serde(default)]
    pub object: Value,
    /// The object as it is.
    #[serde(default)]
    pub old_object: Value,
}

/// Who asks.
#[derive(Debug, Default, Deserialize)]
pub struct UserInfo {
    /// User name.
    #[serde(default)]
    pub username: String,
}

/// The answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ReviewOut {
    api_version: &'static str,
    kind: &'static str,
    response: Response,
}

/// The answer's content.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Response {
    uid: String,
    allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<Status>,
    #[serde(skip_serializing_if = "Option::is_none")]
    patch_type: Option<&'static str>,
    /// A JSON patch.
    #[serde(skip_serializing_if = "Option::is_none")]
    patch: Option<ByteString>,
}

/// Why a request is refused, in the form that `kubectl` prints.
#[derive(Debug, Serialize)]
struct Status {
    code: u16,
    reason: &'static str,
    message: String,
    details: Details,
}

#[derive(Debug, Serialize)]
struct Details {
    causes: Vec<Cause>,
}

/// One refused field.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Cause {
    /// `FieldValueInvalid` or another of the API's cause types.
    pub reason: &'static str,
    /// Path of the field.
    pub field: String,
    /// Problem and fix.
    pub message: String,
}

impl ReviewOut {
    /// Lets the request pass.
    #[must_use]
    pub fn allow(uid: String) -> Self {
        Self::answer(Response { uid, allowed: true, status: None, patch_type: None, patch: None })
    }

    /// Lets the request pass with these changes, a list of JSON patch operations.
    #[must_use]
    pub fn patched(uid: String, operations: &[Value]) -> Self {
        let patch = serde_json::to_vec(operations).ok().map(ByteString);
        Self::answer(Response { uid, allowed: true, status: None, patch_type: Some("JSONPatch"), patch })
    }

    /// Refuses the request for these fields.
    #[must_use]
    pub fn deny(uid: String, message: String, causes: Vec<Cause>) -> Self {
        let status = Status { code: 422, reason: "Invalid", message, details: Details { causes } };
        Self::answer(Response { uid, allowed: false, status: Some(status), patch_type: None, patch: None })
    }

    fn answer(response: Response) -> Self {
        Self { api_version: "admission.k8s.io/v1", kind: "AdmissionReview", response }
    }

    /// Whether the request passes.
    #[must_use]
    pub fn allowed(&self) -> bool {
        self.response.allowed
    }

    /// The changes, if there are any.
    #[must_use]
    pub fn patch(&self) -> Option<Value> {
        self.response.patch.as_ref().and_then(|patch| serde_json::from_slice(&patch.0).ok())
    }

    /// The refusal's text; empty when the request passes.
    #[must_use]
    pub fn message(&self) -> &str {
        self.response.status.as_ref().map_or("", |s| &s.message)
    }
}
