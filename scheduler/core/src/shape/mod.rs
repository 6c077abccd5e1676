//! Pod shapes: pods that look the same to filters and scores are evaluated once.
//!
//! Shapes are interned and counted by the pods that wait for a place. A shape that no pod uses any more keeps its cache, for
//! the next pod of its template, until the byte budget drops the least recently used ones.

mod cache;
mod counters;
mod scores;
mod spec;
mod verdict;

pub use cache::{NodeEval, RawScore, ShapeCache};
pub(crate) use cache::{best_of, evaluation, verdict};
pub(crate) use scores::{Extremes, scores, total};
pub use spec::ShapeSpec;
pub use verdict::Verdict;

use crate::snapshot::{Cluster, Id, Slab};
use hashbrown::HashMap;
use std::sync::Arc;

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
}

impl Shape {
    /// Its cache, as of the last view.
    #[must_use]
    pub fn cache(&self) -> Option<&ShapeCache> {
        self.cache.as_deref()
    }

    fn weight(&self) -> usize {
        self.spec.weight() + self.cache.as_ref().map_or(0, |c| c.weight())
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
        let id = self.shapes.insert(Shape { spec: Arc::clone(&spec), refs: 1, last_used: self.used, cache: None });
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

    pub(crate) fn view(&mut self, id: ShapeId, cluster: &Cluster, counted: bool) -> Option<&ShapeCache> {
        self.used += 1;
        let shape = self.shapes.get_mut(id)?;
        shape.last_used = self.used;
        let spec = Arc::clone(&shape.spec);
        let cache = shape.cache.get_or_insert_default();
        cache.sync(&spec, cluster, counted);
        Some(cache)
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
