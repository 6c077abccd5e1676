//! What would become of a gang, for people: its nodes and their cost, or level by level what is missing.

use flowforge_scheduler_core::rehearsal::{DomainRoom, Holder, Lack, Outcome, Outlook, Pace, Rehearsal, Seat};
use jiff::Timestamp;
use std::fmt::Write as _;

use super::duration;
use super::style::{Style, Tone, printable};
use super::table;

/// Lines of seats that are shown.
const SEATS: usize = 40;
/// Nodes and holders that are shown of a domain.
const SHOWN: usize = 6;

/// The whole answer. `now` is the time of the snapshot.
pub(crate) fn text(told: &Rehearsal, now: Timestamp, style: Style) -> String {
    let name = style.paint(Tone::Strong, &printable(&format!("{}/{}", told.namespace, told.name)));
    let (tone, verdict) = verdict(told);
    let mut text = format!("gang {name}: {}\n", style.paint(tone, &verdict));
    text.push_str(&body(told, now, style));
    if let Outcome::Refused { message, .. } = &told.outcome {
        let _ = writeln!(text, "\n  {} {}", style.paint(Tone::Quiet, "the scheduler's words:"), printable(message));
    }
    text
}

/// What follows the first line.
pub(crate) fn body(told: &Rehearsal, now: Timestamp, style: Style) -> String {
    let mut text = String::new();
    match &told.outcome {
        Outcome::Stands { pace } => cost(&mut text, pace.as_ref()),
        Outcome::Fits { seats, left, pace, .. } => {
            cost(&mut text, pace.as_ref());
            if *left > 0 {
                let _ =
                    writeln!(text, "  {left} more above its minimum find no place with them and would follow later");
            }
            let _ = writeln!(text);
            table_of_seats(&mut text, seats, &told.resource);
        }
        Outcome::Waits { reason, message } => {
            let _ = writeln!(text, "  {}: {}", style.paint(Tone::Waiting, reason), printable(message));
        }
        Outcome::Refused { levels, room, .. } => {
            let asked = levels.iter().find(|lack| lack.required).or(levels.first());
            if let Some(lack) = asked {
                missing(&mut text, lack, told, now, style);
            }
            let _ = writeln!(text);
            table_of_levels(&mut text, levels, &told.resource);
            outlook(&mut text, (room, levels), told, now, style);
        }
    }
    text
}

/// The end of the first line.
pub(crate) fn verdict(told: &Rehearsal) -> (Tone, String) {
    let waiting = told.waiting;
    let members = |n: u32| if n == 1 { "its member".to_owned() } else { format!("its {n} members") };
    match &told.outcome {
        Outcome::Stands { .. } if told.standing.is_empty() => (Tone::Quiet, "no member waits for a place".to_owned()),
        Outcome::Stands { .. } => (Tone::Good, format!("all {} members stand", told.standing.len())),
        Outcome::Fits { domain, seats, .. } if seats.len() == waiting as usize => {
            (Tone::Good, format!("there is a place for {}, in {}", members(waiting), printable(domain)))
        }
        Outcome::Fits { domain, seats, .. } => (
            Tone::Good,
            format!("there is a place for {} of {}, in {}", seats.len(), members(waiting), printable(domain)),
        ),
        Outcome::Waits { .. } => (Tone::Waiting, "not looked for a place yet".to_owned()),
        Outcome::Refused { .. } => (Tone::Bad, format!("no place for {} now", members(waiting))),
    }
}

fn cost(text: &mut String, pace: Option<&Pace>) {
    let Some(pace) = pace else { return };
    let (devices, hosts) = (plural(pace.devices, "GPU"), plural(pace.hosts, "node"));
    if let Some(gb_per_s) = pace.gb_per_s {
        let _ = writeln!(
            text,
            "  about {} for each GiB all-reduced over {devices} on {hosts}\n  slowest at level {}: {}, {} GB/s",
            seconds(pace.seconds_per_gib),
            pace.level,
            printable(&pace.bottleneck),
            rounded(gb_per_s)
        );
    } else {
        let _ = writeln!(text, "  {devices} on {hosts}: nothing is sent");
    }
}

fn seconds(s: f64) -> String {
    if s < 1.0 { format!("{:.1} ms", s * 1e3) } else { format!("{s:.2} s") }
}

fn rounded(gb_per_s: f64) -> String {
    if gb_per_s < 10.0 { format!("{gb_per_s:.1}") } else { format!("{gb_per_s:.0}") }
}

fn plural(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// An amount of a resource with its unit.
fn amount(units: i64, resource: &str) -> String {
    match resource {
        "cpu" if units % 1_000 == 0 => format!("{} CPUs", units / 1_000),
        "cpu" => format!("{:.1} CPUs", thousandths(units)),
        "memory" | "ephemeral-storage" => format!("{} MiB of {resource}", units >> 20),
        _ if is_gpu(resource) => format!("{units} GPU{}", if units == 1 { "" } else { "s" }),
        _ => format!("{units} {}", printable(resource)),
    }
}

/// The same without its unit.
fn number(units: i64, resource: &str) -> String {
    match resource {
        "cpu" if units % 1_000 == 0 => (units / 1_000).to_string(),
        "cpu" => format!("{:.1}", thousandths(units)),
        "memory" | "ephemeral-storage" => format!("{} MiB", units >> 20),
        _ => units.to_string(),
    }
}

#[allow(clippy::cast_precision_loss, reason = "no node has 2^52 thousandths of a CPU")]
fn thousandths(units: i64) -> f64 {
    units as f64 / 1_000.0
}

fn is_gpu(resource: &str) -> bool {
    ["nvidia.com/gpu", "amd.com/gpu", "gpu.intel.com/i915"].contains(&resource)
}

/// Consecutive members on one node share a line.
fn table_of_seats(text: &mut String, seats: &[Seat], resource: &str) {
    let runs: Vec<&[Seat]> = seats.chunk_by(|a, b| a.node == b.node && a.role == b.role).collect();
    let with_gpus = seats.iter().any(|seat| seat.devices > 0) && is_gpu(resource);
    let row = |run: &&[Seat]| {
        let (first, last) = (&run[0], &run[run.len() - 1]);
        let ranks = match (first.rank, last.rank) {
            (Some(a), Some(b)) if a != b => format!("{a}-{b}"),
            (Some(a), _) => a.to_string(),
            _ => printable(&first.pod),
        };
        let gpus = run.iter().map(|seat| seat.devices).sum::<u64>();
        let gpus = if with_gpus { gpus.to_string() } else { "-".to_owned() };
        let path = if first.path.is_empty() { "-".to_owned() } else { printable(&first.path.join(" › ")) };
        [ranks, printable(&first.role), printable(&first.node), gpus, path]
    };
    let rows: Vec<[String; 5]> = runs.iter().take(SEATS).map(row).collect();
    indented(text, &table::render(["RANK", "ROLE", "NODE", "GPUS", "DOMAINS"], rows));
    if runs.len() > SEATS {
        let _ = writeln!(text, "  … and {} lines more; -o json has all", runs.len() - SEATS);
    }
}

fn indented(text: &mut String, lines: &str) {
    for line in lines.lines() {
        let _ = writeln!(text, "  {}", line.trim_end());
    }
}

/// What the level that counts lacks, and who has it.
fn missing(text: &mut String, lack: &Lack, told: &Rehearsal, now: Timestamp, style: Style) {
    let resource = &told.resource;
    let need = amount(lack.need, resource);
    let within = if lack.required { format!("in one {}", lack.level) } else { "in the cluster".to_owned() };
    let Some(best) = lack.best.as_ref() else {
        let why = if lack.required { "no node has a label of that level" } else { "there is no node" };
        let _ = writeln!(text, "  needs {need} {within}; {why}");
        return;
    };
    let best_has =
        if lack.required { format!("the best, {}, has", printable(&best.domain)) } else { "it has".to_owned() };
    let _ = writeln!(
        text,
        "  needs {need} free {within}; {best_has} {}: {} of {} members fit",
        number(best.free, resource),
        best.fit,
        told.waiting
    );
    let label = |what: &str| style.paint(Tone::Quiet, &format!("{what:<6}"));
    let free = best.nodes.iter().take(SHOWN).map(|n| format!("{} {}", printable(&n.name), number(n.free, resource)));
    let free: Vec<String> = free.collect();
    if !free.is_empty() {
        let more = rest(best.nodes.len(), best.more_nodes);
        let _ = writeln!(text, "    {} {}{more}", label("free"), free.join(", "));
    }
    for (at, holder) in best.holders.iter().take(SHOWN).enumerate() {
        let what = if at == 0 { "held" } else { "" };
        let _ = writeln!(text, "    {} {}", label(what), held(holder, resource, now));
    }
    let more = rest(best.holders.len(), best.more_holders);
    if !more.is_empty() {
        let _ = writeln!(text, "    {}{more}", label(""));
    }
    closed(text, best, resource, &label("closed"));
}

fn closed(text: &mut String, best: &DomainRoom, resource: &str, label: &str) {
    for closed in &best.closed {
        let nodes = plural(closed.nodes as usize, "node");
        let _ = writeln!(
            text,
            "    {label} {nodes} with {} free: {}",
            amount(closed.free, resource),
            printable(&closed.reason)
        );
    }
}

fn rest(named: usize, beyond: u32) -> String {
    let more = named.saturating_sub(SHOWN) + beyond as usize;
    if more > 0 { format!(" and {more} more") } else { String::new() }
}

fn held(holder: &Holder, resource: &str, now: Timestamp) -> String {
    let Holder { kind, name, priority, pods, units, .. } = holder;
    let since = holder.since_ms.and_then(|at| Timestamp::from_millisecond(i64::try_from(at).ok()?).ok());
    let since = since.map_or(", not started".to_owned(), |at| format!(" for {}", duration::between(at, now)));
    let pods = if *kind == "gang" { format!(" in {}", plural(*pods as usize, "pod")) } else { String::new() };
    let leaving = if holder.leaving { ", being deleted" } else { "" };
    format!("{} by {kind} {}{pods}{since}, priority {priority}{leaving}", amount(*units, resource), printable(name))
}

fn table_of_levels(text: &mut String, levels: &[Lack], resource: &str) {
    let row = |lack: &Lack| {
        let mark = if lack.required { " *" } else { "" };
        let best = lack.best.as_ref();
        [
            format!("{}{mark}", lack.level),
            number(lack.need, resource),
            best.map_or("-".to_owned(), |best| printable(&best.domain)),
            best.map_or("-".to_owned(), |best| {
                format!("{} of {}", number(best.free, resource), number(best.total, resource))
            }),
            best.map_or("-".to_owned(), |best| best.fit.to_string()),
            format!("{} of {}", lack.enough, lack.domains),
        ]
    };
    let rows: Vec<[String; 6]> = levels.iter().map(row).collect();
    indented(text, &table::render(["LEVEL", "NEEDS", "BEST DOMAIN", "FREE", "MEMBERS FIT", "DOMAINS WITH ROOM"], rows));
    if levels.iter().any(|lack| lack.required) {
        let _ = writeln!(text, "  * all members must share one");
    }
}

fn outlook(text: &mut String, (room, levels): (&Outlook, &[Lack]), told: &Rehearsal, now: Timestamp, style: Style) {
    let head = style.paint(Tone::Strong, "what would free it:");
    if room.victims.is_empty() {
        let message = room.message.strip_prefix("preemption: ").unwrap_or(&room.message);
        let message = if message.is_empty() { "its scheduling profile preempts nobody" } else { message };
        let unlabelled = levels.iter().find(|lack| lack.required && lack.best.is_none());
        let _ = match unlabelled {
            Some(lack) => writeln!(text, "\n  {head} a label of level {} on the nodes, or another level", lack.level),
            None => writeln!(text, "\n  {head} time, or more nodes; {}", printable(message.trim_end_matches('.'))),
        };
        return;
    }
    let pods: u32 = room.victims.iter().map(|victim| victim.pods).sum();
    let _ = writeln!(text, "\n  {head} at priority {} it may evict {}:", told.priority, plural(pods as usize, "pod"));
    for victim in &room.victims {
        let _ = writeln!(text, "    {}", held(victim, &told.resource, now));
    }
    let mut nodes: Vec<String> = room.seats.iter().map(|seat| printable(&seat.node)).collect();
    nodes.dedup();
    let shown = nodes.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    let _ = writeln!(text, "    then it stands on {shown}{}", rest(nodes.len(), 0));
}

#[cfg(test)]
mod tests;
