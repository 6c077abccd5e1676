//! Watches of objects that others own: those that declare gangs, and those beside them that say how such a one is meant.
//!
//! Their APIs may be absent, come later, or be closed to us; none of that keeps the scheduler from starting.

use super::desk::GroupFact;
use crate::convert::gangs::beside::{BesideFact, BesideKind};
use crate::convert::gangs::{Declared, gang_name};
use crate::convert::types::Meta;
use crate::input::Fact;
use crate::watch::{Listed, Watched};
use std::marker::PhantomData;

/// All objects of a kind that declares gangs.
pub(crate) struct Objects<D>(PhantomData<fn() -> D>);

impl<D> Default for Objects<D> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<D: Declared> Watched for Objects<D> {
    type Object = D;
    const KIND: &'static str = D::PLURAL;
    const PATH: &'static str = D::PATH;
    const OPTIONAL: bool = true;
    const FOREIGN: bool = true;

    fn meta(object: &D) -> &Meta {
        object.meta()
    }

    fn upsert(&self, object: &D) -> Fact {
        Fact::Group(GroupFact::Seen(Box::new(object.clone())))
    }

    fn gone(object: &D) -> Fact {
        Fact::Group(GroupFact::Gone((object.meta().namespace.clone(), object.name())))
    }

    fn listed(metas: Vec<Listed>) -> Fact {
        let names = metas.into_iter().map(|listed| (listed.namespace, gang_name(D::KIND, &listed.name)));
        Fact::Group(GroupFact::Listed { kind: D::KIND, names: names.collect() })
    }
}

/// All objects of such a kind.
pub(crate) struct Beside<K>(PhantomData<fn() -> K>);

impl<K> Default for Beside<K> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<K: BesideKind> Watched for Beside<K> {
    type Object = K;
    const KIND: &'static str = K::PLURAL;
    const PATH: &'static str = K::PATH;
    const OPTIONAL: bool = true;
    const FOREIGN: bool = true;

    fn meta(object: &K) -> &Meta {
        object.meta()
    }

    fn upsert(&self, object: &K) -> Fact {
        let key = (object.meta().namespace.clone(), object.meta().name.clone());
        Fact::Group(GroupFact::Beside(BesideFact::Is(K::PLURAL, key, object.said())))
    }

    fn gone(object: &K) -> Fact {
        let key = (object.meta().namespace.clone(), object.meta().name.clone());
        Fact::Group(GroupFact::Beside(BesideFact::Gone(K::PLURAL, key)))
    }

    fn listed(metas: Vec<Listed>) -> Fact {
        let names = metas.into_iter().map(|listed| (listed.namespace, listed.name)).collect();
        Fact::Group(GroupFact::Beside(BesideFact::Listed(K::PLURAL, names)))
    }
}
