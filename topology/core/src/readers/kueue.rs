//! Kueue's `Topology` (`kueue.x-k8s.io/v1beta2`): `spec.levels[].nodeLabel`, widest first, the hostname only as the last.

use super::{LabelLevelsError, of_labels};
use crate::levels::LevelSpec;
use smol_str::SmolStr;

/// Longest label key that the API takes.
const LONGEST_KEY: usize = 316;

/// The levels of a `Topology` with this name and these node labels.
///
/// # Errors
/// When Kueue's own API would not take it; the object may be older than its rules.
pub fn levels(name: &str, node_labels: &[SmolStr]) -> Result<Vec<LevelSpec>, LabelLevelsError> {
    of_labels(&format!("Topology {name} (kueue.x-k8s.io)"), node_labels, LONGEST_KEY)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::levels::{HOSTNAME, Levels};

    fn refused(labels: &[&str]) -> String {
        let labels: Vec<SmolStr> = labels.iter().map(|label| (*label).into()).collect();
        levels("default", &labels).unwrap_err().to_string()
    }

    #[test]
    fn a_topology_gives_levels_that_a_tree_takes() {
        let labels =
            ["cloud.provider.com/topology-block", "cloud.provider.com/topology-rack", HOSTNAME].map(SmolStr::from);
        let found = Levels::new(levels("default", &labels).unwrap()).unwrap();
        assert_eq!(found.names().collect::<Vec<_>>(), ["topology-block", "topology-rack", "host"]);
    }

    #[test]
    fn what_kueue_refuses_is_refused_with_the_object_and_the_field() {
        assert_eq!(
            refused(&[]),
            "Topology default (kueue.x-k8s.io): spec.levels is empty; name at least one nodeLabel"
        );
        assert!(refused(&["a", "b", "a"]).contains("spec.levels[2].nodeLabel \"a\" is used twice"));
        assert!(
            refused(&[HOSTNAME, "b"])
                .contains("spec.levels[0].nodeLabel is kubernetes.io/hostname, which must be the last")
        );
        assert!(refused(&["a", ""]).contains("spec.levels[1].nodeLabel is empty or longer than 316"));
        assert!(refused(&["a"; 17]).contains("17 entries"));
    }
}
