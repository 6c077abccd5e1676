//! KAI's `Topology` (`kai.scheduler/v1alpha1`): `spec.levels[].nodeLabel`, widest first, as Kueue's, from which it comes.

use super::{LabelLevelsError, of_labels};
use crate::levels::LevelSpec;
use smol_str::SmolStr;

/// Longest label key that the API takes.
const LONGEST_KEY: usize = 316;

/// The levels of a `Topology` with this name and these node labels.
///
/// # Errors
/// When KAI's own API would not take it.
pub fn levels(name: &str, node_labels: &[SmolStr]) -> Result<Vec<LevelSpec>, LabelLevelsError> {
    of_labels(&format!("Topology {name} (kai.scheduler)"), node_labels, LONGEST_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_names_its_levels_and_an_error_its_kind() {
        let labels = ["topology.kubernetes.io/zone", "nvidia.com/gpu.clique"].map(SmolStr::from);
        let names: Vec<_> = levels("cluster", &labels).unwrap().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["zone", "nvlink"]);
        assert!(levels("cluster", &[]).unwrap_err().to_string().starts_with("Topology cluster (kai.scheduler): "));
    }
}
