//! What changed between two views of a workflow, one line each: what `watch` prints where nobody looks at a terminal.

use jiff::Timestamp;
use kube::ResourceExt as _;

use super::duration;
use super::style::printable;
use super::tree::View;

/// Lines for everything that moved, each with the time since the workflow was created.
pub(crate) fn between(before: Option<&View>, after: &View, now: Timestamp) -> Vec<String> {
    let created = after.workflow.creation_timestamp().map_or(now, |t| t.0);
    let stamp = format!("+{:<7}", duration::between(created, now));
    let mut lines = Vec::new();
    let old = before.map(View::nodes).unwrap_or_default();
    for (i, (node, status)) in after.nodes().into_iter().enumerate() {
        let previous = old.get(i).map(|(_, status)| status);
        let same = previous.map_or(status.phase == Default::default() && status.reason.is_none(), |p| {
            (p.phase, p.attempt, &p.reason) == (status.phase, status.attempt, &status.reason)
        });
        if !same {
            let attempt = if status.attempt > 1 { format!(" (attempt {})", status.attempt) } else { String::new() };
            let why = because(status.reason.as_deref(), status.message.as_deref());
            lines.push(format!("{stamp} node {}: {:?}{attempt}{why}", node.id, status.phase));
        }
    }
    for (name, gang) in &after.gangs {
        let refusal = |view: &View| view.gangs.get(name).and_then(scheduling_refusal);
        let now_refused = scheduling_refusal(gang);
        if let Some(text) = now_refused.as_ref().filter(|text| before.and_then(refusal).as_ref() != Some(*text)) {
            lines.push(format!("{stamp} gang {name}: {text}"));
        }
    }
    let phase = |view: &View| view.workflow.status.as_ref().and_then(|s| s.phase);
    if before.map(phase) != Some(phase(after)) {
        let status = after.workflow.status.clone().unwrap_or_default();
        let why = because(status.reason.as_deref(), status.message.as_deref());
        let name = after.workflow.name_any();
        lines.push(format!("{stamp} workflow {name}: {:?}{why}", phase(after).unwrap_or_default()));
    }
    lines
}

fn scheduling_refusal(gang: &flowforge_api::Gang) -> Option<String> {
    let conditions = &gang.status.as_ref()?.conditions;
    let scheduled = conditions.iter().find(|c| c.type_ == flowforge_api::names::condition::SCHEDULED)?;
    (scheduled.status == "False")
        .then(|| format!("{}: {}", printable(&scheduled.reason), printable(&scheduled.message)))
}

fn because(reason: Option<&str>, message: Option<&str>) -> String {
    let parts: Vec<String> = [reason, message].into_iter().flatten().filter(|t| !t.is_empty()).map(printable).collect();
    if parts.is_empty() { String::new() } else { format!(", {}", parts.join(": ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{GangBuilder as _, at, gang, view, workflow};
    use expect_test::{Expect, expect};

    #[track_caller]
    fn check(before: Option<&View>, after: &View, expected: &Expect) {
        expected.assert_eq(&between(before, after, at(70)).iter().map(|l| format!("{l}\n")).collect::<String>());
    }

    #[test]
    fn each_move_is_one_line_and_what_stays_is_silent() {
        let before = view(workflow("d").created(0).node("a", 1, &[], "Succeeded").node("b", 4, &["a"], "Pending"), &[]);
        let after = view(
            workflow("d").created(0).phase("Running", "1/2").node("a", 1, &[], "Succeeded").node(
                "b",
                4,
                &["a"],
                "Scheduling",
            ),
            &[gang("d", "b", 4).refused("Unschedulable", "0/3 nodes are available: 3 Too many pods.")],
        );
        check(
            Some(&before),
            &after,
            &expect![[r#"
                +1m10s   node b: Scheduling
                +1m10s   gang d-b-1: Unschedulable: 0/3 nodes are available: 3 Too many pods.
                +1m10s   workflow d: Running
            "#]],
        );
        check(Some(&after), &after, &expect![""]);
    }

    #[test]
    fn the_first_view_tells_what_has_already_begun() {
        let after = view(workflow("d").created(0).node("a", 1, &[], "Running").node("b", 1, &["a"], "Pending"), &[]);
        check(
            None,
            &after,
            &expect![[r#"
                +1m10s   node a: Running
                +1m10s   workflow d: Pending
            "#]],
        );
    }
}
