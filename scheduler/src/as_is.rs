//! Kinds that the engine takes as they are, watched.

use crate::convert::kinds::Plain;
use crate::convert::types::Meta;
use crate::input::Fact;
use crate::watch::{Listed, Watched};
use flowforge_scheduler_core::event::Event;

/// A kind whose objects become one event each.
pub(crate) struct AsIs<P>(pub(crate) P);

impl<P: Plain> Watched for AsIs<P> {
    type Object = P::Object;
    const KIND: &'static str = P::PLURAL;
    const PATH: &'static str = P::PATH;
    const OPTIONAL: bool = P::OPTIONAL;
    const FOREIGN: bool = P::FOREIGN;

    fn meta(object: &P::Object) -> &Meta {
        P::meta(object)
    }

    fn upsert(&self, object: &P::Object) -> Fact {
        Fact::Plain(Box::new(P::upsert(object)))
    }

    fn gone(object: &P::Object) -> Fact {
        let Meta { namespace, name, .. } = P::meta(object).clone();
        Fact::Plain(Box::new(P::gone(namespace, name)))
    }

    fn listed(metas: Vec<Listed>) -> Fact {
        let names = metas.into_iter().map(|listed| (listed.namespace, listed.name)).collect();
        Fact::Plain(Box::new(Event::Relisted(P::listed(names))))
    }
}
