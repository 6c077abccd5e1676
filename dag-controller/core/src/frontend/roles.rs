//! Roles of a node, and what it asks of its gang: `roles` and `gang`.

use super::data::SaidBy;
use super::errors::{Errors, Path, echo};
use super::schema::{self, Kind, get};
use super::{MAX_REPLICAS, Options, syntax, topology};
use crate::role::{Failure, Role, Success, WORKER};
use serde_json::{Map, Value};

/// Most roles of a node.
const MAX_ROLES: usize = 16;
const ROLE: &[schema::Field] = &[
    ("name", Kind::Special),
    ("replicas", Kind::Special),
    ("min", Kind::Special),
    ("successPolicy", Kind::Special),
    ("failurePolicy", Kind::Special),
    ("topology", Kind::Special),
    ("image", Kind::Special),
    ("command", Kind::Texts),
    ("args", Kind::Texts),
    ("workingDir", Kind::Text),
    ("env", Kind::Env),
    ("resources", Kind::Resources),
    ("nodeSelector", Kind::Labels),
    ("labels", Kind::Labels),
    ("annotations", Kind::Annotations),
    ("nprocPerNode", Kind::Whole(1, 1024)),
];
const GANG: &[schema::Field] = &[
    ("minMember", Kind::Whole(1, MAX_REPLICAS)),
    ("topology", Kind::Special),
    ("gpu", Kind::Special),
    ("queue", Kind::Name),
    ("priorityClassName", Kind::Name),
];
const GPU: &[schema::Field] = &[("product", Kind::Text), ("mig", Kind::Text), ("count", Kind::Whole(1, 1024))];
const SUCCESS: &[(&str, Success)] = &[("All", Success::All), ("Any", Success::Any), ("Ignore", Success::Ignore)];
const FAILURE: &[(&str, Failure)] =
    &[("FailGang", Failure::FailGang), ("ReplaceMember", Failure::ReplaceMember), ("Ignore", Failure::Ignore)];

/// What of a node's gang the engine has to know.
#[derive(Debug)]
pub(super) struct Members {
    /// Pods; `None` where that could not be read.
    pub(super) replicas: Option<u32>,
    /// Its roles, where it has any of its own.
    pub(super) roles: Option<Vec<Role>>,
    /// Every role has an image, so that the node needs none.
    pub(super) have_images: bool,
}

impl Members {
    /// Who says the outputs of the node.
    pub(super) fn said_by(&self) -> SaidBy<'_> {
        SaidBy { replicas: self.replicas.unwrap_or(1), roles: self.roles.as_deref() }
    }
}

/// Checks `replicas`, `roles` and `gang`.
pub(super) fn check(path: &Path, node: &Map<String, Value>, options: Options<'_>, errors: &mut Errors) -> Members {
    let replicas = match get(node, "replicas") {
        None => Some(1),
        Some(value) => count(&path.field("replicas"), value, errors),
    };
    let roles = get(node, "roles").filter(|roles| roles.as_array().is_none_or(|roles| !roles.is_empty()));
    let mut members = match roles {
        None => Members { replicas, roles: None, have_images: false },
        Some(roles) => check_roles(path, node, roles, options, errors),
    };
    if let Some(least) = check_gang(path, node, &members, options, errors) {
        let failure = match get(node, "memberLostPolicy").and_then(Value::as_str) {
            Some("ReplaceMember") => Failure::ReplaceLost,
            _ => Failure::FailGang,
        };
        let replicas = members.replicas.unwrap_or(least);
        let one = Role { name: WORKER.into(), replicas, min: least, success: Success::All, failure };
        members.roles = Some(vec![one]);
    }
    topology::of_node(path, node, members.replicas, options, errors);
    members
}

fn count(path: &Path, value: &Value, errors: &mut Errors) -> Option<u32> {
    schema::whole(path, value, 1, MAX_REPLICAS, errors).and_then(|count| u32::try_from(count).ok())
}

fn check_roles(
    of_node: &Path,
    node: &Map<String, Value>,
    value: &Value,
    options: Options<'_>,
    errors: &mut Errors,
) -> Members {
    let path = of_node.field("roles");
    // The API server writes one replica where the node says nothing.
    if get(node, "replicas").is_some_and(|replicas| replicas.as_i64() != Some(1)) {
        errors.push(of_node.field("replicas"), "has no meaning beside roles", "remove it: each role has its replicas");
    }
    if get(node, "memberLostPolicy").is_some() {
        let fix = "remove it: failurePolicy of each role says what a lost member means";
        errors.push(of_node.field("memberLostPolicy"), "has no meaning beside roles", fix);
    }
    let mut roles: Vec<Role> = Vec::new();
    let (mut whole, mut have_images) = (true, true);
    for (at, entry) in schema::list(&path, value, errors).into_iter().flatten().enumerate() {
        let path = path.at(at);
        if at == MAX_ROLES {
            errors.push(path, format!("is more than {MAX_ROLES} roles"), "make nodes of their own of some");
            break;
        }
        let Some(fields) = schema::object(&path, entry, errors) else { continue };
        have_images &= get(fields, "image").is_some();
        match check_role(&path, fields, options, errors) {
            Some(role) if roles.iter().any(|known| known.name == role.name) => {
                let problem = format!("{} is there twice", echo(&role.name));
                errors.push(path.field("name"), problem, "rename one of the two");
            }
            Some(role) => roles.push(role),
            None => whole = false,
        }
    }
    let total = roles.iter().map(|role| i64::from(role.replicas)).sum::<i64>();
    if total > MAX_REPLICAS {
        let problem = format!("have {total} replicas together, at most {MAX_REPLICAS} are possible");
        errors.push(&path, problem, "make the roles smaller, or make nodes of their own of some");
    }
    if whole && !roles.is_empty() && roles.iter().all(|role| role.success == Success::Ignore) {
        let fix = "give the role that does the work successPolicy: All or Any";
        errors.push(&path, "have successPolicy Ignore all of them, so that the gang would never be done", fix);
    }
    Members { replicas: whole.then(|| u32::try_from(total).ok()).flatten(), roles: Some(roles), have_images }
}

fn check_role(path: &Path, role: &Map<String, Value>, options: Options<'_>, errors: &mut Errors) -> Option<Role> {
    schema::check(role, path, &[ROLE], options, errors);
    topology::of_role(path, role, options, errors);
    if let Some(image) = get(role, "image") {
        super::workflow::check_image(&path.field("image"), image, errors);
    }
    let word = |key: &str| get(role, key).map(|value| (path.field(key), value));
    let success = word("successPolicy").map(|(path, value)| schema::word(&path, value, SUCCESS, errors));
    let failure = word("failurePolicy").map(|(path, value)| schema::word(&path, value, FAILURE, errors));
    let replicas = get(role, "replicas").map_or(Some(1), |value| count(&path.field("replicas"), value, errors));
    let name = name(path, role, errors);
    // Absent is the default, and a wrong word is told already.
    let (success, failure) = (success.unwrap_or(Some(Success::All)), failure.unwrap_or(Some(Failure::FailGang)));
    let least = i64::from(success != Some(Success::Ignore));
    let min = match (get(role, "min"), replicas) {
        (None, replicas) => replicas,
        (Some(value), most) => {
            let path = path.field("min");
            if value.as_i64() == Some(0) && least == 1 {
                let fix = "write at least 1, or successPolicy: Ignore";
                errors.push(path, "must be at least 1 in a role that counts for the success", fix);
                return None;
            }
            let most = most.map_or(MAX_REPLICAS, i64::from);
            schema::whole(&path, value, least, most, errors).and_then(|min| u32::try_from(min).ok())
        }
    };
    Some(Role { name: name?.into(), replicas: replicas?, min: min?, success: success?, failure: failure? })
}

fn name<'a>(path: &Path, role: &'a Map<String, Value>, errors: &mut Errors) -> Option<&'a str> {
    let Some(name) = get(role, "name") else {
        errors.push(path, "has no name", "add name, unique in the node, like worker");
        return None;
    };
    let name = schema::text(&path.field("name"), name, errors)?;
    if !syntax::is_label(name) {
        let fix = "use lower-case letters, digits and '-', at most 63, the first and last no '-'";
        errors.push(path.field("name"), format!("{} is no name of a role", echo(name)), fix);
        return None;
    }
    Some(name)
}

/// Checks `gang`; the minimum that it gives a node without roles, where that is less than all.
fn check_gang(
    of_node: &Path,
    node: &Map<String, Value>,
    members: &Members,
    options: Options<'_>,
    errors: &mut Errors,
) -> Option<u32> {
    let path = of_node.field("gang");
    let gang = schema::object(&path, get(node, "gang")?, errors)?;
    schema::check(gang, &path, &[GANG], options, errors);
    topology::of_node(&path, gang, members.replicas, options, errors);
    for key in ["topology", "priorityClassName"] {
        if get(gang, key).is_some() && get(node, key).is_some() {
            errors.push(path.field(key), format!("is there twice: the node has {key} too"), "remove one of the two");
        }
    }
    let of_roles = [("minMember", "write min of each role"), ("gpu", "write resources of the roles that need GPUs")];
    for (key, fix) in of_roles.into_iter().filter(|(key, _)| members.roles.is_some() && get(gang, key).is_some()) {
        errors.push(path.field(key), "has no meaning beside roles", fix);
    }
    if let Some(gpu) = get(gang, "gpu") {
        check_gpu(&path.field("gpu"), gpu, options, errors);
    }
    let least = get(gang, "minMember")?.as_u64().and_then(|least| u32::try_from(least).ok())?;
    let replicas = members.replicas.filter(|_| members.roles.is_none())?;
    if least > replicas {
        let problem = format!("{least} are more than the node has replicas ({replicas})");
        errors.push(path.field("minMember"), problem, format!("write at most {replicas}"));
    }
    (least < replicas).then_some(least)
}

fn check_gpu(path: &Path, value: &Value, options: Options<'_>, errors: &mut Errors) {
    let Some(gpu) = schema::object(path, value, errors) else { return };
    schema::check(gpu, path, &[GPU], options, errors);
    if get(gpu, "count").is_none() {
        errors.push(path.field("count"), "is missing", "write the GPUs of each pod, like count: 8");
    }
    if let Some(product) = get(gpu, "product").and_then(Value::as_str)
        && (product.is_empty() || !syntax::is_label_value(product))
    {
        let fix = "write the value of the node label nvidia.com/gpu.product, like NVIDIA-H100-80GB-HBM3";
        errors.push(path.field("product"), format!("{} is no value of a label", echo(product)), fix);
    }
    let is_profile = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '.');
    if let Some(mig) = get(gpu, "mig").and_then(Value::as_str)
        && (mig.is_empty() || !is_profile(mig) || mig.starts_with('.') || mig.ends_with('.'))
    {
        let problem = format!("{} is no MIG profile", echo(mig));
        errors.push(path.field("mig"), problem, "write a profile, like 1g.10gb");
    }
}
