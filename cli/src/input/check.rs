//! The checks of the admission webhook, offline: both call the same function.

use flowforge_dag_controller_check::{check, is_template};
use flowforge_dag_controller_core::frontend::{DEFAULT_LEVELS, Levels, Options, Templates};
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

use super::documents::Document;
use crate::render::style::{Style, Tone, printable};

/// Specs of WorkTemplates by name.
pub(crate) type Known = BTreeMap<String, Value>;

/// The WorkTemplates among the documents.
pub(crate) fn templates_of(documents: &[Document]) -> Known {
    let templates = documents.iter().map(|document| &document.value).filter(|value| is_template(value));
    templates
        .filter_map(|value| {
            let name = value.pointer("/metadata/name")?.as_str()?;
            Some((name.to_owned(), value.get("spec")?.clone()))
        })
        .collect()
}

/// One thing that is wrong with a document.
#[derive(Clone, Debug, Eq, PartialEq, Serialize)]
pub(crate) struct Problem {
    /// The field, as `spec.nodes[2].image`.
    pub(crate) path: String,
    pub(crate) problem: String,
    pub(crate) fix: String,
}

impl Problem {
    /// Two lines: where and what, then the fix.
    pub(crate) fn text(&self, source: &str, style: Style) -> String {
        let colon = if self.path.is_empty() { "" } else { ": " };
        let path = format!("{}{colon}", style.paint(Tone::Strong, &self.path));
        let mut text = format!("{source}: {path}{}\n", style.paint(Tone::Bad, &printable(&self.problem)));
        if !self.fix.is_empty() {
            text.push_str(&format!("  fix: {}\n", printable(&self.fix)));
        }
        text
    }
}

/// Everything that is wrong with a document, in the order of the text.
///
/// Unknown fields are wrong here, although the API server would only warn of them: whoever writes `replica: 4` must
/// not get one pod.
///
/// Of templates those in the document and in `templates` are known; what is made from others, the webhook checks.
pub(crate) fn problems(document: &Value, levels: Levels<'_>, templates: &Known) -> Vec<Problem> {
    let errors = check(document, Options { strict: true, levels, templates: Templates::These(templates) });
    errors.into_iter().map(|e| Problem { path: e.path, problem: e.problem, fix: e.fix }).collect()
}

/// The same where nobody said which topology levels the cluster has.
pub(crate) fn problems_by_default_levels(document: &Value, templates: &Known) -> Vec<Problem> {
    let mut problems = problems(document, Levels::These(DEFAULT_LEVELS), templates);
    for problem in problems.iter_mut().filter(|p| p.problem.ends_with("is no topology level")) {
        problem.fix.push_str("; name the cluster's own levels with --levels");
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::documents;
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(text: &str, expected: &Expect) {
        let documents = documents::parse("f.yaml", text).expect("yaml");
        let text: String = problems_by_default_levels(&documents[0].value, &templates_of(&documents))
            .iter()
            .map(|p| p.text("f.yaml", Style::default()))
            .collect();
        expected.assert_eq(&text);
    }

    #[test]
    fn each_problem_has_its_place_and_its_fix() {
        check(
            "
apiVersion: flowforge.dev/v1alpha1
kind: Workflow
metadata: {name: d}
spec:
  nodes:
  - {id: a, replicas: 0, dependsOn: [b]}
  - {id: b, image: i, replica: 2, dependsOn: [a, trian]}
",
            &expect![[r#"
                f.yaml: spec.nodes[0].replicas: must be at least 1, is 0
                  fix: write a number from 1 to 8192
                f.yaml: spec.nodes[0]: has no image
                  fix: add image, or a podTemplate whose main container has one
                f.yaml: spec.nodes[1].replica: unknown field "replica"
                  fix: did you mean "replicas"? Else remove it
                f.yaml: spec.nodes[1].dependsOn[1]: no node has the id "trian"
                  fix: add a node with this id, or remove the entry
                f.yaml: spec.nodes[0].dependsOn: these nodes wait for each other: a -> b -> a
                  fix: an arrow means 'runs before': remove one of these dependsOn entries
            "#]],
        );
    }

    #[test]
    fn a_level_that_is_no_default_may_be_one_of_the_clusters_own() {
        check(
            "workflow: {name: d, nodes: [{id: a, image: i, topology: {required: pod}}]}",
            &expect![[r#"
                f.yaml: workflow.nodes[0].topology.required: "pod" is no topology level
                  fix: write one of zone, block, rack, nvlink, host; name the cluster's own levels with --levels
            "#]],
        );
        let text = "workflow: {name: d, nodes: [{id: a, image: i, topology: {required: pod}}]}";
        let documents = documents::parse("f.yaml", text).expect("yaml");
        let none = Known::new();
        assert_eq!(problems(&documents[0].value, Levels::These(&["pod"]), &none), []);
        assert_eq!(problems(&documents[0].value, Levels::Any, &none), []);
    }

    #[test]
    fn a_pod_template_is_checked_against_kubernetes_own_types() {
        check(
            "workflow: {name: d, nodes: [{id: a, podTemplate: {spec: {containers: [{name: main, image: i, imgae: j}]}}}]}",
            &expect![[r#"
                f.yaml: workflow.nodes[0].podTemplate.spec.containers[0].imgae: is no field of a pod template
                  fix: check its name and its place; indentation moves fields
            "#]],
        );
    }

    #[test]
    fn templates_of_the_input_are_known_and_others_are_the_webhooks_to_check() {
        let template = "kind: WorkTemplate\nmetadata: {name: t}\nspec: {parameters: [{name: size, type: int}], \
            node: {image: i, replicas: '${{ params.size }}'}}\n";
        let of = |name: &str, n: &str| {
            format!(
                "workflow: {{name: d, nodes: [{{id: a, template: {{name: {name}, parameters: {{size: {n}}}}}}}]}}\n---\n{template}"
            )
        };
        check(&of("t", "2"), &expect![[r#""#]]);
        check(&of("elsewhere", "2"), &expect![[r#""#]]);
        check(
            &of("t", "0"),
            &expect![[r#"
                f.yaml: workflow.nodes[0](template t).replicas: must be at least 1, is 0
                  fix: write a number from 1 to 8192
            "#]],
        );
    }

    #[test]
    fn the_bare_form_is_checked_as_well() {
        check("workflow: {name: d, storage: {claimRef: nas}, nodes: [{id: a, image: i}]}", &expect![[r#""#]]);
        check(
            "workflow: {name: d, nodes: []}",
            &expect![[r#"
            f.yaml: workflow.nodes: is empty
              fix: add at least one node: {id: …, image: …}
        "#]],
        );
    }
}
