//! `retry` of a node: the fields of [`Retry`], in seconds.

use super::Options;
use super::errors::{Errors, Path, echo};
use super::schema::{self, Field, Kind, get, word};
use crate::reason::{Class, Reason};
use crate::retry::{On, Retry, Scope};
use serde_json::{Map, Value};
use std::sync::Arc;

const DAY_SECONDS: i64 = 24 * 60 * 60;
const MOST_ATTEMPTS: i64 = 1_000;

const RETRY: &[Field] = &[
    ("limit", Kind::Whole(0, MOST_ATTEMPTS)),
    ("infrastructureLimit", Kind::Whole(0, MOST_ATTEMPTS)),
    ("backoff", Kind::Special),
    ("scope", Kind::Special),
    ("on", Kind::Special),
    ("forceAfterSeconds", Kind::Whole(1, DAY_SECONDS)),
];
const BACKOFF: &[Field] = &[
    ("initialSeconds", Kind::Whole(0, DAY_SECONDS)),
    ("factor", Kind::Whole(1, 10)),
    ("capSeconds", Kind::Whole(0, DAY_SECONDS)),
    ("jitterPercent", Kind::Whole(0, 100)),
];
const ON: &[Field] = &[("exitCodes", Kind::Special), ("reasons", Kind::Special)];
const SCOPES: &[(&str, Scope)] = &[("Gang", Scope::Gang), ("Member", Scope::Member)];

/// How a node is tried again, where it says so.
pub(super) fn check(
    path: &Path,
    node: &Map<String, Value>,
    options: Options<'_>,
    errors: &mut Errors,
) -> Option<Arc<Retry>> {
    let path = path.field("retry");
    let object = schema::object(&path, get(node, "retry")?, errors)?;
    schema::check(object, &path, &[RETRY], options, errors);
    let mut retry = Retry::default();
    set(object, "limit", |n| retry.limit = n);
    set(object, "infrastructureLimit", |n| retry.infrastructure_limit = n);
    set(object, "forceAfterSeconds", |n| retry.force_after_ms = Some(u64::from(n) * 1_000));
    if let Some(backoff) = get(object, "backoff") {
        check_backoff(&path.field("backoff"), backoff, &mut retry, options, errors);
    }
    if let Some(scope) = get(object, "scope") {
        retry.scope = word(&path.field("scope"), scope, SCOPES, errors).unwrap_or_default();
    }
    if let Some(on) = get(object, "on") {
        retry.on = check_on(&path.field("on"), on, options, errors);
    }
    Some(Arc::new(retry))
}

/// Numbers that are none, or out of range, are reported by the table.
fn set(object: &Map<String, Value>, key: &str, mut to: impl FnMut(u32)) {
    if let Some(number) = get(object, key).and_then(Value::as_u64).and_then(|n| u32::try_from(n).ok()) {
        to(number);
    }
}

fn check_backoff(path: &Path, value: &Value, retry: &mut Retry, options: Options<'_>, errors: &mut Errors) {
    let Some(object) = schema::object(path, value, errors) else { return };
    schema::check(object, path, &[BACKOFF], options, errors);
    set(object, "initialSeconds", |n| retry.initial_ms = u64::from(n) * 1_000);
    set(object, "capSeconds", |n| retry.cap_ms = u64::from(n) * 1_000);
    set(object, "factor", |n| retry.factor = n);
    set(object, "jitterPercent", |n| retry.jitter_percent = n);
    if retry.cap_ms < retry.initial_ms {
        let problem = format!("the first pause ({} s) is longer than the longest", retry.initial_ms / 1_000);
        errors.push(path.field("capSeconds"), problem, "write at least initialSeconds");
    }
}

fn check_on(path: &Path, value: &Value, options: Options<'_>, errors: &mut Errors) -> Option<On> {
    let object = schema::object(path, value, errors)?;
    schema::check(object, path, &[ON], options, errors);
    let mut on = On::default();
    if let Some(codes) = get(object, "exitCodes") {
        let path = path.field("exitCodes");
        for (at, code) in schema::list(&path, codes, errors).into_iter().flatten().enumerate() {
            let code = schema::whole(&path.at(at), code, 1, 255, errors);
            on.exit_codes.extend(code.and_then(|code| i32::try_from(code).ok()));
        }
    }
    if let Some(reasons) = get(object, "reasons") {
        let path = path.field("reasons");
        for (at, reason) in schema::list(&path, reasons, errors).into_iter().flatten().enumerate() {
            let Some(text) = schema::text(&path.at(at), reason, errors) else { continue };
            match Reason::ALL.iter().find(|r| r.as_str() == text && r.class() == Class::User) {
                Some(reason) => _ = on.reasons.insert(*reason),
                None => wrong_reason(&path.at(at), text, errors),
            }
        }
    }
    if errors.is_empty() && on == On::default() {
        errors.push(
            path,
            "names no failure, so that none would be tried again",
            "add exitCodes or reasons, or remove it",
        );
    }
    Some(on)
}

fn wrong_reason(path: &Path, text: &str, errors: &mut Errors) {
    let known = || Reason::ALL.iter().filter(|r| r.class() == Class::User).map(|r| r.as_str());
    let fix = match Reason::ALL.iter().any(|r| r.as_str() == text && r.class() == Class::Infrastructure) {
        true => "remove it: failures of the infrastructure have infrastructureLimit".to_owned(),
        false => format!("write one of {}", known().collect::<Vec<_>>().join(", ")),
    };
    errors.push(path, format!("{} is no failure of the user's", echo(text)), fix);
}
