//! Gangs that others declare, on a real control plane: their objects, and the steps of their controllers, as these take them.
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "what fails in a test's helper fails the test"
)]

mod scheduler;

use flowforge_testbed::{Profile, Testbed};
use flowforge_tests::install::{Installation, Options, SCHEDULER};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use scheduler::{
    create, delete, install, is_live, label_node, namespace, node_names, nodes_of, pods, priority_class, refused, until,
};
use serde_json::{Value, json};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(60);
const RACK: &str = "fabric.topograph.run/tier-0";
const CRDS: &str = include_str!("../fixtures/gangs-of-others.yaml");

/// A kind that no type of ours describes.
fn kind(api_version: &str, kind: &str, plural: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource {
        group: group.into(),
        version: version.into(),
        api_version: api_version.into(),
        kind: kind.into(),
        plural: plural.into(),
    }
}

fn native() -> ApiResource {
    kind("scheduling.k8s.io/v1beta1", "PodGroup", "podgroups")
}

fn volcano() -> ApiResource {
    kind("scheduling.volcano.sh/v1beta1", "PodGroup", "podgroups")
}

fn coscheduling() -> ApiResource {
    kind("scheduling.x-k8s.io/v1alpha1", "PodGroup", "podgroups")
}

fn api(testbed: &Testbed, namespace: &str, kind: &ApiResource) -> Api<DynamicObject> {
    match namespace {
        "" => Api::all_with(testbed.client().clone(), kind),
        namespace => Api::namespaced_with(testbed.client().clone(), namespace, kind),
    }
}

/// Creates an object with these fields beside its name.
async fn make(testbed: &Testbed, namespace: &str, kind: &ApiResource, name: &str, fields: Value) -> DynamicObject {
    let mut object = json!({"apiVersion": kind.api_version, "kind": kind.kind, "metadata": {"name": name}});
    for (field, value) in fields.as_object().unwrap() {
        match field.as_str() {
            "ownerReferences" | "annotations" => object["metadata"][field] = value.clone(),
            field => object[field] = value.clone(),
        }
    }
    let object = serde_json::from_value(object).unwrap();
    let made = api(testbed, namespace, kind).create(&PostParams::default(), &object).await;
    made.unwrap_or_else(|error| panic!("{} {name}: {error}", kind.kind))
}

/// Pods `NAME-0..` with label `test: NAME`, each changed before it is made.
fn members(name: &str, count: usize, gpus: &str, change: impl Fn(usize, &mut Value)) -> Vec<Value> {
    let member = |rank: usize| {
        let mut pod = scheduler::pod(&format!("{name}-{rank}"), gpus);
        pod["metadata"]["labels"] = json!({"test": name});
        pod["metadata"]["annotations"] = json!({});
        change(rank, &mut pod);
        pod
    };
    (0..count).map(member).collect()
}

/// Creates pods as they are: the type that the other tests use knows no `schedulingGroup`.
async fn create_raw(testbed: &Testbed, namespace: &str, pods: Vec<Value>) {
    let api = api(testbed, namespace, &kind("v1", "Pod", "pods"));
    for pod in pods {
        api.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
    }
}

fn selector(name: &str) -> String {
    format!("test={name}")
}

async fn live(testbed: &Testbed, namespace: &str, name: &str) -> usize {
    pods(testbed, namespace, &selector(name)).await.iter().filter(|pod| is_live(pod)).count()
}

/// Waits until exactly so many pods of this name are bound.
async fn bound(testbed: &Testbed, namespace: &str, name: &str, count: usize) {
    until(&format!("{count} pods of {name} are bound"), SOON, || async {
        let found = pods(testbed, namespace, &selector(name)).await;
        let live = found.iter().filter(|pod| is_live(pod)).count();
        let why = found.iter().find_map(scheduler::unscheduled);
        if live == count { Ok(()) } else { Err(format!("{live}; {why:?}")) }
    })
    .await;
}

/// Waits until the status of an object is as wanted; answers it.
async fn status(
    testbed: &Testbed,
    namespace: &str,
    kind: &ApiResource,
    name: &str,
    wanted: impl Fn(&Value) -> bool,
) -> Value {
    until(&format!("the status of {} {name}", kind.api_version), SOON, || async {
        let object = api(testbed, namespace, kind).get(name).await.map_err(|error| error.to_string())?;
        let status = object.data.get("status").cloned().unwrap_or_default();
        if wanted(&status) { Ok(status) } else { Err(status.to_string()) }
    })
    .await
}

/// A condition's status and reason.
fn condition<'a>(status: &'a Value, type_: &str) -> Option<(&'a str, &'a str)> {
    let found = status["conditions"].as_array()?.iter().find(|condition| condition["type"] == type_)?;
    Some((found["status"].as_str()?, found["reason"].as_str()?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn native_pod_groups_are_gangs() {
    let gates = [("GenericWorkload", true), ("TopologyAwareWorkloadScheduling", true)];
    let testbed = Testbed::builder()
        .nodes(Profile::DgxH100, 4)
        .feature_gates(gates)
        .runtime_config("scheduling.k8s.io/v1beta1=true")
        .start()
        .await
        .unwrap();
    install(&testbed, "").await;
    namespace(&testbed, "native").await;
    a_native_group_waits_for_its_object_and_its_members(&testbed).await;
    a_native_group_that_does_not_fit_says_so(&testbed).await;
    a_native_group_stands_in_one_domain(&testbed).await;
    a_basic_group_takes_what_it_gets(&testbed).await;
    a_member_of_another_priority_is_told(&testbed).await;
}

fn in_group(group: &str) -> impl Fn(usize, &mut Value) {
    move |_, pod| pod["spec"]["schedulingGroup"] = json!({"podGroupName": group})
}

fn gang_policy(min_count: usize) -> Value {
    json!({"gang": {"minCount": min_count}})
}

async fn a_native_group_waits_for_its_object_and_its_members(testbed: &Testbed) {
    let mut all = members("train", 3, "8", in_group("train"));
    let third = all.split_off(2);
    create_raw(testbed, "native", all).await;
    let (reason, message) = refused(testbed, "native", "test=train", "does not exist").await;
    assert!(reason == "WaitingForGang" && message.contains("podgroup.scheduling.k8s.io/train"), "{reason}: {message}");
    make(testbed, "native", &native(), "train", json!({"spec": {"schedulingPolicy": gang_policy(3)}})).await;
    refused(testbed, "native", "test=train", "2 of 3 members exist").await;
    assert_eq!(live(testbed, "native", "train").await, 0);
    create_raw(testbed, "native", third).await;
    bound(testbed, "native", "train", 3).await;
    let is = |status: &Value| condition(status, "PodGroupInitiallyScheduled") == Some(("True", "Scheduled"));
    status(testbed, "native", &native(), "train", is).await;
}

async fn a_native_group_that_does_not_fit_says_so(testbed: &Testbed) {
    make(testbed, "native", &native(), "wide", json!({"spec": {"schedulingPolicy": gang_policy(2)}})).await;
    create_raw(testbed, "native", members("wide", 2, "8", in_group("wide"))).await;
    let is = |status: &Value| condition(status, "PodGroupInitiallyScheduled") == Some(("False", "Unschedulable"));
    status(testbed, "native", &native(), "wide", is).await;
    assert_eq!(live(testbed, "native", "wide").await, 0, "a node is free, and yet one alone is of no use");
    delete(testbed, "native", "test=train").await;
    bound(testbed, "native", "wide", 2).await;
    let is = |status: &Value| condition(status, "PodGroupInitiallyScheduled") == Some(("True", "Scheduled"));
    status(testbed, "native", &native(), "wide", is).await;
    delete(testbed, "native", "test=wide").await;
}

async fn a_native_group_stands_in_one_domain(testbed: &Testbed) {
    let nodes = node_names(testbed).await;
    for (node, rack) in nodes.iter().zip(["a", "b", "b", "c"]) {
        label_node(testbed, node, json!({RACK: rack})).await;
    }
    let spec = |key: &str| json!({"spec": {"schedulingPolicy": gang_policy(2), "schedulingConstraints": {"topology": [{"key": key}]}}});
    make(testbed, "native", &native(), "near", spec(RACK)).await;
    create_raw(testbed, "native", members("near", 2, "8", in_group("near"))).await;
    bound(testbed, "native", "near", 2).await;
    let found = pods(testbed, "native", "test=near").await;
    assert_eq!(nodes_of(&found), [nodes[1].as_str(), nodes[2].as_str()].into());
    make(testbed, "native", &native(), "lost", spec("example.com/row")).await;
    create_raw(testbed, "native", members("lost", 2, "1", in_group("lost"))).await;
    refused(testbed, "native", "test=lost", "topology level \"example.com/row\" is not configured").await;
    let is = |status: &Value| condition(status, "PodGroupInitiallyScheduled") == Some(("False", "SchedulerError"));
    status(testbed, "native", &native(), "lost", is).await;
    delete(testbed, "native", "test=lost").await;
}

async fn a_basic_group_takes_what_it_gets(testbed: &Testbed) {
    make(testbed, "native", &native(), "loose", json!({"spec": {"schedulingPolicy": {"basic": {}}}})).await;
    create_raw(testbed, "native", members("loose", 3, "8", in_group("loose"))).await;
    // Two nodes are free.
    bound(testbed, "native", "loose", 2).await;
    refused(testbed, "native", "test=loose", "Insufficient nvidia.com/gpu").await;
    delete(testbed, "native", "test=loose").await;
}

async fn a_member_of_another_priority_is_told(testbed: &Testbed) {
    priority_class(testbed, "urgent", 1_000, true).await;
    let spec = json!({"spec": {"schedulingPolicy": gang_policy(1), "priorityClassName": "urgent"}});
    make(testbed, "native", &native(), "mixed", spec).await;
    create_raw(testbed, "native", members("mixed", 1, "1", in_group("mixed"))).await;
    let told = "a member has priority 0 and its group 1000";
    let (reason, _) = refused(testbed, "native", "test=mixed", told).await;
    assert_eq!(reason, "InvalidGang");
    let is = |status: &Value| condition(status, "PodGroupInitiallyScheduled") == Some(("False", "SchedulerError"));
    status(testbed, "native", &native(), "mixed", is).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conventions_that_come_later_are_found_and_followed() {
    let testbed = scheduler::testbed(Profile::DgxH100, 6).await;
    // None of their APIs is there yet, and the native one never is.
    install(&testbed, "").await;
    testbed.apply_yaml(CRDS).await.unwrap();
    namespace(&testbed, "others").await;
    a_coscheduling_group_runs_beside_another_writer(&testbed).await;
    a_volcano_job_gets_its_pods_and_runs(&testbed).await;
    a_volcano_group_of_another_scheduler_is_never_touched(&testbed).await;
    a_volcano_group_says_what_keeps_it(&testbed).await;
    a_tier_of_hyper_nodes_is_a_level(&testbed).await;
    a_group_whose_object_vanishes_says_so(&testbed).await;
    a_training_job_with_a_volcano_group_runs(&testbed).await;
    a_kueue_group_waits_for_its_gates_and_goes_where_kueue_says(&testbed).await;
    a_leader_and_its_workers_are_a_gang(&testbed).await;
    a_job_set_is_a_gang(&testbed).await;
    a_kai_group_counts_its_subgroups(&testbed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_read_of_others_does_not_stop_the_start() {
    let testbed = scheduler::testbed(Profile::DgxH100, 1).await;
    testbed.apply_yaml(CRDS).await.unwrap();
    let options = Options { scheduler: false, ..scheduler::options(&testbed, "") };
    let installation = Installation::install(&testbed, options).await.unwrap();
    let roles: Api<ClusterRole> = Api::all(testbed.client().clone());
    let mut role = roles.get(SCHEDULER).await.unwrap();
    let rules = role.rules.as_mut().unwrap();
    let before = rules.len();
    rules.retain(|rule| {
        !rule.api_groups.iter().flatten().any(|group| group.contains("volcano") || group.ends_with("x-k8s.io"))
    });
    assert!(rules.len() < before);
    roles.replace(SCHEDULER, &PostParams::default(), &role).await.unwrap();
    installation.start_scheduler(SCHEDULER, installation.scheduler).await.unwrap();
    namespace(&testbed, "closed").await;
    create(&testbed, "closed", members("plain", 1, "1", |_, _| {})).await;
    bound(&testbed, "closed", "plain", 1).await;
    create(&testbed, "closed", members("grouped", 1, "1", of_task("grouped", "worker"))).await;
    refused(&testbed, "closed", "test=grouped", "podgroup.scheduling.volcano.sh/grouped does not exist").await;
}

/// Changes of somebody else to an object, while it is answered.
const ROUNDS: usize = 20;

/// Writes labels and a field of the spec, one after the other.
async fn another_writer(testbed: &Testbed, kind: &ApiResource, name: &str) {
    let objects = api(testbed, "others", kind);
    for round in 0..ROUNDS {
        let labels = json!({format!("round-{round}"): "x"});
        let patch = json!({"metadata": {"labels": labels}, "spec": {"minResources": {"cpu": round}}});
        objects.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

/// All that the other writer wrote is there.
async fn nothing_is_lost(testbed: &Testbed, kind: &ApiResource, name: &str) {
    let object = api(testbed, "others", kind).get(name).await.unwrap();
    assert_eq!(object.metadata.labels.unwrap_or_default().len(), ROUNDS);
    assert_eq!(object.data["spec"]["minResources"]["cpu"], ROUNDS - 1);
}

async fn a_coscheduling_group_runs_beside_another_writer(testbed: &Testbed) {
    make(testbed, "others", &coscheduling(), "plugin", json!({"spec": {"minMember": 3}})).await;
    let named = |_, pod: &mut Value| pod["metadata"]["labels"]["scheduling.x-k8s.io/pod-group"] = json!("plugin");
    let gang = async {
        let mut all = members("plugin", 3, "1", named);
        let last = all.split_off(2);
        create(testbed, "others", all).await;
        // The object may be found only when its API is looked for again.
        refused(testbed, "others", "test=plugin", "2 of 3 members exist").await;
        status(testbed, "others", &coscheduling(), "plugin", |status| status["phase"] == "Pending").await;
        create(testbed, "others", last).await;
        bound(testbed, "others", "plugin", 3).await;
    };
    let kind = coscheduling();
    tokio::join!(another_writer(testbed, &kind, "plugin"), gang);
    let is = |status: &Value| status["phase"] == "Running" && status["running"] == 3;
    let ran = status(testbed, "others", &coscheduling(), "plugin", is).await;
    assert!(ran["scheduleStartTime"].is_string(), "{ran}");
    nothing_is_lost(testbed, &coscheduling(), "plugin").await;
    delete(testbed, "others", "test=plugin").await;
}

/// A Volcano Job for a scheduler, and its PodGroup, as its controller makes it before any pod.
async fn volcano_job(testbed: &Testbed, name: &str, scheduler: &str, spec: Value) {
    let jobs = kind("batch.volcano.sh/v1alpha1", "Job", "jobs");
    let job = make(testbed, "others", &jobs, name, json!({"spec": {"schedulerName": scheduler}})).await;
    let owner = json!([{
        "apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "name": name, "uid": job.metadata.uid, "controller": true,
    }]);
    let fields = json!({"ownerReferences": owner, "spec": spec, "status": {"phase": "Pending"}});
    make(testbed, "others", &volcano(), name, fields).await;
}

fn of_task(group: &str, task: &str) -> impl Fn(usize, &mut Value) {
    move |index, pod| {
        pod["metadata"]["annotations"] = json!({"scheduling.k8s.io/group-name": group, "volcano.sh/task-spec": task});
        pod["metadata"]["labels"]["volcano.sh/task-index"] = json!(index.to_string());
    }
}

async fn a_volcano_job_gets_its_pods_and_runs(testbed: &Testbed) {
    let spec = json!({"minMember": 3, "minTaskMember": {"ps": 1, "worker": 2}, "minResources": {"cpu": "300m"}});
    volcano_job(testbed, "vcjob", "flowforge", spec).await;
    // Its controller makes no pod before this.
    status(testbed, "others", &volcano(), "vcjob", |status| status["phase"] == "Inqueue").await;
    create(testbed, "others", members("vcjob", 3, "8", of_task("vcjob", "worker"))).await;
    refused(testbed, "others", "test=vcjob", "0 of 1 members of role ps exist").await;
    assert_eq!(live(testbed, "others", "vcjob").await, 0);
    let short = |status: &Value| condition(status, "Unschedulable") == Some(("True", "NotEnoughTasks"));
    status(testbed, "others", &volcano(), "vcjob", short).await;
    let gang = async {
        create(testbed, "others", members("vcjob-ps", 1, "8", of_task("vcjob", "ps"))).await;
        bound(testbed, "others", "vcjob", 3).await;
        bound(testbed, "others", "vcjob-ps", 1).await;
    };
    // Its object has no status subresource: whoever writes a status writes all of it.
    let kind = volcano();
    tokio::join!(another_writer(testbed, &kind, "vcjob"), gang);
    let is = |status: &Value| status["phase"] == "Running" && status["running"] == 4;
    let ran = status(testbed, "others", &volcano(), "vcjob", is).await;
    nothing_is_lost(testbed, &volcano(), "vcjob").await;
    assert_eq!(condition(&ran, "Scheduled"), Some(("True", "tasks in gang are ready to be scheduled")));
    delete(testbed, "others", "test in (vcjob, vcjob-ps)").await;
}

async fn a_volcano_group_of_another_scheduler_is_never_touched(testbed: &Testbed) {
    volcano_job(testbed, "theirs", "volcano", json!({"minMember": 1})).await;
    let before = api(testbed, "others", &volcano()).get("theirs").await.unwrap();
    // Ours that came later has been dealt with: so would theirs have been.
    volcano_job(testbed, "ours", "flowforge", json!({"minMember": 1})).await;
    status(testbed, "others", &volcano(), "ours", |status| status["phase"] == "Inqueue").await;
    let after = api(testbed, "others", &volcano()).get("theirs").await.unwrap();
    assert_eq!(after.metadata.resource_version, before.metadata.resource_version);
    assert_eq!(after.data["status"], json!({"phase": "Pending"}));
}

async fn a_volcano_group_says_what_keeps_it(testbed: &Testbed) {
    let queues = kind("scheduling.volcano.sh/v1beta1", "Queue", "queues");
    for (name, state) in [("default", "Open"), ("shut", "Closed")] {
        make(testbed, "", &queues, name, json!({"spec": {"weight": 1}})).await;
        let status = json!({"status": {"state": state}});
        let api = api(testbed, "", &queues);
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
    let tier = json!({"mode": "hard", "highestTierName": "galaxy"});
    let cases = [
        ("held", json!({"minMember": 1, "queue": "shut"}), "WaitingForGang", "queue shut is Closed"),
        ("nowhere", json!({"minMember": 1, "queue": "none"}), "WaitingForGang", "queue none does not exist"),
        ("far", json!({"minMember": 1, "networkTopology": tier}), "InvalidGang", "level \"galaxy\" is not configured"),
        ("cut", json!({"minMember": 1, "subGroupPolicy": [{"name": "a"}]}), "InvalidGang", "spec.subGroupPolicy"),
    ];
    for (name, spec, reason, told) in cases {
        make(testbed, "others", &volcano(), name, json!({"spec": spec})).await;
        create(testbed, "others", members(name, 1, "1", of_task(name, "worker"))).await;
        let (said, _) = refused(testbed, "others", &selector(name), told).await;
        assert_eq!((said.as_str(), live(testbed, "others", name).await), (reason, 0), "{name}");
        let is = |status: &Value| condition(status, "Unschedulable").is_some_and(|(status, _)| status == "True");
        let status = status(testbed, "others", &volcano(), name, is).await;
        assert!(status["conditions"][0]["message"].as_str().unwrap().contains(told), "{status}");
    }
    let open = json!({"status": {"state": "Open"}});
    let queues = api(testbed, "", &queues);
    queues.patch_status("shut", &PatchParams::default(), &Patch::Merge(open)).await.unwrap();
    bound(testbed, "others", "held", 1).await;
    delete(testbed, "others", "test in (held, nowhere, far, cut)").await;
}

async fn a_tier_of_hyper_nodes_is_a_level(testbed: &Testbed) {
    let nodes = node_names(testbed).await;
    for (node, rack) in nodes.iter().zip(["a", "b", "b", "c", "d", "e"]) {
        label_node(testbed, node, json!({RACK: rack})).await;
    }
    let kind = kind("topology.volcano.sh/v1alpha1", "HyperNode", "hypernodes");
    make(testbed, "", &kind, "leaf-b", json!({"spec": {"tier": 1, "tierName": "rack", "members": []}})).await;
    let spec = |tier: usize| json!({"spec": {"minMember": 2, "networkTopology": {"highestTierAllowed": tier}}});
    make(testbed, "others", &volcano(), "beyond", spec(7)).await;
    create(testbed, "others", members("beyond", 2, "1", of_task("beyond", "worker"))).await;
    refused(testbed, "others", "test=beyond", "spec.networkTopology.highestTierAllowed: no HyperNode is of tier").await;
    make(testbed, "others", &volcano(), "close", spec(1)).await;
    create(testbed, "others", members("close", 2, "8", of_task("close", "worker"))).await;
    bound(testbed, "others", "close", 2).await;
    let found = pods(testbed, "others", "test=close").await;
    assert_eq!(nodes_of(&found), [nodes[1].as_str(), nodes[2].as_str()].into());
    delete(testbed, "others", "test in (beyond, close)").await;
}

async fn a_group_whose_object_vanishes_says_so(testbed: &Testbed) {
    make(testbed, "others", &volcano(), "fading", json!({"spec": {"minMember": 2}})).await;
    create(testbed, "others", members("fading", 1, "1", of_task("fading", "worker"))).await;
    refused(testbed, "others", "test=fading", "1 of 2 members exist").await;
    api(testbed, "others", &volcano()).delete("fading", &DeleteParams::default()).await.unwrap();
    refused(testbed, "others", "test=fading", "podgroup.scheduling.volcano.sh/fading does not exist").await;
    // It comes again, and smaller.
    make(testbed, "others", &volcano(), "fading", json!({"spec": {"minMember": 1}})).await;
    bound(testbed, "others", "fading", 1).await;
    delete(testbed, "others", "test=fading").await;
}

async fn a_training_job_with_a_volcano_group_runs(testbed: &Testbed) {
    make(testbed, "others", &volcano(), "torch", json!({"spec": {"minMember": 3, "queue": "default"}})).await;
    let replica = |kind: &'static str| {
        move |index: usize, pod: &mut Value| {
            of_task("torch", kind)(index, pod);
            pod["metadata"]["labels"]["training.kubeflow.org/replica-type"] = json!(kind);
            pod["metadata"]["labels"]["training.kubeflow.org/replica-index"] = json!(index.to_string());
            pod["metadata"]["labels"]["test"] = json!("torch");
        }
    };
    create(testbed, "others", members("torch-master", 1, "8", replica("master"))).await;
    create(testbed, "others", members("torch-worker", 2, "8", replica("worker"))).await;
    bound(testbed, "others", "torch", 3).await;
    status(testbed, "others", &volcano(), "torch", |status| status["phase"] == "Running").await;
    delete(testbed, "others", "test=torch").await;
}

async fn a_kueue_group_waits_for_its_gates_and_goes_where_kueue_says(testbed: &Testbed) {
    let nodes = node_names(testbed).await;
    let gated = |index: usize, pod: &mut Value| {
        pod["metadata"]["labels"]["kueue.x-k8s.io/pod-group-name"] = json!("queued");
        pod["metadata"]["labels"]["kueue.x-k8s.io/pod-group-pod-index"] = json!(index.to_string());
        pod["metadata"]["annotations"] = json!({"kueue.x-k8s.io/pod-group-total-count": "2"});
        pod["spec"]["schedulingGates"] = json!([{"name": "kueue.x-k8s.io/admission"}]);
    };
    create(testbed, "others", members("queued", 2, "1", gated)).await;
    let api: Api<Pod> = Api::namespaced(testbed.client().clone(), "others");
    let admit = async |index: usize| {
        let name = format!("queued-{index}");
        let patch = json!({"spec": {
            "schedulingGates": [], "nodeSelector": {"kubernetes.io/hostname": nodes[4 + index]},
        }});
        api.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    };
    admit(0).await;
    refused(testbed, "others", "test=queued", "1 of 2 members are ready, 1 more are gated").await;
    admit(1).await;
    bound(testbed, "others", "queued", 2).await;
    let found = pods(testbed, "others", "test=queued").await;
    assert_eq!(nodes_of(&found), [nodes[4].as_str(), nodes[5].as_str()].into());
    delete(testbed, "others", "test=queued").await;
}

async fn a_leader_and_its_workers_are_a_gang(testbed: &Testbed) {
    let set = |index: usize, pod: &mut Value| {
        pod["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/name"] = json!("serve");
        pod["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/group-index"] = json!("0");
        pod["metadata"]["labels"]["leaderworkerset.sigs.k8s.io/worker-index"] = json!(index.to_string());
        pod["metadata"]["annotations"] = json!({"leaderworkerset.sigs.k8s.io/size": "3"});
    };
    let mut leader = members("serve", 3, "8", set);
    let workers = leader.split_off(1);
    create(testbed, "others", leader).await;
    refused(testbed, "others", "test=serve", "1 of 3 members exist").await;
    create(testbed, "others", workers).await;
    bound(testbed, "others", "serve", 3).await;
    delete(testbed, "others", "test=serve").await;
}

async fn a_kai_group_counts_its_subgroups(testbed: &Testbed) {
    delete(testbed, "others", "test=set").await;
    let groups = kind("scheduling.run.ai/v2alpha2", "PodGroup", "podgroups");
    let spec = json!({"spec": {"minMember": 3, "subGroups": [{"name": "head", "minMember": 1}]}});
    make(testbed, "others", &groups, "kai", spec).await;
    let of = |subgroup: Option<&'static str>| {
        move |_, pod: &mut Value| {
            pod["metadata"]["annotations"] = json!({"pod-group-name": "kai"});
            pod["metadata"]["labels"]["test"] = json!("kai");
            if let Some(subgroup) = subgroup {
                pod["metadata"]["labels"]["kai.scheduler/subgroup-name"] = json!(subgroup);
            }
        }
    };
    create(testbed, "others", members("kai-rest", 3, "8", of(None))).await;
    refused(testbed, "others", "test=kai", "0 of 1 members of role head exist").await;
    assert_eq!(live(testbed, "others", "kai").await, 0);
    create(testbed, "others", members("kai-head", 1, "8", of(Some("head")))).await;
    bound(testbed, "others", "kai", 4).await;
}

async fn a_job_set_is_a_gang(testbed: &Testbed) {
    let sets = kind("jobset.x-k8s.io/v1alpha2", "JobSet", "jobsets");
    let job = |name: &str, parallelism: usize| json!({"name": name, "replicas": 1, "template": {"spec": {"parallelism": parallelism, "completions": parallelism}}});
    let spec = json!({"spec": {"replicatedJobs": [job("driver", 1), job("workers", 2)]}});
    make(testbed, "others", &sets, "set", spec).await;
    let of = |job: &'static str| {
        move |index: usize, pod: &mut Value| {
            pod["metadata"]["labels"]["test"] = json!("set");
            pod["metadata"]["labels"]["jobset.sigs.k8s.io/jobset-name"] = json!("set");
            pod["metadata"]["labels"]["jobset.sigs.k8s.io/replicatedjob-name"] = json!(job);
            pod["metadata"]["labels"]["jobset.sigs.k8s.io/job-index"] = json!("0");
            pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] = json!(index.to_string());
        }
    };
    create(testbed, "others", members("set-workers", 2, "8", of("workers"))).await;
    refused(testbed, "others", "test=set", "2 of 3 members exist").await;
    create(testbed, "others", members("set-driver", 1, "8", of("driver"))).await;
    bound(testbed, "others", "set", 3).await;
}
