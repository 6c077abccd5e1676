//! Names of the objects that a workflow owns. Each is a pure function of what it stands for: a second controller, or
//! the same one after a crash, arrives at the same name, and the API server refuses the duplicate.
//!
//! ```text
//!   Gang, Service   <workflow>-<node>-<attempt>
//!   hostname        <workflow>-<node>-<attempt>-<rank>          stable while the member is made again
//!   Pod             <hostname>  |  <hostname>r<incarnation>
//! ```
//! Inside one workflow they never collide: attempt and rank are numbers without a hyphen, so that the last two parts of
//! a pod's name, and the last part of a gang's, are always the same fields. Two workflows of one namespace can collide
//! (`a` + `b-c` and `a-b` + `c`); the second then waits with reason `NameTaken`.

use smol_str::{SmolStr, format_smolstr};

/// Longest label value, hostname and Service name.
pub const MAX_LABEL_LEN: usize = 63;
/// Digits kept free for the attempt.
pub const ATTEMPT_DIGITS: usize = 2;

/// Name of the Gang, and of the headless Service, of one attempt.
#[must_use]
pub fn gang(workflow: &str, node: &str, attempt: u32) -> SmolStr {
    format_smolstr!("{workflow}-{node}-{attempt}")
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
pub fn longest_hostname(workflow_len: usize, node_len: usize, replicas: u32) -> usize {
    let rank_digits = replicas.saturating_sub(1).checked_ilog10().unwrap_or(0) as usize + 1;
    workflow_len + 1 + node_len + 1 + ATTEMPT_DIGITS + 1 + rank_digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pods_of_one_workflow_never_share_a_name() {
        // Node `a-1`, attempt 2, rank 3 and node `a`, attempt 1, rank 2 made again three times.
        assert_eq!(pod(&gang("wf", "a-1", 2), 3, 0), "wf-a-1-2-3");
        assert_eq!(pod(&gang("wf", "a", 1), 2, 3), "wf-a-1-2r3");
    }

    #[test]
    fn the_longest_hostname_is_that_of_the_last_rank() {
        for (replicas, rank) in [(1, 0), (10, 9), (11, 10), (8192, 8191)] {
            let name = hostname(&gang("wf", "node", 99), rank);
            assert_eq!(longest_hostname(2, 4, replicas), name.len(), "{name}");
        }
    }
}
