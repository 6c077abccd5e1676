//! Device selectors (CEL): what both sides say about an expression and a device.

use crate::upstream::Upstream;
use anyhow::{Context as _, Result};
use flowforge_scheduler_cel::{Attribute, CompileError, Device, Program, Quantity};
use serde::Deserialize;
use serde_json::{Value, json};
use smol_str::SmolStr;

/// What a side says.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    /// The expression does not compile.
    Refused,
    /// It fails on the device.
    Failed,
    /// It has a result.
    Matches(bool),
}

/// Both answers to one question.
#[derive(Clone, Debug)]
pub struct Selection {
    /// What was asked.
    pub expression: String,
    /// Number of the device.
    pub device: usize,
    /// kube-scheduler's answer.
    pub upstream: Said,
    /// FlowForge's answer.
    pub ours: Said,
    /// The words of both, where they have any.
    pub words: (String, String),
    /// Cost by both.
    pub cost: (u64, u64),
    /// FlowForge says that it does not support a function.
    pub unsupported: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Upstreams {
    compile: String,
    run: String,
    matches: bool,
    cost: u64,
}

/// Asks both sides about every expression and device.
///
/// # Errors
/// When the oracle ends.
pub fn selections(upstream: &mut Upstream, expressions: &[String]) -> Result<Vec<Selection>> {
    let mut all = Vec::new();
    for expression in expressions {
        let program = Program::compile(expression);
        for (at, (question, device)) in devices().into_iter().enumerate() {
            let mut question = question;
            question["expression"] = json!(expression);
            let answer = upstream.line(&question)?;
            let theirs: Upstreams = serde_json::from_str(&answer).with_context(|| format!("no answer: {answer}"))?;
            let (ours, words, cost) = match &program {
                Err(error) => (Said::Refused, error.to_string(), 0),
                Ok(program) => match program.evaluate(&device) {
                    (Ok(matches), cost) => (Said::Matches(matches), String::new(), cost),
                    (Err(error), cost) => (Said::Failed, error.to_string(), cost),
                },
            };
            let upstream = match &theirs {
                Upstreams { compile, .. } if !compile.is_empty() => Said::Refused,
                Upstreams { run, .. } if !run.is_empty() => Said::Failed,
                other => Said::Matches(other.matches),
            };
            all.push(Selection {
                expression: expression.clone(),
                device: at,
                upstream,
                ours,
                words: (theirs.compile + &theirs.run, words),
                cost: (theirs.cost, cost),
                unsupported: matches!(program, Err(CompileError::Unsupported(_))),
            });
        }
    }
    Ok(all)
}

/// Devices of different drivers, with every kind of attribute, and with none.
fn devices() -> Vec<(Value, Device)> {
    let full = [
        ("model", "string", json!("A100"), Attribute::String("A100".into())),
        ("numa", "int", json!(1), Attribute::Int(1)),
        ("ready", "bool", json!(true), Attribute::Bool(true)),
        ("driverVersion", "version", json!("550.54.15"), Attribute::Version("550.54.15".into())),
        ("other.example/speed", "int", json!(400), Attribute::Int(400)),
        (
            "tags",
            "strings",
            json!(["a", "b"]),
            Attribute::List(vec![Attribute::String("a".into()), Attribute::String("b".into())]),
        ),
    ];
    let other = [
        ("gpu.example/model", "string", json!("H100"), Attribute::String("H100".into())),
        ("gpu.example/ready", "bool", json!(false), Attribute::Bool(false)),
        ("gpu.example/numa", "int", json!(0), Attribute::Int(0)),
    ];
    let broken = [("driverVersion", "version", json!("1.0"), Attribute::Version("1.0".into()))];
    vec![
        device("gpu.example", true, &full, &[("memory", "80Gi")]),
        device("nic.example", false, &other, &[("gpu.example/memory", "1500m")]),
        device("gpu.example", false, &[], &[]),
        device("gpu.example", false, &broken, &[]),
    ]
}

fn device(
    driver: &str,
    multiple: bool,
    attributes: &[(&str, &str, Value, Attribute)],
    capacity: &[(&str, &str)],
) -> (Value, Device) {
    let written: serde_json::Map<String, Value> =
        attributes.iter().map(|(name, kind, value, _)| ((*name).to_owned(), json!({*kind: value}))).collect();
    let amounts: serde_json::Map<String, Value> =
        capacity.iter().map(|(name, amount)| ((*name).to_owned(), json!({"value": amount}))).collect();
    let question = json!({"driver": driver, "device": {
        "name": "d", "allowMultipleAllocations": multiple, "attributes": written, "capacity": amounts}});
    let named: Vec<(SmolStr, Attribute)> =
        attributes.iter().map(|(name, _, _, value)| ((*name).into(), value.clone())).collect();
    let amounts: Vec<(SmolStr, Quantity)> =
        capacity.iter().map(|(name, amount)| ((*name).into(), Quantity::parse(amount).unwrap_or_default())).collect();
    let device = Device::new(
        &driver.into(),
        multiple,
        named.iter().map(|(name, value)| (name, value)),
        amounts.iter().map(|(name, amount)| (name, *amount)),
    );
    (question, device)
}
