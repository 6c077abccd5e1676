//! Which nodes have which images: names interned, and how many nodes have each.

use super::slab::{Id, Slab};
use hashbrown::HashMap;
use smol_str::SmolStr;

/// Id of an image.
pub(crate) type ImageId = Id<Image>;

/// An image that some node has.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Image {
    name: SmolStr,
    nodes: u32,
    /// When that number last changed.
    changed: u64,
}

/// The images of one node and their sizes in bytes, sorted.
pub(crate) type NodeImages = Vec<(ImageId, i64)>;

/// All images that nodes have.
#[derive(Clone, Debug, Default)]
pub(crate) struct Images {
    images: Slab<Image>,
    ids: HashMap<SmolStr, ImageId, foldhash::fast::FixedState>,
    /// Counts the changes.
    clock: u64,
}

impl Images {
    /// A node has these images now instead of the former. `O(images of the node)`.
    pub(crate) fn replace(&mut self, former: &[(ImageId, i64)], now: &[(SmolStr, i64)]) -> NodeImages {
        let known: Option<NodeImages> = now.iter().map(|(name, bytes)| Some((self.find(name)?, *bytes))).collect();
        // Nodes repeat their list in every heartbeat.
        if known.is_some_and(|known| sorted(known) == former) {
            return former.to_vec();
        }
        let mut all = sorted(now.iter().map(|(name, bytes)| (self.enter(name), *bytes)).collect());
        let twice: Vec<ImageId> = all.windows(2).filter(|pair| pair[0].0 == pair[1].0).map(|pair| pair[1].0).collect();
        all.dedup_by_key(|(id, _)| *id);
        twice.into_iter().chain(former.iter().map(|(id, _)| *id)).for_each(|id| self.leave(id));
        all
    }

    fn enter(&mut self, name: &SmolStr) -> ImageId {
        self.clock += 1;
        if let Some(&id) = self.ids.get(name) {
            if let Some(image) = self.images.get_mut(id) {
                image.nodes += 1;
                image.changed = self.clock;
            }
            return id;
        }
        let id = self.images.insert(Image { name: name.clone(), nodes: 1, changed: self.clock });
        self.ids.insert(name.clone(), id);
        id
    }

    fn leave(&mut self, id: ImageId) {
        self.clock += 1;
        let Some(image) = self.images.get_mut(id) else { return };
        image.nodes -= 1;
        image.changed = self.clock;
        if image.nodes == 0
            && let Some(gone) = self.images.remove(id)
        {
            self.ids.remove(&gone.name);
        }
    }

    /// An image that some node has.
    pub(crate) fn find(&self, name: &str) -> Option<ImageId> {
        self.ids.get(name).copied()
    }

    /// How many nodes have an image.
    pub(crate) fn nodes(&self, id: ImageId) -> u32 {
        self.images.get(id).map_or(0, |image| image.nodes)
    }

    /// What the scores of a pod with these images depend on, beside the nodes themselves; None where no node has any.
    pub(crate) fn state<'a>(&self, names: impl Iterator<Item = &'a SmolStr>) -> Option<u64> {
        let changed = names.filter_map(|name| self.images.get(self.find(name)?)).map(|image| image.changed);
        changed.max()
    }
}

/// By id; of an image that is listed twice the last comes first, because its size counts.
fn sorted(mut images: NodeImages) -> NodeImages {
    images.reverse();
    images.sort_by_key(|(id, _)| *id);
    images
}

/// The size of an image on a node, in bytes.
pub(crate) fn size_of(images: &[(ImageId, i64)], id: ImageId) -> Option<i64> {
    images.binary_search_by_key(&id, |(id, _)| *id).ok().map(|at| images[at].1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(images: &[(&str, i64)]) -> Vec<(SmolStr, i64)> {
        images.iter().map(|(name, bytes)| ((*name).into(), *bytes)).collect()
    }

    #[test]
    fn images_are_counted_by_node_and_forgotten_with_the_last() {
        let mut images = Images::default();
        let a = images.replace(&[], &list(&[("x", 5), ("y", 7), ("x", 9)]));
        let b = images.replace(&[], &list(&[("x", 5)]));
        let x = images.find("x").unwrap();
        assert_eq!((images.nodes(x), size_of(&a, x), size_of(&b, x)), (2, Some(9), Some(5)));
        let before = images.state([&"x".into()].into_iter());
        assert_eq!(images.replace(&b, &list(&[("x", 5)])), b);
        assert_eq!(images.state([&"x".into()].into_iter()), before, "a repeated list changes nothing");
        assert_eq!(images.replace(&a, &[]), []);
        assert_eq!((images.nodes(x), images.find("y")), (1, None));
        assert_ne!(images.state([&"x".into()].into_iter()), before);
        images.replace(&b, &[]);
        assert_eq!((images.find("x"), images.state([&"x".into()].into_iter())), (None, None));
    }
}
