//! Preemption: whom FlowForge would evict, and whether that is what kube-scheduler would do, or better.
//!
//! kube-scheduler takes any of the best candidates. What must hold: FlowForge finds one when kube-scheduler does; its rank by
//! kube-scheduler's criteria is no worse; on the same node the victims are the same; and when there is none, the message is
//! the same, byte for byte.

use crate::compare::Difference;
use crate::generate::preempt::case;
use crate::ours::pod;
use crate::shrink::shrink;
use crate::upstream::{self, Upstream};
use anyhow::{Context as _, Result};
use flowforge_scheduler::convert::{self, types};
use flowforge_scheduler_core::config::Config;
use flowforge_scheduler_core::cycle;
use flowforge_scheduler_core::explain::Refusal;
use flowforge_scheduler_core::gang::Gangs;
use flowforge_scheduler_core::preempt::{Candidate, Rank, Surroundings, evaluate};
use flowforge_scheduler_core::snapshot::{PodId, Snapshot};
use serde::Deserialize;
use serde_json::Value;
use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::fmt;

/// Disagreements that are shown in full.
const SHOWN: usize = 3;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Case {
    pod: types::Pod,
    nodes: Vec<types::Node>,
    pods: Vec<types::Pod>,
    namespaces: Vec<types::Namespace>,
    waiting: Vec<types::Pod>,
    pod_disruption_budgets: Vec<types::Budget>,
}

/// What came of some cases.
#[derive(Debug, Default)]
pub struct Preemptions {
    /// Cases asked.
    pub cases: u64,
    /// In which some node takes the pod, so that nobody is evicted.
    pub feasible: u64,
    /// In which nobody's eviction helps.
    pub nowhere: u64,
    /// In which both choose the same node and victims.
    pub same: u64,
    /// In which both choices are equally good.
    pub ties: u64,
    /// In which FlowForge's is better.
    pub better: u64,
    /// In which the choice breaks a budget.
    pub violations: u64,
    /// Seeds of the cases with a disagreement.
    pub disagreements: Vec<u64>,
    shown: Vec<(u64, Vec<Difference>, Value)>,
}

/// How the two choices compare.
enum Choice {
    Feasible,
    Nowhere,
    Same,
    Tie,
    Better,
}

/// Asks both sides about `cases` cases; the seed of case `i` is `seed + i`.
///
/// # Errors
/// When the oracle ends, or FlowForge cannot read a case.
pub fn run(upstream: &mut Upstream, seed: u64, cases: u64) -> Result<Preemptions> {
    let mut all = Preemptions::default();
    for seed in (0..cases).map(|i| seed.wrapping_add(i)) {
        all.one(upstream, seed).with_context(|| format!("preemption case {seed}"))?;
    }
    Ok(all)
}

impl Preemptions {
    fn one(&mut self, upstream: &mut Upstream, seed: u64) -> Result<()> {
        let case = case(seed);
        let answer = upstream.ask(&case)?;
        self.cases += 1;
        match compare(&answer, &case)? {
            Ok(choice) => {
                let counted = match choice {
                    Choice::Feasible => &mut self.feasible,
                    Choice::Nowhere => &mut self.nowhere,
                    Choice::Same => &mut self.same,
                    Choice::Tie => &mut self.ties,
                    Choice::Better => &mut self.better,
                };
                *counted += 1;
                self.violations += u64::from(answer.preemption.is_some_and(|p| p.violations > 0));
            }
            Err(_) => {
                self.disagreements.push(seed);
                if self.shown.len() < SHOWN {
                    self.show(upstream, seed, case);
                }
            }
        }
        Ok(())
    }

    fn show(&mut self, upstream: &mut Upstream, seed: u64, case: Value) {
        // What has become no question about preemption shows nothing.
        let mut differ = |case: &Value| match upstream.ask(case) {
            Ok(answer) if answer.preemption.is_some() => compare(&answer, case).ok().and_then(Result::err),
            _ => None,
        };
        let mut differ = |case: &Value| differ(case).unwrap_or_default();
        let smallest = shrink(case, |smaller| !differ(smaller).is_empty());
        let differences = differ(&smallest);
        self.shown.push((seed, differences, smallest));
    }

    /// Whether no choice of FlowForge's is another than kube-scheduler's without being as good.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.disagreements.is_empty()
    }
}

impl fmt::Display for Preemptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (seed, differences, case) in &self.shown {
            writeln!(f, "preemption case {seed}, as small as it shows:")?;
            for Difference { at, upstream, ours } in differences {
                writeln!(f, "  {at}\n    kube-scheduler: {upstream}\n    FlowForge:      {ours}")?;
            }
            writeln!(f, "  {case}")?;
        }
        let Self { cases, feasible, nowhere, same, ties, better, violations, disagreements, .. } = self;
        writeln!(
            f,
            "preemption: {cases} cases, {feasible} fit, {nowhere} without victims, {same} the same choice, {ties} as good, \
             {better} better, {violations} break a budget; {} disagreements {disagreements:?}",
            disagreements.len()
        )
    }
}

/// FlowForge's side, and what it makes of kube-scheduler's choice.
struct Ours {
    snapshot: Snapshot,
    candidate: Option<Candidate>,
    feasible: bool,
    message: String,
}

fn ask(case: &Value) -> Result<Ours> {
    let case = Case::deserialize(case).context("FlowForge cannot read the case")?;
    let mut snapshot = Snapshot::new(&Config::default());
    case.nodes.iter().for_each(|node| {
        snapshot.upsert_node(convert::node(node));
    });
    for namespace in &case.namespaces {
        snapshot.set_namespace(&namespace.metadata.name, Some(namespace.metadata.labels.clone()));
    }
    case.pods.iter().chain(&case.waiting).for_each(|of| {
        snapshot.upsert_pod(pod(of));
    });
    case.pod_disruption_budgets.iter().for_each(|b| snapshot.budgets_mut().set(convert::budget(b)));
    let id = snapshot.upsert_pod(pod(&case.pod)).context("the pod is nobody's concern")?.id;
    let mut ours = Ours { snapshot, candidate: None, feasible: false, message: String::new() };
    match cycle::find(&mut ours.snapshot, id) {
        Ok(_) => ours.feasible = true,
        Err(refusal) => {
            let around = Surroundings { gangs: &Gangs::default(), doomed: &BTreeSet::new(), start: 0 };
            let found = evaluate(&mut ours.snapshot, id, around).context("the pod is not known")?;
            ours.candidate = found.1;
            if ours.candidate.is_none() {
                ours.message = Refusal::Preempted { refusal, preemption: found.0 }.message();
            }
        }
    }
    Ok(ours)
}

fn compare(answer: &upstream::Answer, case: &Value) -> Result<Result<Choice, Vec<Difference>>> {
    let differ =
        |at: &str, upstream: String, ours: String| Ok(Err(vec![Difference { at: at.to_owned(), upstream, ours }]));
    let Some(theirs) = answer.preemption.as_ref().filter(|_| answer.error.is_empty()) else {
        return differ("error", answer.error.clone(), String::new());
    };
    let ours = ask(case)?;
    if theirs.feasible != ours.feasible {
        return differ("feasible", theirs.feasible.to_string(), ours.feasible.to_string());
    }
    if ours.feasible {
        return Ok(Ok(Choice::Feasible));
    }
    let Some(mine) = &ours.candidate else {
        let same = theirs.node.is_empty() && theirs.message == ours.message;
        if same {
            return Ok(Ok(Choice::Nowhere));
        }
        return differ("message", format!("{} {}", theirs.node, theirs.message), ours.message);
    };
    let cluster = ours.snapshot.cluster();
    let uid = |name: &String| cluster.find_pod(&format!("uid-{name}"));
    let victims: Vec<PodId> = theirs.victims.iter().filter_map(uid).collect();
    let rank = Rank::of(cluster, &victims, theirs.violations);
    let node = cluster.node_name(mine.node);
    let names = |pods: &[PodId]| -> Vec<String> {
        pods.iter().filter_map(|pod| Some(cluster.pod(*pod)?.key.name.to_string())).collect()
    };
    let chosen = format!("{node}: {:?} {:?}", names(&mine.victims), mine.rank);
    let other = format!("{}: {:?} {rank:?}", theirs.node, theirs.victims);
    let candidate = theirs.candidates.iter().any(|name| *name == node);
    Ok(match mine.rank.cmp(&rank) {
        _ if theirs.node.is_empty() || !candidate => return differ("candidate", other, chosen),
        _ if node == theirs.node && mine.victims == victims => Ok(Choice::Same),
        _ if node == theirs.node => return differ("victims", other, chosen),
        Ordering::Less => Ok(Choice::Better),
        Ordering::Equal => Ok(Choice::Tie),
        Ordering::Greater => return differ("choice", other, chosen),
    })
}
