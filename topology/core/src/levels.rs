//! The ordered list of topology levels and how a node's labels become a path through them.

use smol_str::SmolStr;
use thiserror::Error;

/// Label whose level every node has: a node without it stands under its own name.
pub const HOSTNAME: &str = "kubernetes.io/hostname";

/// Most levels a configuration may have.
const MAX_LEVELS: usize = 16;

/// Position of a level, 0 is the widest.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct LevelIndex(pub u8);

/// A level as it is written down: its name and its label keys, of which the first present wins.
pub type LevelSpec = (SmolStr, Vec<SmolStr>);

/// The levels of a cluster that says nothing else. Label keys are configuration; these are those of topograph (which counts
/// its tiers from the node: tier 0 is the leaf switch), of topograph before 1.0, of the clouds, and of NVIDIA's GPU feature
/// discovery. Where a node has several of a level, the network's own grouping comes before the provider's.
#[must_use]
pub fn standard() -> Vec<LevelSpec> {
    let level = |name: &str, keys: &[&str]| (SmolStr::from(name), keys.iter().map(|k| SmolStr::from(*k)).collect());
    vec![
        level("zone", &["topology.kubernetes.io/zone"]),
        level(
            "block",
            &[
                "fabric.topograph.run/tier-1",
                "network.topology.nvidia.com/spine",
                "topology.k8s.aws/network-node-layer-2",
                "cloud.google.com/gce-topology-block",
                "oci.oraclecloud.com/host.network_block_id",
                "ib.coreweave.cloud/superpod",
                "backend.coreweave.cloud/fabric",
                "crusoe.ai/ib.partition.id",
            ],
        ),
        level(
            "rack",
            &[
                "fabric.topograph.run/tier-0",
                "network.topology.nvidia.com/leaf",
                "topology.k8s.aws/network-node-layer-3",
                "cloud.google.com/gce-topology-subblock",
                "oci.oraclecloud.com/host.rack_id",
                "ib.coreweave.cloud/leafgroup",
                "backend.coreweave.cloud/leafgroup",
                "node.coreweave.cloud/rack",
                "crusoe.ai/pod.id",
            ],
        ),
        level(
            "nvlink",
            &[
                "nvidia.com/gpu.clique",
                "accelerator.topograph.run/domain",
                "network.topology.nvidia.com/accelerator",
                "topology.k8s.aws/ultraserver-id",
            ],
        ),
        level("host", &[HOSTNAME]),
    ]
}

/// Why a list of levels cannot be used.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LevelsError {
    /// More than 16.
    #[error("topology has {0} levels; at most 16 are supported")]
    TooMany(usize),
    /// A level without a name.
    #[error("topology level {0} has no name")]
    Unnamed(usize),
    /// Two levels with one name.
    #[error("topology level {0:?} appears twice; give each level its own name")]
    Duplicate(SmolStr),
    /// A level without label keys.
    #[error("topology level {0:?} has no label keys; name at least one node label")]
    NoKeys(SmolStr),
    /// One label key read by two levels.
    #[error("node label {key:?} is read by topology levels {first:?} and {second:?}; a label belongs to one level")]
    SharedKey {
        /// The key.
        key: SmolStr,
        /// Wider level.
        first: SmolStr,
        /// Narrower level.
        second: SmolStr,
    },
    /// The hostname level is not the last one.
    #[error("topology level {0:?} reads kubernetes.io/hostname and must be the last one")]
    HostNotLast(SmolStr),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Level {
    name: SmolStr,
    keys: Vec<SmolStr>,
}

/// The levels, widest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Levels {
    levels: Vec<Level>,
}

impl Levels {
    /// Checks and takes a list of (name, label keys), widest first; the first label that a node has wins.
    ///
    /// # Errors
    /// When names or keys repeat, are missing, or the hostname level is not the narrowest.
    pub fn new(levels: Vec<(SmolStr, Vec<SmolStr>)>) -> Result<Self, LevelsError> {
        if levels.len() > MAX_LEVELS {
            return Err(LevelsError::TooMany(levels.len()));
        }
        let last = levels.len().saturating_sub(1);
        let mut seen: Vec<Level> = Vec::with_capacity(levels.len());
        for (at, (name, keys)) in levels.into_iter().enumerate() {
            if name.is_empty() {
                return Err(LevelsError::Unnamed(at));
            }
            if seen.iter().any(|l| l.name == name) {
                return Err(LevelsError::Duplicate(name));
            }
            if keys.is_empty() {
                return Err(LevelsError::NoKeys(name));
            }
            if at != last && keys.iter().any(|k| k == HOSTNAME) {
                return Err(LevelsError::HostNotLast(name));
            }
            for key in &keys {
                if let Some(first) = seen.iter().find(|l| l.keys.contains(key)) {
                    return Err(LevelsError::SharedKey { key: key.clone(), first: first.name.clone(), second: name });
                }
            }
            seen.push(Level { name, keys });
        }
        Ok(Self { levels: seen })
    }

    /// Levels whose domains are not named by labels, widest first: whoever makes them knows where each node stands.
    ///
    /// # Errors
    /// When names repeat, are missing, or are too many.
    pub fn of_names(names: impl IntoIterator<Item = SmolStr>) -> Result<Self, LevelsError> {
        let mut levels: Vec<Level> = Vec::new();
        for (at, name) in names.into_iter().enumerate() {
            if name.is_empty() {
                return Err(LevelsError::Unnamed(at));
            }
            if levels.iter().any(|level| level.name == name) {
                return Err(LevelsError::Duplicate(name));
            }
            levels.push(Level { name, keys: Vec::new() });
        }
        if levels.len() > MAX_LEVELS { Err(LevelsError::TooMany(levels.len())) } else { Ok(Self { levels }) }
    }

    /// Number of levels.
    #[must_use]
    pub fn len(&self) -> usize {
        self.levels.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.levels.is_empty()
    }

    /// The level with this name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<LevelIndex> {
        self.iter().find(|&level| self.name(level) == name)
    }

    /// Name of a level; empty when there is no such level.
    #[must_use]
    pub fn name(&self, level: LevelIndex) -> &str {
        self.levels.get(usize::from(level.0)).map_or("", |l| l.name.as_str())
    }

    /// All levels, widest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = LevelIndex> + use<> {
        (0..self.levels.len()).map(|i| LevelIndex(u8::try_from(i).unwrap_or(u8::MAX)))
    }

    /// The names of all levels, widest first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.levels.iter().map(|l| l.name.as_str())
    }

    /// The list that they were made of.
    #[must_use]
    pub fn specs(&self) -> Vec<LevelSpec> {
        self.levels.iter().map(|l| (l.name.clone(), l.keys.clone())).collect()
    }

    /// Label keys of a level, the first present wins; empty when there is no such level.
    #[must_use]
    pub fn keys(&self, level: LevelIndex) -> &[SmolStr] {
        self.levels.get(usize::from(level.0)).map_or(&[], |l| l.keys.as_slice())
    }

    /// The label keys of all levels.
    pub fn all_keys(&self) -> impl Iterator<Item = &SmolStr> {
        self.levels.iter().flat_map(|l| &l.keys)
    }

    /// Whether some level reads this label.
    #[must_use]
    pub fn reads(&self, key: &str) -> bool {
        self.levels.iter().any(|l| l.keys.iter().any(|k| k == key))
    }

    /// The path of a node: per level the value of its first label that is present and not empty.
    pub fn path<'a>(&self, node_name: &str, label: impl Fn(&str) -> Option<&'a str>) -> Vec<Option<SmolStr>> {
        let value = |level: &Level| {
            let found = level.keys.iter().find_map(|k| label(k).filter(|v| !v.is_empty())).map(SmolStr::from);
            found.or_else(|| level.keys.iter().any(|k| k == HOSTNAME).then(|| SmolStr::from(node_name)))
        };
        self.levels.iter().map(value).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn levels(spec: &[(&str, &[&str])]) -> Result<Levels, LevelsError> {
        Levels::new(spec.iter().map(|(n, ks)| ((*n).into(), ks.iter().map(|k| (*k).into()).collect())).collect())
    }

    #[test]
    fn the_first_present_label_wins_and_the_host_falls_back_to_the_node_name() {
        let levels = levels(&[("rack", &["new/rack", "old/rack"]), ("host", &[HOSTNAME])]).unwrap();
        let labels = BTreeMap::from([("old/rack", "r1"), ("new/rack", "")]);
        let path = levels.path("n1", |k| labels.get(k).copied());
        assert_eq!(path, [Some("r1".into()), Some("n1".into())]);
        let none = levels.path("n2", |_| None);
        assert_eq!(none, [None, Some("n2".into())]);
    }

    #[test]
    fn unusable_lists_are_refused_with_their_name() {
        let message = |spec: &[(&str, &[&str])]| levels(spec).unwrap_err().to_string();
        assert_eq!(
            message(&[("a", &["x"]), ("a", &["y"])]),
            "topology level \"a\" appears twice; give each level its own name"
        );
        assert_eq!(message(&[("a", &[])]), "topology level \"a\" has no label keys; name at least one node label");
        assert_eq!(
            message(&[("host", &[HOSTNAME]), ("b", &["y"])]),
            "topology level \"host\" reads kubernetes.io/hostname and must be the last one"
        );
        assert_eq!(
            message(&[("a", &["x"]), ("b", &["x"])]),
            "node label \"x\" is read by topology levels \"a\" and \"b\"; a label belongs to one level"
        );
        assert!(message(&[("", &["x"])]).contains("no name"));
        assert!(message(&vec![("a", &["x"] as &[&str]); 17]).contains("17 levels"));
    }

    #[test]
    fn the_standard_levels_recognise_each_operator() {
        let levels = Levels::new(standard()).unwrap();
        let check = |labels: &[(&str, &'static str)], expected: [Option<&str>; 4]| {
            let labels: BTreeMap<_, _> = labels.iter().copied().collect();
            let path = levels.path("n", |k| labels.get(k).copied());
            assert_eq!(path.iter().take(4).map(|v| v.as_deref()).collect::<Vec<_>>(), expected);
        };
        let (b, r, n) = (Some("b"), Some("r"), Some("n"));
        check(
            &[
                ("fabric.topograph.run/tier-1", "b"),
                ("fabric.topograph.run/tier-0", "r"),
                ("nvidia.com/gpu.clique", "n"),
            ],
            [None, b, r, n],
        );
        check(
            &[
                ("network.topology.nvidia.com/spine", "b"),
                ("network.topology.nvidia.com/leaf", "r"),
                ("network.topology.nvidia.com/accelerator", "n"),
            ],
            [None, b, r, n],
        );
        check(
            &[("cloud.google.com/gce-topology-block", "b"), ("cloud.google.com/gce-topology-subblock", "r")],
            [None, b, r, None],
        );
        check(
            &[
                ("topology.kubernetes.io/zone", "z"),
                ("topology.k8s.aws/network-node-layer-2", "b"),
                ("topology.k8s.aws/network-node-layer-3", "r"),
                ("topology.k8s.aws/ultraserver-id", "n"),
            ],
            [Some("z"), b, r, n],
        );
        check(
            &[("oci.oraclecloud.com/host.network_block_id", "b"), ("oci.oraclecloud.com/host.rack_id", "r")],
            [None, b, r, None],
        );
        check(&[("ib.coreweave.cloud/superpod", "b"), ("ib.coreweave.cloud/leafgroup", "r")], [None, b, r, None]);
        check(&[("crusoe.ai/ib.partition.id", "b"), ("crusoe.ai/pod.id", "r")], [None, b, r, None]);
    }

    #[test]
    fn levels_are_found_by_name_from_wide_to_narrow() {
        let levels = levels(&[("zone", &["z"]), ("rack", &["r"])]).unwrap();
        assert_eq!(levels.find("rack"), Some(LevelIndex(1)));
        assert_eq!(levels.find("nope"), None);
        assert_eq!(levels.names().collect::<Vec<_>>(), ["zone", "rack"]);
        assert!(levels.reads("z") && !levels.reads("q"));
    }
}
