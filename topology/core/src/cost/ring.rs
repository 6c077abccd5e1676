//! Rings over the GPUs of one host: how much they carry together.
//!
//! GPUs on switches carry what their links do, in one ring. With direct links, several rings share the links: the one with the
//! widest slowest hop is taken first, then the next in what is left of the links, as long as it needs no PCIe. Links have two
//! directions, so that a ring of three or more can be run both ways round.

use crate::host::{Host, PathKind};

/// Most GPUs for which every ring is looked at.
const EXACT: usize = 8;
/// Below this a link is used up; guards against rounding.
const NOTHING_GB_PER_S: f64 = 1e-6;

/// What rings inside a host carry.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Inside {
    /// All of them together.
    pub(super) gb_per_s: f64,
    /// The worst path that they use.
    pub(super) worst: PathKind,
}

/// Rings over these GPUs; `closed` when they come back to where they began instead of going on to another host.
/// None when a GPU does not exist.
pub(super) fn inside(host: &Host, gpus: &[usize], closed: bool) -> Option<Inside> {
    if gpus.len() < 2 {
        gpus.iter().try_for_each(|gpu| host.path(*gpu, *gpu).map(drop))?;
        return Some(Inside { gb_per_s: f64::INFINITY, worst: PathKind::Local });
    }
    let mut capacity = Vec::with_capacity(gpus.len());
    let mut worst_of = Vec::with_capacity(gpus.len());
    for from in gpus {
        let row = gpus.iter().map(|to| host.path(*from, *to)).collect::<Option<Vec<_>>>()?;
        capacity.push(row.iter().map(|path| path.gb_per_s).collect::<Vec<f64>>());
        worst_of.push(row.iter().map(|path| path.kind).collect::<Vec<PathKind>>());
    }
    let links = &host.facts().links;
    let on_switch = gpus.iter().all(|gpu| links.switched(*gpu) > 0);
    if on_switch || gpus.len() > EXACT {
        return Some(in_order(host, gpus, closed));
    }
    let mut total = Inside { gb_per_s: 0.0, worst: PathKind::Local };
    loop {
        let (gb_per_s, ring) = widest(&capacity, closed)?;
        let hops = hops(&ring, closed);
        let worst = hops.iter().map(|(a, b)| worst_of[*a][*b]).max()?;
        let is_first = total.gb_per_s == 0.0;
        if gb_per_s < NOTHING_GB_PER_S || (!is_first && worst > PathKind::NvLink) {
            return Some(total);
        }
        total = Inside { gb_per_s: total.gb_per_s + gb_per_s, worst: total.worst.max(worst) };
        if worst > PathKind::NvLink {
            return Some(total);
        }
        hops.iter().for_each(|(a, b)| capacity[*a][*b] -= gb_per_s);
        // Only what is left of NVLinks carries further rings.
        for (a, row) in capacity.iter_mut().enumerate() {
            for (b, left) in row.iter_mut().enumerate() {
                if worst_of[a][b] > PathKind::NvLink {
                    *left = 0.0;
                }
            }
        }
    }
}

fn hops(ring: &[usize], closed: bool) -> Vec<(usize, usize)> {
    let mut hops: Vec<(usize, usize)> = ring.windows(2).map(|pair| (pair[0], pair[1])).collect();
    if closed && let (Some(first), Some(last)) = (ring.first(), ring.last()) {
        hops.push((*last, *first));
    }
    hops
}

/// One ring in the order of NUMA nodes and buses, which crosses each of them as seldom as can be.
fn in_order(host: &Host, gpus: &[usize], closed: bool) -> Inside {
    let mut order = gpus.to_vec();
    order.sort_by_key(|gpu| (host.numa_of(*gpu), host.facts().devices.get(*gpu).and_then(|d| d.bus), *gpu));
    let paths = hops(&order, closed).into_iter().filter_map(|(a, b)| host.path(a, b));
    paths.fold(Inside { gb_per_s: f64::INFINITY, worst: PathKind::Local }, |total, path| Inside {
        gb_per_s: total.gb_per_s.min(path.gb_per_s),
        worst: total.worst.max(path.kind),
    })
}

/// The ring over all whose slowest hop is the widest, and that hop: `O(2^n · n^2)`. The first in order of those that are equal.
fn widest(capacity: &[Vec<f64>], closed: bool) -> Option<(f64, Vec<usize>)> {
    let n = capacity.len();
    let full = (1_usize << n) - 1;
    // best[set][last]: the widest path that begins at 0 where the ring is closed, else anywhere, visits `set` and ends at `last`.
    let mut best = vec![vec![(-1.0_f64, usize::MAX); n]; full + 1];
    for start in 0..if closed { 1 } else { n } {
        best[1 << start][start] = (f64::INFINITY, usize::MAX);
    }
    for set in 1..=full {
        for last in (0..n).filter(|last| set & (1 << last) != 0) {
            let (width, _) = best[set][last];
            if width < 0.0 {
                continue;
            }
            for next in (0..n).filter(|next| set & (1 << next) == 0) {
                let through = width.min(capacity[last][next]);
                let there = &mut best[set | (1 << next)][next];
                if through > there.0 {
                    *there = (through, last);
                }
            }
        }
    }
    let whole = |last: &usize| if closed { best[full][*last].0.min(capacity[*last][0]) } else { best[full][*last].0 };
    let last = (0..n).reduce(|one, other| if whole(&other) > whole(&one) { other } else { one })?;
    let width = whole(&last);
    let (mut ring, mut set, mut at) = (Vec::with_capacity(n), full, last);
    while at != usize::MAX {
        ring.push(at);
        let before = best[set][at].1;
        set &= !(1 << at);
        at = before;
    }
    ring.reverse();
    Some((width, ring))
}
