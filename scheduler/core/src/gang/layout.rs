//! Where parts of a gang may stand: what a Gang says by names of roles and levels, turned into rules about its members.
//!
//! ```text
//!   segments, roles[].topology, colocate ──> ties    (members that share one domain of a level)
//!   separate                             ──> apart   (sides no two of which share a domain of a level)
//!   spread                               ──> spread  (at least so many domains, each with its share at most)
//!   and blocks: the parts that are placed one after the other, each inside one domain where it is tied
//! ```
//! A gang that says nothing of it has an empty layout, and is planned without a look at any of this.

use crate::explain::Reason;
use crate::model::{GangRoleInfo, LayoutInfo, SegmentsInfo};
use crate::snapshot::PodId;
use flowforge_topology_core::{LevelIndex, Levels};
use smol_str::{SmolStr, format_smolstr};
use std::collections::BTreeMap;

/// The rules of a gang about its members, pending and placed ones.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    pub(super) ties: Vec<Tie>,
    pub(super) apart: Vec<Apart>,
    pub(super) spread: Option<Spread>,
    pub(super) blocks: Vec<Block>,
}

/// Members that share one domain of a level.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Tie {
    pub(super) level: LevelIndex,
    pub(super) members: Vec<PodId>,
}

/// Members of several sides: no domain of the level holds members of two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Apart {
    pub(super) level: LevelIndex,
    pub(super) sides: Vec<Vec<PodId>>,
}

/// All members, over at least so many domains of a level, none of which holds more than its share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    pub(super) level: LevelIndex,
    pub(super) min_domains: u32,
    pub(super) members: Vec<PodId>,
}

/// Members that are placed together; every member is in one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Block {
    /// For people: `ranks 8-15 of role worker`.
    pub(super) name: SmolStr,
    /// Place of its role among the roles; blocks of one role that look alike may change places.
    pub(super) role: usize,
    /// Narrowest level that all of them are tied at.
    pub(super) level: Option<LevelIndex>,
    pub(super) preferred: Vec<LevelIndex>,
    /// In rank order.
    pub(super) members: Vec<PodId>,
}

/// A member as its gang sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Pod.
    pub pod: PodId,
    /// Role.
    pub role: SmolStr,
    /// Rank, where known: within the role or in the gang.
    pub rank: Option<u32>,
}

/// The level of this name, which a field asks for.
///
/// # Errors
/// There is none.
pub(crate) fn level(levels: &Levels, name: &SmolStr, field: impl FnOnce() -> SmolStr) -> Result<LevelIndex, Reason> {
    let known = || levels.names().collect::<Vec<_>>().join(", ");
    levels.find(name).ok_or_else(|| Reason::UnknownLevel(field(), name.clone(), known()))
}

impl Layout {
    /// The rules about these members, in rank order.
    ///
    /// # Errors
    /// A level that does not exist, with the field that names it.
    pub fn of(info: &LayoutInfo, roles: &[GangRoleInfo], members: &[Slot], levels: &Levels) -> Result<Self, Reason> {
        if *info == LayoutInfo::default() {
            return Ok(Self::default());
        }
        let mut layout = Self::default();
        let of_roles = |names: &[SmolStr]| -> Vec<PodId> {
            members.iter().filter(|m| names.contains(&m.role)).map(|m| m.pod).collect()
        };
        layout.add_blocks(info, roles, members, levels)?;
        for (at, set) in info.colocate.iter().enumerate() {
            let level = level(levels, &set.level, || format_smolstr!("spec.colocate[{at}].level"))?;
            layout.ties.push(Tie { level, members: of_roles(&set.roles) });
        }
        for (at, set) in info.separate.iter().enumerate() {
            let level = level(levels, &set.level, || format_smolstr!("spec.separate[{at}].level"))?;
            let sides = set.roles.iter().map(|role| of_roles(std::slice::from_ref(role))).collect();
            layout.apart.push(Apart { level, sides });
        }
        if let Some(spread) = &info.spread {
            let level = level(levels, &spread.level, || "spec.topology.spread.level".into())?;
            let members = members.iter().map(|m| m.pod).collect();
            layout.spread = Some(Spread { level, min_domains: spread.min_domains.max(1), members });
        }
        layout.tie_blocks();
        Ok(layout)
    }

    /// Cuts every role into its segments, or leaves it whole where something is said of it alone; all others are one block.
    fn add_blocks(
        &mut self,
        info: &LayoutInfo,
        roles: &[GangRoleInfo],
        members: &[Slot],
        levels: &Levels,
    ) -> Result<(), Reason> {
        let cut = match &info.segments {
            Some(segments) => {
                Some((segments, level(levels, &segments.level, || "spec.topology.segments.level".into())?))
            }
            None => None,
        };
        let mut rest = Block { role: usize::MAX, ..Block::default() };
        let mut before = 0;
        for (at, role) in roles.iter().enumerate() {
            let own: Vec<&Slot> = members.iter().filter(|m| m.role == role.name).collect();
            let said = info.roles.iter().find(|said| said.role == role.name);
            let field = |name: &str| format_smolstr!("spec.roles[{at}].topology.{name}");
            let mut preferred: Vec<LevelIndex> = Vec::new();
            for (nth, name) in said.into_iter().flat_map(|said| &said.preferred).enumerate() {
                preferred.push(level(levels, name, || field(&format!("preferred[{nth}]")))?);
            }
            let mut named = said.is_some();
            for (nth, set) in info.separate.iter().enumerate().filter(|(_, set)| set.roles.contains(&role.name)) {
                // Those that must not mix had better not be everywhere.
                preferred.push(level(levels, &set.level, || format_smolstr!("spec.separate[{nth}].level"))?);
                named = true;
            }
            named |= info.colocate.iter().any(|set| set.roles.contains(&role.name));
            if let Some(name) = said.and_then(|said| said.required.as_ref()) {
                let level = level(levels, name, || field("required"))?;
                self.ties.push(Tie { level, members: own.iter().map(|m| m.pod).collect() });
            }
            let whole = Block { name: format_smolstr!("role {}", role.name), role: at, preferred, ..Block::default() };
            match (cut, named) {
                (Some((segments, level)), _) => self.cut(segments, level, role, before, &own, &whole),
                (None, true) => self.blocks.push(Block { members: own.iter().map(|m| m.pod).collect(), ..whole }),
                (None, false) => rest.members.extend(own.iter().map(|m| m.pod)),
            }
            before = role.replicas.saturating_add(before);
        }
        if !rest.members.is_empty() {
            self.blocks.push(rest);
        }
        Ok(())
    }

    /// The segments of a role, before whose members stand so many in rank order of the gang.
    fn cut(
        &mut self,
        segments: &SegmentsInfo,
        level: LevelIndex,
        role: &GangRoleInfo,
        before: u32,
        own: &[&Slot],
        whole: &Block,
    ) {
        let mut cut: BTreeMap<u32, Vec<PodId>> = BTreeMap::new();
        for (at, member) in (0..).zip(own) {
            let in_role = |rank: u32| if rank < role.replicas { Some(rank) } else { rank.checked_sub(before) };
            let position = member.rank.and_then(in_role).filter(|n| *n < role.replicas).unwrap_or(at);
            cut.entry(segment_of(position, role.replicas, segments)).or_default().push(member.pod);
        }
        for (segment, members) in cut {
            self.ties.push(Tie { level, members: members.clone() });
            let name = format_smolstr!("segment {segment} of {}", whole.name);
            self.blocks.push(Block { name, members, ..whole.clone() });
        }
    }

    /// Says of each block at which level all of it is tied.
    fn tie_blocks(&mut self) {
        for block in &mut self.blocks {
            let Some(first) = block.members.first() else { continue };
            // A tie holds whole blocks: all members of some roles, or just this segment.
            let ties = self.ties.iter().filter(|tie| tie.members.contains(first));
            block.level = ties.map(|tie| tie.level).max();
        }
    }

    /// Whether nothing is said of any part.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ties.is_empty()
            && self.apart.is_empty()
            && self.spread.is_none()
            && self.blocks.iter().all(|block| block.preferred.is_empty())
    }

    /// These members in the portions in which they may be placed one after the other: those of a tied block together.
    #[must_use]
    pub fn tied_together(&self, members: &[PodId]) -> Vec<Vec<PodId>> {
        let tied = self.blocks.iter().enumerate().filter(|(_, block)| block.level.is_some());
        let of: BTreeMap<PodId, usize> = tied.flat_map(|(at, b)| b.members.iter().map(move |pod| (*pod, at))).collect();
        let mut portions: Vec<Vec<PodId>> = Vec::new();
        let mut begun: BTreeMap<usize, usize> = BTreeMap::new();
        for pod in members {
            match of.get(pod).and_then(|block| begun.get(block)) {
                Some(portion) => portions[*portion].push(*pod),
                None => {
                    if let Some(block) = of.get(pod) {
                        begun.insert(*block, portions.len());
                    }
                    portions.push(vec![*pod]);
                }
            }
        }
        portions
    }

    /// The same where of those that have no place yet only some are to get one.
    #[must_use]
    pub(super) fn of_fewer(&self, keep: impl Fn(PodId) -> bool) -> Self {
        let mut fewer = self.clone();
        if let Some(spread) = &mut fewer.spread {
            spread.members.retain(|pod| keep(*pod));
        }
        fewer
    }
}

/// The segment of the member at a position among `replicas`.
fn segment_of(position: u32, replicas: u32, segments: &SegmentsInfo) -> u32 {
    let size = segments.size.max(1);
    if !segments.balanced || replicas == 0 {
        return position / size;
    }
    let count = replicas.div_ceil(size);
    let (least, larger) = (replicas / count, replicas % count);
    let in_larger = larger * (least + 1);
    if position < in_larger { position / (least + 1) } else { larger + (position - in_larger) / least }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes(replicas: u32, size: u32, balanced: bool) -> Vec<usize> {
        let segments = SegmentsInfo { size, level: "nvlink".into(), balanced };
        let of: Vec<u32> = (0..replicas).map(|at| segment_of(at, replicas, &segments)).collect();
        assert!(of.is_sorted(), "ranks of a segment follow each other: {of:?}");
        of.chunk_by(|a, b| a == b).map(<[u32]>::len).collect()
    }

    #[test]
    fn balanced_segments_are_as_few_and_as_equal_as_can_be() {
        assert_eq!(sizes(24, 18, true), [12, 12]);
        assert_eq!(sizes(48, 18, true), [16, 16, 16]);
        assert_eq!(sizes(17, 8, true), [6, 6, 5]);
        assert_eq!(sizes(3, 8, true), [3]);
        assert_eq!(sizes(24, 18, false), [18, 6]);
        assert_eq!(sizes(4, 1, true), [1, 1, 1, 1]);
    }
}
