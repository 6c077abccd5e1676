//! The time to plan a gang of thousands of 8-GPU members on a cluster of five levels whose every second node is full, and the
//! time to refuse one.

use crate::Args;
use crate::cluster::{GPU, cpu_nanos, median, membership, node, pod};
use anyhow::{Result, ensure};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::gang::{Ask, Planned, may_fit, plan};
use flowforge_scheduler_core::snapshot::{PodId, Snapshot};
use smol_str::{SmolStr, format_smolstr};

/// What is asked, and the answer that it must get.
struct Question {
    name: &'static str,
    ask: Ask,
    fits: bool,
}

/// Plans on each size of cluster: 1,024 members below 50,000 nodes, else 8,192.
pub(crate) fn run(args: &Args) -> Result<()> {
    for nodes in args.nodes_or(&[16_384, 100_000]) {
        let members = if nodes < 50_000 { 1_024 } else { 8_192 };
        let mut snapshot = half_full(nodes);
        let gang = gang(&mut snapshot, "fits", members, 8);
        let rack = snapshot.cluster().tree().levels().find("rack");
        let ask = Ask { members: gang.clone(), steps: Config::default().search_steps, ..Ask::default() };
        let huge = self::gang(&mut snapshot, "huge", nodes / 2 + 1, 8);
        let questions = [
            Question { name: "fits, any domain", ask: ask.clone(), fits: true },
            Question { name: "nowhere: not in one rack", ask: Ask { required: rack, ..ask.clone() }, fits: false },
            Question { name: "nowhere: too large for the cluster", ask: Ask { members: huge, ..ask }, fits: false },
        ];
        println!("{nodes} nodes, every second one full; {members} members of 8 GPUs; median of {} rounds", args.rounds);
        println!("  {:<36} {:>14} {:>14} {:>18}", "question", "cold, ms", "warm, ms", "by counters, ms");
        for question in questions {
            let (cold, warm, counters) = measure(&mut snapshot, &question, args.rounds)?;
            println!("  {:<36} {cold:>14.3} {warm:>14.3} {counters:>18.4}", question.name);
        }
    }
    Ok(())
}

/// Milliseconds of the first answer, of later ones, and of the look at the counters that decides whether to plan at all.
fn measure(snapshot: &mut Snapshot, question: &Question, rounds: usize) -> Result<(f64, f64, f64)> {
    let mut fresh = snapshot.clone();
    let (mut plans, mut looks) = (Vec::new(), Vec::new());
    for _ in 0..=rounds {
        let before = cpu_nanos();
        let planned = plan(&mut fresh, &question.ask);
        let between = cpu_nanos();
        plans.push(between - before);
        ensure!(matches!(planned, Planned::Placed(_)) == question.fits, "{}: {planned:?}", question.name);
        if let Planned::Placed(places) = planned {
            places.into_iter().for_each(|(pod, _)| {
                fresh.forget(pod);
            });
            may_fit(&mut fresh, &question.ask);
        }
        let before = cpu_nanos();
        ensure!(may_fit(&mut fresh, &question.ask) == question.fits, "{}: the counters say otherwise", question.name);
        looks.push(cpu_nanos() - before);
    }
    let cold = median(vec![plans.remove(0)]);
    Ok((cold / 1e6, median(plans) / 1e6, median(looks) / 1e6))
}

fn half_full(nodes: usize) -> Snapshot {
    let mut snapshot = Snapshot::new(&Config::default());
    for index in 0..nodes {
        snapshot.upsert_node(node(index));
    }
    for index in (0..nodes).step_by(2) {
        let mut fill = pod(format_smolstr!("fill-{index}"));
        fill.requests.insert(SmolStr::new_static(GPU), 8);
        fill.node_name = Some(node(index).name);
        snapshot.upsert_pod(fill);
    }
    snapshot
}

fn gang(snapshot: &mut Snapshot, name: &'static str, members: usize, gpus: i64) -> Vec<PodId> {
    let member = |rank| {
        let mut member = pod(format_smolstr!("{name}-{rank}"));
        member.requests.insert(SmolStr::new_static(GPU), gpus);
        member.gang = Some(membership(SmolStr::new_static(name), members, rank, None));
        member
    };
    (0..members).filter_map(|rank| Some(snapshot.upsert_pod(member(rank))?.id)).collect()
}
