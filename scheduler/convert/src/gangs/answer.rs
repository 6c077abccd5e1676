//! Statuses of objects by which others declare gangs, as they are to be written. Each carries its precondition: the object's
//! UID where a field has one writer (server-side apply), else its resourceVersion.

use crate::types::Meta;
use flowforge_api::names::field_manager;
use jiff::Timestamp;
use serde_json::{Value, json};
use smol_str::SmolStr;

/// A status to write.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupWrite {
    uid: SmolStr,
    /// With its query.
    path: String,
    applied: bool,
    body: Value,
}

impl GroupWrite {
    /// A server-side apply of the status, whose body carries the UID.
    pub fn apply_status(meta: &Meta, collection: &str, body: Value) -> Self {
        let query = format!("?fieldManager={}&force=true", field_manager::SCHEDULER);
        Self { path: format!("{}/status{query}", path(meta, collection)), applied: true, ..Self::new(meta, body) }
    }

    /// A merge patch of the status.
    pub fn merge_status(meta: &Meta, collection: &str, status: &Value) -> Self {
        let path = format!("{}/status?fieldManager={}", path(meta, collection), field_manager::SCHEDULER);
        Self { path, ..Self::new(meta, merged(meta, status)) }
    }

    /// A merge patch of an object without a status subresource.
    pub fn merge_whole(meta: &Meta, collection: &str, status: &Value) -> Self {
        let path = format!("{}?fieldManager={}", path(meta, collection), field_manager::SCHEDULER);
        Self { path, ..Self::new(meta, merged(meta, status)) }
    }

    fn new(meta: &Meta, body: Value) -> Self {
        Self { uid: meta.uid.clone(), path: String::new(), applied: false, body }
    }

    /// UID of the object.
    #[must_use]
    pub fn uid(&self) -> &SmolStr {
        &self.uid
    }

    /// The path with its query, and the body.
    #[must_use]
    pub fn shown(&self) -> (&str, &Value) {
        (&self.path, &self.body)
    }

    /// Whether it is a server-side apply; else it is a merge patch.
    #[must_use]
    pub fn is_applied(&self) -> bool {
        self.applied
    }
}

/// A time as the API server writes times: in whole seconds.
#[must_use]
pub fn seconds(now: Timestamp) -> String {
    now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn merged(meta: &Meta, status: &Value) -> Value {
    json!({"metadata": {"uid": meta.uid, "resourceVersion": meta.resource_version}, "status": status})
}

/// The path of an object, from that of its kind over all namespaces.
fn path(meta: &Meta, collection: &str) -> String {
    let (group, plural) = collection.rsplit_once('/').unwrap_or(("", collection));
    format!("{group}/namespaces/{}/{plural}/{}", meta.namespace, meta.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_write_goes_where_its_object_takes_it_and_carries_its_precondition() {
        let meta = Meta {
            name: "g".into(),
            namespace: "n".into(),
            uid: "u".into(),
            resource_version: "7".into(),
            ..Meta::default()
        };
        let whole = GroupWrite::merge_whole(&meta, "/apis/a.b/v1/podgroups", &json!({"phase": "Inqueue"}));
        assert_eq!(whole.path, "/apis/a.b/v1/namespaces/n/podgroups/g?fieldManager=flowforge-scheduler");
        let said = json!({"metadata": {"uid": "u", "resourceVersion": "7"}, "status": {"phase": "Inqueue"}});
        assert_eq!((whole.applied, &whole.body), (false, &said));
        let status = GroupWrite::merge_status(&meta, "/apis/a.b/v1/podgroups", &json!({}));
        assert_eq!(status.path, "/apis/a.b/v1/namespaces/n/podgroups/g/status?fieldManager=flowforge-scheduler");
        let applied = GroupWrite::apply_status(&meta, "/apis/a.b/v1/podgroups", json!({"kind": "PodGroup"}));
        assert!(applied.applied && applied.path.ends_with("/status?fieldManager=flowforge-scheduler&force=true"));
    }

    #[test]
    fn times_have_whole_seconds_as_the_api_wants() {
        assert_eq!(seconds(Timestamp::from_millisecond(1_767_323_045_678).expect("a time")), "2026-01-02T03:04:05Z");
    }
}
