//! Names of the objects that a workflow owns. Each is a pure function of what it stands for: a second controller, or
//! the same one after a crash, arrives at the same name, and the API server refuses the duplicate.
//!
//! ```text
//!   Gang, Service   <workflow>-<node>-<attempt>                 hyphens inside <node> are doubled
//!   hostname        <workflow>-<node>-<attempt>-<rank>          stable while the member is made again
//!   Pod             <hostname>  |  <hostname>r<incarnation>
//! ```
//! No two workflows, nodes or attempts of a namespace share a name. Attempt and rank are numbers without a hyphen, so that
//! the last parts of a name are always the same fields. Neither a workflow's name nor a node's id begins or ends with a
//! hyphen, and inside the node's part hyphens come in even runs: the last odd run is what divides it from the workflow.
//! `a` + `b-c` is `a-b--c-1`, `a-b` + `c` is `a-b-c-1`. Only a stranger's object can be in the way (`NameTaken`).

use smol_str::{SmolStr, SmolStrBuilder, format_smolstr};

/// Longest label value, hostname and Service name.
pub const MAX_LABEL_LEN: usize = 63;
/// Digits kept free for the attempt.
pub const ATTEMPT_DIGITS: usize = 2;

/// Name of the Gang, and of the headless Service, of one attempt.
#[must_use]
pub fn gang(workflow: &str, node: &str, attempt: u32) -> SmolStr {
    let mut name = SmolStrBuilder::new();
    name.push_str(workflow);
    name.push('-');
    for letter in node.chars() {
        name.push(letter);
        if letter == '-' {
            name.push('-');
        }
    }
    name.push('-');
    name.push_str(&format_smolstr!("{attempt}"));
    name.finish()
}

/// Hostname of a member: the same for every incarnation, so that its address under the Service never changes.
#[must_use]
pub fn hostname(gang: &str, rank: u32) -> SmolStr {
    format_smolstr!("{gang}-{rank}")
}

/// Name of a member's pod.
#[must_use]
pub fn pod(gang: &str, rank: u32, incarnation: u32) -> SmolStr {
    if incarnation == 0 { hostname(gang, rank) } else { format_smolstr!("{gang}-{rank}r{incarnation}") }
}

/// Length of the longest hostname of a node with `replicas` members, whatever the attempt.
#[must_use]
pub fn longest_hostname(workflow_len: usize, node: &str, replicas: u32) -> usize {
    let rank_digits = replicas.saturating_sub(1).checked_ilog10().unwrap_or(0) as usize + 1;
    let node_len = node.len() + node.matches('-').count();
    workflow_len + 1 + node_len + 1 + ATTEMPT_DIGITS + 1 + rank_digits
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[test]
    fn pods_of_one_workflow_never_share_a_name() {
        // Node `a-1`, attempt 2, rank 3 and node `a`, attempt 1, rank 2 made again three times.
        assert_eq!(pod(&gang("wf", "a-1", 2), 3, 0), "wf-a--1-2-3");
        assert_eq!(pod(&gang("wf", "a", 1), 2, 3), "wf-a-1-2r3");
    }

    #[test]
    fn workflows_never_share_a_name_wherever_their_hyphens_are() {
        assert_eq!(gang("a", "b-c", 1), "a-b--c-1");
        assert_eq!(gang("a-b", "c", 1), "a-b-c-1");
        assert_eq!(gang("a--b", "c", 1), "a--b-c-1");
        // Every way to write a label of up to five letters, as workflow and as node.
        let labels: Vec<String> = (1..=5)
            .flat_map(|len| (0u32..3u32.pow(len)).map(move |n| (0..len).map(|at| letter(n, at)).collect::<String>()))
            .filter(|label| !label.starts_with('-') && !label.ends_with('-'))
            .collect();
        let mut seen = BTreeMap::new();
        for workflow in &labels {
            for node in &labels {
                for attempt in [1, 11] {
                    let before = seen.insert(gang(workflow, node, attempt), (workflow, node, attempt));
                    assert_eq!(before, None, "{workflow} {node} {attempt}");
                }
            }
        }
    }

    fn letter(number: u32, at: u32) -> char {
        ['a', '1', '-'][(number / 3u32.pow(at) % 3) as usize]
    }

    proptest! {
        #[test]
        fn a_name_tells_whose_it_is(
            workflow in "[a-z0-9]([-a-z0-9]{0,20}[a-z0-9])?",
            node in "[a-z0-9]([-a-z0-9]{0,12}[a-z0-9])?",
            attempt in 1u32..100,
            rank in 0u32..8192,
            incarnation in 0u32..5,
        ) {
            let name = pod(&gang(&workflow, &node, attempt), rank, incarnation);
            prop_assert_eq!(read(&name), Some((workflow, node, attempt, rank, incarnation)));
        }
    }

    /// The inverse, by the rule of the module's head.
    fn read(name: &str) -> Option<(String, String, u32, u32, u32)> {
        let (rest, last) = name.rsplit_once('-')?;
        let (rank, incarnation) = last.split_once('r').unwrap_or((last, "0"));
        let (rest, attempt) = rest.rsplit_once('-')?;
        let mut end = rest.len();
        while let Some(at) = rest[..end].rfind('-') {
            let run = rest[..=at].len() - rest[..=at].trim_end_matches('-').len();
            if run % 2 == 1 {
                let node = rest[at + 1..].replace("--", "-");
                return Some((
                    rest[..at].into(),
                    node,
                    attempt.parse().ok()?,
                    rank.parse().ok()?,
                    incarnation.parse().ok()?,
                ));
            }
            end = at + 1 - run;
        }
        None
    }

    #[test]
    fn the_longest_hostname_is_that_of_the_last_rank() {
        for (replicas, rank) in [(1, 0), (10, 9), (11, 10), (8192, 8191)] {
            let name = hostname(&gang("wf", "node", 99), rank);
            assert_eq!(longest_hostname(2, "node", replicas), name.len(), "{name}");
            let hyphens = hostname(&gang("wf", "n-o-de", 99), rank);
            assert_eq!(longest_hostname(2, "n-o-de", replicas), hyphens.len(), "{hyphens}");
        }
    }
}
