//! The choice beside a plain search over all sets: on small hosts it finds the best one, and finds one wherever the first-fit
//! search does.

use super::*;
use crate::devices::facts::{Constraint, DeviceFact};
use crate::devices::machines::{A100_PCIE, H100, L40S, NICS, NVIDIA, V100, claim, class, device, gpu, held, slice};
use flowforge_topology_core::board::{Board, GpuSet};
use flowforge_topology_core::host::{Host, Nearness};
use flowforge_topology_core::readers::dra::{self, SliceDevice, Value};
use proptest::prelude::*;
use std::cmp::Reverse;
use std::collections::BTreeSet;

/// A small node and what is asked of it.
#[derive(Clone, Debug)]
struct Case {
    product: &'static str,
    /// NUMA node, root and whether it is held, of GPUs and NICs.
    gpus: Vec<(i64, u8, bool)>,
    nics: Vec<(i64, u8, bool)>,
    /// By claim: GPUs, NICs, and whether all are on one root.
    claims: Vec<(i64, i64, bool)>,
}

fn cases() -> impl Strategy<Value = Case> {
    let device = || (0..2_i64, 0..3_u8, proptest::bool::weighted(0.25));
    let asks = proptest::collection::vec((0..4_i64, 0..3_i64, proptest::bool::weighted(0.15)), 1..=2);
    let product = proptest::sample::select(vec![V100, A100_PCIE, L40S, H100]);
    let gpus = prop_oneof![proptest::collection::vec(device(), 1..=6), proptest::collection::vec(device(), 8)];
    (product, gpus, proptest::collection::vec(device(), 0..=3), asks).prop_map(|(product, gpus, nics, claims)| Case {
        product,
        gpus,
        nics,
        claims,
    })
}

impl Case {
    fn devices(&self) -> (Vec<DeviceInfo>, Vec<DeviceInfo>) {
        let root = |numa: i64, root: u8| format!("pci{numa}:{root}");
        let gpus = self.gpus.iter().enumerate().map(|(at, (numa, on, _))| {
            let placed = device("", *numa, &root(*numa, *on));
            let mut gpu = gpu(at, self.product, *numa);
            gpu.attributes.extend(placed.attributes);
            gpu
        });
        let nics = self.nics.iter().enumerate();
        let nics = nics.map(|(at, (numa, on, _))| device(&format!("nic-{at}"), *numa, &root(*numa, *on)));
        (gpus.collect(), nics.collect())
    }

    fn known(&self) -> Devices {
        let mut devices = Devices::default();
        let (gpus, nics) = self.devices();
        for (driver, all, facts) in [(NVIDIA, gpus, &self.gpus), (NICS, nics, &self.nics)] {
            let names: Vec<SmolStr> = all.iter().map(|device| device.name.clone()).collect();
            let taken: Vec<&str> =
                names.iter().zip(facts).filter(|(_, fact)| fact.2).map(|(name, _)| name.as_str()).collect();
            devices.note(DeviceFact::Class(class(driver)));
            devices.note(DeviceFact::Slice(slice(driver, "n", all)));
            devices.note(DeviceFact::Claim(held("n", driver, &taken)));
        }
        devices
    }

    fn claims(&self) -> Vec<ClaimInfo> {
        let of = |(at, (gpus, nics, aligned)): (usize, &(i64, i64, bool))| {
            let asks: Vec<(&str, i64)> =
                [(NVIDIA, *gpus), (NICS, *nics)].into_iter().filter(|(_, count)| *count > 0).collect();
            let root = || Constraint::Match(Vec::new(), "resource.kubernetes.io/pcieRoot".into());
            ClaimInfo { constraints: aligned.then(root).into_iter().collect(), ..claim(&format!("c{at}"), &asks) }
        };
        self.claims.iter().enumerate().map(of).collect()
    }
}

/// What a set is worth, reckoned anew from the devices' own facts.
struct Reckoner {
    board: Board,
    places: BTreeMap<SmolStr, usize>,
    roots: BTreeMap<SmolStr, (i64, String)>,
    busy: GpuSet,
}

type Reckoned = (u64, (Option<Nearness>, u32), usize, usize, Reverse<Vec<u32>>);

impl Reckoner {
    fn new(case: &Case) -> Self {
        let (gpus, nics) = case.devices();
        let published = |driver: &str, device: &DeviceInfo| {
            let value = |of: &flowforge_scheduler_cel::Attribute| match of {
                flowforge_scheduler_cel::Attribute::Int(value) => Value::Int(*value),
                flowforge_scheduler_cel::Attribute::String(text) => Value::Text(text.clone()),
                other => panic!("{other:?}"),
            };
            SliceDevice {
                driver: driver.into(),
                pool: "n".into(),
                name: device.name.clone(),
                attributes: device.attributes.iter().map(|(key, of)| (key.clone(), value(of))).collect(),
            }
        };
        let all: Vec<SliceDevice> =
            gpus.iter().map(|gpu| published(NVIDIA, gpu)).chain(nics.iter().map(|nic| published(NICS, nic))).collect();
        let found = dra::host(&all);
        let places = found.places.iter().map(|((.., name), place)| (name.clone(), *place)).collect::<BTreeMap<_, _>>();
        let board = Board::new(Host::new(found.host).unwrap()).unwrap();
        let roots = gpus.iter().zip(&case.gpus).chain(nics.iter().zip(&case.nics));
        let roots = roots.map(|(device, (numa, root, _))| (device.name.clone(), (*numa, format!("{numa}:{root}"))));
        let mut reckoner = Self { board, places, roots: roots.collect(), busy: 0 };
        let taken = gpus.iter().zip(&case.gpus).filter(|(_, fact)| fact.2);
        reckoner.busy = taken.map(|(gpu, _)| reckoner.bit(&gpu.name)).sum();
        reckoner
    }

    fn bit(&self, name: &SmolStr) -> GpuSet {
        self.board.number(self.places[name]).map_or(0, |number| 1 << number)
    }

    fn worth(&mut self, set: &BTreeSet<SmolStr>) -> Reckoned {
        let own: GpuSet = set.iter().map(|name| self.bit(name)).sum();
        let (nics, gpus): (Vec<&SmolStr>, Vec<&SmolStr>) = set.iter().partition(|name| name.starts_with("nic"));
        let near = |from: &SmolStr, all: &[&SmolStr]| {
            all.iter().map(|to| self.board.host().nearness(self.places[from], self.places[*to])).min()
        };
        let apart: Vec<Nearness> = gpus
            .iter()
            .filter_map(|gpu| near(gpu, &nics))
            .chain(nics.iter().filter_map(|nic| near(nic, &gpus)))
            .collect();
        let sum = apart.iter().map(|near| *near as u32).sum();
        let numa: BTreeSet<i64> = set.iter().map(|name| self.roots[name].0).collect();
        let roots: BTreeSet<&String> = set.iter().map(|name| &self.roots[name].1).collect();
        let (numa, roots) = (numa.len(), roots.len());
        let apart = (apart.into_iter().max(), sum);
        let free = self.board.all() & !(self.busy | own);
        (self.board.cost_ns_per_gib(own), apart, numa, roots, Reverse(self.board.left(free).to_vec()))
    }
}

/// Every way to serve claim after claim from what is free.
fn every(case: &Case, claim: usize, taken: &BTreeSet<SmolStr>, all: &mut Vec<BTreeSet<SmolStr>>) {
    let Some((gpus, nics, aligned)) = case.claims.get(claim) else {
        all.push(taken.clone());
        return;
    };
    let (every_gpu, every_nic) = case.devices();
    let free = |devices: Vec<DeviceInfo>, facts: &[(i64, u8, bool)]| {
        let free = devices.into_iter().zip(facts).filter(|(device, fact)| !fact.2 && !taken.contains(&device.name));
        free.map(|(device, fact)| (device.name, (fact.0, fact.1))).collect::<Vec<_>>()
    };
    for gpus in subsets(&free(every_gpu, &case.gpus), *gpus) {
        for nics in subsets(&free(every_nic.clone(), &case.nics), *nics) {
            let roots: BTreeSet<(i64, u8)> = gpus.iter().chain(&nics).map(|(_, root)| *root).collect();
            if *aligned && roots.len() > 1 {
                continue;
            }
            let own = gpus.iter().chain(&nics).map(|(name, _)| name.clone());
            every(case, claim + 1, &taken.iter().cloned().chain(own).collect(), all);
        }
    }
}

fn subsets<T: Clone>(of: &[T], size: i64) -> Vec<Vec<T>> {
    let wanted = u32::try_from(size).unwrap();
    let masks = (0..1_u32 << of.len()).filter(|mask| mask.count_ones() == wanted);
    masks
        .map(|mask| of.iter().enumerate().filter(|(at, _)| mask & (1 << at) != 0).map(|(_, one)| one.clone()).collect())
        .collect()
}

fn names(found: &[Found<'_>]) -> Vec<SmolStr> {
    found.iter().flat_map(|found| &found.devices).map(|chosen| chosen.device.name.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]

    #[test]
    fn the_choice_is_the_best_there_is_and_is_there_whenever_the_first_fit_is(case in cases()) {
        let (devices, claims) = (case.known(), case.claims());
        let claims: Vec<&ClaimInfo> = claims.iter().collect();
        let node = crate::fixture::node("n");
        let first = allocate(&devices, &node, &claims, MAX_STEPS).map(|found| names(&found));
        let chosen = choose(&devices, &node, &claims, MAX_STEPS, &[]).map(|found| names(&found));
        let mut all = Vec::new();
        every(&case, 0, &BTreeSet::new(), &mut all);
        prop_assert_eq!(first.as_ref().err(), chosen.as_ref().err());
        prop_assert_eq!(first.is_ok(), !all.is_empty());
        let Ok(chosen) = chosen else { return Ok(()) };
        let set: BTreeSet<SmolStr> = chosen.iter().cloned().collect();
        prop_assert_eq!(set.len(), chosen.len(), "a device twice: {:?}", chosen);
        prop_assert!(all.contains(&set), "{:?} does not serve the claims", set);
        let mut reckoner = Reckoner::new(&case);
        // Beyond the limit only what was looked at counts; never worse than the first fit.
        let of_first = reckoner.worth(&first.unwrap().into_iter().collect());
        let own = reckoner.worth(&set);
        prop_assert!(own <= of_first);
        let sets: u64 = case.claims.iter().map(|(gpus, nics, _)| {
            let free = |facts: &[(i64, u8, bool)]| facts.iter().filter(|fact| !fact.2).map(|_| ()).collect::<Vec<()>>();
            let count = |facts: &[(i64, u8, bool)], n: i64| u64::try_from(subsets(&free(facts), n).len()).unwrap();
            count(&case.gpus, *gpus) * count(&case.nics, *nics)
        }).product();
        if sets <= 2_048 {
            let best = all.iter().map(|set| reckoner.worth(set)).min().unwrap();
            prop_assert_eq!(own, best, "{:?}", set);
        }
    }
}
