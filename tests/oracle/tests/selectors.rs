//! Device selectors: a corpus, each expression alone and combined with others.
#![allow(clippy::expect_used, reason = "what fails in a test's helper fails the test")]

use flowforge_oracle::{Said, Upstream, selections};

const CORPUS: &str = include_str!("selectors.txt");

fn corpus() -> Vec<String> {
    CORPUS.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(str::to_owned).collect()
}

fn agree(expressions: &[String]) {
    let mut upstream = Upstream::start_selectors().expect("the oracle");
    let all = selections(&mut upstream, expressions).expect("answers");
    let differ: Vec<String> = all
        .iter()
        .filter(|one| one.upstream != one.ours && !one.unsupported)
        .map(|one| {
            format!("{} on device {}: {:?} / {:?} {:?}", one.expression, one.device, one.upstream, one.ours, one.words)
        })
        .collect();
    assert!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), all.len(), differ.join("\n"));
    let results = |said: &Said| all.iter().filter(|one| one.upstream == *said).count();
    for said in [Said::Refused, Said::Failed, Said::Matches(true), Said::Matches(false)] {
        assert!(results(&said) * 50 > all.len(), "{said:?} hardly ever: {}", results(&said));
    }
}

#[test]
fn every_selector_of_the_corpus_is_evaluated_as_by_kube_scheduler() {
    agree(&corpus());
}

#[test]
fn combined_selectors_are_evaluated_as_by_kube_scheduler() {
    let all = corpus();
    let pairs = all.iter().zip(all.iter().cycle().skip(7)).enumerate();
    let combined =
        pairs.filter(|(_, (a, b))| !a.contains("//") && !b.contains("//")).map(|(at, (a, b))| match at % 4 {
            0 => format!("({a}) && ({b})"),
            1 => format!("({a}) || ({b})"),
            2 => format!("({a}) ? ({b}) : false"),
            _ => format!("[1].exists(i, ({a}) == ({b}))"),
        });
    agree(&combined.collect::<Vec<String>>());
}

#[test]
fn cost_is_counted_as_by_kube_scheduler() {
    let mut upstream = Upstream::start_selectors().expect("the oracle");
    let all = selections(&mut upstream, &corpus()).expect("answers");
    let counted = |one: &&flowforge_oracle::Selection| one.upstream == one.ours && matches!(one.ours, Said::Matches(_));
    let same = all.iter().filter(counted).filter(|one| one.cost.0 == one.cost.1).count();
    let differ: Vec<String> = all
        .iter()
        .filter(counted)
        .filter(|one| one.device == 0 && one.cost.0 != one.cost.1)
        .map(|one| format!("{}: {:?}", one.expression, one.cost))
        .collect();
    let total = all.iter().filter(counted).count();
    // The limit is 1,000,000: what differs by a few units does not matter, but no order of magnitude may.
    println!("{same} of {total} cost the same; on the first device differ:\n{}", differ.join("\n"));
    assert!(
        all.iter().filter(counted).all(|one| one.cost.1 <= 2 * one.cost.0 + 20 && one.cost.0 <= 2 * one.cost.1 + 20),
        "{}",
        differ.join("\n")
    );
}
