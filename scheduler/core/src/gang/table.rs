//! All gangs by name, and their members.

use crate::model::{GangInfo, GangMembership, Millis};
use crate::snapshot::{Id, PodId, Slab};
use hashbrown::HashMap;
use smol_str::SmolStr;
use std::collections::BTreeSet;

/// Id of a gang.
pub type GangId = Id<GangRecord>;

/// A gang: what is declared, and the pods that name it.
#[derive(Clone, Debug, PartialEq)]
pub struct GangRecord {
    /// Namespace.
    pub namespace: SmolStr,
    /// Name.
    pub name: SmolStr,
    /// The `Gang` object; None in the plain form.
    pub declared: Option<GangInfo>,
    /// Every pod of ours that names it, of any attempt.
    pub members: BTreeSet<PodId>,
    /// When the last member came or became ready.
    pub last_arrival_ms: Millis,
    /// Whether its minimum was live at once while this process looked.
    pub whole_once: bool,
    /// Members that an intent found gone or deleted; they count as deleting until the watch says so.
    pub doomed: BTreeSet<PodId>,
}

impl GangRecord {
    /// `namespace/name`.
    #[must_use]
    pub fn title(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// All gangs.
#[derive(Clone, Debug, Default)]
pub struct Gangs {
    gangs: Slab<GangRecord>,
    ids: HashMap<(SmolStr, SmolStr), GangId, foldhash::fast::FixedState>,
    /// Gangs to look at again.
    dirty: BTreeSet<GangId>,
}

impl Gangs {
    fn entry(&mut self, namespace: &SmolStr, name: &SmolStr) -> GangId {
        if let Some(&id) = self.ids.get(&(namespace.clone(), name.clone())) {
            return id;
        }
        let id = self.gangs.insert(GangRecord {
            namespace: namespace.clone(),
            name: name.clone(),
            declared: None,
            members: BTreeSet::new(),
            last_arrival_ms: 0,
            whole_once: false,
            doomed: BTreeSet::new(),
        });
        self.ids.insert((namespace.clone(), name.clone()), id);
        id
    }

    /// A `Gang` object was added or changed. One with another UID is another gang under the name.
    pub fn declare(&mut self, info: GangInfo) -> GangId {
        let id = self.entry(&info.namespace, &info.name);
        if let Some(gang) = self.gangs.get_mut(id) {
            if gang.declared.as_ref().is_some_and(|old| old.uid != info.uid) {
                gang.whole_once = false;
            }
            gang.declared = Some(info);
        }
        self.dirty.insert(id);
        id
    }

    /// A `Gang` object is gone.
    pub fn undeclare(&mut self, namespace: &SmolStr, name: &SmolStr, uid: &SmolStr) {
        let Some(id) = self.find(namespace, name) else { return };
        if let Some(gang) = self.gangs.get_mut(id)
            && gang.declared.as_ref().is_some_and(|d| d.uid == *uid)
        {
            gang.declared = None;
            self.dirty.insert(id);
        }
        self.drop_empty(id);
    }

    /// A pod names a gang.
    pub fn join(&mut self, pod: PodId, namespace: &SmolStr, membership: &GangMembership) -> GangId {
        let id = self.entry(namespace, &membership.name);
        if let Some(gang) = self.gangs.get_mut(id) {
            gang.members.insert(pod);
        }
        self.dirty.insert(id);
        id
    }

    /// A member's pod is gone.
    pub fn part(&mut self, pod: PodId, id: GangId) {
        if let Some(gang) = self.gangs.get_mut(id) {
            gang.members.remove(&pod);
            gang.doomed.remove(&pod);
            self.dirty.insert(id);
        }
        self.drop_empty(id);
    }

    fn drop_empty(&mut self, id: GangId) {
        if self.gangs.get(id).is_some_and(|g| g.members.is_empty() && g.declared.is_none())
            && let Some(gone) = self.gangs.remove(id)
        {
            self.ids.remove(&(gone.namespace, gone.name));
            self.dirty.remove(&id);
        }
    }

    /// A gang is to be looked at again.
    pub fn touch(&mut self, id: GangId) {
        if self.gangs.get(id).is_some() {
            self.dirty.insert(id);
        }
    }

    /// Every gang is to be looked at again.
    pub fn touch_all(&mut self) {
        self.dirty = self.gangs.iter().map(|(id, _)| id).collect();
    }

    /// The gangs to look at again; they are no longer marked.
    pub fn take_dirty(&mut self) -> BTreeSet<GangId> {
        std::mem::take(&mut self.dirty)
    }

    /// Whether some gang is to be looked at again.
    #[must_use]
    pub fn any_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// A gang by name.
    #[must_use]
    pub fn find(&self, namespace: &SmolStr, name: &SmolStr) -> Option<GangId> {
        self.ids.get(&(namespace.clone(), name.clone())).copied()
    }

    /// A gang.
    #[must_use]
    pub fn get(&self, id: GangId) -> Option<&GangRecord> {
        self.gangs.get(id)
    }

    /// A gang, to change it.
    pub fn get_mut(&mut self, id: GangId) -> Option<&mut GangRecord> {
        self.gangs.get_mut(id)
    }

    /// All gangs in id order.
    pub fn iter(&self) -> impl Iterator<Item = (GangId, &GangRecord)> {
        self.gangs.iter()
    }

    /// Number of gangs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.gangs.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.gangs.is_empty()
    }

    /// Declared gangs whose UID is not in the set.
    #[must_use]
    pub fn absent_from(&self, uids: &BTreeSet<SmolStr>) -> Vec<(SmolStr, SmolStr, SmolStr)> {
        let declared = self.gangs.iter().filter_map(|(_, g)| g.declared.as_ref());
        declared
            .filter(|d| !uids.contains(&d.uid))
            .map(|d| (d.namespace.clone(), d.name.clone(), d.uid.clone()))
            .collect()
    }
}
