//! What others publish about topology, read into our model: one convention a file.
//!
//! ```text
//!   Kueue Topology, KAI Topology ──> levels (name, label key)          the nodes' labels then make the tree
//!   Volcano HyperNode ───────────> levels and each node's path         no label names its domains
//!   GFD labels, ResourceSlices, NodeResourceTopology ──> a host        see `host`; `merged` puts the last two together
//! ```
//! Input is plain: whoever watches the objects fills the structs in. What cannot be used is an error, or a problem beside the
//! rest, that names object, field and fix; nothing is left out silently.

pub mod dra;
pub mod gfd;
pub mod kai;
pub mod kueue;
pub mod merged;
pub mod nrt;
pub mod volcano;

use crate::levels::{HOSTNAME, LevelSpec, standard};
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeSet;
use thiserror::Error;

/// Most levels that the conventions with a list of labels allow.
const MAX_LEVELS: usize = 16;

/// Why a list of node labels cannot be levels.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum LabelLevelsError {
    /// None at all.
    #[error("{0}: spec.levels is empty; name at least one nodeLabel")]
    Empty(SmolStr),
    /// More than 16.
    #[error("{0}: spec.levels has {1} entries; at most {MAX_LEVELS} are allowed")]
    TooMany(SmolStr, usize),
    /// Not a label key.
    #[error("{0}: spec.levels[{1}].nodeLabel is empty or longer than {2} characters")]
    BadKey(SmolStr, usize, usize),
    /// A label twice.
    #[error("{0}: spec.levels[{1}].nodeLabel {2:?} is used twice; a label belongs to one level")]
    Duplicate(SmolStr, usize, SmolStr),
    /// The hostname before the end.
    #[error("{0}: spec.levels[{1}].nodeLabel is {HOSTNAME}, which must be the last level")]
    HostNotLast(SmolStr, usize),
}

/// Levels of an ordered list of label keys, widest first. A key that the standard levels know gives its level's name, else
/// the last part of the key does; a name that is taken gets a number.
fn of_labels(object: &str, labels: &[SmolStr], longest: usize) -> Result<Vec<LevelSpec>, LabelLevelsError> {
    let object = SmolStr::from(object);
    if labels.is_empty() {
        return Err(LabelLevelsError::Empty(object));
    }
    if labels.len() > MAX_LEVELS {
        return Err(LabelLevelsError::TooMany(object, labels.len()));
    }
    let (mut seen, mut names) = (BTreeSet::new(), BTreeSet::new());
    let mut levels = Vec::with_capacity(labels.len());
    for (at, label) in labels.iter().enumerate() {
        if label.is_empty() || label.len() > longest {
            return Err(LabelLevelsError::BadKey(object, at, longest));
        }
        if !seen.insert(label) {
            return Err(LabelLevelsError::Duplicate(object, at, label.clone()));
        }
        if label == HOSTNAME && at + 1 != labels.len() {
            return Err(LabelLevelsError::HostNotLast(object, at));
        }
        let known = standard().into_iter().find(|(_, keys)| keys.contains(label)).map(|(name, _)| name);
        let base = known.unwrap_or_else(|| last_part(label));
        let numbered = (2..).map(|n| format_smolstr!("{base}-{n}"));
        let name = std::iter::once(base.clone()).chain(numbered).find(|name| !names.contains(name)).unwrap_or(base);
        names.insert(name.clone());
        levels.push((name, vec![label.clone()]));
    }
    Ok(levels)
}

/// The part of a label key after its prefix, in the form of a level's name.
fn last_part(key: &str) -> SmolStr {
    let part = key.rsplit('/').next().unwrap_or(key).to_ascii_lowercase();
    let part: String = part.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).take(60).collect();
    let part = part.trim_matches('-');
    if part.is_empty() { SmolStr::new_static("level") } else { part.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(labels: &[&str]) -> Vec<String> {
        let labels: Vec<SmolStr> = labels.iter().map(|label| (*label).into()).collect();
        of_labels("t", &labels, 316).unwrap().into_iter().map(|(name, _)| name.to_string()).collect()
    }

    #[test]
    fn known_labels_have_their_level_and_others_their_last_part() {
        assert_eq!(
            names(&["cloud.google.com/gce-topology-block", "cloud.google.com/gce-topology-subblock", HOSTNAME]),
            ["block", "rack", "host"]
        );
        assert_eq!(names(&["example.com/Row_1", "other.com/row.1", "/"]), ["row-1", "row-1-2", "level"]);
        let both = ["topology.k8s.aws/network-node-layer-3", "fabric.topograph.run/tier-0"];
        assert_eq!(names(&both), ["rack", "rack-2"]);
    }
}
