//! Claims and mounts: `spec.storage`, `volumeMounts`, and paths that would shadow each other.

use super::Options;
use super::errors::{Errors, Path, echo};
use super::schema::{self, get};
use super::syntax;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// Where a claim is mounted when the text does not say.
const DEFAULT_MOUNT: &str = "/mnt";
/// Where `shmSize` mounts its memory volume.
const SHM: &str = "/dev/shm";
/// Most claims of one workflow.
const MAX_CLAIMS: usize = 16;

/// Paths that are taken in every pod, in their plainest form, with the field that takes them.
#[derive(Clone, Debug, Default)]
pub(super) struct Taken(BTreeMap<String, String>);

/// Checks `spec.storage`; a single object is taken for a list of one where the short form allows it.
pub(super) fn check(path: &Path, value: &Value, short: bool, options: Options<'_>, errors: &mut Errors) -> Taken {
    let mut taken = Taken::default();
    match value {
        Value::Object(claim) if short => check_claim(path, claim, &mut taken, options, errors),
        Value::Object(_) => {
            errors.push(path, "must be a list, is an object", "write a list: [{claimRef: …, mountPath: …}]");
        }
        _ => {
            for (at, entry) in schema::list(path, value, errors).into_iter().flatten().enumerate() {
                if at == MAX_CLAIMS {
                    errors.push(path, format!("has more than {MAX_CLAIMS} claims"), "use fewer, with subPath");
                    break;
                }
                let path = path.at(at);
                if let Some(claim) = schema::object(&path, entry, errors) {
                    check_claim(&path, claim, &mut taken, options, errors);
                }
            }
        }
    }
    taken
}

fn check_claim(path: &Path, claim: &Map<String, Value>, taken: &mut Taken, options: Options<'_>, errors: &mut Errors) {
    schema::check(claim, path, &[schema::STORAGE], options, errors);
    match get(claim, "claimRef") {
        None => errors.push(path, "has no claimRef", "name a PersistentVolumeClaim of the workflow's namespace"),
        Some(name) => {
            let path = path.field("claimRef");
            if let Some(name) = schema::text(&path, name, errors)
                && !syntax::is_subdomain(name)
            {
                let fix = "write the name of a PersistentVolumeClaim: lower-case letters, digits, '-' and '.'";
                errors.push(path, format!("{} is no name of a claim", echo(name)), fix);
            }
        }
    }
    if let Some(sub_path) = get(claim, "subPath") {
        let path = path.field("subPath");
        if let Some(text) = schema::text(&path, sub_path, errors)
            && (text.starts_with('/') || text.split('/').any(|part| part == ".."))
        {
            let fix = "write a path relative to the volume, without '..'";
            errors.push(path, format!("{} leaves the volume", echo(text)), fix);
        }
    }
    let mount = path.field("mountPath");
    match get(claim, "mountPath") {
        None => taken.take(&mount, DEFAULT_MOUNT, errors),
        Some(text) => {
            if let Some(text) = schema::text(&mount, text, errors) {
                taken.take(&mount, text, errors);
            }
        }
    }
}

impl Taken {
    /// Takes a mount path, or says why not.
    pub(super) fn take(&mut self, path: &Path, text: &str, errors: &mut Errors) {
        let Some(plain) = syntax::mount_path(text) else {
            let fix = "write an absolute path without ':' and '..', like /data";
            errors.push(path, format!("{} is no absolute path", echo(text)), fix);
            return;
        };
        if plain == "/" {
            errors.push(path, "would hide the whole image", "mount it below /, like /data");
        } else if let Some(other) = self.0.get(&plain) {
            errors.push(path, format!("{} is already mounted by {other}", echo(&plain)), "choose another mountPath");
        } else {
            self.0.insert(plain, path.to_string());
        }
    }

    /// Takes the path of `shmSize`, where `object` asks for it.
    pub(super) fn take_shm(&mut self, path: &Path, object: &Map<String, Value>, errors: &mut Errors) {
        if get(object, "shmSize").is_some() && !self.0.contains_key(SHM) {
            self.take(&path.field("shmSize"), SHM, errors);
        }
    }

    /// Takes the paths of a list of `volumeMounts`.
    pub(super) fn take_mounts(&mut self, path: &Path, object: &Map<String, Value>, errors: &mut Errors) {
        let Some(mounts) = get(object, "volumeMounts") else { return };
        let path = path.field("volumeMounts");
        for (at, entry) in schema::list(&path, mounts, errors).into_iter().flatten().enumerate() {
            let path = path.at(at);
            let Some(mount) = schema::object(&path, entry, errors) else { continue };
            for key in ["name", "mountPath"] {
                match get(mount, key) {
                    None => errors.push(&path, format!("has no {key}"), format!("add {key}")),
                    Some(value) => {
                        let path = path.field(key);
                        if let Some(text) = schema::text(&path, value, errors)
                            && key == "mountPath"
                        {
                            self.take(&path, text, errors);
                        }
                    }
                }
            }
        }
    }
}
