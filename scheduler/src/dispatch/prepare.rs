//! What is prepared for pods: reads and writes of volumes, volume claims and ResourceClaims.
//!
//! Each write is one patch that carries the UID and the resourceVersion that the decision rests on, so that a late one is
//! harmless; what is next is decided in the core from what a read found.

use super::Report;
use super::gate::{Call, Failure, Gate};
use super::pods::write_outcome;
use crate::convert::types::CLAIM_FINALIZER;
use flowforge_api::names::{annotation, field_manager};
use flowforge_scheduler_core::command::Command;
use flowforge_scheduler_core::devices::EXTENDED_CLAIM_ANNOTATION;
use flowforge_scheduler_core::event::{Outcome, PrepareReadResult};
use flowforge_scheduler_core::preparation::{
    ClaimName, ObjectFacts, PodFacts, PrepareWrite, PreparedObject, ResourceClaimFacts, Standing, VolumeClaimFacts,
    VolumeFacts,
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use smol_str::SmolStr;
use std::time::Instant;

/// On claims and volumes that the volume controller, or a scheduler for it, bound: it may unbind them again.
const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";
/// On claims whose binding is complete.
const BIND_COMPLETED: &str = "pv.kubernetes.io/bind-completed";
/// On claims, for which node a volume is to be provisioned; a provisioner that cannot removes it.
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Carries out one command of a preparation; None when the leadership was lost first or the command is none of these.
pub(super) async fn execute(gate: &Gate, command: &Command, queued: Instant) -> Option<Report> {
    let outcome = match command {
        Command::ReadPrepared { op, object } => {
            let answer = gate.send::<Value>(Call::get(path(object)), queued).await;
            Outcome::PreparedRead { op: *op, result: read_result(object, answer)? }
        }
        Command::Prepare { op, write } => {
            let answer = gate.send::<Value>(call(write, Timestamp::now()), queued).await;
            let version = answer.map(|written| text(&written, "/metadata/resourceVersion"));
            Outcome::Prepare { op: *op, result: write_outcome(version)? }
        }
        _ => return None,
    };
    Some(Report::Outcome(outcome))
}

fn path(object: &PreparedObject) -> String {
    match object {
        PreparedObject::Volume { name } => format!("/api/v1/persistentvolumes/{name}"),
        PreparedObject::VolumeClaim { namespace, name } => volume_claim_path(namespace, name),
        PreparedObject::ResourceClaim { namespace, name } => resource_claim_path(namespace, name),
        PreparedObject::Pod { namespace, name } => pod_path(namespace, name),
    }
}

fn volume_claim_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/persistentvolumeclaims/{name}")
}

fn resource_claims_path(namespace: &str) -> String {
    format!("/apis/resource.k8s.io/v1/namespaces/{namespace}/resourceclaims")
}

fn resource_claim_path(namespace: &str, name: &str) -> String {
    format!("{}/{name}", resource_claims_path(namespace))
}

fn pod_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{namespace}/pods/{name}")
}

fn managed(path: &str) -> String {
    format!("{path}?fieldManager={}", field_manager::SCHEDULER)
}

fn call(write: &PrepareWrite, now: Timestamp) -> Call {
    match write {
        PrepareWrite::ClaimVolume { volume, uid, resource_version, claim } => {
            let body = json!({
                "metadata": {
                    "uid": uid, "resourceVersion": resource_version, "annotations": {BOUND_BY_CONTROLLER: "yes"},
                },
                "spec": {"claimRef": {
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "namespace": claim.namespace, "name": claim.name, "uid": claim.uid,
                }},
            });
            Call::merge(managed(&format!("/api/v1/persistentvolumes/{volume}")), &body)
        }
        PrepareWrite::SelectNode { claim, resource_version, node } => {
            let metadata = annotated(&claim.uid, resource_version, SELECTED_NODE, node.as_deref());
            Call::merge(managed(&volume_claim_path(&claim.namespace, &claim.name)), &metadata)
        }
        PrepareWrite::FinalizeClaim { claim, resource_version } => {
            // Finalizers merge as a set.
            let mut metadata = preconditions(claim, resource_version);
            metadata["finalizers"] = json!([CLAIM_FINALIZER]);
            let path = managed(&resource_claim_path(&claim.namespace, &claim.name));
            Call::strategic(path, &json!({"metadata": metadata}))
        }
        PrepareWrite::ReserveClaim { claim, resource_version, allocation, pod } => {
            let consumer = json!({"resource": "pods", "name": pod.name, "uid": pod.uid});
            let mut status = json!({"reservedFor": [consumer]});
            if let Some(allocation) = allocation {
                status["allocation"] = stamped(allocation, now);
            }
            claim_status(claim, resource_version, &status)
        }
        PrepareWrite::UnreserveClaim { claim, resource_version, pod, deallocate } => {
            let mut status = json!({"reservedFor": [{"$patch": "delete", "uid": pod.uid}]});
            if *deallocate {
                status["allocation"] = Value::Null;
                // What drivers report is about allocated devices only.
                status["devices"] = Value::Null;
            }
            claim_status(claim, resource_version, &status)
        }
        PrepareWrite::CreateClaim { claim, manifest } => {
            let mut object = manifest.as_ref().clone();
            object["metadata"]["finalizers"] = json!([CLAIM_FINALIZER]);
            Call::post(managed(&resource_claims_path(&claim.namespace)), &object)
        }
        PrepareWrite::NameClaim { pod, claim, mappings } => {
            let status = json!({"resourceClaimName": claim, "requestMappings": **mappings});
            let body = json!({"metadata": {"uid": pod.uid}, "status": {"extendedResourceClaimStatus": status}});
            Call::merge(managed(&format!("{}/status", pod_path(&pod.namespace, &pod.name))), &body)
        }
        PrepareWrite::ReleaseClaim { claim, resource_version } => {
            let mut metadata = preconditions(claim, resource_version);
            metadata["$deleteFromPrimitiveList/finalizers"] = json!([CLAIM_FINALIZER]);
            let path = managed(&resource_claim_path(&claim.namespace, &claim.name));
            Call::strategic(path, &json!({"metadata": metadata}))
        }
        PrepareWrite::DeleteClaim { claim, resource_version } => {
            let preconditions = preconditions(claim, resource_version);
            let body = json!({"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": preconditions});
            Call::delete(resource_claim_path(&claim.namespace, &claim.name), &body)
        }
        PrepareWrite::FenceClaim { object, uid, resource_version, fence } => {
            Call::merge(managed(&path(object)), &annotated(uid, resource_version, annotation::FENCE, Some(fence)))
        }
    }
}

fn annotated(uid: &str, resource_version: &str, annotation: &str, value: Option<&str>) -> Value {
    json!({"metadata": {"uid": uid, "resourceVersion": resource_version, "annotations": {annotation: value}}})
}

/// What a claim must still be: its UID is left out where the server's was never learned.
fn preconditions(claim: &ClaimName, resource_version: &str) -> Value {
    let mut all = json!({"resourceVersion": resource_version});
    if !claim.uid.is_empty() {
        all["uid"] = json!(claim.uid);
    }
    all
}

/// A strategic patch of a claim's status, in which consumers merge by UID.
fn claim_status(claim: &ClaimName, resource_version: &str, status: &Value) -> Call {
    let body = json!({"metadata": preconditions(claim, resource_version), "status": status});
    Call::strategic(managed(&format!("{}/status", resource_claim_path(&claim.namespace, &claim.name))), &body)
}

/// The allocation with the time from which its binding conditions are waited for.
fn stamped(allocation: &Value, now: Timestamp) -> Value {
    let mut allocation = allocation.as_object().cloned().unwrap_or_else(Map::new);
    allocation.insert("allocationTimestamp".to_owned(), Value::from(crate::convert::gangs::seconds(now)));
    Value::Object(allocation)
}

fn read_result(object: &PreparedObject, answer: Result<Value, Failure>) -> Option<PrepareReadResult> {
    Some(match answer {
        Ok(found) => PrepareReadResult::Found(Box::new(facts(object, &found))),
        Err(Failure::NotFound(_)) => PrepareReadResult::NotFound,
        Err(Failure::Conflict(why) | Failure::Refused(why) | Failure::Unknown(why)) => PrepareReadResult::Unknown(why),
        Err(Failure::Lost) => return None,
    })
}

fn facts(object: &PreparedObject, found: &Value) -> ObjectFacts {
    match object {
        PreparedObject::Volume { .. } => ObjectFacts::Volume(volume_facts(found)),
        PreparedObject::VolumeClaim { .. } => ObjectFacts::VolumeClaim(volume_claim_facts(found)),
        PreparedObject::ResourceClaim { .. } => ObjectFacts::ResourceClaim(resource_claim_facts(found)),
        PreparedObject::Pod { .. } => ObjectFacts::Pod(pod_facts(found)),
    }
}

fn volume_facts(found: &Value) -> VolumeFacts {
    let claim = |holder: &Value| ClaimName {
        namespace: text(holder, "/namespace"),
        name: text(holder, "/name"),
        uid: text(holder, "/uid"),
    };
    VolumeFacts {
        uid: text(found, "/metadata/uid"),
        resource_version: text(found, "/metadata/resourceVersion"),
        deleting: is_deleting(found),
        claim: found.pointer("/spec/claimRef").map(claim),
    }
}

fn volume_claim_facts(found: &Value) -> VolumeClaimFacts {
    let key = ClaimName {
        namespace: text(found, "/metadata/namespace"),
        name: text(found, "/metadata/name"),
        uid: text(found, "/metadata/uid"),
    };
    let annotations = &found["metadata"]["annotations"];
    VolumeClaimFacts {
        key,
        resource_version: text(found, "/metadata/resourceVersion"),
        deleting: is_deleting(found),
        lost: found["status"]["phase"] == "Lost",
        volume: Some(text(found, "/spec/volumeName")).filter(|name| !name.is_empty()),
        bound: annotations.get(BIND_COMPLETED).is_some(),
        selected_node: annotations[SELECTED_NODE].as_str().map(SmolStr::from),
        fence: fence(found),
    }
}

fn resource_claim_facts(found: &Value) -> ResourceClaimFacts {
    let reserved_for = list(&found["status"]["reservedFor"]);
    ResourceClaimFacts {
        uid: text(found, "/metadata/uid"),
        resource_version: text(found, "/metadata/resourceVersion"),
        deleting: is_deleting(found),
        finalized: list(&found["metadata"]["finalizers"]).iter().any(|finalizer| finalizer == CLAIM_FINALIZER),
        allocation: found.pointer("/status/allocation").filter(|allocation| !allocation.is_null()).cloned(),
        reserved_for: reserved_for.iter().map(|consumer| text(consumer, "/uid")).collect(),
        standing: standing(&found["status"]),
        special_for: special_for(&found["metadata"]),
        requests: found["spec"]["devices"]["requests"].clone(),
        fence: fence(found),
    }
}

/// The pod for whose extended resources a claim was made.
fn special_for(metadata: &Value) -> Option<SmolStr> {
    let special = metadata["annotations"][EXTENDED_CLAIM_ANNOTATION] == "true";
    let controller = list(&metadata["ownerReferences"]).iter().find(|owner| owner["controller"] == true)?;
    special.then(|| text(controller, "/uid"))
}

fn pod_facts(found: &Value) -> PodFacts {
    let special_claim = found.pointer("/status/extendedResourceClaimStatus/resourceClaimName");
    PodFacts {
        uid: text(found, "/metadata/uid"),
        resource_version: text(found, "/metadata/resourceVersion"),
        special_claim: special_claim.and_then(Value::as_str).map(SmolStr::from),
        fence: fence(found),
    }
}

/// How the binding conditions of a claim's devices stand: a failure condition that is true ends the wait, all binding
/// conditions must be true. Source: `isClaimReadyForBinding` of kube-scheduler's `dynamicresources`.
fn standing(status: &Value) -> Standing {
    let mut pending = false;
    for device in list(&status["allocation"]["devices"]["results"]) {
        let wanted = list(&device["bindingConditions"]);
        if wanted.is_empty() {
            continue;
        }
        let same = |reported: &&Value| {
            ["driver", "pool", "device", "shareID"].iter().all(|key| reported[*key].as_str() == device[*key].as_str())
        };
        let conditions =
            list(&status["devices"]).iter().find(same).map_or(&[][..], |device| list(&device["conditions"]));
        let is_true = |kind: &&Value| {
            conditions.iter().find(|condition| condition["type"] == **kind && condition["status"] == "True")
        };
        if let Some(failed) = list(&device["bindingFailureConditions"]).iter().find_map(|kind| is_true(&kind)) {
            let [kind, reason, message] = ["type", "reason", "message"].map(|key| failed[key].as_str().unwrap_or(""));
            return Standing::Failed(format!("{kind} is true: {reason}: {message}"));
        }
        pending |= wanted.iter().any(|kind| is_true(&kind).is_none());
    }
    if pending { Standing::Pending } else { Standing::Ready }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value, pointer: &str) -> SmolStr {
    value.pointer(pointer).and_then(Value::as_str).map(SmolStr::from).unwrap_or_default()
}

fn fence(found: &Value) -> Option<SmolStr> {
    found["metadata"]["annotations"][annotation::FENCE].as_str().map(SmolStr::from)
}

fn is_deleting(found: &Value) -> bool {
    found["metadata"].get("deletionTimestamp").is_some_and(|at| !at.is_null())
}

#[cfg(test)]
mod tests {
    use super::*;
    use flowforge_scheduler_core::model::PodKey;
    use std::sync::Arc;

    fn claim() -> ClaimName {
        ClaimName { namespace: "n".into(), name: "c".into(), uid: "u".into() }
    }

    fn shown(write: &PrepareWrite) -> String {
        call(write, Timestamp::UNIX_EPOCH).shown()
    }

    #[test]
    fn every_write_carries_uid_and_version_and_goes_where_it_is_allowed() {
        let resource_version = SmolStr::from("7");
        let select =
            PrepareWrite::SelectNode { claim: claim(), resource_version: resource_version.clone(), node: None };
        assert_eq!(
            shown(&select),
            "PATCH /api/v1/namespaces/n/persistentvolumeclaims/c?fieldManager=flowforge-scheduler application/merge-patch+json \
             {\"metadata\":{\"annotations\":{\"volume.kubernetes.io/selected-node\":null},\"resourceVersion\":\"7\",\"uid\":\"u\"}}"
        );
        let pod = PodKey { namespace: "n".into(), name: "p".into(), uid: "pu".into() };
        let reserve = PrepareWrite::ReserveClaim {
            claim: claim(),
            resource_version,
            allocation: Some(Arc::new(json!({"devices": {}}))),
            pod,
        };
        assert_eq!(
            shown(&reserve),
            "PATCH /apis/resource.k8s.io/v1/namespaces/n/resourceclaims/c/status?fieldManager=flowforge-scheduler \
             application/strategic-merge-patch+json {\"metadata\":{\"resourceVersion\":\"7\",\"uid\":\"u\"},\"status\":\
             {\"allocation\":{\"allocationTimestamp\":\"1970-01-01T00:00:00Z\",\"devices\":{}},\
             \"reservedFor\":[{\"name\":\"p\",\"resource\":\"pods\",\"uid\":\"pu\"}]}}"
        );
    }

    #[test]
    fn a_special_claim_is_made_named_and_deleted() {
        let pod = PodKey { namespace: "n".into(), name: "p".into(), uid: "pu".into() };
        let manifest = Arc::new(json!({"metadata": {"name": "c"}}));
        assert_eq!(
            shown(&PrepareWrite::CreateClaim { claim: claim(), manifest }),
            "POST /apis/resource.k8s.io/v1/namespaces/n/resourceclaims?fieldManager=flowforge-scheduler application/json \
             {\"metadata\":{\"finalizers\":[\"resource.kubernetes.io/delete-protection\"],\"name\":\"c\"}}"
        );
        let unknown = ClaimName { uid: SmolStr::default(), ..claim() };
        let reserve = PrepareWrite::ReserveClaim {
            claim: unknown,
            resource_version: "7".into(),
            allocation: None,
            pod: pod.clone(),
        };
        assert!(shown(&reserve).contains("{\"metadata\":{\"resourceVersion\":\"7\"},"), "{}", shown(&reserve));
        let mappings = Arc::new(json!([{"containerName": "a"}]));
        assert_eq!(
            shown(&PrepareWrite::NameClaim { pod, claim: "c".into(), mappings }),
            "PATCH /api/v1/namespaces/n/pods/p/status?fieldManager=flowforge-scheduler application/merge-patch+json \
             {\"metadata\":{\"uid\":\"pu\"},\"status\":{\"extendedResourceClaimStatus\":\
             {\"requestMappings\":[{\"containerName\":\"a\"}],\"resourceClaimName\":\"c\"}}}"
        );
        let release = PrepareWrite::ReleaseClaim { claim: claim(), resource_version: "7".into() };
        assert!(shown(&release).contains("\"$deleteFromPrimitiveList/finalizers\""), "{}", shown(&release));
        let delete = shown(&PrepareWrite::DeleteClaim { claim: claim(), resource_version: "8".into() });
        assert!(
            delete.starts_with("DELETE ") && delete.contains("{\"resourceVersion\":\"8\",\"uid\":\"u\"}"),
            "{delete}"
        );
    }

    #[test]
    fn a_special_claim_belongs_to_the_pod_that_controls_it() {
        let metadata = |special: &str| {
            json!({"annotations": {EXTENDED_CLAIM_ANNOTATION: special},
                "ownerReferences": [{"uid": "x"}, {"uid": "pu", "controller": true}]})
        };
        assert_eq!(special_for(&metadata("true")), Some("pu".into()));
        assert_eq!(special_for(&metadata("false")), None);
        assert_eq!(special_for(&json!({})), None);
    }

    #[test]
    fn a_volume_claim_is_read_with_its_answers() {
        let found = json!({
            "metadata": {
                "namespace": "n", "name": "c", "uid": "u", "resourceVersion": "9",
                "annotations": {BIND_COMPLETED: "yes", SELECTED_NODE: "node-1"},
            },
            "spec": {"volumeName": "v"}, "status": {"phase": "Bound"},
        });
        let expected = VolumeClaimFacts {
            key: claim(),
            resource_version: "9".into(),
            deleting: false,
            lost: false,
            volume: Some("v".into()),
            bound: true,
            selected_node: Some("node-1".into()),
            fence: None,
        };
        assert_eq!(volume_claim_facts(&found), expected);
        let empty = volume_claim_facts(&json!({"metadata": {}, "spec": {"volumeName": ""}}));
        assert_eq!((empty.volume, empty.bound, empty.selected_node), (None, false, None));
    }

    #[test]
    fn a_claim_stands_as_the_conditions_of_its_devices_do() {
        let device = json!({
            "driver": "d", "pool": "p", "device": "0",
            "bindingConditions": ["Attached"], "bindingFailureConditions": ["Broken"],
        });
        let status = |conditions: Value| {
            json!({
                "allocation": {"devices": {"results": [device]}},
                "devices": [{"driver": "d", "pool": "p", "device": "0", "conditions": conditions}],
            })
        };
        let condition =
            |kind: &str, status: &str| json!({"type": kind, "status": status, "reason": "R", "message": "m"});
        assert_eq!(standing(&status(json!([]))), Standing::Pending);
        assert_eq!(standing(&status(json!([condition("Attached", "False")]))), Standing::Pending);
        assert_eq!(standing(&status(json!([condition("Attached", "True")]))), Standing::Ready);
        assert_eq!(
            standing(&status(json!([condition("Attached", "True"), condition("Broken", "True")]))),
            Standing::Failed("Broken is true: R: m".to_owned())
        );
        assert_eq!(standing(&json!({"allocation": {"devices": {"results": [{}]}}})), Standing::Ready);
    }
}
