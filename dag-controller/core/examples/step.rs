//! How fast the core is: whole runs of layered graphs, every event applied, every command answered at once.
//!
//! ```text
//! cargo run --release -p flowforge-dag-controller-core --example step -- [NODES [OUT_DEGREE [REPLICAS]]]
//! ```
//! Prints events and edges a second and the core's time a node. A timer belongs here, not into the core.

#![allow(clippy::disallowed_methods, reason = "the stopwatch and the arguments stand outside the core")]

use flowforge_dag_controller_core::event::{MainContainer, PodPhase};
use flowforge_dag_controller_core::{
    Command, Config, Dag, Event, GangFacts, NodeIx, NodeSpec, Observed, PodFacts, Recorded, apply, rebuild,
};
use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Layers of a hundred nodes; each node waits for `degree` nodes of the layer before.
fn layered(nodes: u32, degree: u32, replicas: u32) -> Result<Dag, Box<dyn Error>> {
    const WIDTH: u32 = 100;
    let spec = |at| NodeSpec::of(format!("n{at}"), replicas);
    let mut edges = Vec::new();
    for at in WIDTH..nodes {
        let layer = (at / WIDTH - 1) * WIDTH;
        edges.extend((0..degree.min(WIDTH)).map(|d| (NodeIx(layer + (at + d * 37) % WIDTH), NodeIx(at))));
    }
    Ok(Dag::new((0..nodes).map(spec).collect(), edges)?)
}

/// The events that answer a command: the object appears, the pod runs and ends well.
fn answer(command: Command, now_ms: u64, inbox: &mut Vec<Event>) {
    let bound = PodFacts { node: Some("n1".into()), finalizer: true, ..PodFacts::default() };
    let ended = MainContainer::Ended { exit_code: 0, reason: "Completed".into(), finished_at_ms: now_ms };
    match command {
        Command::CreateGang(key, _) => inbox.push(Event::Gang(key, GangFacts::default())),
        Command::CreateService(key) => inbox.push(Event::Service(key, true)),
        Command::CreatePod(key) => {
            let running = PodFacts { phase: PodPhase::Running, main: MainContainer::Running, ..bound.clone() };
            inbox.push(Event::Pod(key, PodFacts { phase: PodPhase::Succeeded, main: ended, ..bound.clone() }));
            inbox.push(Event::Pod(key, running));
            inbox.push(Event::Pod(key, bound));
        }
        Command::RecordResult(key, _) => inbox.push(Event::Recorded(vec![key])),
        Command::FinishGang(key, end) => {
            inbox.push(Event::Gang(key, GangFacts { ended: Some(*end), ..GangFacts::default() }));
        }
        _ => {}
    }
}

fn run(dag: &Arc<Dag>) -> (u64, Duration) {
    let (mut out, mut inbox, mut events, mut spent, mut now_ms) = (Vec::new(), Vec::new(), 0, Duration::ZERO, 1);
    let begun = Instant::now();
    let mut state =
        rebuild(Arc::clone(dag), Config::default(), Observed::default(), &Recorded::default(), now_ms, &mut out);
    spent += begun.elapsed();
    while !out.is_empty() || !inbox.is_empty() {
        for command in out.drain(..) {
            answer(command, now_ms, &mut inbox);
        }
        events += inbox.len() as u64;
        now_ms += 1;
        let begun = Instant::now();
        while let Some(event) = inbox.pop() {
            apply(&mut state, event, now_ms, &mut out);
        }
        spent += begun.elapsed();
    }
    let (over, all) = state.progress();
    assert!(over == all && state.phase().is_over(), "the run has ended: {over} of {all}");
    (events, spent)
}

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<u32> = std::env::args().skip(1).map(|a| a.parse()).collect::<Result<_, _>>()?;
    let argument = |at: usize, default: u32| arguments.get(at).copied().unwrap_or(default);
    let (nodes, degree, replicas) = (argument(0, 10_000), argument(1, 4), argument(2, 1));
    let begun = Instant::now();
    let dag = Arc::new(layered(nodes, degree, replicas)?);
    println!("{nodes} nodes, {} edges, {replicas} members a node; built in {:.1?}", dag.edge_count(), begun.elapsed());
    for _ in 0..3 {
        let (events, spent) = run(&dag);
        let seconds = spent.as_secs_f64();
        println!(
            "{events} events in {spent:.1?}: {:.0} events/s, {:.0} edges/s, {:.2} us a node",
            events as f64 / seconds,
            dag.edge_count() as f64 / seconds,
            seconds * 1e6 / f64::from(nodes),
        );
    }
    Ok(())
}
