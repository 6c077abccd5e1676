//! Commands on pods: bind, read, fence, mark, delete, evict and nominate. Each carries its precondition, so that a late one is harmless.

use super::Report;
use super::gate::{Call, Failure, Gate};
use crate::convert::gangs::seconds;
use crate::convert::types;
use flowforge_api::names::{annotation, field_manager};
use flowforge_scheduler_core::command::{Command, OpId};
use flowforge_scheduler_core::event::{BindResult, Outcome, ReadResult, WriteResult};
use flowforge_scheduler_core::model::PodKey;
use jiff::Timestamp;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::time::Instant;

/// An answer of which only the metadata matters.
#[derive(Deserialize)]
struct Written {
    #[serde(default)]
    metadata: types::Meta,
}

fn path(pod: &PodKey) -> String {
    format!("/api/v1/namespaces/{}/pods/{}", pod.namespace, pod.name)
}

/// Carries out one command on a pod; None when the leadership was lost first or the command is none of these.
pub(super) async fn execute(gate: &Gate, command: &Command, queued: Instant) -> Option<Report> {
    let outcome = match command {
        Command::Bind { op, pod, resource_version, node, intent } => {
            let call = bind(pod, resource_version, node, intent);
            Outcome::Bind { op: *op, result: bind_result(gate.send::<IgnoredAny>(call, queued).await)? }
        }
        Command::ReadPod { op, pod } => return read(gate, *op, pod, queued).await,
        Command::FencePod { op, pod, resource_version, fence } => {
            let call = fence_pod(pod, resource_version.as_deref(), fence);
            Outcome::Fence { op: *op, result: write_result(gate.send::<Written>(call, queued).await)? }
        }
        Command::MarkRollback { op, pod, message } => {
            let call = mark(pod, "GangRollback", message, Timestamp::now());
            Outcome::Mark { op: *op, result: write_result(gate.send::<Written>(call, queued).await)? }
        }
        Command::DeletePod { op, pod } => {
            Outcome::Delete { op: *op, result: write_result(gate.send::<Written>(delete(pod), queued).await)? }
        }
        Command::Evict { op, pod, message } => {
            Outcome::Evict { op: *op, result: evict(gate, pod, message, queued).await? }
        }
        Command::Nominate { pod, node } => {
            nominate(gate, pod, node.as_deref(), queued).await;
            return None;
        }
        _ => return None,
    };
    Some(Report::Outcome(outcome))
}

fn bind(pod: &PodKey, resource_version: &str, node: &str, intent: &str) -> Call {
    let mut metadata = json!({"name": pod.name, "namespace": pod.namespace, "uid": pod.uid});
    if !resource_version.is_empty() {
        metadata["resourceVersion"] = Value::from(resource_version);
    }
    if !intent.is_empty() {
        metadata["annotations"] = json!({annotation::INTENT: intent});
    }
    let body = json!({
        "apiVersion": "v1", "kind": "Binding", "metadata": metadata,
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    });
    Call::post(format!("{}/binding?fieldManager={}", path(pod), field_manager::SCHEDULER), &body)
}

fn fence_pod(pod: &PodKey, resource_version: Option<&str>, fence: &str) -> Call {
    let mut metadata = json!({"uid": pod.uid, "annotations": {annotation::FENCE: fence}});
    if let Some(resource_version) = resource_version {
        metadata["resourceVersion"] = Value::from(resource_version);
    }
    let path = format!("{}?fieldManager={}", path(pod), field_manager::SCHEDULER);
    Call::merge(path, &json!({"metadata": metadata}))
}

fn delete(pod: &PodKey) -> Call {
    let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": {"uid": pod.uid}});
    Call::delete(path(pod), &body)
}

/// Says why first, so that nobody sees the pod go without a cause. None when the leadership was lost between or before.
async fn evict(gate: &Gate, pod: &PodKey, message: &str, queued: Instant) -> Option<WriteResult> {
    let call = mark(pod, "PreemptionByScheduler", message, Timestamp::now());
    match write_result(gate.send::<Written>(call, queued).await)? {
        WriteResult::Ok(_) => write_result(gate.send::<Written>(delete(pod), queued).await),
        failed => Some(failed),
    }
}

/// Not awaited by anybody: the promise holds here whether or not it is written.
async fn nominate(gate: &Gate, pod: &PodKey, node: Option<&str>, queued: Instant) {
    match gate.send::<Written>(nomination(pod, node), queued).await {
        Ok(_) | Err(Failure::NotFound(_) | Failure::Conflict(_) | Failure::Lost) => {}
        Err(Failure::Refused(why) | Failure::Unknown(why)) => {
            tracing::warn!(namespace = %pod.namespace, pod = %pod.name, why, "cannot write status.nominatedNodeName");
        }
    }
}

fn nomination(pod: &PodKey, node: Option<&str>) -> Call {
    let body = json!({"metadata": {"uid": pod.uid}, "status": {"nominatedNodeName": node}});
    Call::merge(format!("{}/status?fieldManager={}", path(pod), field_manager::SCHEDULER), &body)
}

fn mark(pod: &PodKey, reason: &str, message: &str, now: Timestamp) -> Call {
    let condition = json!({
        "type": "DisruptionTarget", "status": "True", "reason": reason, "message": message,
        "lastTransitionTime": seconds(now),
    });
    let body = json!({"metadata": {"uid": pod.uid}, "status": {"conditions": [condition]}});
    Call::strategic(format!("{}/status?fieldManager={}", path(pod), field_manager::SCHEDULER), &body)
}

/// `metav1.Time`: RFC 3339 without fractions.
async fn read(gate: &Gate, op: OpId, pod: &PodKey, queued: Instant) -> Option<Report> {
    match gate.send::<types::Pod>(Call::get(path(pod)), queued).await {
        Ok(found) => Some(Report::PodRead { op, pod: Box::new(found) }),
        Err(Failure::NotFound(_)) => Some(Report::Outcome(Outcome::Read { op, result: ReadResult::NotFound })),
        Err(Failure::Lost) => None,
        Err(Failure::Conflict(why) | Failure::Refused(why) | Failure::Unknown(why)) => {
            Some(Report::Outcome(Outcome::Read { op, result: ReadResult::Unknown(why) }))
        }
    }
}

fn bind_result(answer: Result<IgnoredAny, Failure>) -> Option<BindResult> {
    Some(match answer {
        Ok(_) => BindResult::Ok,
        Err(Failure::Conflict(why)) => BindResult::Conflict(why),
        Err(Failure::NotFound(_)) => BindResult::NotFound,
        Err(Failure::Refused(why)) => BindResult::Refused(why),
        Err(Failure::Unknown(why)) => BindResult::Unknown(why),
        Err(Failure::Lost) => return None,
    })
}

fn write_result(answer: Result<Written, Failure>) -> Option<WriteResult> {
    write_outcome(answer.map(|written| written.metadata.resource_version))
}

/// What a write's answer means to the engine; None when the leadership was lost before it was sent.
pub(super) fn write_outcome(answer: Result<SmolStr, Failure>) -> Option<WriteResult> {
    Some(match answer {
        Ok(resource_version) => WriteResult::Ok(resource_version),
        Err(Failure::Conflict(_)) => WriteResult::Conflict,
        Err(Failure::NotFound(_)) => WriteResult::NotFound,
        Err(Failure::Refused(why)) => WriteResult::Refused(why),
        Err(Failure::Unknown(why)) => WriteResult::Unknown(why),
        Err(Failure::Lost) => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod() -> PodKey {
        PodKey { namespace: "n".into(), name: "p".into(), uid: "u".into() }
    }

    fn shown(call: &Call) -> String {
        format!("{call:?}").split(", body").next().unwrap_or_default().to_owned()
    }

    #[test]
    fn every_write_goes_to_its_subresource_under_our_name() {
        assert!(shown(&bind(&pod(), "7", "node", "i")).contains("POST, path: \"/api/v1/namespaces/n/pods/p/binding?"));
        assert!(
            shown(&fence_pod(&pod(), None, "f")).contains("PATCH, path: \"/api/v1/namespaces/n/pods/p?fieldManager")
        );
        let nominated = shown(&nomination(&pod(), Some("node")));
        assert!(nominated.contains("PATCH, path: \"/api/v1/namespaces/n/pods/p/status?fieldManager"), "{nominated}");
        let marked = shown(&mark(&pod(), "GangRollback", "why", Timestamp::UNIX_EPOCH));
        assert!(marked.contains("/pods/p/status?") && marked.contains("strategic-merge"), "{marked}");
    }

    #[test]
    fn a_lost_leadership_has_no_outcome() {
        assert_eq!(bind_result(Err(Failure::Lost)), None);
        assert_eq!(write_outcome(Err(Failure::Lost)), None);
        assert_eq!(bind_result(Err(Failure::Conflict("x".to_owned()))), Some(BindResult::Conflict("x".to_owned())));
    }
}
