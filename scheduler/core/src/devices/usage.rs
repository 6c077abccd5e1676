//! Which devices are held: by claims as they are known, and by what is assumed.

use super::facts::{Allocation, Amounts};
use flowforge_scheduler_cel::Quantity;
use serde::Serialize;
use smol_str::SmolStr;
use std::collections::BTreeMap;

/// How a device is used.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Use {
    /// Claims that hold it alone; more than one where schedulers collided.
    pub(super) exclusive: u32,
    /// Shares of it.
    pub(super) shares: u32,
    /// What the shares take of its capacity.
    pub(super) consumed: Amounts,
}

impl Use {
    /// Whether someone holds it alone.
    pub(super) fn is_exclusive(&self) -> bool {
        self.exclusive > 0
    }

    /// Whether shares of it are held.
    pub(super) fn is_shared(&self) -> bool {
        self.shares > 0
    }

    /// What shares take of a capacity.
    pub(super) fn consumed(&self, capacity: &str) -> Quantity {
        self.consumed.get(capacity).copied().unwrap_or_default()
    }
}

/// All devices that are held, by driver and pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Usage(BTreeMap<(SmolStr, SmolStr), BTreeMap<SmolStr, Use>>);

impl Usage {
    /// The devices of a pool that are held.
    pub(super) fn of_pool(&self, driver: &SmolStr, pool: &SmolStr) -> Option<&BTreeMap<SmolStr, Use>> {
        self.0.get(&(driver.clone(), pool.clone()))
    }

    /// Every device that is held: driver, pool, device, and how.
    pub(super) fn iter(&self) -> impl Iterator<Item = ([&SmolStr; 3], &Use)> {
        let pools = self.0.iter();
        pools.flat_map(|((driver, pool), of)| of.iter().map(move |(device, of)| ([driver, pool, device], of)))
    }

    /// An allocation holds its devices.
    pub(super) fn add(&mut self, allocation: &Allocation) {
        for result in allocation.results.iter().filter(|result| !result.admin) {
            let [driver, pool, device] = result.id.clone();
            let of = self.0.entry((driver, pool)).or_default().entry(device).or_default();
            if result.share.is_none() {
                of.exclusive += 1;
                continue;
            }
            of.shares += 1;
            for (name, amount) in result.consumed.iter().flatten() {
                let sum = of.consumed.entry(name.clone()).or_default();
                *sum = sum.plus(*amount);
            }
        }
    }

    /// An allocation holds them no more. What is held by nobody leaves no trace.
    pub(super) fn remove(&mut self, allocation: &Allocation) {
        for result in allocation.results.iter().filter(|result| !result.admin) {
            let [driver, pool, device] = result.id.clone();
            let key = (driver, pool);
            let Some(devices) = self.0.get_mut(&key) else { continue };
            let Some(of) = devices.get_mut(&device) else { continue };
            if result.share.is_none() {
                of.exclusive = of.exclusive.saturating_sub(1);
            } else {
                of.shares = of.shares.saturating_sub(1);
                for (name, amount) in result.consumed.iter().flatten() {
                    let sum = of.consumed.entry(name.clone()).or_default();
                    *sum = sum.minus(*amount);
                }
                of.consumed.retain(|_, amount| *amount != Quantity::default());
            }
            if *of == Use::default() {
                devices.remove(&device);
            }
            if devices.is_empty() {
                self.0.remove(&key);
            }
        }
    }
}
