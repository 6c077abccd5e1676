//! Templates and parameters on a real control plane: what runs is what was frozen, and what is wrong is refused.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dag;

use dag::{Setup, condition, in_turn, on_testbed, workflow};
use flowforge_api::WorkTemplate;
use flowforge_api::workflow::WorkflowPhase;
use flowforge_tests::install::CONTROLLER;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

fn template(image: &str) -> Value {
    json!({
        "apiVersion": "flowforge.dev/v1alpha1", "kind": "WorkTemplate", "metadata": {"name": "train"},
        "spec": {
            "parameters": [{"name": "workers", "type": "int"}, {"name": "lr", "type": "float", "default": 0.1}],
            "node": {
                "image": image, "replicas": "${{ params.workers }}", "args": ["--lr=${{ params.lr }}"],
                "annotations": {"testbed.flowforge.dev/run-ms": "600000"},
                "resources": {"requests": {"cpu": "10m"}},
                "podTemplate": {"spec": {"containers": [{"name": "main"}, {"name": "side", "image": "side:1"}]}},
            },
        },
    })
}

async fn apply_template(world: &dag::World, namespace: &str, template: &Value) -> Result<(), String> {
    let api: Api<WorkTemplate> = Api::namespaced(world.testbed.client().clone(), namespace);
    let params = PatchParams::apply("test").force();
    api.patch("train", &params, &Patch::Apply(template)).await.map(drop).map_err(|error| error.to_string())
}

fn nodes() -> Value {
    json!([
        {"id": "first", "template": {"name": "train", "parameters": {"workers": "${{ params.size }}", "lr": 1},
            "patches": [{"strategic": {"podTemplate": {"spec": {"containers": [{"name": "side", "image": "side:2"}]}}}}]}},
        {"id": "second", "dependsOn": ["first"], "template": {"name": "train", "parameters": {"workers": 1}}},
    ])
}

#[test]
fn a_workflow_runs_on_with_the_templates_it_began_with() {
    in_turn(Setup::default(), |world| async move {
        world.namespace("frozen").await;
        apply_template(world, "frozen", &template("train:1")).await.unwrap();
        let parameters = json!({"parameters": [{"name": "size", "type": "int", "value": 2}]});
        world.submit("frozen", "wf", nodes(), parameters).await;
        world.runs("frozen", "wf", "first", 2).await;
        for pod in world.members("frozen", "wf", "first").await {
            let spec = pod.spec.as_ref().unwrap();
            let images: Vec<&str> = spec.containers.iter().filter_map(|c| c.image.as_deref()).collect();
            assert_eq!(images, ["train:1", "side:2"], "the patch concerns its own reference");
            assert_eq!(spec.containers[0].args.as_deref(), Some(["--lr=1.0".to_owned()].as_slice()));
        }
        let stored = world.workflows("frozen").get("wf").await.unwrap();
        let names: Vec<&str> = stored.spec.templates.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["train"], "its copy is part of the spec, once");
        // The template changes, and the controller starts again: the second node is that of the first sight.
        apply_template(world, "frozen", &template("train:2")).await.unwrap();
        world.testbed.kill(CONTROLLER).unwrap();
        world.testbed.respawn(CONTROLLER).unwrap();
        for pod in world.members("frozen", "wf", "first").await {
            world.end("frozen", &pod.name_any(), 0).await;
        }
        world.runs("frozen", "wf", "second", 1).await;
        let second = &world.members("frozen", "wf", "second").await[0];
        let spec = second.spec.as_ref().unwrap();
        assert_eq!(spec.containers[0].image.as_deref(), Some("train:1"));
        assert_eq!(spec.containers[1].image.as_deref(), Some("side:1"));
        world.end("frozen", &second.name_any(), 0).await;
        let done = world.reaches("frozen", "wf", WorkflowPhase::Succeeded).await;
        assert_eq!(condition(&done, "Accepted"), Some("True"));
        // Whoever applies the same file again changes nothing, although the template is another now.
        let mut again = workflow("wf", nodes(), json!({"parameters": stored.spec.parameters}));
        again.spec.ttl_seconds_after_finished = Some(3600);
        again.metadata.resource_version = world.workflows("frozen").get("wf").await.unwrap().metadata.resource_version;
        let replaced = world.workflows("frozen").replace("wf", &PostParams::default(), &again).await.unwrap();
        assert_eq!(replaced.spec.templates, stored.spec.templates);
        world.assert_nothing_was_forbidden();
    });
}

#[test]
fn what_is_wrong_with_a_template_or_a_reference_is_refused_with_its_place() {
    on_testbed(Setup::default(), |world| async move {
        world.namespace("wrong").await;
        let refused = |nodes: Value, more: Value| async move {
            let object = workflow("wf", nodes, more);
            match world.workflows("wrong").create(&PostParams::default(), &object).await {
                Ok(_) => panic!("{object:?} was taken"),
                Err(error) => error.to_string(),
            }
        };
        let size = json!({"parameters": [{"name": "size", "type": "int", "value": 2}]});
        let refusal = refused(nodes(), size.clone()).await;
        assert!(refusal.contains("there is no template \"train\"; create the WorkTemplate"), "{refusal}");
        apply_template(world, "wrong", &template("train:1")).await.unwrap();
        let refusal = refused(nodes(), json!({})).await;
        assert!(refusal.contains("spec.nodes[0].template.parameters.workers"), "{refusal}");
        let refusal = refused(nodes(), json!({"parameters": [{"name": "size", "type": "int", "value": "2"}]})).await;
        assert!(refusal.contains("spec.parameters[0].value: must be of type int"), "{refusal}");
        let mut bad = template("train:1");
        bad["spec"]["node"]["args"][0] = json!("${{ params.rl }}");
        let refusal = apply_template(world, "wrong", &bad).await.unwrap_err();
        assert!(refusal.contains("spec.node.args[0]") && refusal.contains("declared are lr, workers"), "{refusal}");
    });
}

#[test]
fn a_reference_that_slipped_past_the_webhook_is_refused_by_the_controller() {
    on_testbed(Setup::default(), |world| async move {
        // The webhooks do not ask in the namespaces of the system.
        let object = workflow("templates", json!([{"id": "a", "template": {"name": "nowhere"}}]), json!({}));
        world.workflows("kube-system").create(&PostParams::default(), &object).await.unwrap();
        let refused = world.reaches("kube-system", "templates", WorkflowPhase::Failed).await;
        let status = refused.status.as_ref().unwrap();
        assert_eq!(status.reason.as_deref(), Some("InvalidSpec"));
        assert_eq!(condition(&refused, "Accepted"), Some("False"));
        let message = status.message.as_deref().unwrap_or_default();
        assert!(message.contains("spec.nodes[0].template.name: there is no template \"nowhere\""), "{message}");
    });
}
