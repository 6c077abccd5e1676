//! The list of workflows.

use comfy_table::{Table, presets};
use flowforge_api::Workflow;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::duration;
use super::style::{Style, printable, tone_of_workflow};

/// One row per workflow, oldest first; with a namespace column where several namespaces are meant.
pub(crate) fn workflows(items: &[Workflow], with_namespace: bool, now: Timestamp, style: Style) -> String {
    let mut items: Vec<&Workflow> = items.iter().collect();
    items.sort_by_key(|w| (w.creation_timestamp().map(|t| t.0), w.namespace(), w.name_any()));
    let head = ["NAME", "PHASE", "NODES", "REASON", "DURATION", "AGE"];
    let mut rows = Vec::new();
    for workflow in items {
        let status = workflow.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let end = status.finished_at.map_or(now, |t| t.0);
        let row = [
            workflow.name_any(),
            style.paint(tone_of_workflow(phase), &format!("{phase:?}")),
            status.progress.unwrap_or_else(|| format!("0/{}", workflow.spec.nodes.len())),
            printable(status.reason.as_deref().unwrap_or("-")),
            status.started_at.map_or_else(|| "-".into(), |t| duration::between(t.0, end)),
            workflow.creation_timestamp().map_or_else(|| "-".into(), |t| duration::between(t.0, now)),
        ];
        rows.push((workflow.namespace().unwrap_or_default(), row));
    }
    let namespace = with_namespace.then_some("NAMESPACE");
    render(
        namespace.into_iter().chain(head),
        rows.into_iter().map(|(ns, row)| with_namespace.then_some(ns).into_iter().chain(row)),
    )
}

/// Columns padded with spaces, without lines: easy to read, easy to cut.
pub(crate) fn render<R: IntoIterator<Item = String>>(
    head: impl IntoIterator<Item = &'static str>,
    rows: impl IntoIterator<Item = R>,
) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(head);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{at, workflow};
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(with_namespace: bool, expected: &Expect) {
        let diamond = workflow("diamond").created(0).started(2).phase("Running", "1/4").build();
        let older = workflow("older").created(-4_000).build();
        let failed = workflow("failed").created(-100).started(-98).finished(-38).phase("Failed", "2/2");
        let failed = failed.reason("NodeFailed", "node train: member 2 exited with code 1").build();
        expected.assert_eq(&workflows(&[diamond, older, failed], with_namespace, at(65), Style::default()));
    }

    #[test]
    fn workflows_are_listed_oldest_first() {
        check(
            false,
            &expect![[r#"
                NAME      PHASE     NODES   REASON       DURATION   AGE
                older     Pending   0/0     -            -          1h07m
                failed    Failed    2/2     NodeFailed   1m00s      2m45s
                diamond   Running   1/4     -            1m03s      1m05s
            "#]],
        );
    }

    #[test]
    fn all_namespaces_have_their_column() {
        check(
            true,
            &expect![[r#"
                NAMESPACE   NAME      PHASE     NODES   REASON       DURATION   AGE
                demo        older     Pending   0/0     -            -          1h07m
                demo        failed    Failed    2/2     NodeFailed   1m00s      2m45s
                demo        diamond   Running   1/4     -            1m03s      1m05s
            "#]],
        );
    }
}
