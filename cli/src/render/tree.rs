//! A workflow with its nodes and gangs as a tree.
//!
//! ```text
//! diamond  Running  ▰▱▱▱ 1/4 nodes  1m12s
//! ├─ ✔ preprocess  Succeeded   1/1  12s
//! ├─ ● train       Running     4/4  58s
//! │  └─ gang diamond-train-1: ▰▰▰▰ 4 of 4 running in rack/r1
//! ├─ ○ eval        Pending     0/1  -    after train
//! └─ ○ publish     Pending     0/1  -    after train
//! ```

use std::collections::BTreeMap;

use flowforge_api::gang::{GangPhase, MemberCounts, MemberOutcome, PlacementSummary};
use flowforge_api::names::{condition, label};
use flowforge_api::workflow::{NodePhase, NodeStatus, WorkflowNode, WorkflowPhase};
use flowforge_api::{Gang, Workflow};
use flowforge_dag_controller_core::ranks::unpack;
use jiff::Timestamp;
use kube::ResourceExt as _;

use super::duration;
use super::strip::{Part, strip};
use super::style::{Style, Tone, cut, glyph, printable, tone_of_node, tone_of_workflow, wrap};

/// Reason of a good end.
const COMPLETED: &str = "Completed";
/// Lines that a gang's refusal may take.
const REFUSAL_LINES: usize = 3;
/// Failed members that a tree names for each gang.
const NAMED_FAILURES: usize = 3;

/// What is known about a workflow at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    pub(crate) workflow: Workflow,
    /// By name.
    pub(crate) gangs: BTreeMap<String, Gang>,
}

/// How much of a tree is wanted.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    /// Lines are cut to so many columns.
    pub(crate) columns: usize,
    /// Nodes that matter least are summed up when there are more lines than this.
    pub(crate) lines: usize,
    /// Gangs of nodes that succeeded are shown, too.
    pub(crate) ended_gangs: bool,
}

impl Extent {
    /// Everything.
    pub(crate) const WHOLE: Self = Self { columns: usize::MAX, lines: usize::MAX, ended_gangs: true };
}

/// A node's lines; nodes of the highest rank are the first to be summed up.
struct Block {
    phase: NodePhase,
    lines: Vec<String>,
}

impl Block {
    fn rank(&self) -> u8 {
        match self.phase {
            NodePhase::Failed => 0,
            NodePhase::Running => 1,
            NodePhase::Scheduling => 2,
            NodePhase::Pending => 3,
            NodePhase::Succeeded => 4,
            NodePhase::Skipped => 5,
        }
    }
}

/// A node of which only the phase was written.
fn of_phase(node: &WorkflowNode, phase: NodePhase) -> NodeStatus {
    let all = |running, succeeded| {
        let desired = node.replicas;
        Some(MemberCounts { desired, created: desired, running, succeeded, failed: 0 })
    };
    let members = match phase {
        NodePhase::Running => all(node.replicas, 0),
        NodePhase::Succeeded => all(0, node.replicas),
        _ => None,
    };
    NodeStatus { id: node.id.clone(), phase, members, ..NodeStatus::default() }
}

impl View {
    /// The status of each node of the spec: as written, else of its packed phase, else Pending.
    pub(crate) fn nodes(&self) -> Vec<(&WorkflowNode, NodeStatus)> {
        let written = self.workflow.status.iter().flat_map(|s| &s.nodes);
        let by_id: BTreeMap<&str, &NodeStatus> = written.map(|n| (n.id.as_str(), n)).collect();
        let nodes = &self.workflow.spec.nodes;
        let mut phases = vec![NodePhase::Pending; nodes.len()];
        let count = u32::try_from(nodes.len()).unwrap_or(u32::MAX);
        for (phase, places) in self.workflow.status.iter().filter_map(|s| s.packed.as_ref()).flat_map(|p| p.sets()) {
            for place in unpack(places, count) {
                phases[place as usize] = phase;
            }
        }
        let status = |(node, phase): (&WorkflowNode, NodePhase)| match by_id.get(node.id.as_str()) {
            Some(status) => (*status).clone(),
            None => of_phase(node, phase),
        };
        nodes.iter().zip(phases).map(|(node, phase)| (node, status((node, phase)))).collect()
    }

    /// The gang of a node's last attempt.
    pub(crate) fn gang_of(&self, node: &str) -> Option<&Gang> {
        self.gangs.values().filter(|gang| gang.labels().get(label::NODE).is_some_and(|id| id == node)).max_by_key(
            |gang| {
                let attempt: u32 = gang.labels().get(label::ATTEMPT).and_then(|a| a.parse().ok()).unwrap_or(0);
                (attempt, gang.creation_timestamp().map(|t| t.0))
            },
        )
    }

    /// The text, one line each, without a final newline.
    pub(crate) fn lines(&self, now: Timestamp, extent: Extent, style: Style) -> Vec<String> {
        let mut blocks = self.blocks(now, extent, style);
        let summary = sum_up(&mut blocks, extent.lines.saturating_sub(2));
        let mut lines = vec![self.head(now, style)];
        let last = blocks.len().saturating_sub(1);
        for (i, block) in blocks.into_iter().enumerate() {
            let end = i == last && summary.is_none();
            for (j, line) in block.lines.into_iter().enumerate() {
                let branch = match (j, end) {
                    (0, false) => "├─ ",
                    (0, true) => "└─ ",
                    (_, false) => "│  ",
                    (_, true) => "   ",
                };
                lines.push(format!("{branch}{line}"));
            }
        }
        lines.extend(summary.map(|text| format!("└─ {}", style.paint(Tone::Quiet, &text))));
        lines.into_iter().map(|line| cut(line.trim_end(), extent.columns)).collect()
    }

    fn head(&self, now: Timestamp, style: Style) -> String {
        let status = self.workflow.status.clone().unwrap_or_default();
        let phase = status.phase.unwrap_or_default();
        let nodes = self.nodes();
        let ended = nodes.iter().filter(|(_, n)| is_ended(n.phase)).count();
        let mut head = format!(
            "{}  {}  {}{}/{} nodes",
            style.paint(Tone::Strong, &self.workflow.name_any()),
            style.paint(tone_of_workflow(phase), &format!("{phase:?}")),
            if phase == WorkflowPhase::Running { before(&progress(&nodes, style)) } else { String::new() },
            ended,
            nodes.len(),
        );
        if let Some(start) = status.started_at {
            let end = status.finished_at.map_or(now, |t| t.0);
            head = format!("{head}  {}", duration::between(start.0, end));
        }
        format!("{head}{}", because(status.reason.as_deref(), status.message.as_deref()))
    }

    fn blocks(&self, now: Timestamp, extent: Extent, style: Style) -> Vec<Block> {
        let nodes = self.nodes();
        let phases: BTreeMap<&str, NodePhase> = nodes.iter().map(|(n, s)| (n.id.as_str(), s.phase)).collect();
        let width = nodes.iter().map(|(node, _)| node.id.len()).max().unwrap_or(0);
        let mut blocks = Vec::new();
        for (node, status) in &nodes {
            let tone = tone_of_node(status.phase);
            let members = members(node, status);
            let mut line = format!(
                "{} {:width$}  {}  {members:>5}  {:<6}",
                style.paint(tone, glyph(status.phase)),
                node.id,
                style.paint(tone, &format!("{:<10}", format!("{:?}", status.phase))),
                span(status, now),
            );
            if status.attempt > 1 {
                line = format!("{line}  attempt {}", status.attempt);
            }
            line.push_str(&note(node, status, &phases));
            let mut lines = vec![line];
            if let Some(gang) = self.gang_of(&node.id).filter(|_| shows_gang(status.phase, extent)) {
                // The tree's own branch takes three columns.
                lines.extend(gang_lines(gang, extent.columns.saturating_sub(3), style));
            }
            blocks.push(Block { phase: status.phase, lines });
        }
        blocks
    }
}

/// Removes the blocks that matter least until the rest fits; what was removed comes back as one line.
fn sum_up(blocks: &mut Vec<Block>, room: usize) -> Option<String> {
    let total = |blocks: &[Block]| blocks.iter().map(|b| b.lines.len()).sum::<usize>();
    if total(blocks) <= room.saturating_add(1) {
        return None;
    }
    let mut order: Vec<usize> = (0..blocks.len()).collect();
    order.sort_by_key(|&i| std::cmp::Reverse((blocks[i].rank(), i)));
    let mut left = total(blocks);
    let mut gone = vec![false; blocks.len()];
    let mut counts: BTreeMap<NodePhase, usize> = BTreeMap::new();
    for i in order {
        if left <= room {
            break;
        }
        left -= blocks[i].lines.len();
        gone[i] = true;
        *counts.entry(blocks[i].phase).or_default() += 1;
    }
    let mut flags = gone.into_iter();
    blocks.retain(|_| !flags.next().unwrap_or(false));
    let parts: Vec<String> = counts.iter().map(|(phase, n)| format!("{n} {phase:?}")).collect();
    Some(format!("… and {}", parts.join(", ")))
}

pub(crate) fn is_ended(phase: NodePhase) -> bool {
    matches!(phase, NodePhase::Succeeded | NodePhase::Failed | NodePhase::Skipped)
}

fn shows_gang(phase: NodePhase, extent: Extent) -> bool {
    match phase {
        NodePhase::Scheduling | NodePhase::Running | NodePhase::Failed => true,
        NodePhase::Succeeded | NodePhase::Skipped => extent.ended_gangs,
        NodePhase::Pending => false,
    }
}

/// `live/asked`, where live counts running and ended-well members.
fn members(node: &WorkflowNode, status: &NodeStatus) -> String {
    let (live, asked) =
        status.members.as_ref().map_or((0, node.replicas), |m| (m.running.saturating_add(m.succeeded), m.desired));
    format!("{live}/{asked}")
}

/// Time since the release while it waits, since the start while it runs, and the whole when it has ended.
fn span(status: &NodeStatus, now: Timestamp) -> String {
    let released = status.released_at.as_ref().map(|t| t.0);
    let started = status.started_at.as_ref().map(|t| t.0);
    let finished = status.finished_at.as_ref().map(|t| t.0);
    match (started.or(released), finished) {
        (Some(start), Some(end)) => duration::between(start, end),
        (Some(start), None) => duration::between(start, now),
        (None, _) => "-".into(),
    }
}

fn note(node: &WorkflowNode, status: &NodeStatus, phases: &BTreeMap<&str, NodePhase>) -> String {
    // That its work is done goes without saying.
    if status.reason.as_deref().is_some_and(|reason| reason != COMPLETED) {
        return because(status.reason.as_deref(), status.message.as_deref());
    }
    if status.phase != NodePhase::Pending {
        return String::new();
    }
    let phase = |id: &str| phases.get(id).copied().unwrap_or_default();
    let waits: Vec<String> =
        node.depends_on.iter().filter(|d| d.is_open(phase(d.node()))).map(ToString::to_string).collect();
    if waits.is_empty() { String::new() } else { format!("  after {}", waits.join(", ")) }
}

fn because(reason: Option<&str>, message: Option<&str>) -> String {
    match (reason.filter(|r| !r.is_empty()), message.filter(|m| !m.is_empty())) {
        (None, None) => String::new(),
        (Some(reason), None) => format!("  {}", printable(reason)),
        (None, Some(message)) => format!("  {}", printable(message)),
        (Some(reason), Some(message)) => format!("  {}: {}", printable(reason), printable(message)),
    }
}

/// A gang's own line, and one for each of its first failed members.
fn gang_lines(gang: &Gang, columns: usize, style: Style) -> Vec<String> {
    let status = gang.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_default();
    let asked: i32 = gang.spec.roles.iter().map(|role| role.replicas).sum();
    let members = status.members.clone().unwrap_or_default();
    let bound = status.placement.as_ref().map_or(0, |p| p.bound);
    let place = status.placement.as_ref().map_or(String::new(), place);
    let scheduled = status.conditions.iter().find(|c| c.type_ == condition::SCHEDULED);
    let text = match phase {
        GangPhase::Pending => format!("{bound} of {asked} bound"),
        GangPhase::Scheduled | GangPhase::Running => {
            let strip = before(&live(&members, asked, style));
            let counts = match (members.running, members.succeeded) {
                (running, 0) => format!("{running} of {asked} running"),
                (0, succeeded) => format!("{succeeded} of {asked} succeeded"),
                (running, succeeded) => format!("{running} of {asked} running, {succeeded} succeeded"),
            };
            format!("{strip}{counts}{place}")
        }
        GangPhase::Succeeded => format!("{} of {asked} succeeded{place}", members.succeeded),
        GangPhase::Failed => format!("{} of {asked} failed{place}", members.failed),
    };
    let quiet = |text: &str| style.paint(Tone::Quiet, text);
    let mut lines = vec![format!("└─ {} {}", quiet(&format!("gang {}:", gang.name_any())), text)];
    if let Some(refused) = scheduled.filter(|c| c.status == "False" && phase == GangPhase::Pending) {
        lines.extend(refusal(gang, &refused.reason, &refused.message, columns, style));
    }
    let failed: Vec<_> = status.results.iter().filter(|r| r.outcome == MemberOutcome::Failed).collect();
    for result in failed.iter().take(NAMED_FAILURES) {
        let code = result.exit_code.map_or(String::new(), |code| format!(" exited with code {code}"));
        let node = result.node.as_deref().map_or(String::new(), |node| format!(" on {node}"));
        lines.push(format!("     {} rank {}{code}{node}: {}", style.paint(Tone::Bad, "✘"), result.rank, result.reason));
    }
    if failed.len() > NAMED_FAILURES {
        lines.push(format!("     … and {} more", failed.len() - NAMED_FAILURES));
    }
    lines
}

/// Why a gang is not placed, below its line, wrapped to the terminal. What the tree shows already is left out: which gang
/// it is, and how many members it needs.
fn refusal(gang: &Gang, reason: &str, message: &str, columns: usize, style: Style) -> Vec<String> {
    const INDENT: &str = "     ";
    let whole = printable(message);
    let known = format!("gang {}/{} needs ", gang.namespace().unwrap_or_default(), gang.name_any());
    let text = match whole.strip_prefix(&known) {
        Some(needs) => format!("{}: needs {needs}", printable(reason)),
        None => format!("{}: {whole}", printable(reason)),
    };
    let mut lines = wrap(&text, columns.saturating_sub(INDENT.len()));
    if lines.len() > REFUSAL_LINES {
        // The rest of the last line is long enough to be cut, which shows that there is more.
        let rest = lines.split_off(REFUSAL_LINES - 1).join(" ");
        lines.push(rest);
    }
    lines.into_iter().map(|line| format!("{INDENT}{}", style.paint(Tone::Waiting, &line))).collect()
}

/// A strip with the space that divides it from what follows.
fn before(strip: &str) -> String {
    if strip.is_empty() { String::new() } else { format!("{strip} ") }
}

/// The nodes that ended, live and wait.
fn progress(nodes: &[(&WorkflowNode, NodeStatus)], style: Style) -> String {
    let count = |phases: &[NodePhase]| nodes.iter().filter(|(_, n)| phases.contains(&n.phase)).count();
    let part = |phases: &[NodePhase], tone, filled| Part { count: count(phases), tone, filled };
    let parts = [
        part(&[NodePhase::Succeeded], Tone::Good, true),
        part(&[NodePhase::Failed], Tone::Bad, true),
        part(&[NodePhase::Skipped], Tone::Quiet, true),
        part(&[NodePhase::Running], Tone::Busy, false),
        part(&[NodePhase::Scheduling], Tone::Waiting, false),
        part(&[NodePhase::Pending], Tone::Quiet, false),
    ];
    strip(&parts, style)
}

/// The members that ended, run and do not run yet.
fn live(members: &MemberCounts, asked: i32, style: Style) -> String {
    let part = |count: i32, tone, filled| Part { count: usize::try_from(count).unwrap_or(0), tone, filled };
    let left = asked.saturating_sub(members.succeeded).saturating_sub(members.failed).saturating_sub(members.running);
    let parts = [
        part(members.succeeded, Tone::Good, true),
        part(members.failed, Tone::Bad, true),
        part(members.running, Tone::Busy, true),
        part(left, Tone::Quiet, false),
    ];
    strip(&parts, style)
}

/// ` in rack/r1`, or the nodes where no domain holds all.
fn place(placement: &PlacementSummary) -> String {
    match (&placement.domain, placement.nodes.as_slice()) {
        (Some(domain), _) => format!(" in {domain}"),
        (None, []) => String::new(),
        (None, [only]) => format!(" on {only}"),
        (None, [first, .., last]) => format!(" on {first} … {last}"),
    }
}

#[cfg(test)]
mod tests;
