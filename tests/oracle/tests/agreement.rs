//! A slice of random cases with a fresh seed, and every seed that ever failed.

use flowforge_oracle::{Upstream, preempt, replay, run};
use std::time::{SystemTime, UNIX_EPOCH};

/// Seeds of cases that once showed a disagreement, with what was wrong. They stay.
const FAILED_ONCE: &str = include_str!("failed_once.txt");

#[test]
fn flowforge_agrees_with_kube_scheduler_on_fresh_cases() {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let seed = since_epoch.as_secs() * 1_000_000;
    println!("seed {seed}; repeat with: make oracle SEED={seed} CASES=2000");
    let mut upstream = Upstream::start().expect("the oracle");
    let outcome = run(&mut upstream, seed, 2_000).expect("answers");
    println!("{outcome}");
    assert!(outcome.agrees(), "{outcome}");
    assert!(outcome.thin().is_empty(), "hardly compared: {:?}\n{outcome}", outcome.thin());
}

#[test]
fn flowforge_evicts_whom_kube_scheduler_would_or_chooses_better() {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    let seed = since_epoch.as_secs() * 1_000_000;
    println!("seed {seed}; repeat with: make oracle SEED={seed} CASES=0");
    let mut upstream = Upstream::start().expect("the oracle");
    let all = preempt::run(&mut upstream, seed, 200).expect("answers");
    println!("{all}");
    assert!(all.agrees(), "{all}");
    assert!(all.same + all.ties + all.better >= 20 && all.nowhere >= 10, "hardly a case has victims: {all}");
}

#[test]
fn what_once_failed_agrees() {
    let numbers = FAILED_ONCE.lines().filter_map(|line| line.split('#').next()).map(str::trim);
    let seeds = numbers.filter(|number| !number.is_empty()).map(|number| number.parse().expect("a seed"));
    let mut upstream = Upstream::start().expect("the oracle");
    let outcome = replay(&mut upstream, &seeds.collect::<Vec<u64>>()).expect("answers");
    assert!(outcome.agrees(), "{outcome}");
}
