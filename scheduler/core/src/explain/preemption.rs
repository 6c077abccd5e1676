//! What came of looking for pods to evict, in kube-scheduler's words, which stand behind the refusal:
//! `0/3 nodes are available: 3 Insufficient cpu. preemption: 0/3 nodes are available: …`

use super::Seen;
use smol_str::SmolStr;
use std::fmt;

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Preemption {
    /// The pod's preemptionPolicy is Never.
    Never,
    /// Those evicted for it before are still going.
    Terminating,
    /// Nobody whose eviction would help.
    Nowhere(Seen),
    /// These many are evicted, and the pod is promised their node.
    Found {
        /// The node.
        node: SmolStr,
        /// Pods that are evicted.
        victims: usize,
    },
    /// For a gang.
    Gang(GangRoom),
}

/// What came of looking for room for a gang.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GangRoom {
    /// These are evicted, and every member is promised a place: `gang ns/name` or `pod ns/name`, and how many pods that is.
    Found(Vec<(String, usize)>),
    /// So many pods that were evicted for the gang are still going.
    Waits(usize),
    /// Pods that are going anyway will leave room enough.
    Going,
    /// Nobody whose eviction would make room.
    Nowhere,
    /// Somebody more important waits who would take the room: `gang ns/name` or `pod ns/name`.
    Outranked(String),
    /// The search gave up.
    Limit,
}

/// Victims of a gang that a message names.
const NAMED: usize = 5;

impl fmt::Display for Preemption {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("preemption: not eligible due to preemptionPolicy=Never."),
            Self::Terminating => {
                f.write_str("preemption: not eligible due to a terminating pod on the nominated node.")
            }
            Self::Nowhere(seen) => {
                write!(f, "preemption: 0/{} nodes are available:{}", seen.total, seen.histogram())
            }
            Self::Found { node, victims } => {
                let found = "preemption: found a potential placement for pod on node";
                write!(f, "{found} {node}, preempting {victims} victims")
            }
            Self::Gang(room) => room.fmt(f),
        }
    }
}

impl fmt::Display for GangRoom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(victims) => {
                let pods: usize = victims.iter().map(|(_, pods)| pods).sum();
                write!(f, "preemption: room is made for the gang, evicting {pods} pod(s): ")?;
                for (at, (name, pods)) in victims.iter().take(NAMED).enumerate() {
                    let comma = if at == 0 { "" } else { ", " };
                    match pods {
                        1 => write!(f, "{comma}{name}")?,
                        _ => write!(f, "{comma}{name} ({pods} pods)")?,
                    }
                }
                if victims.len() > NAMED { write!(f, " and {} more.", victims.len() - NAMED) } else { f.write_str(".") }
            }
            Self::Waits(pods) => {
                write!(f, "preemption: waiting until {pods} pod(s) that are evicted for the gang have gone.")
            }
            Self::Going => f.write_str("preemption: pods that are going already leave enough room for the gang."),
            Self::Nowhere => {
                f.write_str("preemption: evicting all who are less important would not make room for the gang.")
            }
            Self::Outranked(name) => {
                write!(f, "preemption: room for the gang would go to the more important {name}, which waits, too.")
            }
            Self::Limit => f.write_str("preemption: the search for room gave up; it will be tried again."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_victims_of_a_gang_are_named_and_the_list_is_bounded() {
        let said = |n: usize| {
            let victims = (0..n).map(|i| if i == 0 { ("gang ml/a".to_owned(), 4) } else { (format!("pod ml/{i}"), 1) });
            Preemption::Gang(GangRoom::Found(victims.collect())).to_string()
        };
        assert_eq!(said(2), "preemption: room is made for the gang, evicting 5 pod(s): gang ml/a (4 pods), pod ml/1.");
        assert!(said(8).ends_with("pod ml/4 and 3 more."), "{}", said(8));
    }
}
