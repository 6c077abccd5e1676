//! Layers, environment, volumes and identity of member pods.

use flowforge_api::names::{annotation, finalizer, label};
use flowforge_api::workflow::{NodeDefaults, Storage, WorkflowNode, WorkflowSpec};
use k8s_openapi::api::core::v1::{Container, EnvVar, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use serde_json::{Value, json};

use super::{AttemptRef, MemberTemplate};

fn attempt(service: bool) -> AttemptRef {
    AttemptRef {
        namespace: "ns".into(),
        workflow: "wf".into(),
        gang: "wf-train-2".into(),
        gang_uid: "gang-uid".into(),
        service: service.then(|| "wf-train-2".into()),
        attempt: 2,
        avoid: Vec::new(),
    }
}

fn node(replicas: i32) -> WorkflowNode {
    WorkflowNode { id: "train".into(), replicas, image: Some("img:1".into()), ..WorkflowNode::default() }
}

fn pod(spec: &WorkflowSpec, node: &WorkflowNode, rank: u32) -> Pod {
    MemberTemplate::new(spec, node, attempt(node.replicas > 1)).unwrap().member(rank, 0)
}

fn spec_of(pod: &Pod) -> &PodSpec {
    pod.spec.as_ref().unwrap()
}

fn main_of(pod: &Pod) -> &Container {
    &spec_of(pod).containers[0]
}

fn env_of<'a>(pod: &'a Pod, name: &str) -> Option<&'a str> {
    let env = main_of(pod).env.as_ref().unwrap();
    let found: Vec<&EnvVar> = env.iter().filter(|e| e.name == name).collect();
    assert!(found.len() <= 1, "{name} is given twice");
    found.first().and_then(|e| e.value.as_deref())
}

fn var(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.into(), value: Some(value.into()), value_from: None }
}

fn resources(json: Value) -> NodeDefaults {
    NodeDefaults { resources: Some(serde_json::from_value(json).unwrap()), ..NodeDefaults::default() }
}

#[test]
fn a_member_belongs_to_its_gang_and_waits_for_its_result() {
    let pod = pod(&WorkflowSpec::default(), &node(4), 3);
    let meta = &pod.metadata;
    assert_eq!(meta.name.as_deref(), Some("wf-train-2-3"));
    assert_eq!(meta.finalizers.as_deref(), Some([finalizer::RESULT.to_owned()].as_slice()));
    assert_eq!(crate::convert::controller_uid(meta), Some("gang-uid"));
    let place = crate::convert::place(meta).unwrap();
    assert_eq!((place.workflow.as_str(), place.node.as_str(), place.attempt, place.rank), ("wf", "train", 2, Some(3)));
    assert_eq!(meta.labels.as_ref().unwrap()[label::GANG], "wf-train-2");
    assert_eq!(meta.annotations.as_ref().unwrap()[annotation::GANG_UID], "gang-uid");
    assert_eq!(meta.annotations.as_ref().unwrap()["cluster-autoscaler.kubernetes.io/safe-to-evict"], "false");
    let spec = spec_of(&pod);
    assert_eq!(spec.restart_policy.as_deref(), Some("Never"));
    assert_eq!(spec.scheduler_name.as_deref(), Some("flowforge"));
    assert_eq!(spec.hostname.as_deref(), Some("wf-train-2-3"));
    assert_eq!(spec.subdomain.as_deref(), Some("wf-train-2"));
}

#[test]
fn a_member_made_again_has_another_name_and_the_same_host_name() {
    let template = MemberTemplate::new(&WorkflowSpec::default(), &node(4), attempt(true)).unwrap();
    let again = template.member(3, 2);
    assert_eq!(again.metadata.name.as_deref(), Some("wf-train-2-3r2"));
    assert_eq!(spec_of(&again).hostname.as_deref(), Some("wf-train-2-3"));
    assert_eq!(crate::convert::place(&again.metadata).unwrap().incarnation, 2);
}

#[test]
fn members_find_rank_0_and_torchrun_finds_its_values() {
    let spec = WorkflowSpec { defaults: resources(json!({"limits": {"nvidia.com/gpu": "8"}})), ..Default::default() };
    let pod = pod(&spec, &node(4), 3);
    for (name, value) in [
        ("NNODES", "4"),
        ("NODE_RANK", "3"),
        ("NPROC_PER_NODE", "8"),
        ("MASTER_ADDR", "wf-train-2-0.wf-train-2"),
        ("MASTER_PORT", "29500"),
        ("PET_NNODES", "4"),
        ("PET_NODE_RANK", "3"),
        ("PET_NPROC_PER_NODE", "8"),
        ("PET_RDZV_BACKEND", "static"),
        ("PET_RDZV_ENDPOINT", "wf-train-2-0.wf-train-2:29500"),
        ("PET_RDZV_ID", "wf-train-2"),
        ("FLOWFORGE_WORKFLOW", "wf"),
        ("FLOWFORGE_NODE", "train"),
        ("FLOWFORGE_GANG", "wf-train-2"),
        ("FLOWFORGE_ATTEMPT", "2"),
        ("FLOWFORGE_RANK", "3"),
        ("FLOWFORGE_REPLICAS", "4"),
        ("FLOWFORGE_NAMESPACE", "ns"),
    ] {
        assert_eq!(env_of(&pod, name), Some(value), "{name}");
    }
    // Eight processes a pod: torchrun sets these itself.
    assert_eq!((env_of(&pod, "RANK"), env_of(&pod, "WORLD_SIZE")), (None, None));
}

#[test]
fn one_process_a_pod_is_told_its_rank_and_the_world_size() {
    let pod = pod(&WorkflowSpec::default(), &node(4), 1);
    assert_eq!((env_of(&pod, "RANK"), env_of(&pod, "WORLD_SIZE")), (Some("1"), Some("4")));
    assert_eq!(env_of(&pod, "NPROC_PER_NODE"), Some("1"));
}

#[test]
fn a_gang_of_one_needs_no_service() {
    let pod = pod(&WorkflowSpec::default(), &node(1), 0);
    assert_eq!(spec_of(&pod).subdomain, None);
    assert_eq!(env_of(&pod, "MASTER_ADDR"), Some("localhost"));
}

#[test]
fn the_users_environment_wins_over_ours_but_not_over_our_identity() {
    let mut node = node(4);
    node.overrides.env = vec![
        var("HOST", "h"),
        var("MASTER_ADDR", "$(HOST).example"),
        var("FLOWFORGE_RANK", "99"),
        var("FLOWFORGE_MINE", "kept"),
    ];
    let spec = WorkflowSpec {
        defaults: NodeDefaults { env: vec![var("NNODES", "7"), var("LEVEL", "info")], ..Default::default() },
        ..Default::default()
    };
    let pod = pod(&spec, &node, 0);
    assert_eq!(env_of(&pod, "MASTER_ADDR"), Some("$(HOST).example"));
    assert_eq!(env_of(&pod, "NNODES"), Some("7"));
    assert_eq!(env_of(&pod, "LEVEL"), Some("info"));
    assert_eq!(env_of(&pod, "FLOWFORGE_RANK"), Some("0"));
    assert_eq!(env_of(&pod, "FLOWFORGE_MINE"), Some("kept"));
    let env = main_of(&pod).env.as_ref().unwrap();
    let at = |name: &str| env.iter().position(|e| e.name == name).unwrap();
    assert!(at("HOST") < at("MASTER_ADDR"), "a reference needs its variable before it");
    assert!(at("FLOWFORGE_RANK") < at("LEVEL") && at("LEVEL") < at("HOST"), "weaker layers stand first");
}

#[test]
fn layers_win_in_order_defaults_template_node() {
    let spec = WorkflowSpec {
        defaults: NodeDefaults {
            service_account_name: Some("from-defaults".into()),
            runtime_class_name: Some("from-defaults".into()),
            priority_class_name: Some("from-defaults".into()),
            labels: [("l".to_owned(), "defaults".to_owned()), ("only".to_owned(), "defaults".to_owned())].into(),
            node_selector: [("pool".to_owned(), "a".to_owned())].into(),
            ..resources(json!({"requests": {"cpu": "1", "memory": "1Gi"}}))
        },
        ..Default::default()
    };
    let mut node = node(1);
    node.pod_template = Some(json!({
        "metadata": {"labels": {"l": "template"}},
        "spec": {
            "runtimeClassName": "from-template",
            "priorityClassName": "from-template",
            "nodeSelector": {"zone": "z"},
            "containers": [
                {"name": "side", "image": "side:1"},
                {"name": "main", "image": "main:1", "resources": {"requests": {"cpu": "2"}}},
            ],
        },
    }));
    node.overrides.priority_class_name = Some("from-node".into());
    let pod = pod(&spec, &node, 0);
    let out = spec_of(&pod);
    assert_eq!(out.service_account_name.as_deref(), Some("from-defaults"));
    assert_eq!(out.runtime_class_name.as_deref(), Some("from-template"));
    assert_eq!(out.priority_class_name.as_deref(), Some("from-node"));
    assert_eq!(out.node_selector.as_ref().unwrap().len(), 2);
    let labels = pod.metadata.labels.as_ref().unwrap();
    assert_eq!((labels["l"].as_str(), labels["only"].as_str()), ("template", "defaults"));
    // The main container is the one named so, and the node's image is laid over it.
    assert_eq!((main_of(&pod).name.as_str(), main_of(&pod).image.as_deref()), ("main", Some("img:1")));
    assert_eq!(out.containers[1].name, "side");
    let requests = main_of(&pod).resources.as_ref().unwrap().requests.as_ref().unwrap();
    assert_eq!((requests["cpu"].0.as_str(), requests["memory"].0.as_str()), ("2", "1Gi"));
}

/// A default, the value of a node where it differs, the place in the pod, and what stands there with and without the node's.
struct Row {
    field: &'static str,
    default: Value,
    node: Value,
    place: &'static str,
    plain: Value,
    laid: Value,
}

#[expect(clippy::needless_pass_by_value, reason = "rows are written in place")]
fn check_row(row: Row) {
    let layer = |value: &Value| serde_json::from_value::<NodeDefaults>(json!({row.field: value})).unwrap();
    let spec = WorkflowSpec { defaults: layer(&row.default), ..WorkflowSpec::default() };
    let seen = |overrides| {
        let pod = serde_json::to_value(pod(&spec, &WorkflowNode { overrides, ..node(1) }, 0)).unwrap();
        pod.pointer(row.place).cloned().unwrap_or_default()
    };
    assert_eq!(seen(NodeDefaults::default()), row.plain, "{} of the workflow alone", row.field);
    assert_eq!(seen(layer(&row.node)), row.laid, "{} of the node over it", row.field);
}

#[test]
fn lists_of_the_workflow_are_the_nodes_too() {
    let (secret, other) = (json!({"name": "registry"}), json!({"name": "mirror"}));
    check_row(Row {
        field: "imagePullSecrets",
        default: json!([secret]),
        node: json!([secret, other]),
        place: "/spec/imagePullSecrets",
        plain: json!([secret]),
        laid: json!([secret, other]),
    });
    let (map, key) = (json!({"configMapRef": {"name": "settings"}}), json!({"secretRef": {"name": "token"}}));
    check_row(Row {
        field: "envFrom",
        default: json!([map]),
        node: json!([key, map]),
        place: "/spec/containers/0/envFrom",
        plain: json!([map]),
        laid: json!([map, key]),
    });
    let scratch = |medium: &str| json!({"name": "scratch", "emptyDir": {"medium": medium}});
    let logs = json!({"name": "logs", "emptyDir": {}});
    check_row(Row {
        field: "volumes",
        default: json!([scratch("Memory"), logs]),
        node: json!([scratch("")]),
        place: "/spec/volumes",
        plain: json!([scratch("Memory"), logs]),
        laid: json!([scratch(""), logs]),
    });
    let mount = |name: &str, path: &str| json!({"name": name, "mountPath": path});
    check_row(Row {
        field: "volumeMounts",
        default: json!([mount("scratch", "/scratch"), mount("logs", "/logs")]),
        node: json!([mount("other", "/scratch"), mount("more", "/more")]),
        place: "/spec/containers/0/volumeMounts",
        plain: json!([mount("scratch", "/scratch"), mount("logs", "/logs")]),
        laid: json!([mount("other", "/scratch"), mount("logs", "/logs"), mount("more", "/more")]),
    });
    let own = |key: &str| json!({"key": key, "operator": "Exists", "effect": "NoSchedule"});
    let dead = |name: &str| {
        let key = format!("node.kubernetes.io/{name}");
        json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30})
    };
    check_row(Row {
        field: "tolerations",
        default: json!([own("gpu")]),
        node: json!([own("spot"), own("gpu")]),
        place: "/spec/tolerations",
        plain: json!([own("gpu"), dead("not-ready"), dead("unreachable")]),
        laid: json!([own("gpu"), own("spot"), dead("not-ready"), dead("unreachable")]),
    });
}

#[test]
fn single_values_of_a_node_replace_those_of_the_workflow_as_a_whole() {
    let affinity = |zone: &str| {
        json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "zone", "operator": "In", "values": [zone]}]}]}}})
    };
    let contexts = (json!({"runAsUser": 1000, "fsGroup": 7}), json!({"runAsUser": 2000}));
    let main = (json!({"runAsNonRoot": true, "privileged": false}), json!({"privileged": true}));
    for (field, place, (default, node)) in [
        ("affinity", "/spec/affinity", (affinity("a"), affinity("b"))),
        ("podSecurityContext", "/spec/securityContext", contexts),
        ("securityContext", "/spec/containers/0/securityContext", main),
        ("imagePullPolicy", "/spec/containers/0/imagePullPolicy", (json!("Always"), json!("Never"))),
        ("terminationGracePeriodSeconds", "/spec/terminationGracePeriodSeconds", (json!(300), json!(5))),
    ] {
        check_row(Row { field, place, plain: default.clone(), laid: node.clone(), default, node });
    }
}

#[test]
fn annotations_are_merged_by_key_and_ours_give_way_but_for_our_identity() {
    let evict = "cluster-autoscaler.kubernetes.io/safe-to-evict";
    let annotations = |pairs: &[(&str, &str)]| NodeDefaults {
        annotations: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        ..NodeDefaults::default()
    };
    let defaults = annotations(&[("team", "vision"), ("tier", "gold"), (evict, "true"), (annotation::GANG_UID, "x")]);
    let spec = WorkflowSpec { defaults, ..WorkflowSpec::default() };
    let pod = pod(&spec, &WorkflowNode { overrides: annotations(&[("tier", "iron")]), ..node(1) }, 0);
    let seen = pod.metadata.annotations.as_ref().unwrap();
    let of = |key: &str| seen.get(key).map(String::as_str);
    assert_eq!((of("team"), of("tier"), of(evict)), (Some("vision"), Some("iron"), Some("true")));
    assert_eq!(of(annotation::GANG_UID), Some("gang-uid"));
}

#[test]
fn every_claim_is_mounted_into_every_container() {
    let spec = WorkflowSpec {
        storage: vec![
            Storage { claim_ref: "nas".into(), mount_path: "/mnt".into(), ..Default::default() },
            Storage { claim_ref: "nas".into(), mount_path: "/out".into(), sub_path: Some("o".into()), read_only: true },
            Storage { claim_ref: "data".into(), mount_path: "/data".into(), ..Default::default() },
        ],
        ..Default::default()
    };
    let mut node = node(2);
    node.pod_template = Some(json!({"spec": {
        "initContainers": [{"name": "fetch", "image": "f"}],
        "containers": [{"name": "main"}, {"name": "own", "image": "o",
            "volumeMounts": [{"name": "v", "mountPath": "/data/"}]}],
        "volumes": [{"name": "v", "emptyDir": {}}],
    }}));
    let pod = pod(&spec, &node, 0);
    let out = spec_of(&pod);
    let claims: Vec<&str> = out
        .volumes
        .iter()
        .flatten()
        .filter_map(|v| v.persistent_volume_claim.as_ref().map(|c| c.claim_name.as_str()))
        .collect();
    assert_eq!(claims, ["nas", "data"]);
    let mounts = |c: &Container| -> Vec<String> {
        c.volume_mounts.iter().flatten().map(|m| format!("{}:{}", m.name, m.mount_path)).collect()
    };
    let all = ["flowforge-storage-0:/mnt", "flowforge-storage-0:/out", "flowforge-storage-2:/data"];
    assert_eq!(mounts(main_of(&pod)), all);
    assert_eq!(mounts(&out.init_containers.as_ref().unwrap()[0]), all);
    let how = |path: &str| {
        let mount = main_of(&pod).volume_mounts.iter().flatten().find(|m| m.mount_path == path).unwrap();
        (mount.sub_path.as_deref(), mount.read_only.unwrap_or(false))
    };
    assert_eq!(how("/mnt"), (None, false), "the same claim, whole and to be written");
    assert_eq!(how("/out"), (Some("o"), true));
    // What a container mounts itself stays.
    assert_eq!(mounts(&out.containers[1]), ["v:/data/", all[0], all[1]]);
}

#[test]
fn nccl_gets_its_shared_memory_and_its_hugepages() {
    let mut node = node(2);
    node.overrides = NodeDefaults {
        shm_size: Some(Quantity("64Gi".into())),
        host_ipc: Some(true),
        host_network: Some(true),
        ..resources(json!({"limits": {"nvidia.com/gpu": 8, "hugepages-2Mi": "1Gi", "rdma/hca": "1"}}))
    };
    let pod = pod(&WorkflowSpec::default(), &node, 0);
    let out = spec_of(&pod);
    let shm = out.volumes.iter().flatten().find(|v| v.name == "flowforge-shm").unwrap();
    let dir = shm.empty_dir.as_ref().unwrap();
    assert_eq!((dir.medium.as_deref(), dir.size_limit.as_ref().unwrap().0.as_str()), (Some("Memory"), "64Gi"));
    assert!(main_of(&pod).volume_mounts.iter().flatten().any(|m| m.mount_path == "/dev/shm"));
    assert_eq!((out.host_ipc, out.host_network), (Some(true), Some(true)));
    assert_eq!(out.dns_policy.as_deref(), Some("ClusterFirstWithHostNet"));
    let limits = main_of(&pod).resources.as_ref().unwrap().limits.as_ref().unwrap();
    assert_eq!((limits["rdma/hca"].0.as_str(), limits["hugepages-2Mi"].0.as_str()), ("1", "1Gi"));
    assert_eq!(env_of(&pod, "NPROC_PER_NODE"), Some("8"));
}

#[test]
fn members_leave_a_dead_node_after_the_given_seconds_unless_the_user_says_otherwise() {
    let seconds = |node: &WorkflowNode| -> Vec<(String, Option<i64>)> {
        let pod = pod(&WorkflowSpec::default(), node, 0);
        let tolerations = spec_of(&pod).tolerations.clone().unwrap();
        tolerations.into_iter().map(|t| (t.key.unwrap_or_default(), t.toleration_seconds)).collect()
    };
    let mut node = node(1);
    let (not_ready, unreachable) = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable");
    assert_eq!(seconds(&node), [(not_ready.to_owned(), Some(30)), (unreachable.to_owned(), Some(30))]);
    node.overrides.toleration_seconds = Some(5);
    node.overrides.tolerations =
        serde_json::from_value(json!([{"key": not_ready, "operator": "Exists", "effect": "NoExecute"}])).unwrap();
    assert_eq!(seconds(&node), [(not_ready.to_owned(), None), (unreachable.to_owned(), Some(5))]);
    for everything in
        [json!([{"operator": "Exists"}]), json!([{"key": "", "operator": "Exists", "effect": "NoExecute"}])]
    {
        node.overrides.tolerations = serde_json::from_value(everything).unwrap();
        assert_eq!(seconds(&node), [(String::new(), None)], "who tolerates everything stays");
    }
    node.overrides.tolerations =
        serde_json::from_value(json!([{"operator": "Exists", "effect": "NoSchedule"}])).unwrap();
    assert_eq!(seconds(&node).len(), 3, "another effect says nothing of it");
}

#[test]
fn a_node_without_an_image_has_no_pods() {
    let mut node = node(1);
    node.image = None;
    assert!(MemberTemplate::new(&WorkflowSpec::default(), &node, attempt(false)).is_err());
    node.pod_template = Some(json!({"spec": {"containers": [{"name": "x", "image": "y"}]}}));
    let template = MemberTemplate::new(&WorkflowSpec::default(), &node, attempt(false)).unwrap();
    assert_eq!(main_of(&template.member(0, 0)).name, "x");
}

#[test]
fn a_gang_of_the_largest_size_stays_small_per_pod() {
    let template = MemberTemplate::new(&WorkflowSpec::default(), &node(8192), attempt(true)).unwrap();
    let bytes = serde_json::to_vec(&template.member(8191, 0)).unwrap().len();
    assert!(bytes < 4096, "{bytes} bytes");
}

#[test]
fn machines_that_failed_earlier_attempts_are_taken_only_where_there_is_no_other() {
    let attempt = AttemptRef { avoid: vec!["n1".into(), "n2".into()], ..attempt(false) };
    let template = MemberTemplate::new(&WorkflowSpec::default(), &node(1), attempt).unwrap();
    let affinity = template.member(0, 0).spec.unwrap().affinity.unwrap().node_affinity.unwrap();
    let terms = affinity.preferred_during_scheduling_ignored_during_execution.unwrap();
    let avoided: Vec<(&str, &[String])> = terms
        .iter()
        .filter_map(|t| t.preference.match_fields.as_deref()?.first())
        .map(|r| (r.operator.as_str(), r.values.as_deref().unwrap_or_default()))
        .collect();
    assert_eq!(avoided, [("NotIn", &["n1".to_owned()][..]), ("NotIn", &["n2".to_owned()][..])]);
}

#[test]
fn folders_for_artifacts_lie_on_the_first_claim_that_may_be_written() {
    let claim = |path: &str, read_only| Storage {
        claim_ref: "nas".into(),
        mount_path: path.into(),
        read_only,
        ..Storage::default()
    };
    let spec = WorkflowSpec { storage: vec![claim("/data", true), claim("/mnt/", false)], ..WorkflowSpec::default() };
    let pod = pod(&spec, &node(1), 0);
    assert_eq!(env_of(&pod, "FLOWFORGE_ARTIFACTS_DIR"), Some("/mnt/wf"));
    assert_eq!(env_of(&pod, "FLOWFORGE_NODE_DIR"), Some("/mnt/wf/train"));
    assert_eq!(env_of(&pod, "FLOWFORGE_CHECKPOINT_DIR"), Some("/mnt/wf/train/2"));
    assert_eq!(env_of(&pod, "FLOWFORGE_LAST_CHECKPOINT_DIR"), Some("/mnt/wf/train/1"));
}

#[test]
fn without_such_a_claim_there_are_no_folders() {
    let pod = pod(&WorkflowSpec::default(), &node(1), 0);
    assert_eq!(env_of(&pod, "FLOWFORGE_CHECKPOINT_DIR"), None);
}

#[test]
fn each_role_has_pods_of_its_own_and_meets_by_itself() {
    let node: WorkflowNode = serde_json::from_value(json!({
        "id": "train", "image": "img:1", "args": ["node"], "env": [{"name": "A", "value": "node"}], "labels": {"team": "x"},
        "roles": [
            {"name": "driver", "image": "driver:1"},
            {"name": "worker", "replicas": 3, "args": ["work"], "env": [{"name": "A", "value": "worker"}],
             "resources": {"limits": {"nvidia.com/gpu": "8"}}, "nodeSelector": {"pool": "h100"},
             "labels": {"team": "y"}, "annotations": {"note": "w"}},
        ],
    }))
    .unwrap();
    let template = MemberTemplate::new(&WorkflowSpec::default(), &node, attempt(true)).unwrap();
    let (driver, worker) = (template.member(0, 0), template.member(2, 1));
    let label_of = |pod: &Pod, key: &str| pod.metadata.labels.as_ref().unwrap()[key].clone();
    assert_eq!((label_of(&driver, label::ROLE), label_of(&worker, label::ROLE)), ("driver".into(), "worker".into()));
    assert_eq!((label_of(&driver, "team"), label_of(&worker, "team")), ("x".into(), "y".into()));
    assert_eq!(worker.metadata.name.as_deref(), Some("wf-train-2-2r1"));
    assert_eq!(worker.metadata.annotations.as_ref().unwrap()["note"], "w");
    assert_eq!(
        (main_of(&driver).image.as_deref(), main_of(&worker).image.as_deref()),
        (Some("driver:1"), Some("img:1"))
    );
    assert_eq!(main_of(&driver).args.as_deref().unwrap(), ["node"]);
    assert_eq!(main_of(&worker).args.as_deref().unwrap(), ["work"]);
    assert!(main_of(&driver).resources.is_none() && spec_of(&driver).node_selector.is_none());
    assert_eq!(spec_of(&worker).node_selector.as_ref().unwrap()["pool"], "h100");
    for (name, of_driver, of_worker) in [
        ("A", "node", "worker"),
        ("FLOWFORGE_RANK", "0", "2"),
        ("FLOWFORGE_REPLICAS", "4", "4"),
        ("FLOWFORGE_ROLE", "driver", "worker"),
        ("FLOWFORGE_ROLE_RANK", "0", "1"),
        ("FLOWFORGE_ROLE_REPLICAS", "1", "3"),
        ("FLOWFORGE_ROLES", "driver=0,worker=1-3", "driver=0,worker=1-3"),
        ("NNODES", "1", "3"),
        ("NODE_RANK", "0", "1"),
        ("NPROC_PER_NODE", "1", "8"),
        ("MASTER_ADDR", "wf-train-2-0.wf-train-2", "wf-train-2-1.wf-train-2"),
    ] {
        assert_eq!((env_of(&driver, name), env_of(&worker, name)), (Some(of_driver), Some(of_worker)), "{name}");
    }
    assert_eq!(env_of(&pod(&WorkflowSpec::default(), &self::node(2), 1), "FLOWFORGE_ROLE"), None, "it has no roles");
}

#[test]
fn gpus_of_a_gang_are_limits_and_a_product() {
    let with = |gpu: Value| {
        let node = serde_json::from_value(json!({
            "id": "train", "image": "img:1", "gang": {"gpu": gpu, "priorityClassName": "high"}, "nodeSelector": {"a": "b"},
        }));
        pod(&WorkflowSpec::default(), &node.unwrap(), 0)
    };
    let whole = with(json!({"product": "NVIDIA-H100-80GB-HBM3", "count": 8}));
    let limits = |pod: &Pod| main_of(pod).resources.clone().unwrap().limits.unwrap();
    assert_eq!(limits(&whole)["nvidia.com/gpu"], Quantity("8".into()));
    let selector = spec_of(&whole).node_selector.as_ref().unwrap();
    assert_eq!((selector["nvidia.com/gpu.product"].as_str(), selector["a"].as_str()), ("NVIDIA-H100-80GB-HBM3", "b"));
    assert_eq!(
        (env_of(&whole, "NPROC_PER_NODE"), spec_of(&whole).priority_class_name.as_deref()),
        (Some("8"), Some("high"))
    );
    let slices = with(json!({"mig": "1g.10gb", "count": 2}));
    assert_eq!(limits(&slices)["nvidia.com/mig-1g.10gb"], Quantity("2".into()));
}
