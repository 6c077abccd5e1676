//! A workflow as it runs: templates, parameters and `for` put into its nodes, as the controller puts them in.

use flowforge_api::Workflow;
use flowforge_dag_controller_core::frontend::{self, Levels, Options};

/// The same workflow with plain nodes, whose ids are those of its status. One that does not compile stays as it is.
pub(crate) fn plain(mut workflow: Workflow) -> Workflow {
    let spec = &workflow.spec;
    let is_plain = |node: &flowforge_api::workflow::WorkflowNode| node.template.is_none() && node.items.is_none();
    if spec.parameters.is_empty() && spec.nodes.iter().all(is_plain) {
        return workflow;
    }
    let document = serde_json::to_value(&workflow).unwrap_or_default();
    let options = Options { levels: Levels::Any, ..Options::default() };
    let made = frontend::compile(&document, options).ok().and_then(|compiled| compiled.spec);
    if let Some(spec) = made.and_then(|spec| serde_json::from_value(spec).ok()) {
        workflow.spec = spec;
    }
    workflow
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nodes_are_those_that_run() {
        let workflow = json!({
            "apiVersion": "flowforge.dev/v1alpha1", "kind": "Workflow", "metadata": {"name": "wf"},
            "spec": {
                "templates": [{"name": "t", "parameters": [{"name": "size", "type": "int"}],
                    "node": {"image": "i", "replicas": "${{ params.size }}"}}],
                "nodes": [
                    {"id": "a", "template": {"name": "t", "parameters": {"size": 3}}},
                    {"id": "b", "image": "i", "for": {"count": 2}},
                ],
            },
        });
        let workflow = plain(serde_json::from_value(workflow).expect("a workflow"));
        let nodes: Vec<(&str, i32)> = workflow.spec.nodes.iter().map(|n| (n.id.as_str(), n.replicas)).collect();
        assert_eq!(nodes, [("a", 3), ("b-0", 1), ("b-1", 1)]);
    }
}
