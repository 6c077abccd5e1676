//! Where parts of a gang may stand.

use flowforge_api::gang::{GangRole, GangSpec, RoleSet};
use flowforge_scheduler_core::model::{LayoutInfo, RoleSetInfo, RoleTopologyInfo, SegmentsInfo, SpreadInfo};
use smol_str::SmolStr;

/// What a Gang says about its segments, failure domains and roles.
pub(super) fn of(spec: &GangSpec) -> LayoutInfo {
    let topology = spec.topology.as_ref();
    LayoutInfo {
        segments: topology.and_then(|t| t.segments.as_ref()).map(|segments| SegmentsInfo {
            size: count(segments.size),
            level: segments.level.as_str().into(),
            balanced: segments.balanced,
        }),
        spread: topology
            .and_then(|t| t.spread.as_ref())
            .map(|spread| SpreadInfo { level: spread.level.as_str().into(), min_domains: count(spread.min_domains) }),
        roles: spec.roles.iter().enumerate().filter_map(|(at, role)| role_topology(at, role)).collect(),
        colocate: spec.colocate.iter().map(role_set).collect(),
        separate: spec.separate.iter().map(role_set).collect(),
    }
}

fn role_topology(index: usize, role: &GangRole) -> Option<RoleTopologyInfo> {
    let topology = role.topology.as_ref()?;
    Some(RoleTopologyInfo {
        role: role.name.as_str().into(),
        index,
        required: topology.required.as_deref().map(SmolStr::from),
        preferred: topology.preferred.iter().map(SmolStr::from).collect(),
    })
}

fn role_set(set: &RoleSet) -> RoleSetInfo {
    RoleSetInfo { level: set.level.as_str().into(), roles: set.roles.iter().map(SmolStr::from).collect() }
}

fn count(value: i32) -> u32 {
    u32::try_from(value).unwrap_or_default()
}
