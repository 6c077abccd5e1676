//! What an expression sees of a device: `device.driver`, `device.attributes[domain].name`, `device.capacity[domain].name` and
//! `device.allowMultipleAllocations`.

use crate::quantity::Quantity;
use crate::semver::Semver;
use crate::value::{Key, Map, Value};
use serde::Serialize;
use smol_str::SmolStr;
use std::sync::Arc;

/// Value of an attribute.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub enum Attribute {
    /// `int`.
    Int(i64),
    /// `bool`.
    Bool(bool),
    /// `string`.
    String(SmolStr),
    /// `version`, as written.
    Version(SmolStr),
    /// A list of values of one kind.
    List(Vec<Attribute>),
    /// A kind that is not known here.
    Unknown,
}

/// A device, made once and then shown to any number of expressions.
#[derive(Clone, Debug)]
pub struct Device(Result<Value, String>);

impl Device {
    /// A device of a driver; names without a domain are in the driver's.
    pub fn new<'a>(
        driver: &SmolStr,
        allow_multiple_allocations: bool,
        attributes: impl IntoIterator<Item = (&'a SmolStr, &'a Attribute)>,
        capacity: impl IntoIterator<Item = (&'a SmolStr, Quantity)>,
    ) -> Self {
        let mut known = Map { lenient: true, ..Map::default() };
        for (name, attribute) in attributes {
            match value(attribute) {
                Ok(value) => insert(&mut known, name, driver, value),
                Err(what) => return Self(Err(format!("attribute {name}: {what}"))),
            }
        }
        let mut amounts = Map { lenient: true, ..Map::default() };
        for (name, amount) in capacity {
            insert(&mut amounts, name, driver, Value::Quantity(amount, false));
        }
        let fields = [
            ("driver", Value::String(driver.clone())),
            ("allowMultipleAllocations", Value::Bool(allow_multiple_allocations)),
            ("attributes", Value::Map(Arc::new(known))),
            ("capacity", Value::Map(Arc::new(amounts))),
        ];
        let mut device = Map::default();
        for (name, value) in fields {
            put(&mut device, name.into(), value);
        }
        Self(Ok(Value::Map(Arc::new(device))))
    }

    pub(crate) fn value(&self) -> Result<&Value, &String> {
        self.0.as_ref()
    }
}

fn value(attribute: &Attribute) -> Result<Value, String> {
    Ok(match attribute {
        Attribute::Int(value) => Value::Int(*value),
        Attribute::Bool(value) => Value::Bool(*value),
        Attribute::String(value) => Value::String(value.clone()),
        Attribute::Version(text) => Value::Semver(Arc::new(Semver::parse(text)?)),
        Attribute::List(all) => Value::list(all.iter().map(value).collect::<Result<_, _>>()?),
        Attribute::Unknown => return Err("unsupported attribute value".into()),
    })
}

fn insert(domains: &mut Map, name: &SmolStr, driver: &SmolStr, value: Value) {
    let (domain, id) = name.split_once('/').unwrap_or((driver, name));
    let key = Key::String(domain.into());
    let entry =
        domains.entries.entry(key).or_insert_with(|| (Value::String(domain.into()), Value::Map(Arc::default())));
    if let Value::Map(names) = &mut entry.1 {
        put(Arc::make_mut(names), id.into(), value);
    }
}

fn put(map: &mut Map, name: SmolStr, value: Value) {
    map.entries.insert(Key::String(name.clone()), (Value::String(name), value));
}
