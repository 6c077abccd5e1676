//! Functions of strings. Places in a string are counted in characters.

use super::{Called, int, no_overload};
use crate::eval::failed;
use crate::regexes;
use crate::value::Value;
use regex::Regex;
use smol_str::SmolStr;
use std::borrow::Cow;
use std::collections::BTreeMap;

pub(super) fn call(name: &str, text: &SmolStr, rest: &[Value], regexes: &BTreeMap<SmolStr, Regex>) -> Called {
    use Value::{Int, String as Text};
    match (name, rest) {
        ("contains", [Text(part)]) => Ok(Value::Bool(text.contains(part.as_str()))),
        ("startsWith", [Text(part)]) => Ok(Value::Bool(text.starts_with(part.as_str()))),
        ("endsWith", [Text(part)]) => Ok(Value::Bool(text.ends_with(part.as_str()))),
        ("matches", [Text(pattern)]) => Ok(Value::Bool(regex(pattern, regexes)?.is_match(text))),
        ("find", [Text(pattern)]) => {
            Ok(Text(regex(pattern, regexes)?.find(text).map_or_else(SmolStr::default, |found| found.as_str().into())))
        }
        ("findAll", [Text(pattern)]) => find_all(text, pattern, -1, regexes),
        ("findAll", [Text(pattern), Int(limit)]) => find_all(text, pattern, *limit, regexes),
        ("charAt", [Int(at)]) => match usize::try_from(*at) {
            Ok(place) if place <= text.chars().count() => {
                Ok(Text(text.chars().nth(place).map(String::from).unwrap_or_default().into()))
            }
            _ => failed(format!("index out of range: {at}")),
        },
        ("indexOf", [Text(part)]) => index_of(text, part, 0),
        ("indexOf", [Text(part), Int(from)]) => index_of(text, part, *from),
        ("lastIndexOf", [Text(part)]) => last_index_of(text, part, None),
        ("lastIndexOf", [Text(part), Int(from)]) => last_index_of(text, part, Some(*from)),
        ("lowerAscii", []) => Ok(Text(text.to_ascii_lowercase().into())),
        ("upperAscii", []) => Ok(Text(text.to_ascii_uppercase().into())),
        ("replace", [Text(from), Text(to)]) => Ok(Text(text.replace(from.as_str(), to).into())),
        ("replace", [Text(from), Text(to), Int(count)]) => Ok(Text(match usize::try_from(*count) {
            Ok(count) => text.replacen(from.as_str(), to, count).into(),
            Err(_) => text.replace(from.as_str(), to).into(),
        })),
        ("split", [Text(at)]) => Ok(split(text, at, -1)),
        ("split", [Text(at), Int(limit)]) => Ok(split(text, at, *limit)),
        ("substring", [Int(from)]) => substring(text, *from, None),
        ("substring", [Int(from), Int(to)]) => substring(text, *from, Some(*to)),
        ("trim", []) => Ok(Text(text.trim_matches(|c: char| c.is_whitespace()).into())),
        ("strings.quote", []) => Ok(Text(quote(text).into())),
        _ => no_overload(name),
    }
}

fn regex<'a>(pattern: &SmolStr, known: &'a BTreeMap<SmolStr, Regex>) -> Result<Cow<'a, Regex>, crate::EvalError> {
    match known.get(pattern) {
        Some(regex) => Ok(Cow::Borrowed(regex)),
        None => regexes::compile(pattern).map(Cow::Owned).or_else(failed),
    }
}

fn find_all(text: &str, pattern: &SmolStr, limit: i64, known: &BTreeMap<SmolStr, Regex>) -> Called {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let regex = regex(pattern, known)?;
    let found = regex.find_iter(text).take(limit).map(|found| Value::String(found.as_str().into()));
    Ok(Value::list(found.collect()))
}

fn index_of(text: &str, part: &str, from: i64) -> Called {
    let Ok(start) = usize::try_from(from) else { return failed(format!("index out of range: {from}")) };
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    if part.is_empty() {
        return int(start.min(text.len()));
    }
    let found = text.windows(part.len()).enumerate().skip(start).find(|(_, window)| *window == part);
    found.map_or(Ok(Value::Int(-1)), |(at, _)| int(at))
}

fn last_index_of(text: &str, part: &str, from: Option<i64>) -> Called {
    let (text, part): (Vec<char>, Vec<char>) = (text.chars().collect(), part.chars().collect());
    let start = match from {
        None if part.is_empty() => return int(text.len()),
        None => text.len().saturating_sub(1),
        Some(from) => match usize::try_from(from) {
            Ok(start) => start,
            Err(_) => return failed(format!("index out of range: {from}")),
        },
    };
    if part.is_empty() {
        return int(start.min(text.len()));
    }
    if start >= text.len() {
        return Ok(Value::Int(-1));
    }
    let found = text.windows(part.len()).enumerate().take(start + 1).rfind(|(_, window)| *window == part);
    found.map_or(Ok(Value::Int(-1)), |(at, _)| int(at))
}

fn split(text: &str, at: &str, limit: i64) -> Value {
    let list = |parts: Vec<String>| Value::list(parts.into_iter().map(|part| Value::String(part.into())).collect());
    let limit = match limit {
        0 => return list(Vec::new()),
        limit => usize::try_from(limit).unwrap_or(usize::MAX),
    };
    if !at.is_empty() {
        return list(text.splitn(limit, at).map(str::to_owned).collect());
    }
    // Into characters; the last part is what is left.
    let chars: Vec<char> = text.chars().collect();
    let mut parts: Vec<String> = chars.iter().take(limit).map(char::to_string).collect();
    if let Some(last) = parts.last_mut() {
        last.extend(chars.iter().skip(limit));
    }
    list(parts)
}

fn substring(text: &str, from: i64, to: Option<i64>) -> Called {
    let chars: Vec<char> = text.chars().collect();
    let end = to.unwrap_or_else(|| i64::try_from(chars.len()).unwrap_or(i64::MAX));
    if to.is_some() && from > end {
        return failed(format!("invalid substring range. start: {from}, end: {end}"));
    }
    let place = |at: i64| usize::try_from(at).ok().filter(|at| *at <= chars.len());
    let (Some(start), Some(stop)) = (place(from), place(end)) else {
        let wrong = if place(from).is_none() { from } else { end };
        return failed(format!("index out of range: {wrong}"));
    };
    Ok(Value::String(chars.get(start..stop).unwrap_or_default().iter().collect::<String>().into()))
}

fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '\u{7}' => out.push_str("\\a"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{b}' => out.push_str("\\v"),
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            other => out.push(other),
        }
    }
    out.push('"');
    out
}
