//! Where members of a gang, or of one of its roles, may stand.

use super::errors::{Errors, Path, echo};
use super::schema::{self, Kind, get};
use super::{Levels, Options};
use serde_json::{Map, Value};

/// Fields of `topology` of a node.
const TOPOLOGY: &[schema::Field] = &[("segments", Kind::Special), ("spread", Kind::Special)];
/// Those that a role has too.
const LEVELS: &[schema::Field] = &[("required", Kind::Special), ("preferred", Kind::Special)];
/// Fields of `topology.segments`.
const SEGMENTS: &[schema::Field] =
    &[("size", Kind::Whole(1, 8192)), ("level", Kind::Special), ("balanced", Kind::Flag)];
/// Fields of `topology.spread`.
const SPREAD: &[schema::Field] = &[("level", Kind::Special), ("minDomains", Kind::Whole(1, 8192))];

/// Checks `topology` of a node with so many members.
pub(super) fn of_node(
    path: &Path,
    object: &Map<String, Value>,
    members: Option<u32>,
    options: Options<'_>,
    errors: &mut Errors,
) {
    let Some(value) = get(object, "topology") else { return };
    let path = path.field("topology");
    let Some(topology) = schema::object(&path, value, errors) else { return };
    schema::check(topology, &path, &[LEVELS, TOPOLOGY], options, errors);
    check_levels(&path, topology, options, errors);
    for (key, amount, fields) in [("segments", "size", SEGMENTS), ("spread", "minDomains", SPREAD)] {
        let Some(value) = get(topology, key) else { continue };
        let path = path.field(key);
        let Some(part) = schema::object(&path, value, errors) else { continue };
        schema::check(part, &path, &[fields], options, errors);
        for needed in ["level", amount].into_iter().filter(|field| get(part, field).is_none()) {
            errors.push(path.field(needed), "is missing", format!("write {key}: {{{amount}: 8, level: rack}}"));
        }
        if let Some(level) = get(part, "level") {
            check_level(&path.field("level"), level, options, errors);
        }
        let many = get(part, "minDomains").and_then(Value::as_i64);
        if let (Some(many), Some(members)) = (many, members.map(i64::from))
            && many > members
        {
            let problem = format!("{many} domains are more than the node has replicas ({members})");
            errors.push(path.field("minDomains"), problem, format!("write at most {members}"));
        }
    }
}

/// Checks `topology` of a role.
pub(super) fn of_role(path: &Path, role: &Map<String, Value>, options: Options<'_>, errors: &mut Errors) {
    let Some(value) = get(role, "topology") else { return };
    let path = path.field("topology");
    let Some(topology) = schema::object(&path, value, errors) else { return };
    for key in ["segments", "spread"].into_iter().filter(|key| get(topology, key).is_some()) {
        let fix = "write it in the topology of the node: every role is cut by itself";
        errors.push(path.field(key), "is nothing that a role has of its own", fix);
    }
    schema::check(topology, &path, &[LEVELS, TOPOLOGY], options, errors);
    check_levels(&path, topology, options, errors);
}

fn check_levels(path: &Path, topology: &Map<String, Value>, options: Options<'_>, errors: &mut Errors) {
    if let Some(level) = get(topology, "required") {
        check_level(&path.field("required"), level, options, errors);
    }
    if let Some(levels) = get(topology, "preferred") {
        let path = path.field("preferred");
        for (at, level) in schema::list(&path, levels, errors).into_iter().flatten().enumerate() {
            check_level(&path.at(at), level, options, errors);
        }
    }
}

fn check_level(path: &Path, value: &Value, options: Options<'_>, errors: &mut Errors) {
    let (Some(level), Levels::These(levels)) = (schema::text(path, value, errors), options.levels) else { return };
    if !levels.contains(&level) {
        let fix = errors
            .look_alike(level, levels.iter().copied())
            .map_or_else(|| format!("write one of {}", levels.join(", ")), |near| format!("did you mean {near}?"));
        errors.push(path, format!("{} is no topology level", echo(level)), fix);
    }
}
