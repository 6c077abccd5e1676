//! The front end: every row of bad input with its place, problem and cure; and no input at all does harm.

mod no_harm;
mod roles;

use flowforge_dag_controller_core::frontend::{
    DEFAULT_LEVELS, Levels, MAX_ERRORS, MAX_SPEC_BYTES, Options, Templates, compile, is_bare, to_manifest,
};
use flowforge_dag_controller_core::{Failure, Limits, MemberLost, Mode, NodeIx, On, OnFailure, Role, Success};
use serde_json::{Map, Value, json};

fn workflow(nodes: Value) -> Value {
    let spec: Map<String, Value> = [("nodes".to_owned(), nodes)].into_iter().collect();
    let mut document = json!({"apiVersion": "flowforge.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": "wf"}});
    document["spec"] = Value::Object(spec);
    document
}

fn with_spec(fields: Value) -> Value {
    let mut document = workflow(json!([{"id": "a", "image": "i"}]));
    if let (Some(spec), Value::Object(fields)) = (document["spec"].as_object_mut(), fields) {
        spec.extend(fields);
    }
    document
}

fn with_node(fields: Value) -> Value {
    let mut document = workflow(json!([{"id": "a", "image": "i"}]));
    if let (Some(node), Value::Object(fields)) = (document["spec"]["nodes"][0].as_object_mut(), fields) {
        node.extend(fields);
    }
    document
}

fn diamond() -> Value {
    json!({"workflow": {
        "name": "example",
        "storage": {"claimRef": "my-nas-claim"},
        "nodes": [
            {"id": "preprocess", "replicas": 1, "image": "my/preprocess:latest", "args": ["--input", "/mnt/data/raw"]},
            {"id": "train", "replicas": 4, "image": "my/train:latest", "dependsOn": ["preprocess"]},
            {"id": "eval", "replicas": 1, "image": "my/eval:latest", "dependsOn": ["train"]},
            {"id": "publish", "replicas": 1, "image": "my/publish:latest", "dependsOn": ["train"]},
        ],
    }})
}

const STRICT: Options<'static> =
    Options { strict: true, levels: Levels::These(DEFAULT_LEVELS), templates: Templates::Inline };

/// All mistakes, exactly, one a line, as `path: problem; fix`.
fn check(document: &Value, expected: &str) {
    let errors = compile(document, STRICT).err().unwrap_or_default();
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(shown, expected.lines().collect::<Vec<_>>(), "{document}");
}

/// All mistakes, by place.
fn check_places(document: &Value, expected: &[&str]) {
    let errors = compile(document, STRICT).err().unwrap_or_default();
    let places: Vec<&str> = errors.iter().map(|e| e.path.as_str()).collect();
    assert_eq!(places, expected, "{errors:#?}");
}

#[test]
fn the_short_form_compiles_to_the_same_graph_as_its_manifest() {
    let short = compile(&diamond(), STRICT).expect("the diamond is good");
    assert_eq!(short.name.as_deref(), Some("example"));
    let ids: Vec<&str> = short.dag.ids().map(|n| short.dag.node(n).id.as_str()).collect();
    assert_eq!(ids, ["preprocess", "train", "eval", "publish"]);
    assert_eq!(short.dag.downstream(NodeIx(1)), [NodeIx(2), NodeIx(3)]);
    assert_eq!(short.dag.node(NodeIx(1)).replicas, 4);
    let manifest = to_manifest(&diamond()).expect("it is the short form");
    assert_eq!(manifest["spec"]["storage"], json!([{"claimRef": "my-nas-claim"}]));
    assert!(!is_bare(&manifest));
    assert_eq!(compile(&manifest, STRICT).expect("so is its manifest"), short);
}

#[test]
fn a_rich_workflow_is_good() {
    let document = json!({
        "apiVersion": "flowforge.dev/v1alpha1", "kind": "Workflow", "metadata": {"generateName": "night-"},
        "spec": {
            "storage": [{"claimRef": "nas", "mountPath": "/data", "subPath": "a/b", "readOnly": true}],
            "schedulerName": "flowforge", "ttlSecondsAfterFinished": 60, "cancel": false,
            "defaults": {
                "env": [{"name": "A", "value": "1"}, {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
                "labels": {"team": "vision"}, "annotations": {"example.com/note": "any text"}, "shmSize": "64Gi",
                "resources": {"limits": {"nvidia.com/gpu": 8, "memory": "1e3"}}, "hostIPC": true,
            },
            "nodes": [
                {"id": "a", "podTemplate": {"spec": {"containers": [{"name": "side", "image": "s"}, {"name": "main", "image": "m"}]}}},
                {"id": "b", "image": "i", "replicas": 8192, "dependsOn": ["a"], "memberLostPolicy": "ReplaceMember",
                 "topology": {"required": "rack", "preferred": ["nvlink"]}, "podTemplate": {"metadata": {"labels": {"x": "y"}}},
                 "volumes": [{"name": "v"}], "volumeMounts": [{"name": "v", "mountPath": "/v"}], "nodeSelector": null},
            ],
        },
    });
    let compiled = compile(&document, STRICT).expect("it is good");
    assert_eq!(compiled.name, None, "the API server will name it");
    assert_eq!(compiled.dag.node(NodeIx(1)).member_lost, MemberLost::Replace);
}

#[test]
fn documents_that_are_no_workflow() {
    check(&json!([]), "must be an object, is a list; write an object");
    check(&Value::Null, "must be an object, is nothing; write an object");
    check_places(&json!({}), &["", "", "metadata.name", ""]);
    check(&json!({"workflow": 3}), "workflow: must be an object, is a number; write an object");
    let mut other = workflow(json!([{"id": "a", "image": "i"}]));
    other["kind"] = json!("Job");
    check(&other, r#"kind: is "Job"; write Workflow"#);
    check(&workflow(json!([])), "spec.nodes: is empty; add at least one node: {id: …, image: …}");
    check(&workflow(json!({})), "spec.nodes: must be a list, is an object; write a list");
}

#[test]
fn every_row_of_a_bad_graph() {
    let node = |id: &str, depends_on: &[&str]| json!({"id": id, "image": "i", "dependsOn": depends_on});
    check(
        &workflow(json!([node("a", &["c"]), node("b", &["a"]), node("c", &["b"])])),
        "spec.nodes[0].dependsOn: these nodes wait for each other: a -> b -> c -> a; \
         an arrow means 'runs before': remove one of these dependsOn entries",
    );
    check(
        &workflow(json!([node("a", &["a"])])),
        r#"spec.nodes[0].dependsOn[0]: "a" depends on itself; remove this entry"#,
    );
    check(
        &workflow(json!([node("train", &[]), node("eval", &["trian"])])),
        r#"spec.nodes[1].dependsOn[0]: no node has the id "trian"; did you mean "train"?"#,
    );
    check(
        &workflow(json!([node("train", &[]), node("eval", &["deploy"])])),
        r#"spec.nodes[1].dependsOn[0]: no node has the id "deploy"; add a node with this id, or remove the entry"#,
    );
    check(
        &workflow(json!([node("a", &[]), node("b", &["a", "a"])])),
        r#"spec.nodes[1].dependsOn[1]: "a" is there twice; remove one of the two"#,
    );
    check(
        &workflow(json!([node("a", &[]), node("a", &[])])),
        r#"spec.nodes[1].id: "a" is there twice; rename one of the two"#,
    );
    check(
        &with_node(json!({"dependsOn": "b"})),
        r#"spec.nodes[0].dependsOn: must be a list of ids, is a text; write ["b"]"#,
    );
}

#[test]
fn two_separate_circles_are_two_mistakes() {
    let node = |id: &str, depends_on: &[&str]| json!({"id": id, "image": "i", "dependsOn": depends_on});
    let document = workflow(json!([
        node("a", &["b"]),
        node("b", &["a"]),
        node("c", &["b"]),
        node("d", &["c", "e"]),
        node("e", &["d"]),
    ]));
    check_places(&document, &["spec.nodes[0].dependsOn", "spec.nodes[3].dependsOn"]);
}

#[test]
fn every_row_of_a_bad_node() {
    check(&workflow(json!([{"image": "i"}])), "spec.nodes[0]: has no id; add an id, unique in the workflow");
    for id in ["Train", "a_b", "-a", "a-", "a.b", "日本", ""] {
        let errors = compile(&with_node(json!({"id": id})), STRICT).expect_err(id);
        assert_eq!(errors[0].path, "spec.nodes[0].id", "{errors:?}");
    }
    check(
        &with_node(json!({"replicas": 0})),
        "spec.nodes[0].replicas: must be at least 1, is 0; write a number from 1 to 8192",
    );
    check(
        &with_node(json!({"replicas": -3})),
        "spec.nodes[0].replicas: must be at least 1, is -3; write a number from 1 to 8192",
    );
    check(
        &with_node(json!({"replicas": 9000})),
        "spec.nodes[0].replicas: must be at most 8192, is 9000; write a number from 1 to 8192",
    );
    check(
        &with_node(json!({"replicas": u64::MAX})),
        "spec.nodes[0].replicas: must be at most 8192, is 18446744073709551615; write a number from 1 to 8192",
    );
    check(
        &with_node(json!({"replicas": "4"})),
        "spec.nodes[0].replicas: must be a whole number, is a text; write a whole number",
    );
    check(
        &with_node(json!({"image": null})),
        "spec.nodes[0]: has no image; add image, or a podTemplate whose main container has one",
    );
    check_places(&with_node(json!({"image": "my image"})), &["spec.nodes[0].image"]);
    check(
        &with_node(json!({"args": ["--epochs", 3]})),
        r#"spec.nodes[0].args[1]: must be a text, is a number; put it in quotes: "3""#,
    );
    check_places(&with_node(json!({"command": "sh -c true"})), &["spec.nodes[0].command"]);
    check(
        &with_node(json!({"memberLostPolicy": "fail"})),
        r#"spec.nodes[0].memberLostPolicy: "fail" is none of Fail, ReplaceMember; did you mean Fail?"#,
    );
    check(
        &with_node(json!({"topology": {"required": "rak"}})),
        r#"spec.nodes[0].topology.required: "rak" is no topology level; did you mean rack?"#,
    );
    check_places(
        &with_node(json!({"topology": {"preferred": ["rack", 3, "galaxy"]}})),
        &["spec.nodes[0].topology.preferred[1]", "spec.nodes[0].topology.preferred[2]"],
    );
    check_places(
        &with_node(json!({"topology": {"segments": {"size": 0, "level": "galaxy"}, "spread": {"level": "rack"}}})),
        &[
            "spec.nodes[0].topology.segments.size",
            "spec.nodes[0].topology.segments.level",
            "spec.nodes[0].topology.spread.minDomains",
        ],
    );
    check(
        &with_node(json!({"replicas": 2, "topology": {"spread": {"level": "rack", "minDomains": 3}}})),
        r#"spec.nodes[0].topology.spread.minDomains: 3 domains are more than the node has replicas (2); write at most 2"#,
    );
}

#[test]
fn names_that_would_grow_too_long_are_refused_with_how_much() {
    let mut document = with_node(json!({"id": "n".repeat(40), "replicas": 2000}));
    document["metadata"]["name"] = json!("w".repeat(20));
    let errors = compile(&document, STRICT).expect_err("69 characters");
    assert_eq!(errors[0].path, "spec.nodes[0].id");
    // 20 + 1 + 40 + 1 + 2 + 1 + 4 = 69.
    assert_eq!(errors[0].fix, "shorten the id or the workflow's name by 6");
    document["metadata"]["name"] = json!("w".repeat(14));
    assert!(compile(&document, STRICT).is_ok(), "63 characters are just right");
    document["metadata"] = json!({"name": "1w"});
    check(
        &document,
        "metadata.name: must start with a letter, because a gang of two or more gets a Service named after it; \
         put a letter in front",
    );
    document["spec"]["nodes"][0]["replicas"] = json!(1);
    assert!(compile(&document, STRICT).is_ok(), "a single pod needs no Service");
    for name in ["a.b", "A", "-a", "a b"] {
        document["metadata"] = json!({"name": name});
        check_places(&document, &["metadata.name"]);
    }
}

#[test]
fn unknown_fields_are_found_only_in_strict_mode() {
    let document = with_node(json!({"replcias": 3, "zzz": 1}));
    assert!(compile(&document, Options::default()).is_ok(), "the API server has dropped them by then");
    let errors = compile(&document, STRICT).expect_err("a lint sees them");
    let shown: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            r#"spec.nodes[0].replcias: unknown field "replcias"; did you mean "replicas"? Else remove it"#,
            r#"spec.nodes[0].zzz: unknown field "zzz"; remove it"#,
        ]
    );
    check_places(&with_spec(json!({"node": []})), &["spec.node"]);
    check_places(&with_spec(json!({"defaults": {"image": "x"}})), &["spec.defaults.image"]);
}

#[test]
fn storage_and_mounts() {
    check(
        &with_spec(json!({"storage": {"claimRef": "c"}})),
        "spec.storage: must be a list, is an object; write a list: [{claimRef: …, mountPath: …}]",
    );
    check(
        &with_spec(json!({"storage": [{}]})),
        "spec.storage[0]: has no claimRef; name a PersistentVolumeClaim of the workflow's namespace",
    );
    check_places(&with_spec(json!({"storage": [{"claimRef": "C C"}]})), &["spec.storage[0].claimRef"]);
    check(
        &with_spec(json!({"storage": [{"claimRef": "c", "mountPath": "data"}]})),
        r#"spec.storage[0].mountPath: "data" is no absolute path; write an absolute path without ':' and '..', like /data"#,
    );
    check(
        &with_spec(json!({"storage": [{"claimRef": "c"}, {"claimRef": "d", "mountPath": "/mnt/"}]})),
        r#"spec.storage[1].mountPath: "/mnt" is already mounted by spec.storage[0].mountPath; choose another mountPath"#,
    );
    check_places(&with_spec(json!({"storage": [{"claimRef": "c", "mountPath": "/"}]})), &["spec.storage[0].mountPath"]);
    check_places(&with_spec(json!({"storage": [{"claimRef": "c", "subPath": "../x"}]})), &["spec.storage[0].subPath"]);
    let mut clash = with_node(json!({"volumeMounts": [{"name": "v", "mountPath": "/mnt"}]}));
    clash["spec"]["storage"] = json!([{"claimRef": "c"}]);
    check_places(&clash, &["spec.nodes[0].volumeMounts[0].mountPath"]);
    check_places(
        &with_node(json!({"shmSize": "1Gi", "volumeMounts": [{"name": "v", "mountPath": "/dev/shm"}]})),
        &["spec.nodes[0].volumeMounts[0].mountPath"],
    );
}

#[test]
fn pod_templates() {
    let template = |spec: Value| with_node(json!({"image": null, "podTemplate": {"spec": spec}}));
    check_places(&template(json!({"containers": []})), &["spec.nodes[0]"]);
    check_places(&template(json!({"containers": {}})), &["spec.nodes[0].podTemplate.spec.containers"]);
    check_places(&template(json!({"containers": [{"image": "i"}]})), &["spec.nodes[0].podTemplate.spec.containers[0]"]);
    check_places(
        &template(json!({"containers": [{"name": "a", "image": "i"}, {"name": "a", "image": "i"}]})),
        &["spec.nodes[0].podTemplate.spec.containers[1].name"],
    );
    check_places(
        &template(json!({"containers": [{"name": "side", "image": "i"}, {"name": "main"}]})),
        &["spec.nodes[0]"],
    );
    assert!(compile(&template(json!({"containers": [{"name": "first", "image": "i"}]})), STRICT).is_ok());
    check(
        &template(json!({"containers": [{"name": "m", "image": "i"}], "restartPolicy": "OnFailure"})),
        "spec.nodes[0].podTemplate.spec.restartPolicy: must be Never; \
         remove it: a failed member fails its gang, and the gang is what is tried again",
    );
    check_places(
        &template(json!({"containers": [{"name": "m", "image": "i"}], "nodeName": "n1", "hostname": "h"})),
        &["spec.nodes[0].podTemplate.spec.hostname", "spec.nodes[0].podTemplate.spec.nodeName"],
    );
    check_places(&with_node(json!({"podTemplate": "x"})), &["spec.nodes[0].podTemplate"]);
    check_places(&with_node(json!({"podTemplate": {"spce": {}}})), &["spec.nodes[0].podTemplate.spce"]);
}

#[test]
fn fields_of_the_wrong_type() {
    for (field, value) in [
        ("env", json!({"A": "b"})),
        ("env", json!([{"name": "A", "value": 3}])),
        ("env", json!([{"value": "3"}])),
        ("env", json!([{"name": "A=", "value": "3"}])),
        ("env", json!([{"name": "A", "value": "3", "valueFrom": {}}])),
        ("labels", json!({"a": true})),
        ("labels", json!({"a b": "c"})),
        ("labels", json!({"a": "b c"})),
        ("nodeSelector", json!([])),
        ("resources", json!({"limits": {"cpu": "-1"}})),
        ("resources", json!({"requests": {"cpu": "lots"}})),
        ("resources", json!({"requests": []})),
        ("shmSize", json!({})),
        ("hostNetwork", json!("true")),
        ("nprocPerNode", json!(0)),
        ("terminationGracePeriodSeconds", json!(-1)),
        ("tolerations", json!([1])),
        ("affinity", json!([])),
        ("volumes", json!([{"name": "v"}, {"name": "v"}])),
        ("imagePullPolicy", json!("always")),
        ("serviceAccountName", json!("Not A Name")),
    ] {
        for document in [with_node(json!({field: value})), with_spec(json!({"defaults": {field: value}}))] {
            let errors = compile(&document, STRICT).expect_err(field);
            assert_eq!(errors.len(), 1, "{errors:#?}");
            assert!(errors[0].path.contains(field), "{errors:?}");
            assert!(!errors[0].problem.is_empty() && !errors[0].fix.is_empty(), "{errors:?}");
        }
    }
    check_places(
        &with_spec(json!({"cancel": "yes", "ttlSecondsAfterFinished": -1})),
        &["spec.cancel", "spec.ttlSecondsAfterFinished"],
    );
}

#[test]
fn all_mistakes_come_at_once_up_to_the_bound() {
    let nodes: Vec<Value> = (0..200).map(|at| json!({"id": format!("n{at}"), "replicas": 0})).collect();
    let errors = compile(&workflow(json!(nodes)), STRICT).expect_err("400 mistakes");
    assert_eq!(errors.len(), MAX_ERRORS + 1);
    assert_eq!(errors[MAX_ERRORS].problem, "350 more mistakes are not shown");
}

#[test]
fn a_circle_of_five_thousand_is_found_and_shown_in_short() {
    let count = 5_000;
    let nodes: Vec<Value> = (0..count)
        .map(|at| json!({"id": format!("n{at}"), "image": "i", "dependsOn": [format!("n{}", (at + 1) % count)]}))
        .collect();
    let errors = compile(&workflow(json!(nodes)), STRICT).expect_err("a circle");
    assert_eq!(errors.len(), 1);
    assert!(errors[0].problem.contains("… 4992 more …"), "{}", errors[0].problem);
    assert!(errors[0].problem.len() < 200);
}

#[test]
fn a_chain_of_twenty_thousand_is_good_and_one_more_is_not() {
    let chain = |count: usize| -> Value {
        (0..count)
            .map(|at| {
                let up: Vec<String> = at.checked_sub(1).map(|up| format!("n{up}")).into_iter().collect();
                json!({"id": format!("n{at}"), "image": "i", "dependsOn": up})
            })
            .collect()
    };
    let compiled = compile(&workflow(chain(20_000)), STRICT).expect("deep is fine");
    assert_eq!(compiled.dag.layers().len(), 20_000);
    check(&workflow(chain(20_001)), "spec.nodes: has 20001 nodes, at most 20000 are possible; split the workflow");
}

#[test]
fn a_spec_that_leaves_no_room_for_a_status_is_refused() {
    let with = |letters: usize| {
        let nodes = json!([{"id": "a", "image": "x", "args": ["y".repeat(letters)]}]);
        workflow(nodes)
    };
    let spec_len = |document: &Value| serde_json::to_string(&document["spec"]).unwrap().len();
    let largest = with(MAX_SPEC_BYTES - spec_len(&with(0)));
    assert_eq!(spec_len(&largest), 1_310_720);
    assert_eq!(compile(&largest, STRICT).err(), None);
    check(
        &with(MAX_SPEC_BYTES - spec_len(&with(0)) + 1),
        "spec: has 1310721 bytes as JSON, at most 1310720 are possible; move what nodes share into defaults or a ConfigMap, or split the workflow",
    );
}

#[test]
fn a_dependency_says_what_it_waits_for_and_a_failure_what_it_means() {
    let nodes = json!([
        {"id": "a", "image": "i"},
        {"id": "b", "image": "i", "dependsOn": [{"node": "a", "on": "Failed"}, {"node": "a", "on": "Skipped"}], "dependsMode": "Any"},
        {"id": "c", "image": "i", "dependsOn": ["b", {"node": "a"}], "onFailure": "Continue"},
    ]);
    let dag = compile(&workflow(nodes), STRICT).expect("it is good").dag;
    let from_a: Vec<(u32, On)> = dag.edges_from(NodeIx(0)).map(|e| (e.down.0, e.on)).collect();
    assert_eq!(from_a, [(1, On::Failed), (1, On::Skipped), (2, On::Succeeded)]);
    assert_eq!((dag.node(NodeIx(1)).mode, dag.node(NodeIx(2)).mode), (Mode::Any, Mode::All));
    let policies = [0, 1, 2].map(|n| dag.node(NodeIx(n)).on_failure);
    assert_eq!(policies, [OnFailure::SkipDownstream, OnFailure::Fail, OnFailure::Continue], "b waits for a's failure");
}

#[test]
fn bad_dependencies_and_policies_are_named() {
    let two = |a: Value, b: Value| {
        let mut nodes = json!([{"id": "a", "image": "i"}, {"id": "b", "image": "i"}]);
        for (at, fields) in [(0, a), (1, b)] {
            if let (Some(node), Value::Object(fields)) = (nodes[at].as_object_mut(), fields) {
                node.extend(fields);
            }
        }
        workflow(nodes)
    };
    let b = |fields: Value| two(json!({}), fields);
    let p = "spec.nodes[1].dependsOn";
    check(
        &b(json!({"dependsOn": [7]})),
        &format!(
            "{p}[0]: must be an id or an object, is a number; write the id of a node, or {{node: <id>, on: Failed}}"
        ),
    );
    check(
        &b(json!({"dependsOn": [{"on": "Failed"}]})),
        &format!("{p}[0]: has no node; add node: the id of the node it waits for"),
    );
    check(
        &b(json!({"dependsOn": [{"node": "a", "on": "Suceeded"}]})),
        &format!(
            "{p}[0].on: \"Suceeded\" is none of Succeeded, Failed, Completed, Running, Skipped; did you mean Succeeded?"
        ),
    );
    check(
        &b(json!({"dependsOn": [{"node": "a", "when": "x"}]})),
        &format!("{p}[0].when: unknown field \"when\"; remove it"),
    );
    check(
        &b(json!({"dependsOn": ["a", {"node": "a", "on": "Succeeded"}]})),
        &format!("{p}[1]: \"a\" is there twice; remove one of the two"),
    );
    check(
        &b(json!({"dependsMode": "any"})),
        "spec.nodes[1].dependsMode: \"any\" is none of All, Any; did you mean Any?",
    );
    check(
        &b(json!({"onFailure": "Ignore"})),
        "spec.nodes[1].onFailure: \"Ignore\" is none of Fail, Continue, SkipDownstream; write one of Fail, Continue, SkipDownstream",
    );
    check(
        &two(json!({"onFailure": "Fail"}), json!({"dependsOn": [{"node": "a", "on": "Completed"}]})),
        "spec.nodes[0].onFailure: a failure of \"a\" stops the workflow, but \"b\" waits for it; write SkipDownstream or Continue, or remove it",
    );
    check(
        &two(json!({"finally": true}), json!({"dependsOn": ["a"]})),
        "spec.nodes[1].dependsOn[0]: \"a\" is a finally node, which starts when all others have ended; write finally: true here too",
    );
    check(
        &b(json!({"finally": true, "dependsOn": ["a"]})),
        "spec.nodes[1].dependsOn[0]: \"a\" is no finally node: it has ended when this one starts; remove the entry",
    );
    check(
        &with_node(json!({"finally": true})),
        "spec.nodes[0].finally: every node is a finally node; leave one node without finally",
    );
    check_places(
        &two(json!({"dependsOn": [{"node": "b", "on": "Skipped"}]}), json!({"dependsOn": ["a"]})),
        &["spec.nodes[0].dependsOn"],
    );
}

#[test]
fn a_retry_is_compiled_and_its_mistakes_are_named() {
    let retry = json!({
        "limit": 2, "infrastructureLimit": 5, "scope": "Member", "forceAfterSeconds": 60,
        "backoff": {"initialSeconds": 1, "factor": 3, "capSeconds": 9, "jitterPercent": 0},
        "on": {"exitCodes": [75], "reasons": ["OOMKilled"]},
    });
    let dag = compile(&with_node(json!({"retry": retry})), STRICT).expect("it is good").dag;
    let retry = dag.node(NodeIx(0)).retry.as_deref().expect("there is one");
    assert_eq!((retry.limit, retry.infrastructure_limit, retry.initial_ms, retry.cap_ms), (2, 5, 1_000, 9_000));
    assert_eq!((retry.factor, retry.jitter_percent, retry.force_after_ms), (3, 0, Some(60_000)));
    assert_eq!(retry.on.as_ref().map(|on| (on.exit_codes.len(), on.reasons.len())), Some((1, 1)));
    let p = "spec.nodes[0].retry";
    let bad = |fields: Value, expected: &str| check(&with_node(json!({"retry": fields})), &format!("{p}{expected}"));
    bad(json!({"limit": -1}), ".limit: must be at least 0, is -1; write a number from 0 to 1000");
    bad(json!({"limits": 1}), ".limits: unknown field \"limits\"; did you mean \"limit\"? Else remove it");
    bad(json!({"scope": "Pod"}), ".scope: \"Pod\" is none of Gang, Member; write one of Gang, Member");
    bad(
        json!({"backoff": {"initialSeconds": 60, "capSeconds": 10}}),
        ".backoff.capSeconds: the first pause (60 s) is longer than the longest; write at least initialSeconds",
    );
    bad(
        json!({"on": {}}),
        ".on: names no failure, so that none would be tried again; add exitCodes or reasons, or remove it",
    );
    bad(json!({"on": {"exitCodes": [0]}}), ".on.exitCodes[0]: must be at least 1, is 0; write a number from 1 to 255");
    bad(
        json!({"on": {"reasons": ["NodeLost"]}}),
        ".on.reasons[0]: \"NodeLost\" is no failure of the user's; remove it: failures of the infrastructure have infrastructureLimit",
    );
}

#[test]
fn limits_are_compiled_and_their_mistakes_are_named() {
    let limits = |node: Value| compile(&with_node(node), STRICT).map(|c| c.dag.node(NodeIx(0)).limits);
    let own = json!({"timeouts": {"queueSeconds": 60, "startSeconds": 5, "runSeconds": 7}});
    assert_eq!(limits(own), Ok(Limits { queue_ms: Some(60_000), start_ms: Some(5_000), run_ms: Some(7_000) }));
    let default = Limits { start_ms: Some(600_000), ..Limits::default() };
    assert_eq!(limits(json!({})), Ok(default), "ten minutes to start");
    let largest = "write a number from 1 to 316224000";
    check(
        &with_node(json!({"timeouts": {"runSeconds": 0}})),
        &format!("spec.nodes[0].timeouts.runSeconds: must be at least 1, is 0; {largest}"),
    );
    check_places(&with_node(json!({"timeouts": 5})), &["spec.nodes[0].timeouts"]);
    check(
        &with_spec(json!({"timeoutSeconds": 0})),
        &format!("spec.timeoutSeconds: must be at least 1, is 0; {largest}"),
    );
    check(
        &with_spec(json!({"parallelism": 0})),
        "spec.parallelism: must be at least 1, is 0; write a number from 1 to 20000",
    );
    check(&with_spec(json!({"suspend": "Evict"})), "spec.suspend: \"Evict\" is none of Hold; write one of Hold");
}

#[test]
fn an_approval_node_runs_nothing() {
    let good = workflow(
        json!([{"id": "ask", "approval": true, "replicas": 1}, {"id": "a", "image": "i", "dependsOn": ["ask"]}]),
    );
    let dag = compile(&good, STRICT).expect("it is good").dag;
    assert!(dag.node(NodeIx(0)).approval && !dag.node(NodeIx(1)).approval);
    check(
        &with_node(json!({"approval": true})),
        "spec.nodes[0].image: has no meaning, because an approval node makes no pods; remove it",
    );
    check_places(
        &workflow(json!([{"id": "a", "approval": true, "replicas": 2, "retry": {}}])),
        &["spec.nodes[0].replicas", "spec.nodes[0].retry"],
    );
}

#[test]
fn a_rerun_takes_over_the_nodes_that_it_names() {
    let nodes = json!([{"id": "a", "image": "i"}, {"id": "b", "image": "i", "dependsOn": ["a"]}]);
    let rerun = |of: Value| {
        let mut document = workflow(nodes.clone());
        document["spec"]["rerunOf"] = of;
        document
    };
    let dag = compile(&rerun(json!({"name": "wf", "uid": "u", "succeeded": "0"})), STRICT).expect("it is good").dag;
    assert_eq!([0, 1].map(|n| dag.node(NodeIx(n)).taken_over), [true, false]);
    assert_eq!(dag.downstream(NodeIx(0)), [NodeIx(1)]);
    check(
        &rerun(json!({"name": "wf", "succeeded": "0-7"})),
        "spec.rerunOf.succeeded: \"0-7\" is no set of nodes; write places in spec.nodes, ascending, below 2, like 0-3,5; flowforge rerun does",
    );
    check(&rerun(json!({"succeeded": "0"})), "spec.rerunOf: has no name; add name: the workflow that is run again");
}

#[test]
fn too_many_edges_are_refused_before_anything_is_built() {
    let wide: Vec<String> = (0..450).map(|at| format!("n{at}")).collect();
    let mut nodes: Vec<Value> = wide.iter().map(|id| json!({"id": id, "image": "i"})).collect();
    nodes.extend((0..450).map(|at| json!({"id": format!("m{at}"), "image": "i", "dependsOn": wide})));
    let errors = compile(&workflow(json!(nodes)), STRICT).expect_err("202,500 edges");
    assert_eq!(errors[0].fix, "put a joining node between wide layers");
}

/// The tables of the front end and the CRD, which is generated from the API types, know the same fields.
#[test]
fn the_tables_know_every_field_of_the_crd() {
    let crd = include_str!("../../../../manifests/crds/flowforge.dev_workflows.yaml");
    let lines: Vec<&str> = crd.lines().collect();
    let block = |from: &str, key_indent: usize| -> Vec<String> {
        let start = lines.iter().position(|l| *l == from).expect(from);
        let indent = " ".repeat(key_indent);
        let properties = lines[start..].iter().position(|l| l.trim() == "properties:").expect("properties") + start + 1;
        lines[properties..]
            .iter()
            .take_while(|l| l.starts_with(&indent))
            .filter_map(|l| l.strip_prefix(&indent))
            .filter(|l| !l.starts_with([' ', '-']) && l.ends_with(':'))
            .map(|l| l.trim_end_matches(':').to_owned())
            .collect()
    };
    let node_fields = block("              nodes:", 20);
    let defaults = block("              defaults:", 18);
    assert!(node_fields.len() > 30 && defaults.len() > 20, "{node_fields:?} {defaults:?}");
    let unknown = |document: &Value, field: &str| {
        let errors = compile(document, STRICT).err().unwrap_or_default();
        errors.iter().any(|e| e.problem.starts_with("unknown field") && e.path.ends_with(field))
    };
    for field in &node_fields {
        assert!(!unknown(&with_node(json!({field: {}})), field), "spec.nodes[].{field}");
    }
    for field in &defaults {
        assert!(!unknown(&with_spec(json!({"defaults": {field: {}}})), field), "spec.defaults.{field}");
    }
}
