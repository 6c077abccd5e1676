//! The kinds that the engine takes as they are: each object becomes one event, and nothing else looks at it.
//!
//! A kind is its types and paths, and three functions: what an object becomes, what becomes of one that is gone (by
//! namespace and name), and of a list (of namespaces and names).

/// A kind of such objects.
macro_rules! plain {
    (
        $(#[$doc:meta])* $name:ident: $object:ty, $plural:literal, $path:expr, $(optional $optional:literal,)?
        upsert $upsert:expr, gone $gone:expr, listed $listed:expr
    ) => {
        $(#[$doc])*
        pub(crate) struct $name;

        impl $crate::watch::Watched for $name {
            type Object = $object;
            const KIND: &'static str = $plural;
            const PATH: &'static str = $path;
            $(const OPTIONAL: bool = $optional;)?

            fn meta(object: &$object) -> &$crate::convert::types::Meta {
                &object.metadata
            }

            fn upsert(&self, object: &$object) -> $crate::input::Fact {
                let event: fn(&$object) -> Event = $upsert;
                $crate::input::Fact::Plain(Box::new(event(object)))
            }

            fn gone(object: &$object) -> $crate::input::Fact {
                let event: fn(SmolStr, SmolStr) -> Event = $gone;
                let $crate::convert::types::Meta { namespace, name, .. } = object.metadata.clone();
                $crate::input::Fact::Plain(Box::new(event(namespace, name)))
            }

            fn listed(metas: Vec<$crate::watch::Listed>) -> $crate::input::Fact {
                let kind: fn(Vec<(SmolStr, SmolStr)>) -> RelistedKind = $listed;
                let names = metas.into_iter().map(|listed| (listed.namespace, listed.name)).collect();
                $crate::input::Fact::Plain(Box::new(Event::Relisted(kind(names))))
            }
        }
    };
}

pub(crate) use plain;
