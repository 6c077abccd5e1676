//! Expressions against devices.

use crate::{Attribute, CompileError, Device, EvalError, Program, Quantity};
use smol_str::SmolStr;

fn device() -> Device {
    let attributes: Vec<(SmolStr, Attribute)> = vec![
        ("model".into(), Attribute::String("A100".into())),
        ("numa".into(), Attribute::Int(1)),
        ("ready".into(), Attribute::Bool(true)),
        ("driverVersion".into(), Attribute::Version("550.54.15".into())),
        ("other.example/speed".into(), Attribute::Int(400)),
        ("tags".into(), Attribute::List(vec![Attribute::String("a".into()), Attribute::String("b".into())])),
    ];
    let capacity: Vec<(SmolStr, Quantity)> = vec![("memory".into(), Quantity::parse("80Gi").unwrap())];
    Device::new(
        &"gpu.example".into(),
        false,
        attributes.iter().map(|(name, value)| (name, value)),
        capacity.iter().map(|(name, value)| (name, *value)),
    )
}

fn check(expression: &str) -> Result<bool, String> {
    let program = Program::compile(expression).map_err(|e| format!("compile: {e}"))?;
    program.matches(&device()).map_err(|e| e.to_string())
}

#[test]
fn devices_are_selected_by_what_they_are() {
    for expression in [
        r#"device.driver == "gpu.example""#,
        r#"device.attributes["gpu.example"].model == "A100""#,
        r#"device.attributes["gpu.example"].model.startsWith("A")"#,
        r#"device.attributes["other.example"].speed >= 400"#,
        r#"device.capacity["gpu.example"].memory.compareTo(quantity("40Gi")) > 0"#,
        r#"device.capacity["gpu.example"].memory == quantity("80Gi")"#,
        r#"device.attributes["gpu.example"].driverVersion.isGreaterThan(semver("535.0.0"))"#,
        r#"device.attributes["gpu.example"].?missing.orValue("x") == "x""#,
        r#"!has(device.attributes["gpu.example"].missing) && has(device.attributes["gpu.example"].model)"#,
        r#"!("none.example" in device.attributes) && "gpu.example" in device.attributes"#,
        r#"cel.bind(gpu, device.attributes["gpu.example"], gpu.ready && gpu.numa == 1)"#,
        r#"device.attributes["gpu.example"].tags.exists(t, t == "b")"#,
        r#"device.attributes["gpu.example"].tags.includes("a")"#,
        r#"[1, 2, 3].all(x, x > 0) && [1, 2].exists_one(x, x == 1) && [1, 2].map(x, x * 2) == [2, 4]"#,
        r#"{"a": 1}.transformMap(k, v, v + 1) == {"a": 2} && [3, 1].sort() == [1, 3]"#,
        r#"device.attributes["gpu.example"].ready"#,
        r#"device.attributes[?"gpu.example"].?model.optMap(m, m + "x").orValue("") == "A100x""#,
        r#"device.attributes["gpu.example"].model.matches("^A\\d+$") || 1 / 0 == 1"#,
    ] {
        assert_eq!(check(expression), Ok(true), "{expression}");
    }
}

#[test]
fn what_fails_is_an_error_and_not_false() {
    let fails = |expression: &str, with: &str| {
        let error = check(expression).unwrap_err();
        assert!(error.contains(with), "{expression}: {error}");
    };
    fails(r#"device.attributes["gpu.example"].missing == 1"#, "no such key: missing");
    fails(r#"device.attributes["none.example"].missing == 1"#, "no such key: missing");
    fails("1 / 0 == 1", "division by zero");
    fails("9223372036854775807 + 1 > 0", "overflow");
    fails(r#"device.attributes["gpu.example"].model"#, "could not be converted to bool");
    fails(r#"device.attributes["gpu.example"].model < 1"#, "no such overload");
    fails(r#"quantity("x") == quantity("1")"#, "not a quantity");
}

#[test]
fn types_are_checked_before_anything_is_evaluated() {
    let refused = |expression: &str, with: &str| {
        let error = Program::compile(expression).unwrap_err().to_string();
        assert!(error.contains(with), "{expression}: {error}");
    };
    refused(r#"true || 1 + "a" == 2"#, "no matching overload");
    refused("device.nothing == 1", "undefined field 'nothing'");
    refused("devices.driver == \"\"", "undeclared reference to 'devices'");
    refused("device.driver", "must evaluate to bool");
    refused("[1, \"a\"] == []", "expected type");
    refused("true && 1", "expected type 'bool'");
    refused("device.driver.all(x, true)", "cannot be range");
    refused("device.driver.matches(\"(\")", "no regular expression");
    refused("[1].exists(x + 1, true)", "simple name");
    assert_eq!(
        Program::compile(r#"duration("1s") == duration("1s")"#).unwrap_err(),
        CompileError::Unsupported("duration".into())
    );
    assert_eq!(Program::compile(r#"ip("::1").family() == 6"#).unwrap_err(), CompileError::Unsupported("family".into()));
}

#[test]
fn an_evaluation_that_costs_too_much_is_stopped() {
    let heavy = "lists.range(2000).all(a, lists.range(2000).all(b, a + b >= 0))";
    let program = Program::compile(&format!("true || {heavy}")).unwrap();
    assert_eq!(program.matches(&device()), Ok(true));
    let program = Program::compile(&format!("{heavy} || true")).unwrap();
    assert!(matches!(program.matches(&device()), Err(EvalError::CostLimit(_))));
}

#[test]
fn a_device_with_an_attribute_that_cannot_be_read_fails_every_expression() {
    let attributes: Vec<(SmolStr, Attribute)> = vec![("v".into(), Attribute::Version("1".into()))];
    let device = Device::new(&"d".into(), false, attributes.iter().map(|(n, a)| (n, a)), []);
    assert!(Program::compile("true").unwrap().matches(&device).unwrap_err().to_string().contains("attribute v"));
}
