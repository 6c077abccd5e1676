//! Carrying out commands: each function sends one command's requests and says what came of them.
//!
//! What must hold: children are made by POST only, and an object that is there already is adopted only when its
//! controller has our UID; deletions and patches carry the UID of what they mean; a status write carries UID and
//! resourceVersion, and never replaces a terminal phase.

use flowforge_api::gang::GangStatus;
use flowforge_api::names::{field_manager, finalizer};
use flowforge_api::{Gang, Workflow};
use flowforge_dag_controller_core::event::{Object, Refusal, RefusalKind};
use flowforge_dag_controller_core::{AttemptKey, MemberKey, NodeIx};
use k8s_openapi::api::core::v1::{Pod, Service};
use kube::Resource;
use kube::api::{DeleteParams, GetParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{Request, Status};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};
use smol_str::SmolStr;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::convert::{controller_uid, gang_end};
use crate::data::Answer;
use crate::metrics::Write;
use crate::watched::{MetadataOf, WatchedPod};
use crate::writer::{Sent, Writer};

/// First pause after a refused delete or patch of a pod; doubled each time.
const FIRST_REFUSED_PAUSE: Duration = Duration::from_secs(5);
/// Longest such pause.
const LONGEST_REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// What came of a command.
#[derive(Debug)]
pub enum Outcome {
    /// The Gang as it is: created, adopted, or looked for. It says nothing about a write of its status.
    Gang(AttemptKey, Box<Gang>),
    /// The Gang's status was to be written, and holds an end already.
    GangOver(AttemptKey, Box<Gang>),
    /// The Gang does not exist any more.
    GangAbsent(AttemptKey),
    /// The Gang's status was written; its resourceVersion now.
    GangWritten(AttemptKey, String),
    /// The Service exists.
    Service(AttemptKey),
    /// The Service of this UID does not exist any more.
    ServiceAbsent(AttemptKey, String),
    /// The pod as it is.
    Pod(MemberKey, Box<WatchedPod>),
    /// The pod of this UID does not exist any more.
    PodAbsent(MemberKey, String),
    /// A create was refused.
    Refused(Object, Refusal),
    /// The Workflow's status was written; its resourceVersion now.
    StatusWritten(String),
    /// The Workflow does not exist any more.
    WorkflowAbsent,
    /// A Gang's status was refused for its content.
    GangRefused(AttemptKey),
    /// The Workflow's status was refused for its content.
    StatusRefused,
    /// Whether a node runs.
    Judged(NodeIx, Box<Answer>),
    /// Nothing to tell: the watch will.
    Nothing,
    /// The lease was lost.
    Withheld,
}

/// A child to be created and what it must belong to.
pub struct Child<'a> {
    /// Namespace.
    pub namespace: &'a str,
    /// Name.
    pub name: &'a str,
    /// UID of its controller.
    pub owner_uid: &'a str,
    /// Its attempt ends: it is not wanted any more.
    pub ending: &'a AtomicBool,
}

enum Made<T> {
    Ours(T),
    Refused(Refusal),
    Withheld,
}

/// POST, and on AlreadyExists a consistent GET that tells whose it is.
///
/// The body is made when its turn has come: a gang of thousands waits as names, not as pods.
async fn make<K, B, T>(writer: &Writer, kind: Write, child: &Child<'_>, body: impl Fn() -> B) -> Made<T>
where
    K: Resource<DynamicType = ()>,
    B: Serialize,
    T: Resource + DeserializeOwned,
{
    let url = K::url_path(&(), Some(child.namespace));
    loop {
        let request = || {
            let bytes = serde_json::to_vec(&body()).map_err(kube::core::request::Error::SerializeBody)?;
            Request::new(url.as_str()).create(&PostParams::default(), bytes)
        };
        let Some(sent) = writer.send_unless(child.ending, kind, request).await else {
            return Made::Refused(refusal(RefusalKind::Dropped, "its attempt ends"));
        };
        match sent {
            Sent::Done(object) => return Made::Ours(object),
            Sent::Withheld => return Made::Withheld,
            Sent::Refused(status) => return Made::Refused(refused(&status)),
            // A namespaced POST answers 404 when the namespace, or the kind, does not exist.
            Sent::Gone => return Made::Refused(refusal(RefusalKind::Forbidden, "the namespace does not exist")),
            Sent::Taken | Sent::Stale => {}
        }
        let there = || Request::new(url.as_str()).get(child.name, &GetParams::default());
        match writer.read::<T>(there).await {
            Sent::Done(object) if controller_uid(object.meta()) == Some(child.owner_uid) => return Made::Ours(object),
            Sent::Done(object) => return Made::Refused(taken(child, object.meta().deletion_timestamp.is_some())),
            Sent::Withheld => return Made::Withheld,
            Sent::Refused(status) => return Made::Refused(refused(&status)),
            Sent::Gone | Sent::Taken | Sent::Stale => {}
        }
    }
}

fn taken(child: &Child<'_>, deleting: bool) -> Refusal {
    let text = if deleting { "is being deleted" } else { "exists and belongs to someone else" };
    refusal(RefusalKind::NameTaken, &format!("an object named {:?} {text}", child.name))
}

fn refused(status: &Status) -> Refusal {
    let kind = match status.code {
        // The second: a quota so new that nothing is counted yet.
        403 if ["exceeded quota", "status unknown for quota"].iter().any(|text| status.message.contains(text)) => {
            RefusalKind::Quota
        }
        403 => RefusalKind::Forbidden,
        _ => RefusalKind::Invalid,
    };
    refusal(kind, &status.message)
}

fn refusal(kind: RefusalKind, message: &str) -> Refusal {
    const LONGEST: usize = 1000;
    let end = message.char_indices().nth(LONGEST).map_or(message.len(), |(i, _)| i);
    Refusal { kind, message: SmolStr::from(message.get(..end).unwrap_or_default()) }
}

/// Claims an attempt.
pub async fn create_gang(writer: &Writer, key: AttemptKey, child: &Child<'_>, gang: &Gang) -> Outcome {
    match make::<Gang, _, Gang>(writer, Write::CreateGang, child, || gang).await {
        Made::Ours(gang) => Outcome::Gang(key, Box::new(gang)),
        Made::Refused(refusal) => Outcome::Refused(Object::Gang(key), refusal),
        Made::Withheld => Outcome::Withheld,
    }
}

/// Makes an attempt's Service.
pub async fn create_service(writer: &Writer, key: AttemptKey, child: &Child<'_>, service: &Service) -> Outcome {
    match make::<Service, _, MetadataOf>(writer, Write::CreateService, child, || service).await {
        Made::Ours(_) => Outcome::Service(key),
        Made::Refused(refusal) => Outcome::Refused(Object::Service(key), refusal),
        Made::Withheld => Outcome::Withheld,
    }
}

/// Makes a member's pod.
pub async fn create_pod(writer: &Writer, key: MemberKey, child: &Child<'_>, pod: impl Fn() -> Pod) -> Outcome {
    match make::<Pod, _, WatchedPod>(writer, Write::CreatePod, child, pod).await {
        Made::Ours(pod) => Outcome::Pod(key, Box::new(pod)),
        Made::Refused(refusal) => Outcome::Refused(Object::Pod(key), refusal),
        Made::Withheld => Outcome::Withheld,
    }
}

/// A pod by name and UID.
pub struct PodRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

impl PodRef {
    /// A pod that was seen.
    #[must_use]
    pub fn of(pod: &WatchedPod) -> Self {
        Self {
            namespace: pod.metadata.namespace.clone().unwrap_or_default(),
            name: pod.metadata.name.clone().unwrap_or_default(),
            uid: pod.metadata.uid.clone().unwrap_or_default(),
        }
    }
}

/// Deletes a pod with this grace period, or its own.
pub async fn delete_pod(writer: &Writer, key: MemberKey, pod: PodRef, grace_s: Option<u32>) -> Outcome {
    let url = Pod::url_path(&(), Some(&pod.namespace));
    let preconditions = Preconditions { uid: Some(pod.uid.clone()), resource_version: None };
    let params =
        DeleteParams { preconditions: Some(preconditions), grace_period_seconds: grace_s, ..DeleteParams::default() };
    let request = || Request::new(url.as_str()).delete(&pod.name, &params);
    let mut pause = FIRST_REFUSED_PAUSE;
    loop {
        match writer.send::<IgnoredAny>(Write::DeletePod, request).await {
            Sent::Gone | Sent::Stale | Sent::Taken => return Outcome::PodAbsent(key, pod.uid),
            Sent::Done(_) => return Outcome::Nothing,
            Sent::Refused(status) => {
                tracing::warn!(pod = %pod.name, message = %status.message, "delete refused, tried again");
            }
            Sent::Withheld => return Outcome::Withheld,
        }
        if !wait(writer, &mut pause).await {
            return Outcome::Withheld;
        }
    }
}

/// Lets the pause after a refusal pass, and doubles it; false when the lease was lost meanwhile. Nobody else asks again for
/// a stop or a finalizer's end: what refuses it (a webhook, a Role) may be put right at any time.
async fn wait(writer: &Writer, pause: &mut Duration) -> bool {
    let held = writer.sleep(*pause).await;
    *pause = (*pause * 2).min(LONGEST_REFUSED_PAUSE);
    held
}

/// Takes our finalizer off a pod, and leaves all others.
pub async fn strip_finalizer(writer: &Writer, key: MemberKey, pod: PodRef) -> Outcome {
    match strip(writer, &pod).await {
        Sent::Done(object) => Outcome::Pod(key, Box::new(object)),
        Sent::Gone | Sent::Stale | Sent::Taken => Outcome::PodAbsent(key, pod.uid),
        Sent::Refused(_) | Sent::Withheld => Outcome::Withheld,
    }
}

/// Takes our finalizer off a pod that belongs to no workflow we know: there is nothing to record its result in.
pub async fn strip_orphan(writer: &Writer, pod: PodRef) -> Outcome {
    match strip(writer, &pod).await {
        Sent::Withheld => Outcome::Withheld,
        _ => Outcome::Nothing,
    }
}

/// Patches until the pod is free of our finalizer, is gone, or the lease is lost.
async fn strip(writer: &Writer, pod: &PodRef) -> Sent<WatchedPod> {
    let url = Pod::url_path(&(), Some(&pod.namespace));
    let body = json!({"metadata": {"uid": pod.uid, "$deleteFromPrimitiveList/finalizers": [finalizer::RESULT]}});
    let patch = Patch::Strategic(body);
    let request = || Request::new(url.as_str()).patch(&pod.name, &PatchParams::default(), &patch);
    let there = || Request::new(url.as_str()).get(&pod.name, &GetParams::default());
    let mut pause = FIRST_REFUSED_PAUSE;
    loop {
        let status = match writer.send(Write::Finalizer, request).await {
            Sent::Refused(status) => status,
            answer => return answer,
        };
        // A UID that is not the object's answers 422, and so does every other mistake.
        if status.code == 422 {
            match writer.read::<MetadataOf>(there).await {
                Sent::Done(other) if other.metadata.uid.as_deref() != Some(pod.uid.as_str()) => return Sent::Gone,
                Sent::Gone => return Sent::Gone,
                _ => {}
            }
        }
        tracing::warn!(pod = %pod.name, message = %status.message, "finalizer not removed, tried again");
        if !wait(writer, &mut pause).await {
            return Sent::Withheld;
        }
    }
}

/// A status write of a Gang.
pub struct GangWrite {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Its resourceVersion, as far as we know.
    pub resource_version: String,
    /// Our part of the status.
    pub status: GangStatus,
}

/// Writes our part of a Gang's status.
pub async fn write_gang(writer: &Writer, key: AttemptKey, mut write: GangWrite) -> Outcome {
    let url = Gang::url_path(&(), Some(&write.namespace));
    let params = PatchParams::apply(field_manager::CONTROLLER).force();
    loop {
        let body = json!({
            "apiVersion": Gang::api_version(&()),
            "kind": Gang::kind(&()),
            "metadata": {
                "name": write.name,
                "namespace": write.namespace,
                "uid": write.uid,
                "resourceVersion": write.resource_version,
            },
            "status": write.status,
        });
        let patch = Patch::Apply(body);
        let request = || Request::new(url.as_str()).patch_subresource("status", &write.name, &params, &patch);
        match writer.send::<MetadataOf>(Write::GangStatus, request).await {
            Sent::Done(meta) => {
                return Outcome::GangWritten(key, meta.metadata.resource_version.unwrap_or_default());
            }
            Sent::Gone => return Outcome::GangAbsent(key),
            Sent::Withheld => return Outcome::Withheld,
            Sent::Refused(status) => {
                tracing::error!(gang = %write.name, message = %status.message, "status refused");
                return Outcome::GangRefused(key);
            }
            Sent::Stale | Sent::Taken => {}
        }
        let there = || Request::new(url.as_str()).get(&write.name, &GetParams::default());
        match writer.read::<Gang>(there).await {
            Sent::Done(gang) if gang.metadata.uid.as_deref() != Some(write.uid.as_str()) => {
                return Outcome::GangAbsent(key);
            }
            Sent::Done(gang) if gang_end(&gang).is_some() => return Outcome::GangOver(key, Box::new(gang)),
            // An earlier try whose answer was lost has landed.
            Sent::Done(gang) if holds(&gang, &write.status) => {
                return Outcome::GangWritten(key, gang.metadata.resource_version.unwrap_or_default());
            }
            Sent::Done(gang) => write.resource_version = gang.metadata.resource_version.unwrap_or_default(),
            Sent::Gone => return Outcome::GangAbsent(key),
            Sent::Withheld => return Outcome::Withheld,
            Sent::Refused(_) | Sent::Stale | Sent::Taken => return Outcome::GangRefused(key),
        }
    }
}

/// Whether a Gang's status holds our part already.
fn holds(gang: &Gang, ours: &GangStatus) -> bool {
    let Some(theirs) = &gang.status else { return false };
    let part = |s: &GangStatus| {
        let ranks = [s.succeeded_ranks.clone(), s.failed_ranks.clone(), s.stopped_ranks.clone()];
        let data = (s.said.clone(), s.outputs.clone());
        (s.phase, s.reason.clone(), s.members.clone(), ranks, s.lost_ranks.clone(), s.results.clone(), data)
    };
    part(theirs) == part(ours)
}

/// A Workflow by name, UID and resourceVersion.
pub struct WorkflowRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Its resourceVersion, as far as we know.
    pub resource_version: String,
}

/// Writes a Workflow's status; `status` holds null for fields to be removed. We are its only writer.
pub async fn write_status(writer: &Writer, mut workflow: WorkflowRef, status: Value) -> Outcome {
    let url = Workflow::url_path(&(), Some(&workflow.namespace));
    let params = PatchParams { field_manager: Some(field_manager::CONTROLLER.to_owned()), ..PatchParams::default() };
    loop {
        let metadata = json!({"uid": workflow.uid, "resourceVersion": workflow.resource_version});
        let patch = Patch::Merge(json!({"metadata": metadata, "status": status}));
        let request = || Request::new(url.as_str()).patch_subresource("status", &workflow.name, &params, &patch);
        match writer.send::<MetadataOf>(Write::WorkflowStatus, request).await {
            Sent::Done(meta) => return Outcome::StatusWritten(meta.metadata.resource_version.unwrap_or_default()),
            Sent::Gone => return Outcome::WorkflowAbsent,
            Sent::Withheld => return Outcome::Withheld,
            Sent::Refused(status) if status.code != 422 => {
                tracing::error!(workflow = %workflow.name, message = %status.message, "status refused");
                return Outcome::StatusRefused;
            }
            Sent::Refused(_) | Sent::Stale | Sent::Taken => {}
        }
        let there = || Request::new(url.as_str()).get(&workflow.name, &GetParams::default());
        match writer.read::<MetadataOf>(there).await {
            Sent::Done(meta) if meta.metadata.uid.as_deref() != Some(workflow.uid.as_str()) => {
                return Outcome::WorkflowAbsent;
            }
            Sent::Done(meta) => {
                let fresh = meta.metadata.resource_version.unwrap_or_default();
                if fresh == workflow.resource_version {
                    // Not out of date, so the content itself is refused.
                    tracing::error!(workflow = %workflow.name, "status refused as invalid");
                    return Outcome::StatusRefused;
                }
                workflow.resource_version = fresh;
            }
            Sent::Gone => return Outcome::WorkflowAbsent,
            Sent::Withheld => return Outcome::Withheld,
            Sent::Refused(_) | Sent::Stale | Sent::Taken => return Outcome::StatusRefused,
        }
    }
}

/// Deletes a Workflow whose time to live has passed, with everything it owns.
pub async fn delete_workflow(writer: &Writer, workflow: WorkflowRef) -> Outcome {
    let url = Workflow::url_path(&(), Some(&workflow.namespace));
    let preconditions = Preconditions { uid: Some(workflow.uid), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    let request = || Request::new(url.as_str()).delete(&workflow.name, &params);
    match writer.send::<IgnoredAny>(Write::DeleteWorkflow, request).await {
        Sent::Withheld => Outcome::Withheld,
        _ => Outcome::Nothing,
    }
}

/// A consistent read of a pod that a list did not hold.
pub async fn look_for_pod(writer: &Writer, key: MemberKey, pod: PodRef) -> Outcome {
    let url = Pod::url_path(&(), Some(&pod.namespace));
    match writer.read::<WatchedPod>(|| Request::new(url.as_str()).get(&pod.name, &GetParams::default())).await {
        Sent::Done(object) if object.metadata.uid.as_deref() == Some(pod.uid.as_str()) => {
            Outcome::Pod(key, Box::new(object))
        }
        Sent::Done(_) | Sent::Gone => Outcome::PodAbsent(key, pod.uid),
        Sent::Withheld => Outcome::Withheld,
        Sent::Refused(_) | Sent::Stale | Sent::Taken => Outcome::Nothing,
    }
}

/// A consistent read of a Gang that a list did not hold.
pub async fn look_for_gang(writer: &Writer, key: AttemptKey, namespace: String, name: String, uid: String) -> Outcome {
    let url = Gang::url_path(&(), Some(&namespace));
    match writer.read::<Gang>(|| Request::new(url.as_str()).get(&name, &GetParams::default())).await {
        Sent::Done(gang) if gang.metadata.uid.as_deref() == Some(uid.as_str()) => Outcome::Gang(key, Box::new(gang)),
        Sent::Done(_) | Sent::Gone => Outcome::GangAbsent(key),
        Sent::Withheld => Outcome::Withheld,
        Sent::Refused(_) | Sent::Stale | Sent::Taken => Outcome::Nothing,
    }
}

/// A consistent read of a Service that a list did not hold.
pub async fn look_for_service(
    writer: &Writer,
    key: AttemptKey,
    namespace: String,
    name: String,
    uid: String,
) -> Outcome {
    let url = Service::url_path(&(), Some(&namespace));
    match writer.read::<MetadataOf>(|| Request::new(url.as_str()).get(&name, &GetParams::default())).await {
        Sent::Done(object) if object.metadata.uid.as_deref() == Some(uid.as_str()) => Outcome::Service(key),
        Sent::Done(_) | Sent::Gone => Outcome::ServiceAbsent(key, uid),
        Sent::Withheld => Outcome::Withheld,
        Sent::Refused(_) | Sent::Stale | Sent::Taken => Outcome::Nothing,
    }
}

/// A consistent read of a Workflow that a list did not hold.
pub async fn look_for_workflow(writer: &Writer, workflow: WorkflowRef) -> Outcome {
    let url = Workflow::url_path(&(), Some(&workflow.namespace));
    match writer.read::<MetadataOf>(|| Request::new(url.as_str()).get(&workflow.name, &GetParams::default())).await {
        Sent::Done(object) if object.metadata.uid.as_deref() == Some(workflow.uid.as_str()) => Outcome::Nothing,
        Sent::Done(_) | Sent::Gone => Outcome::WorkflowAbsent,
        Sent::Withheld => Outcome::Withheld,
        Sent::Refused(_) | Sent::Stale | Sent::Taken => Outcome::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quota_is_told_from_what_is_forbidden() {
        let forbidden = |message: &str| {
            let mut status = Status::failure(message, "Forbidden");
            status.code = 403;
            refused(&status).kind
        };
        let new = "pods \"wf-a-1-0\" is forbidden: status unknown for quota: team, resources: pods";
        let full =
            "pods \"wf-a-1-0\" is forbidden: exceeded quota: team, requested: pods=1, used: pods=2, limited: pods=2";
        let account = "pods \"wf-a-1-0\" is forbidden: error looking up service account ns/trainer: not found";
        assert_eq!([new, full].map(forbidden), [RefusalKind::Quota; 2]);
        assert_eq!(forbidden(account), RefusalKind::Forbidden);
    }
}
