//! Each convention: what its pods say, what its object asks for, what is answered.
#![allow(clippy::needless_pass_by_value, reason = "literals of json! are given as they are written")]

use super::beside::{BesideFact, BesideKind as _, Fact, Surroundings};
use super::members::Tally;
use super::*;
use crate::Ours;
use serde_json::{Value, json};

fn pod_of(labels: Value, annotations: Value, group: Option<&str>) -> Pod {
    serde_json::from_value(json!({
        "metadata": {"name": "p", "namespace": "n", "uid": "p", "labels": labels, "annotations": annotations},
        "spec": {"schedulingGroup": {"podGroupName": group.unwrap_or_default()}},
    }))
    .expect("a pod")
}

/// Name, role, rank and size.
type Said = (String, String, Option<u32>, Option<Result<u32, String>>);

/// What a pod says.
fn said(pod: &Pod) -> Option<Said> {
    let found = declares(pod)?;
    let size = found.size.map(|size| size.map_err(|text| text.to_string()));
    Some((found.name.to_string(), found.role.to_string(), found.rank, size))
}

fn ours() -> Ours {
    Ours::new(["flowforge".into()])
}

fn nothing_beside() -> Surroundings {
    Surroundings::new(ours())
}

fn object<D: Declared>(spec: Value, status: Value) -> D {
    let meta = json!({"name": "g", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 2});
    serde_json::from_value(json!({"metadata": meta, "spec": spec, "status": status})).expect("an object")
}

fn told(scheduled: bool, reason: &str) -> GangSchedulingStatus {
    let message = if scheduled { "2 members are bound" } else { "why not" };
    GangSchedulingStatus {
        scheduled,
        reason: reason.into(),
        message: message.to_owned(),
        bound: 0,
        domain: None,
        nodes: Vec::new(),
    }
}

/// Path and status that an object is given; the machines have 8,000 of everything.
fn answered(object: &dyn Declaration, told: Option<&GangSchedulingStatus>, pods: Tally) -> Option<(String, Value)> {
    let gang = object.gang(&nothing_beside());
    let standing = Standing { told, pods, gang: &gang, capacity: &|_| 8_000, now: Timestamp::UNIX_EPOCH };
    let write = object.answer(&standing)?;
    let (path, body) = write.shown();
    Some((path.to_owned(), body["status"].clone()))
}

const NOBODY: Tally = Tally { all: 0, bound: 0, running: 0, succeeded: 0, failed: 0 };

#[test]
fn every_convention_names_a_gang_of_its_own() {
    let none = || json!({});
    let job = json!({"batch.kubernetes.io/job-name": "j", "batch.kubernetes.io/job-completion-index": "3"});
    let (worker, of_job) = ("worker".to_owned(), "j".to_owned());
    let native = pod_of(job.clone(), none(), Some("g"));
    assert_eq!(said(&native), Some(("podgroup.scheduling.k8s.io/g".to_owned(), of_job, Some(3), None)));
    let plugin = pod_of(json!({"scheduling.x-k8s.io/pod-group": "g"}), none(), None);
    assert_eq!(said(&plugin), Some(("podgroup.scheduling.x-k8s.io/g".to_owned(), worker.clone(), None, None)));
    let volcano = pod_of(
        json!({"volcano.sh/task-index": "2"}),
        json!({"scheduling.k8s.io/group-name": "g", "volcano.sh/task-spec": "ps"}),
        None,
    );
    assert_eq!(said(&volcano), Some(("podgroup.scheduling.volcano.sh/g".to_owned(), "ps".to_owned(), Some(2), None)));
    let kubeflow = pod_of(
        json!({"training.kubeflow.org/replica-index": "1"}),
        json!({"scheduling.k8s.io/group-name": "g", "volcano.sh/task-spec": "worker"}),
        None,
    );
    assert_eq!(said(&kubeflow).and_then(|said| said.2), Some(1));
    let kai = pod_of(json!({"kai.scheduler/subgroup-name": "a"}), json!({"pod-group-name": "g"}), None);
    assert_eq!(said(&kai), Some(("podgroup.scheduling.run.ai/g".to_owned(), "a".to_owned(), None, None)));
    let kueue = pod_of(
        json!({"kueue.x-k8s.io/pod-group-name": "g", "kueue.x-k8s.io/pod-group-pod-index": "1"}),
        json!({"kueue.x-k8s.io/pod-group-total-count": "4"}),
        None,
    );
    assert_eq!(said(&kueue), Some(("workload.kueue.x-k8s.io/g".to_owned(), worker.clone(), Some(1), Some(Ok(4)))));
    let set = "leaderworkerset.sigs.k8s.io";
    let leader = pod_of(
        json!({format!("{set}/name"): "s", format!("{set}/group-index"): "2", format!("{set}/worker-index"): "0"}),
        json!({format!("{set}/size"): "8"}),
        None,
    );
    let group = "leaderworkerset.leaderworkerset.x-k8s.io/s-2".to_owned();
    assert_eq!(said(&leader), Some((group, worker, Some(0), Some(Ok(8)))));
    let job_set = pod_of(
        json!({
            "jobset.sigs.k8s.io/jobset-name": "s", "jobset.sigs.k8s.io/replicatedjob-name": "w",
            "jobset.sigs.k8s.io/job-index": "2", "batch.kubernetes.io/job-completion-index": "5",
        }),
        none(),
        None,
    );
    assert_eq!(said(&job_set), Some(("jobset.jobset.x-k8s.io/s".to_owned(), "w".to_owned(), Some(200_005), None)));
    assert_eq!(said(&pod_of(job, none(), None)), None, "a Job by itself is no gang");
}

#[test]
fn a_pod_may_stay_out_of_the_gang_that_somebody_puts_it_in() {
    let out = json!({"flowforge.dev/adopt": "false", "scheduling.k8s.io/group-name": "g"});
    assert_eq!(said(&pod_of(json!({}), out, Some("g"))), None);
}

#[test]
fn a_size_that_is_no_number_is_told_and_never_guessed() {
    let kueue = |total: Value| said(&pod_of(json!({"kueue.x-k8s.io/pod-group-name": "g"}), total, None));
    let wordy = kueue(json!({"kueue.x-k8s.io/pod-group-total-count": "many"})).and_then(|said| said.3);
    assert_eq!(wordy, Some(Err("many".to_owned())));
    assert_eq!(kueue(json!({})).and_then(|said| said.3), Some(Err(String::new())));
}

#[test]
fn a_native_group_asks_for_its_minimum_its_key_and_its_priority() {
    let gang = object::<NativePodGroup>(
        json!({
            "schedulingPolicy": {"gang": {"minCount": 4}}, "priority": 9, "disruptionMode": {"all": {}},
            "schedulingConstraints": {"topology": [{"key": "example.com/rack"}]},
        }),
        json!({}),
    )
    .gang(&nothing_beside());
    assert_eq!((gang.min_member, gang.name.as_str()), (4, "podgroup.scheduling.k8s.io/g"));
    assert_eq!(gang.topology_required.as_deref(), Some("example.com/rack"));
    assert_eq!(gang.terms, Terms { priority: Some(9), ..Terms::default() });
    let basic = object::<NativePodGroup>(
        json!({"schedulingPolicy": {"basic": {}}, "disruptionMode": {"single": {}}}),
        json!({}),
    )
    .gang(&nothing_beside());
    assert_eq!((basic.min_member, basic.terms.parts_singly), (1, true));
    for (field, value) in [("parentCompositePodGroupName", json!("above")), ("resourceClaims", json!([{"name": "c"}]))]
    {
        let invalid = object::<NativePodGroup>(json!({field: value}), json!({})).gang(&nothing_beside()).terms.invalid;
        assert!(invalid.as_ref().is_some_and(|why| why.starts_with(&format!("spec.{field}: "))), "{invalid:?}");
    }
}

#[test]
fn a_native_group_gets_the_condition_of_kube_scheduler_and_keeps_it_once_it_is_true() {
    let group = |condition: Value| object::<NativePodGroup>(json!({}), json!({"conditions": condition}));
    let fresh = group(json!([]));
    assert_eq!(answered(&fresh, None, NOBODY), None);
    assert_eq!(answered(&fresh, Some(&told(false, "WaitingForGang")), NOBODY), None, "members are still missing");
    let (path, status) = answered(&fresh, Some(&told(true, "Scheduled")), NOBODY).expect("a write");
    assert_eq!(
        path,
        "/apis/scheduling.k8s.io/v1beta1/namespaces/n/podgroups/g/status?fieldManager=flowforge-scheduler&force=true"
    );
    let expected = json!({"conditions": [{
        "type": "PodGroupInitiallyScheduled", "status": "True", "reason": "Scheduled", "message": "2 members are bound",
        "observedGeneration": 2, "lastTransitionTime": "1970-01-01T00:00:00Z",
    }]});
    assert_eq!(status, expected);
    let found = Tally { all: 1, bound: 1, ..NOBODY };
    let (_, seen) = answered(&fresh, None, found).expect("a former leader bound it and did not say so");
    assert_eq!(seen["conditions"][0]["reason"], "Scheduled");
    let latched = group(status["conditions"].clone());
    assert_eq!(answered(&latched, Some(&told(false, "Unschedulable")), NOBODY), None);
    let reason = |said: &str| {
        let (_, status) = answered(&fresh, Some(&told(false, said)), NOBODY).expect("a write");
        (status["conditions"][0]["status"].clone(), status["conditions"][0]["reason"].clone())
    };
    assert_eq!(reason("Unschedulable"), (json!("False"), json!("Unschedulable")));
    assert_eq!(reason("InvalidGang"), (json!("False"), json!("SchedulerError")));
    let (_, refused) = answered(&fresh, Some(&told(false, "Unschedulable")), NOBODY).expect("a write");
    let echo = group(refused["conditions"].clone());
    assert_eq!(answered(&echo, Some(&told(false, "Unschedulable")), NOBODY), None, "the echo is no news");
}

#[test]
fn a_coscheduling_group_goes_through_the_phases_of_its_controller() {
    let phase = |before: &str, pods: Tally| {
        let group = object::<CoschedulingPodGroup>(json!({"minMember": 2}), json!({"phase": before}));
        answered(&group, None, pods).map(|(path, status)| {
            assert!(path.ends_with("/podgroups/g/status?fieldManager=flowforge-scheduler"), "{path}");
            status["phase"].as_str().unwrap_or_default().to_owned()
        })
    };
    let some = |phase: &str| Some(phase.to_owned());
    assert_eq!(phase("", Tally { all: 1, ..NOBODY }), some("Pending"));
    assert_eq!(phase("Pending", Tally { all: 2, ..NOBODY }), some("Scheduling"));
    assert_eq!(phase("Scheduling", Tally { all: 2, bound: 2, running: 2, ..NOBODY }), some("Running"));
    assert_eq!(phase("Running", Tally { all: 2, running: 1, failed: 1, ..NOBODY }), some("Failed"));
    assert_eq!(phase("Running", Tally { all: 2, succeeded: 2, ..NOBODY }), some("Finished"));
    assert_eq!(phase("Finished", NOBODY), None, "what has ended stays as it is");
}

#[test]
fn a_volcano_group_asks_for_its_tasks_and_refuses_what_it_cannot_have() {
    let gang = |spec: Value| object::<VolcanoPodGroup>(spec, json!({})).gang(&nothing_beside());
    let tasks = gang(json!({"minMember": 3, "minTaskMember": {"ps": 1, "worker": 2}}));
    let roles: Vec<_> = tasks.roles.iter().map(|role| (role.name.as_str(), role.min)).collect();
    assert_eq!((tasks.min_member, roles), (3, vec![("ps", 1), ("worker", 2), ("", 0)]));
    let below = gang(json!({"minMember": 2, "minTaskMember": {"ps": 1, "worker": 2}}));
    assert_eq!(below.roles.len(), 1, "minima of tasks beyond minMember do not count");
    let by_name = gang(json!({"networkTopology": {"mode": "hard", "highestTierName": "rack"}}));
    assert_eq!((by_name.topology_required.as_deref(), by_name.terms.invalid), (Some("rack"), None));
    let soft = gang(json!({"networkTopology": {"mode": "soft", "highestTierName": "rack"}}));
    assert_eq!((soft.topology_required, soft.topology_preferred), (None, vec!["rack".into()]));
    let by_number = gang(json!({"networkTopology": {"highestTierAllowed": 2}}));
    let why = by_number.terms.invalid.expect("nobody knows tier 2");
    assert!(why.starts_with("spec.networkTopology.highestTierAllowed: no HyperNode is of tier \"2\""), "{why}");
    let parts = gang(json!({"subGroupPolicy": [{"name": "a"}]})).terms.invalid.expect("refused");
    assert!(parts.starts_with("spec.subGroupPolicy is not supported"), "{parts}");
}

#[test]
fn a_tier_is_the_level_that_its_hyper_nodes_name() {
    let mut around = nothing_beside();
    for (name, tier, called) in [("a", 1, "nvlink"), ("b", 2, "rack")] {
        let fact = Fact::Tier(tier, Some(called.into()));
        around.take(BesideFact::Is(HyperNode::PLURAL, (SmolStr::default(), name.into()), fact));
    }
    let level =
        |topology: Value| object::<VolcanoPodGroup>(json!({"networkTopology": topology}), json!({})).gang(&around);
    assert_eq!(level(json!({"highestTierAllowed": 2})).topology_required.as_deref(), Some("rack"));
    let unknown = level(json!({"highestTierName": "galaxy"}));
    let why = unknown.terms.invalid.expect("refused");
    assert!(why.starts_with("spec.networkTopology.highestTierName: ") && why.contains("nvlink (1), rack (2)"), "{why}");
    assert_eq!(unknown.topology_required, None);
}

#[test]
fn a_closed_queue_holds_its_groups_and_an_unknown_one_is_told() {
    let mut around = nothing_beside();
    let held =
        |around: &Surroundings| object::<VolcanoPodGroup>(json!({"queue": "q"}), json!({})).gang(around).terms.held;
    assert_eq!(held(&around), None, "Volcano's queues are not used here");
    let queue = |name: &str, state: &str| {
        BesideFact::Is(VolcanoQueue::PLURAL, (SmolStr::default(), name.into()), Fact::Queue(state.into()))
    };
    around.take(queue("default", "Open"));
    assert!(held(&around).is_some_and(|why| why.starts_with("queue q does not exist")));
    around.take(queue("q", "Closing"));
    assert!(held(&around).is_some_and(|why| why.starts_with("queue q is Closing")));
    assert!(around.take(queue("q", "Open")) && !around.take(queue("q", "Open")));
    assert_eq!(held(&around), None);
}

#[test]
fn a_volcano_group_is_put_into_the_queue_so_that_its_job_makes_pods_and_follows_them() {
    let group = |status: Value, resources: Value| {
        object::<VolcanoPodGroup>(json!({"minMember": 2, "minResources": resources}), status)
    };
    let phase = |write: Option<(String, Value)>| {
        write.map(|(_, status)| status["phase"].as_str().unwrap_or_default().to_owned())
    };
    let some = |phase: &str| Some(phase.to_owned());
    let (path, _) = answered(&group(json!({"phase": "Pending"}), json!({})), None, NOBODY).expect("a write");
    assert_eq!(path, "/apis/scheduling.volcano.sh/v1beta1/namespaces/n/podgroups/g?fieldManager=flowforge-scheduler");
    assert_eq!(phase(answered(&group(json!({}), json!({"cpu": "8"})), None, NOBODY)), some("Inqueue"));
    let (_, starved) = answered(&group(json!({}), json!({"cpu": "9"})), None, NOBODY).expect("a write");
    assert_eq!(
        (starved["phase"].clone(), starved["conditions"][0]["reason"].clone()),
        (json!("Pending"), json!("NotEnoughResources"))
    );
    let message = starved["conditions"][0]["message"].as_str().unwrap_or_default();
    assert_eq!(
        message,
        "0/2 tasks in gang unschedulable: spec.minResources asks for 9000m cpu, and all nodes together have 8000m"
    );
    let queued = || group(json!({"phase": "Inqueue"}), json!({}));
    assert_eq!(answered(&queued(), None, NOBODY), None, "it stays there until it is placed");
    let (_, short) =
        answered(&queued(), Some(&told(false, "WaitingForGang")), Tally { all: 1, ..NOBODY }).expect("a write");
    assert_eq!(
        (short["phase"].clone(), short["conditions"][0]["reason"].clone()),
        (json!("Inqueue"), json!("NotEnoughTasks"))
    );
    let both = Tally { all: 2, bound: 2, running: 1, ..NOBODY };
    let (_, running) = answered(&queued(), Some(&told(true, "Scheduled")), both).expect("a write");
    assert_eq!((running["phase"].clone(), running["running"].clone()), (json!("Running"), json!(1)));
    assert_eq!(running["conditions"][0]["type"], "Scheduled");
    let echo = group(running, json!({}));
    assert_eq!(answered(&echo, Some(&told(true, "Scheduled")), both), None, "the echo is no news");
    let part = Tally { all: 2, bound: 1, running: 1, ..NOBODY };
    assert_eq!(phase(answered(&echo, Some(&told(false, "Unschedulable")), part)), some("Unknown"));
    assert_eq!(phase(answered(&echo, None, Tally { succeeded: 1, failed: 1, ..NOBODY })), some("Completed"));
}

#[test]
fn a_volcano_group_is_ours_when_its_job_asks_for_us() {
    let meta = json!({"name": "g", "namespace": "n", "uid": "u", "ownerReferences": [
        {"apiVersion": "batch.volcano.sh/v1alpha1", "kind": "Job", "name": "j", "uid": "ju", "controller": true},
    ]});
    let group: VolcanoPodGroup = serde_json::from_value(json!({"metadata": meta})).expect("an object");
    let mut around = nothing_beside();
    assert!(!group.has_our_owner(&around));
    let asks = |scheduler: &str| {
        BesideFact::Is(VolcanoJob::PLURAL, ("n".into(), "j".into()), Fact::Scheduler(scheduler.into()))
    };
    around.take(asks("volcano"));
    assert!(!group.has_our_owner(&around));
    around.take(asks("flowforge"));
    assert!(group.has_our_owner(&around));
}

#[test]
fn a_job_set_is_a_gang_of_all_its_pods_unless_they_come_in_an_order() {
    let jobs = json!([
        {"name": "driver", "template": {"spec": {}}},
        {"name": "workers", "replicas": 2, "template": {"spec": {"parallelism": 4, "completions": 3}}},
    ]);
    let gang = |spec: Value| object::<JobSet>(spec, json!({})).gang(&nothing_beside());
    let all = gang(json!({"replicatedJobs": jobs}));
    let roles: Vec<_> = all.roles.iter().map(|role| (role.name.as_str(), role.min)).collect();
    assert_eq!((all.min_member, roles), (7, vec![("driver", 1), ("workers", 6)]));
    assert!(all.roles.iter().all(|role| role.replicas == GangRoleInfo::UNLIMITED), "pods that come after others ended");
    let ordered = gang(json!({"replicatedJobs": jobs, "startupPolicy": {"startupPolicyOrder": "InOrder"}}));
    assert_eq!(ordered.min_member, 1);
    let ended: JobSet = object(json!({"replicatedJobs": jobs}), json!({"terminalState": "Completed"}));
    assert!(ended.gang(&nothing_beside()).closed);
}

#[test]
fn subgroups_of_kai_are_roles_and_nested_ones_are_refused() {
    let gang = |spec: Value| object::<KaiPodGroup>(spec, json!({})).gang(&nothing_beside());
    let flat = gang(json!({
        "minMember": 3, "subGroups": [{"name": "a", "minMember": 2}],
        "topologyConstraint": {"topology": "t", "requiredTopologyLevel": "example.com/rack"},
    }));
    assert_eq!((flat.roles[0].name.as_str(), flat.roles[0].min, flat.min_member), ("a", 2, 3));
    assert_eq!((flat.topology_required.as_deref(), flat.terms.invalid), (Some("example.com/rack"), None));
    let nested = gang(json!({"subGroups": [{"name": "a"}, {"name": "b", "parent": "a"}]})).terms.invalid;
    assert!(nested.is_some_and(|why| why.starts_with("spec.subGroups: b has a parent")));
}
