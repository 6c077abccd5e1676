//! Pod shapes: pods that look the same to filters and scores are evaluated once.
//!
//! Shapes are interned and counted by the pods that wait for a place. A shape that no pod uses any more keeps its cache, for
//! the next pod of its template, until the byte budget drops the least recently used ones. The first pods of a new shape are
//! found a place without one ([`scan`]): a cache pays only where more of its template come.

mod cache;
mod counters;
mod related;
mod scan;
mod scores;
mod spec;
mod verdict;

pub use cache::{NodeEval, RawScore, ShapeCache};
pub(crate) use cache::{best_of, evaluation, verdict, verdict_when_full};
#[cfg(test)]
pub(crate) use scan::best as scan;
pub(crate) use scores::{Extremes, scores, total};
pub use spec::ShapeSpec;
pub use verdict::Verdict;

use crate::relations::{Relation, Tallies};
use crate::snapshot::{Cluster, Id, Slab};
use hashbrown::HashMap;
use related::Related;
use std::sync::Arc;

/// Looks at every node before a shape gets a cache, which costs as much as several.
const SCANS: u8 = 3;

/// Id of a shape.
pub type ShapeId = Id<Shape>;

/// An interned shape.
#[derive(Clone, Debug)]
pub struct Shape {
    /// What filters and scores see.
    pub spec: Arc<ShapeSpec>,
    refs: u32,
    last_used: u64,
    cache: Option<Box<ShapeCache>>,
    /// What its pods asked about other pods lately.
    related: Related,
    /// Times a place was looked for without a cache.
    scans: u8,
}

impl Shape {
    /// Its cache, as of the last view.
    #[must_use]
    pub fn cache(&self) -> Option<&ShapeCache> {
        self.cache.as_deref()
    }

    fn weight(&self) -> usize {
        self.spec.weight() + self.cache.as_ref().map_or(0, |c| c.weight()) + self.related.weight()
    }
}

/// All shapes.
#[derive(Clone, Debug)]
pub struct Shapes {
    shapes: Slab<Shape>,
    ids: HashMap<Arc<ShapeSpec>, ShapeId, foldhash::fast::FixedState>,
    budget: usize,
    used: u64,
    next_trim: u64,
}

impl Shapes {
    pub(crate) fn new(budget: usize) -> Self {
        Self { shapes: Slab::default(), ids: HashMap::default(), budget, used: 0, next_trim: 0 }
    }

    /// Interns a shape and counts one more user. True: it is new.
    pub(crate) fn intern(&mut self, spec: ShapeSpec) -> (ShapeId, bool) {
        if let Some(&id) = self.ids.get(&spec) {
            if let Some(shape) = self.shapes.get_mut(id) {
                shape.refs += 1;
            }
            return (id, false);
        }
        let spec = Arc::new(spec);
        self.used += 1;
        let id = self.shapes.insert(Shape {
            spec: Arc::clone(&spec),
            refs: 1,
            last_used: self.used,
            cache: None,
            related: Related::default(),
            scans: 0,
        });
        self.ids.insert(spec, id);
        (id, true)
    }

    pub(crate) fn release(&mut self, id: ShapeId) {
        if let Some(shape) = self.shapes.get_mut(id) {
            shape.refs = shape.refs.saturating_sub(1);
        }
    }

    pub(crate) fn get(&self, id: ShapeId) -> Option<&Shape> {
        self.shapes.get(id)
    }

    /// The best node for a pod of the shape, from its cache or, for the first pods of a shape without one, by a look at every
    /// node. `O(changes since the last view + buckets)` or `O(nodes)`.
    pub(crate) fn best(&mut self, id: ShapeId, cluster: &Cluster) -> Option<u32> {
        let shape = self.shapes.get_mut(id)?;
        // With so many shapes between two pods of this one its cache would be dropped before it is used again.
        let others = usize::try_from(self.used - shape.last_used).unwrap_or(usize::MAX);
        if others.saturating_mul(ShapeCache::least_weight(cluster)) > self.budget {
            shape.scans = 0;
        }
        // Columns do not tell which nodes have devices instead.
        let by_devices =
            || shape.spec.footprint.requests.iter().any(|(name, _)| cluster.devices.class_for(name).is_some());
        if shape.cache.is_none() && shape.scans < SCANS && !(shape.spec.device_backed && by_devices()) {
            self.used += 1;
            shape.last_used = self.used;
            shape.scans += 1;
            return scan::best(&shape.spec, cluster);
        }
        let spec = Arc::clone(&shape.spec);
        self.view(id, cluster, false)?.best(&spec)
    }

    pub(crate) fn view(&mut self, id: ShapeId, cluster: &Cluster, counted: bool) -> Option<&ShapeCache> {
        self.used += 1;
        let shape = self.shapes.get_mut(id)?;
        shape.last_used = self.used;
        let spec = Arc::clone(&shape.spec);
        let cache = shape.cache.get_or_insert_default();
        cache.sync(&spec, cluster, counted);
        Some(cache)
    }

    /// The cache of a shape, and the sums of a relation that one of its pods has.
    pub(crate) fn view_related(
        &mut self,
        id: ShapeId,
        cluster: &Cluster,
        relation: Option<&Relation>,
        counted: bool,
    ) -> Option<(&ShapeCache, &Tallies)> {
        self.view(id, cluster, counted)?;
        let shape = self.shapes.get_mut(id)?;
        let cache = shape.cache.as_deref()?;
        Some((cache, shape.related.sync(relation, cache, cluster)))
    }

    /// Enforces the budget: drops caches, least recently used first, and shapes without users with them. Returns the specs
    /// of the shapes that ended. `O(shapes)`, once in 256 views.
    pub(crate) fn trim(&mut self) -> Vec<Arc<ShapeSpec>> {
        if self.used < self.next_trim {
            return Vec::new();
        }
        self.next_trim = self.used + 256;
        let mut total: usize = self.shapes.iter().map(|(_, s)| s.weight()).sum();
        if total <= self.budget {
            return Vec::new();
        }
        let mut by_use: Vec<(u64, ShapeId)> = self.shapes.iter().map(|(id, s)| (s.last_used, id)).collect();
        by_use.sort_unstable();
        let mut ended = Vec::new();
        for (_, id) in by_use {
            if total <= self.budget {
                break;
            }
            let Some(shape) = self.shapes.get_mut(id) else { continue };
            let before = shape.weight();
            shape.cache = None;
            shape.related = Related::default();
            let (after, refs) = (shape.weight(), shape.refs);
            total -= before - after;
            if refs == 0
                && let Some(gone) = self.shapes.remove(id)
            {
                total -= after;
                self.ids.remove(&gone.spec);
                ended.push(gone.spec);
            }
        }
        ended
    }

    /// Shapes with a cache, and the bytes of everything.
    pub(crate) fn size(&self) -> (usize, usize) {
        let cached = self.shapes.iter().filter(|(_, s)| s.cache.is_some()).count();
        (cached, self.shapes.iter().map(|(_, s)| s.weight()).sum())
    }
}
