//! Resources by which nodes are scored.

use crate::model::{CPU, EPHEMERAL_STORAGE, MEMORY};
use smol_str::SmolStr;

/// Where the numbers of a scored resource stand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Lane {
    /// CPU.
    Cpu,
    /// Memory.
    Memory,
    /// Ephemeral storage.
    EphemeralStorage,
    /// A scalar resource: the position in [`super::Profiles::extended`]. It counts only for pods that ask for it.
    Extended(u16),
    /// No node counts such a resource.
    Nowhere,
}

/// A resource by which nodes are scored.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// Its name.
    pub name: SmolStr,
    /// Its weight among the resources of the score.
    pub weight: i64,
    pub(crate) lane: Lane,
}

impl Scored {
    /// A resource with a weight.
    #[must_use]
    pub fn new(name: impl Into<SmolStr>, weight: i64) -> Self {
        Self { name: name.into(), weight, lane: Lane::Nowhere }
    }

    /// CPU and memory, weight 1 each.
    #[must_use]
    pub fn cpu_and_memory() -> Vec<Self> {
        let resource = |name, lane| Self { name: SmolStr::new_static(name), weight: 1, lane };
        vec![resource(CPU, Lane::Cpu), resource(MEMORY, Lane::Memory)]
    }

    /// Finds its numbers; a scalar resource gets its position in `extended`.
    pub(super) fn resolve(&mut self, extended: &mut Vec<SmolStr>) {
        self.lane = match self.name.as_str() {
            CPU => Lane::Cpu,
            MEMORY => Lane::Memory,
            EPHEMERAL_STORAGE => Lane::EphemeralStorage,
            name if is_scalar(name) => {
                let known = extended.iter().position(|other| *other == name);
                let at = known.unwrap_or_else(|| {
                    extended.push(self.name.clone());
                    extended.len() - 1
                });
                u16::try_from(at).map_or(Lane::Nowhere, Lane::Extended)
            }
            _ => Lane::Nowhere,
        };
    }
}

/// Whether nodes count a resource of this name beside CPU, memory, storage and pods (`IsScalarResourceName`).
#[must_use]
pub fn is_scalar(name: &str) -> bool {
    is_extended(name)
        || name.starts_with("hugepages-")
        || name.starts_with("attachable-volumes-")
        || name.contains("kubernetes.io/")
}

/// Whether a resource is a vendor's (`IsExtendedResourceName`): it has a domain that is not Kubernetes' own.
#[must_use]
pub fn is_extended(name: &str) -> bool {
    name.contains('/') && !name.contains("kubernetes.io/") && !name.starts_with("requests.")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_resources_are_told_apart_as_upstream_does() {
        let names = ["cpu", "hugepages-2Mi", "nvidia.com/gpu", "kubernetes.io/x", "requests.cpu/x", "foo"];
        assert_eq!(names.map(is_extended), [false, false, true, false, false, false]);
        assert_eq!(names.map(is_scalar), [false, true, true, true, false, false]);
    }
}
