//! Templates, patches and parameters: what a workflow with them stands for, and every mistake with its place and its cure.
#![allow(
    clippy::expect_used,
    clippy::needless_pass_by_value,
    clippy::panic,
    reason = "tests; documents are written in place"
)]

use flowforge_dag_controller_core::expr;
use flowforge_dag_controller_core::frontend::{Options, Templates, check_template, compile, finish, templates_wanted};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

fn trainer() -> Value {
    json!({
        "name": "train",
        "parameters": [
            {"name": "lr", "type": "float", "default": 0.1},
            {"name": "workers", "type": "int"},
            {"name": "mode", "enum": ["fast", "slow"], "default": "fast"},
        ],
        "node": {
            "replicas": "${{ params.workers }}", "image": "train:1",
            "args": ["--lr=${{ params.lr }}", "--mode", "${{ params.mode }}", "--n", "${{ params.workers }}"],
            "env": [{"name": "A", "value": "t"}, {"name": "B", "value": "t"}],
            "nodeSelector": {"pool": "gpu", "zone": "a"},
            "resources": {"limits": {"nvidia.com/gpu": 8, "cpu": "4"}},
            "podTemplate": {"spec": {"containers": [{"name": "main", "image": "x"}, {"name": "side", "image": "s:1"}]}},
        },
    })
}

fn workflow(spec: Value) -> Value {
    let mut document = json!({"apiVersion": "flowforge.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": "wf"}});
    document["spec"] = spec;
    document
}

/// A workflow of one node with these fields, made from [`trainer`] with these parameters.
fn of_trainer(fields: Value, reference: Value) -> Value {
    let mut template = json!({"name": "train", "parameters": {"workers": 2}});
    let mut node = json!({"id": "a"});
    for (target, more) in [(&mut template, reference), (&mut node, fields)] {
        if let (Some(target), Value::Object(more)) = (target.as_object_mut(), more) {
            target.extend(more);
        }
    }
    node["template"] = template;
    workflow(json!({"templates": [trainer()], "nodes": [node]}))
}

#[track_caller]
fn nodes(document: &Value) -> Vec<Value> {
    let options = Options { strict: true, ..Options::default() };
    match compile(document, options) {
        Ok(compiled) => {
            let spec = compiled.spec.unwrap_or_else(|| document["spec"].clone());
            spec["nodes"].as_array().cloned().unwrap_or_default()
        }
        Err(errors) => panic!("{errors:?}"),
    }
}

#[track_caller]
fn refused(document: &Value, expected: &[&str]) {
    let options = Options { strict: true, ..Options::default() };
    let errors = compile(document, options).expect_err("it is wrong");
    let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.contains(expected), "{told:?} does not contain {expected:?}");
    }
}

#[test]
fn a_node_is_its_template_with_parameters_filled_and_its_own_fields_over_it() {
    let own = json!({
        "dependsOn": [], "image": "train:2", "env": [{"name": "B", "value": "n"}, {"name": "C", "value": "n"}],
        "nodeSelector": {"zone": "b"}, "resources": {"limits": {"cpu": "8"}},
    });
    let made = &nodes(&of_trainer(own, json!({"parameters": {"workers": 4, "lr": 1}})))[0];
    assert_eq!(made["replicas"], json!(4));
    assert_eq!(made["image"], json!("train:2"));
    assert_eq!(made["args"], json!(["--lr=1.0", "--mode", "fast", "--n", "4"]));
    let env = json!([{"name": "A", "value": "t"}, {"name": "B", "value": "n"}, {"name": "C", "value": "n"}]);
    assert_eq!(made["env"], env);
    assert_eq!(made["nodeSelector"], json!({"pool": "gpu", "zone": "b"}));
    assert_eq!(made["resources"]["limits"], json!({"nvidia.com/gpu": 8, "cpu": "8"}));
    assert_eq!((made.get("template"), &made["id"]), (None, &json!("a")));
    // As the API server stores a node that says nothing of replicas.
    let made = &nodes(&of_trainer(json!({"replicas": 1}), json!({"parameters": {"workers": 4}})))[0];
    assert_eq!(made["replicas"], json!(4));
    let made = &nodes(&of_trainer(json!({"replicas": 3}), json!({"parameters": {"workers": 4}})))[0];
    assert_eq!(made["replicas"], json!(3));
}

#[test]
fn patches_come_between_the_template_and_the_nodes_own_fields() {
    let patches = json!([
        {"strategic": {"podTemplate": {"spec": {"containers": [{"name": "side", "image": "s:2"}]}}}},
        {"merge": {"nodeSelector": {"pool": null}}},
        {"json": [{"op": "replace", "path": "/replicas", "value": 3}, {"op": "add", "path": "/args/-", "value": "${{ params.who }}"}]},
    ]);
    let mut document = of_trainer(json!({"nodeSelector": {"own": "1"}}), json!({"patches": patches}));
    document["spec"]["parameters"] = json!([{"name": "who", "value": "me"}]);
    let made = &nodes(&document)[0];
    assert_eq!(made.pointer("/podTemplate/spec/containers/1/image"), Some(&json!("s:2")));
    assert_eq!(made.pointer("/podTemplate/spec/containers/0/image"), Some(&json!("x")));
    assert_eq!(made["nodeSelector"], json!({"zone": "a", "own": "1"}));
    assert_eq!(made["replicas"], json!(3));
    assert_eq!(made["args"][5], json!("me"), "a patch knows the workflow's parameters");
}

#[test]
fn a_workflows_parameters_have_types_defaults_and_values() {
    let document = workflow(json!({
        "parameters": [
            {"name": "tag", "default": "v1"},
            {"name": "n", "type": "int", "value": 3},
            {"name": "sizes", "type": "list", "value": [1, 2]},
            {"name": "opts", "type": "map", "default": {"a": true}},
        ],
        "nodes": [
            {"id": "a", "image": "i:${{ params.tag }}", "args": ["${{ params.n + 1 }}", "${{ params.sizes }}", "${{ params.opts.a ? 'y' : 'n' }}"]},
            {"id": "b", "image": "i", "args": ["$${{ not.filled }}", "{{ jinja }}"]},
            {"id": "c", "image": "i", "dependsOn": ["a", "b"]},
        ],
    }));
    let made = nodes(&document);
    assert_eq!(made[0]["image"], json!("i:v1"));
    assert_eq!(made[0]["args"], json!(["4", "[1,2]", "y"]));
    let mut escaped = made[1].clone();
    finish(&mut escaped, &[]).expect("nothing waits");
    assert_eq!(escaped["args"], json!(["${{ not.filled }}", "{{ jinja }}"]));
    assert_eq!(made[2], document["spec"]["nodes"][2], "a plain node stays as it is");
}

#[test]
fn a_workflow_without_any_of_it_is_its_own_plain_form() {
    let document =
        workflow(json!({"nodes": [{"id": "a", "image": "i"}], "parameters": [{"name": "x", "default": "1"}]}));
    assert_eq!(compile(&document, Options::default()).map(|compiled| compiled.spec), Ok(None));
}

#[test]
fn mistakes_in_parameters_name_the_place_and_the_cure() {
    let with = |parameters: Value, args: Value| {
        workflow(json!({"parameters": parameters, "nodes": [{"id": "a", "image": "i", "args": args}]}))
    };
    refused(
        &with(json!([{"name": "lr", "type": "float"}]), json!([])),
        &["spec.parameters[0]: parameter lr has no value; add value or default, or give it: flowforge submit -p lr=…"],
    );
    refused(
        &with(json!([{"name": "n", "type": "int", "value": "4"}]), json!([])),
        &["spec.parameters[0].value: must be of type int, is a text; write a whole number like 8"],
    );
    refused(
        &with(json!([{"name": "n", "value": 4}]), json!([])),
        &["spec.parameters[0].value: must be of type string, is a number; put it in quotes: \"4\""],
    );
    refused(
        &with(json!([{"name": "m", "enum": ["a", "b"], "value": "c"}]), json!([])),
        &["spec.parameters[0].value: \"\\\"c\\\"\" is not allowed; write one of \"a\", \"b\""],
    );
    refused(
        &with(json!([{"name": "a-b", "value": "x"}, {"name": "c", "typ": "int", "value": "1"}]), json!([])),
        &[
            "spec.parameters[0].name: \"a-b\" is no name of a parameter",
            "spec.parameters[1].typ: unknown field \"typ\"; did you mean \"type\"?",
        ],
    );
    refused(
        &with(
            json!([{"name": "a", "type": "integer", "value": 1}, {"name": "b", "value": "1"}, {"name": "b", "value": "2"}]),
            json!([]),
        ),
        &[
            "spec.parameters[0].type: \"integer\" is none of string, int, float, bool, list, map",
            "spec.parameters[2].name: \"b\" is there twice",
        ],
    );
    refused(
        &with(json!([{"name": "lr", "value": "1"}]), json!(["${{ params.rl }}"])),
        &["spec.nodes[0].args[0]: ${{ params.rl }}: no parameter \"rl\" is declared; declared are lr"],
    );
    refused(&with(json!([{"name": "lr", "value": "1"}]), json!(["${{ params.lr * 2 }}"])), &["spec.nodes[0].args[0]"]);
}

#[test]
fn mistakes_in_references_name_the_place_and_the_cure() {
    refused(
        &of_trainer(json!({}), json!({"name": "trian"})),
        &["spec.nodes[0].template.name: there is no template \"trian\"; did you mean \"train\"?"],
    );
    let mut none = of_trainer(json!({}), json!({}));
    none["spec"]["templates"] = json!([]);
    refused(&none, &["create the WorkTemplate in the workflow's namespace first, or write it into spec.templates"]);
    refused(
        &of_trainer(json!({}), json!({"parameters": {"worker": 2}})),
        &[
            "spec.nodes[0].template.parameters.worker: the template has no parameter \"worker\"; did you mean \"workers\"?",
            "spec.nodes[0].template.parameters: parameter workers has no value; add workers: …",
        ],
    );
    refused(
        &of_trainer(json!({}), json!({"parameters": {"workers": 2, "mode": "medium"}})),
        &["spec.nodes[0].template.parameters.mode: \"\\\"medium\\\"\" is not allowed; write one of \"fast\", \"slow\""],
    );
    refused(
        &of_trainer(json!({}), json!({"parameters": {"workers": 0}})),
        &["spec.nodes[0](template train).replicas: must be at least 1, is 0"],
    );
    refused(&of_trainer(json!({"imgae": "x"}), json!({})), &["spec.nodes[0](template train).imgae: unknown field"]);
    refused(
        &of_trainer(json!({}), json!({"patches": [{"json": [{"op": "remove", "path": "/x"}]}]})),
        &["spec.nodes[0].template.patches[0].json: cannot be applied"],
    );
}

#[test]
fn a_template_is_checked_by_itself() {
    let check = |mut spec: Value| {
        if let Some(fields) = spec.as_object_mut() {
            fields.remove("name");
        }
        let document = json!({"kind": "WorkTemplate", "metadata": {"name": "t"}, "spec": spec});
        let errors = check_template(&document, Options { strict: true, ..Options::default() });
        errors.iter().map(ToString::to_string).collect::<Vec<String>>()
    };
    assert_eq!(check(trainer()), Vec::<String>::new());
    let one = |spec: Value, expected: &str| {
        let told = check(spec);
        assert!(told.len() == 1 && told[0].contains(expected), "{told:?}");
    };
    one(json!({}), "spec: has no node");
    one(json!({"node": {"id": "a", "image": "i"}}), "spec.node.id: belongs to the node of a workflow");
    one(json!({"node": {"imgae": "i"}}), "spec.node.imgae: unknown field \"imgae\"; did you mean \"image\"?");
    one(
        json!({"node": {"args": ["${{ params.lr }}"]}}),
        "spec.node.args[0]: ${{ params.lr }}: no parameter \"lr\" is declared",
    );
    one(json!({"node": {"args": ["${{ 1 + }}"]}}), "spec.node.args[0]");
    one(
        json!({"parameters": [{"name": "n", "type": "int", "default": "1"}], "node": {}}),
        "spec.parameters[0].default",
    );
}

#[test]
fn templates_from_elsewhere_are_known_by_name_and_others_are_not_asked_for() {
    let mut document = of_trainer(json!({}), json!({"parameters": {"workers": 0}}));
    document["spec"]["templates"] = json!([]);
    document["spec"]["nodes"]
        .as_array_mut()
        .expect("nodes")
        .push(json!({"id": "b", "template": {"name": "far"}, "replicas": 0}));
    let mut spec = trainer();
    spec.as_object_mut().map(|fields| fields.remove("name"));
    let elsewhere = BTreeMap::from([("train".to_owned(), spec)]);
    let options = Options { strict: true, templates: Templates::These(&elsewhere), ..Options::default() };
    let told: Vec<String> = compile(&document, options).expect_err("wrong").iter().map(|e| e.path.clone()).collect();
    assert_eq!(told, ["spec.nodes[0](template train).replicas", "spec.nodes[1](template far).replicas"]);
    assert_eq!(templates_wanted(&document["spec"]), ["train", "far"]);
}

#[test]
fn a_template_that_outgrows_memory_when_it_is_put_in_is_refused() {
    let large = json!({"name": "large", "node": {"image": "i", "annotations": {"a": "x".repeat(100_000)}}});
    let nodes: Vec<Value> = (0..400).map(|at| json!({"id": format!("n{at}"), "template": {"name": "large"}})).collect();
    let document = workflow(json!({"templates": [large], "nodes": nodes}));
    refused(&document, &["spec.nodes: have more than 33554432 bytes as JSON with templates and `for` put in"]);
}

#[test]
fn no_text_and_no_reference_does_harm() {
    let values = [
        json!(null),
        json!(3),
        json!("${{"),
        json!("${{ }}"),
        json!("${{ params }}"),
        json!("${{ '"),
        json!([]),
        json!({}),
        json!({"name": 3}),
        json!({"name": "train", "parameters": 3, "patches": 4}),
        json!({"name": "train", "patches": [[]]}),
        json!({"name": "train", "parameters": {"workers": "${{ params.x }}"}, "patches": [{"json": [{}]}, {"strategic": []}]}),
        json!([{"name": "x", "type": [], "enum": {}, "value": {}}, 3, [], {"name": {}}]),
        json!([{"name": "t", "node": []}, {"name": [], "node": {}}, {"node": {"args": "${{ x"}}]),
    ];
    for key in ["template", "args", "replicas", "podTemplate", "id"] {
        for value in &values {
            let mut document = of_trainer(json!({}), json!({}));
            document["spec"]["nodes"][0][key] = value.clone();
            drop(compile(&document, Options { strict: true, ..Options::default() }));
        }
    }
    for key in ["parameters", "templates"] {
        for value in &values {
            let mut spec = Map::from_iter([("nodes".to_owned(), json!([{"id": "a", "template": {"name": "t"}}]))]);
            spec.insert(key.to_owned(), value.clone());
            drop(compile(&workflow(Value::Object(spec)), Options { strict: true, ..Options::default() }));
        }
    }
}

fn reading(nodes: Value) -> Value {
    workflow(json!({"parameters": [{"name": "best", "type": "float", "default": 0.5}], "nodes": nodes}))
}

fn train() -> Value {
    json!({"id": "train", "image": "i", "outputs": [{"name": "loss", "type": "float"}, {"name": "path"}]})
}

#[test]
fn a_node_reads_outputs_and_phases_of_those_that_it_waits_for() {
    let document = reading(json!([
        train(),
        {"id": "eval", "image": "i", "dependsOn": ["train"], "when": "outputs.train.loss < params.best"},
        {"id": "tell", "image": "i", "dependsOn": [{"node": "train", "on": "Completed"}],
            "args": ["${{ phases.train }}", "--best=${{ params.best }}", "$${{ x }}"], "env": [{"name": "P", "value": "${{ outputs.train.path }}"}]},
        {"id": "plain", "image": "i", "dependsOn": ["train"]},
    ]));
    let compiled = compile(&document, Options { strict: true, ..Options::default() }).expect("it is good");
    let gated: Vec<bool> = compiled.dag.ids().map(|at| compiled.dag.node(at).gated).collect();
    assert_eq!(gated, [false, true, true, false]);
    let unfinished: Vec<u32> = compiled.unfinished.iter().map(|at| at.0).collect();
    assert_eq!(unfinished, [2]);
    let mut tell = compiled.spec.expect("texts were filled")["nodes"][2].clone();
    assert_eq!(tell["args"], json!(["${{ phases.train }}", "--best=0.5", "$${{ x }}"]), "what is known is filled");
    let (params, outputs, phases) = (compiled.params, json!({"train": {"path": "/m"}}), json!({"train": "Failed"}));
    finish(&mut tell, &[("params", &params), ("outputs", &outputs), ("phases", &phases)]).expect("all is known");
    assert_eq!(tell["args"], json!(["Failed", "--best=0.5", "${{ x }}"]));
    assert_eq!(tell["env"][0]["value"], json!("/m"));
}

#[test]
fn a_template_gets_what_its_node_reads_by_parameters() {
    let template = json!({"name": "t", "parameters": [{"name": "from"}, {"name": "n", "type": "int", "default": 2}],
        "node": {"image": "i", "args": ["--from=${{ params.from }}/${{ params.n }}"]}});
    let mut document = reading(json!([
        train(),
        {"id": "next", "dependsOn": ["train"], "template": {"name": "t", "parameters": {"from": "${{ outputs.train.path }}"}}},
    ]));
    document["spec"]["templates"] = json!([template]);
    let compiled = compile(&document, Options { strict: true, ..Options::default() }).expect("it is good");
    let mut next = compiled.spec.expect("filled")["nodes"][1].clone();
    finish(&mut next, &[("outputs", &json!({"train": {"path": "/m"}})), ("params", &compiled.params)]).expect("known");
    assert_eq!(next["args"], json!(["--from=/m/2"]));
}

#[test]
fn mistakes_in_what_is_read_name_the_place_and_the_cure() {
    let one = |fields: Value| {
        let mut node = json!({"id": "a", "image": "i", "dependsOn": ["train"]});
        if let (Some(node), Value::Object(fields)) = (node.as_object_mut(), fields) {
            node.extend(fields);
        }
        reading(json!([train(), node]))
    };
    refused(
        &one(json!({"dependsOn": [], "when": "outputs.train.loss > 1.0"})),
        &["spec.nodes[1]: reads of \"train\", but does not wait for it; add train to dependsOn"],
    );
    refused(
        &one(json!({"args": ["${{ outputs.trian.loss }}"]})),
        &["spec.nodes[1]: reads of \"trian\", which is no node"],
    );
    refused(
        &one(json!({"when": "outputs.train.los > 1.0"})),
        &["spec.nodes[1]: node train declares no output \"los\"; declared are loss, path"],
    );
    refused(&one(json!({"when": "1 + 1"})), &["spec.nodes[1].when: its value is neither true nor false"]);
    refused(&one(json!({"when": "params.bset > 1.0"})), &["spec.nodes[1].when: no parameter \"bset\" is declared"]);
    refused(
        &one(json!({"when": "size(outputs) > 1"})),
        &["spec.nodes[1].when: outputs is used without the id of a node"],
    );
    refused(&one(json!({"when": true})), &["spec.nodes[1].when: must be a text"]);
    refused(&one(json!({"when": "outputs.train.loss >"})), &["spec.nodes[1].when"]);
    refused(
        &one(json!({"nodeSelector": {"a": "${{ outputs.train.path }}"}})),
        &[
            "spec.nodes[1].nodeSelector: waits for upstream nodes, but must be known when the workflow is submitted",
            "spec.nodes[1].nodeSelector.a: ",
        ],
    );
    refused(
        &one(
            json!({"outputs": [{"name": "a-b"}, {"name": "c", "type": "int", "default": "x"}, {"name": "d", "collect": "driver"}]}),
        ),
        &[
            "spec.nodes[1].outputs[0].name: \"a-b\" is no name of an output",
            "spec.nodes[1].outputs[1].default: must be of type int, is a text",
            "spec.nodes[1].outputs[2].collect: \"driver\" is no role of this node; write worker",
        ],
    );
}

#[track_caller]
fn ids(document: &Value) -> Vec<String> {
    nodes(document).iter().map(|node| node["id"].as_str().unwrap_or("?").to_owned()).collect()
}

#[test]
fn a_node_runs_once_for_each_item() {
    let document = reading(json!([
        {"id": "sweep", "image": "i", "for": {"items": [{"lr": 0.1}, {"lr": 0.2}]}, "outputs": [{"name": "loss", "type": "float"}],
            "args": ["--lr=${{ item.lr }}", "--n=${{ index }}"], "when": "item.lr > 0.15 || index == 0"},
        {"id": "pick", "image": "i", "dependsOn": [{"node": "sweep", "on": "Completed"}], "args": ["${{ outputs.sweep.loss }}"]},
        {"id": "tail", "image": "i", "dependsOn": ["pick"], "for": {"count": 2}},
        {"id": "steps", "image": "i", "for": {"range": {"from": 4, "to": 0, "step": -2}}, "args": ["${{ item }}"]},
    ]));
    let made = nodes(&document);
    assert_eq!(ids(&document), ["sweep-0", "sweep-1", "pick", "tail-0", "tail-1", "steps-0", "steps-1"]);
    assert_eq!(made[1]["args"], json!(["--lr=0.2", "--n=1"]));
    let depends = json!([{"node": "sweep-0", "on": "Completed"}, {"node": "sweep-1", "on": "Completed"}]);
    assert_eq!(made[2]["dependsOn"], depends);
    assert_eq!((&made[5]["args"], &made[6]["args"]), (&json!(["4"]), &json!(["2"])));
    let compiled = compile(&document, Options::default()).expect("good");
    assert_eq!(compiled.groups["sweep"], 0..2);
    let whens: Vec<&str> = made.iter().filter_map(|node| node["when"].as_str()).collect();
    let holds = |when: &str| {
        let expression = expr::compile(when, &["params"]).expect("it compiles");
        expr::Variables(&[]).evaluate(&expression).expect("it knows its item")
    };
    assert_eq!(whens.into_iter().map(holds).collect::<Vec<_>>(), [json!(true), json!(true)]);
}

#[test]
fn items_of_an_upstream_node_are_known_later_and_what_is_beyond_them_is_passed_over() {
    let document = reading(json!([
        {"id": "split", "image": "i", "outputs": [{"name": "shards", "type": "list"}]},
        {"id": "work", "image": "i", "dependsOn": ["split"], "for": {"items": "${{ outputs.split.shards }}", "limit": 3},
            "args": ["${{ item }}", "${{ index }}"], "when": "item != 'skip'"},
        {"id": "join", "image": "i", "dependsOn": ["work"]},
    ]));
    let compiled = compile(&document, Options { strict: true, ..Options::default() }).expect("good");
    assert_eq!(compiled.dag.len(), 5);
    let made = compiled.spec.expect("unrolled")["nodes"].clone();
    let outputs = json!({"split": {"shards": ["a", "skip"]}});
    let variables = [("params", &compiled.params), ("outputs", &outputs)];
    let holds = |at: usize| {
        let code = made[at]["when"].as_str().expect("a condition");
        let expression = expr::compile(code, &["params", "outputs", "phases"]).expect("it compiles");
        expr::Variables(&variables).evaluate(&expression)
    };
    assert_eq!([holds(1), holds(2), holds(3)], [Ok(json!(true)), Ok(json!(false)), Ok(json!(false))]);
    let mut first = made[1].clone();
    finish(&mut first, &variables).expect("known");
    assert_eq!(first["args"], json!(["a", "0"]));
}

#[test]
fn mistakes_in_a_loop_name_the_place_and_the_cure() {
    let one = |value: Value| reading(json!([{"id": "a", "image": "i", "for": value}]));
    refused(
        &one(json!({"items": [1], "count": 2})),
        &["spec.nodes[0].for: must hold exactly one of items, count and range"],
    );
    refused(&one(json!({"items": "abc"})), &["spec.nodes[0].for.items: must be a list, is a text"]);
    refused(&one(json!({"count": -1})), &["spec.nodes[0].for.count: must be at least 0"]);
    refused(
        &one(json!({"count": 5, "limit": 4})),
        &["spec.nodes[0].for.count: has 5 items, at most 4 are possible; raise limit"],
    );
    refused(&one(json!({"range": {"from": 1}})), &["spec.nodes[0].for.range: has no to"]);
    refused(&one(json!({"range": {"to": 9, "step": 0}})), &["spec.nodes[0].for.range.step: must not be 0"]);
    refused(
        &one(json!({"itmes": [1]})),
        &[
            "spec.nodes[0].for.itmes: unknown field \"itmes\"; did you mean \"items\"?",
            "spec.nodes[0].for: must hold exactly one",
        ],
    );
    let clash = reading(json!([{"id": "a", "image": "i", "for": {"count": 2}}, {"id": "a-1", "image": "i"}]));
    refused(&clash, &["spec.nodes[1].id: \"a-1\" is there twice"]);
    let many = reading(json!([
        {"id": "a", "image": "i", "for": {"count": 9000}}, {"id": "b", "image": "i", "for": {"count": 9000}},
        {"id": "c", "image": "i", "for": {"count": 9000}},
    ]));
    refused(&many, &["stand for more than 20000 nodes with every `for`"]);
    let unknown = reading(json!([{"id": "a", "image": "i", "for": {"items": "${{ outputs.b.c }}"}}]));
    assert!(compile(&unknown, Options::default()).is_err());
}
