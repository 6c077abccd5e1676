//! InterPodAffinity: required terms want a matching pod in the same place, required anti-terms want none, and the anti-terms
//! of pods that are there hold against the new one too. Preferred terms score, in both directions. Weight 2.
//!
//! As upstream: terminating pods count; a pod that no pod matches yet may be the first where it matches its own terms and the
//! node has all their keys; a pod there with a required term for the new one adds [`HARD_WEIGHT`].
//! Missing affinity is unresolvable by preemption.

use super::{Cures, MAX_NODE_SCORE};

/// kube-scheduler's name.
pub const NAME: &str = "InterPodAffinity";
/// Reason text: a required term has no pod in this place.
pub const REASON: &str = "node(s) didn't match pod affinity rules";
/// Reason text: an anti-term of the pod has one.
pub const REASON_ANTI: &str = "node(s) didn't match pod anti-affinity rules";
/// Reason text: an anti-term of a pod there is about this pod.
pub const REASON_EXISTING: &str = "node(s) didn't satisfy existing pods anti-affinity rules";
/// What cures it.
pub const CURED_BY: Cures = Cures::NODE_ADDED
    .and(Cures::NODE_LABELS)
    .and(Cures::POD_GONE)
    .and(Cures::POD_ADDED)
    .and(Cures::PEER_LABELS)
    .and(Cures::POD_CHANGED);
/// Weight of the score.
pub const WEIGHT: i64 = 2;
/// What the required term of a pod that is there adds to the raw score of its place (`hardPodAffinityWeight`).
pub const HARD_WEIGHT: i64 = 1;

/// Scaled to 0..=100 between the least and the most of the feasible nodes.
#[must_use]
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as upstream")]
pub fn normalize(raw: i64, least: i64, most: i64) -> i64 {
    let range = most - least;
    if range > 0 { (MAX_NODE_SCORE as f64 * ((raw - least) as f64 / range as f64)) as i64 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_lie_between_the_least_and_the_most() {
        assert_eq!([normalize(-5, -5, 5), normalize(0, -5, 5), normalize(5, -5, 5)], [0, 50, 100]);
        assert_eq!(normalize(7, 7, 7), 0);
        assert_eq!(normalize(1, 0, 3), 33);
    }
}
