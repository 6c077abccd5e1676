//! ImageLocality: prefers nodes that have the pod's images already, the more so the larger those are and the more nodes have
//! them (so that a few nodes with a rare image do not draw everything). 0..=100, weight 1.

use super::MAX_NODE_SCORE;
use smol_str::{SmolStr, format_smolstr};

/// kube-scheduler's name.
pub const NAME: &str = "ImageLocality";
/// Weight of the score.
pub const WEIGHT: i64 = 1;

const MIB: i64 = 1 << 20;
/// Less than this is not worth a preference, in bytes.
const LEAST: i64 = 23 * MIB;
/// More than this for each image makes no difference, in bytes.
const MOST_PER_IMAGE: i64 = 1_000 * MIB;

/// The name under which nodes list an image: one without tag and digest is the latest.
#[must_use]
pub fn normalized(name: &SmolStr) -> SmolStr {
    let tagged = name.rfind(':').is_some_and(|colon| name.rfind('/').is_none_or(|slash| colon > slash));
    if tagged { name.clone() } else { format_smolstr!("{name}:latest") }
}

/// What an image of so many bytes counts that `nodes` of `total` nodes have.
#[must_use]
#[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, reason = "as upstream")]
pub fn worth(bytes: i64, nodes: u32, total: usize) -> i64 {
    (bytes as f64 * (f64::from(nodes) / total as f64)) as i64
}

/// Score of a node on which the pod's images are worth so much; `images` is how many the pod has.
#[must_use]
pub fn score(worth: i64, images: usize) -> i64 {
    if images == 0 {
        return 0;
    }
    let most = MOST_PER_IMAGE.saturating_mul(i64::try_from(images).unwrap_or(i64::MAX));
    MAX_NODE_SCORE * (worth.clamp(LEAST, most) - LEAST) / (most - LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_runtime() {
        let normalized = |name: &str| normalized(&name.into()).to_string();
        assert_eq!(normalized("busybox"), "busybox:latest");
        assert_eq!(normalized("registry.example:5000/train"), "registry.example:5000/train:latest");
        assert_eq!(normalized("registry.example/train:v1"), "registry.example/train:v1");
        assert_eq!(normalized("tool@sha256:00"), "tool@sha256:00");
    }

    #[test]
    fn large_images_that_many_nodes_have_score_high() {
        assert_eq!(worth(1_000, 1, 4), 250);
        assert_eq!([score(0, 1), score(LEAST, 1), score(MOST_PER_IMAGE, 1), score(i64::MAX, 1)], [0, 0, 100, 100]);
        assert_eq!(score(i64::MAX, 0), 0);
        assert_eq!(score(LEAST + (2 * MOST_PER_IMAGE - LEAST) / 2, 2), 50);
    }
}
