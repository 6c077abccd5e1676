//! Compiled selectors and what they say about each device: evaluated once per selector and device.

use flowforge_scheduler_cel::{Device, Program};
use smol_str::SmolStr;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Selectors kept; beyond it all are forgotten.
const MAX_SELECTORS: usize = 512;

/// A selector's answer about a device.
pub(super) type Selected = Result<bool, Arc<str>>;

#[derive(Clone, Debug)]
struct Selector {
    program: Result<Program, Arc<str>>,
    /// By number of the device.
    known: Vec<Option<Selected>>,
}

/// Selectors by their text.
#[derive(Clone, Debug, Default)]
pub(super) struct Selectors(RefCell<BTreeMap<SmolStr, Selector>>);

impl Selectors {
    /// Whether a selector takes a device.
    ///
    /// # Errors
    /// Why it has no answer.
    pub(super) fn matches(&self, text: &SmolStr, number: usize, device: &Device) -> Selected {
        let mut all = self.0.borrow_mut();
        if !all.contains_key(text) {
            if all.len() >= MAX_SELECTORS {
                all.clear();
            }
            let program = Program::compile(text).map_err(|error| format!("CEL compile error: {error}").into());
            all.insert(text.clone(), Selector { program, known: Vec::new() });
        }
        let Some(selector) = all.get_mut(text) else { return Ok(false) };
        if selector.known.len() <= number {
            selector.known.resize(number + 1, None);
        }
        if let Some(known) = &selector.known[number] {
            return known.clone();
        }
        let answer = match &selector.program {
            Ok(program) => program.matches(device).map_err(|error| format!("CEL runtime error: {error}").into()),
            Err(error) => Err(error.clone()),
        };
        selector.known[number] = Some(answer.clone());
        answer
    }

    /// A device's number will be another's.
    pub(super) fn forget(&self, number: usize) {
        for selector in self.0.borrow_mut().values_mut() {
            if let Some(known) = selector.known.get_mut(number) {
                *known = None;
            }
        }
    }
}
