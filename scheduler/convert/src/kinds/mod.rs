//! The kinds that the engine takes as they are: each object becomes one event, and nothing else looks at it.
//!
//! A kind is its types and paths, and three functions: what an object becomes, what becomes of one that is gone (by
//! namespace and name), and of a list (of namespaces and names).

pub mod budgets;
pub mod devices;
pub mod hardware;
pub mod selecting;
pub mod storing;

use crate::types::Meta;
use flowforge_scheduler_core::event::{Event, RelistedKind};
use serde::de::DeserializeOwned;
use smol_str::SmolStr;

/// A kind of such objects.
pub trait Plain: Send + Sync + 'static {
    /// The object as decoded.
    type Object: DeserializeOwned + Clone + Send + Sync + 'static;
    /// `plural`, the label of its metrics.
    const PLURAL: &'static str;
    /// Path of the collection over all namespaces.
    const PATH: &'static str;
    /// Whether the API may be absent, which counts as an empty list.
    const OPTIONAL: bool = false;
    /// Whether it is of somebody else: where we may not read it, it is as if it were absent.
    const FOREIGN: bool = false;
    /// Metadata.
    fn meta(object: &Self::Object) -> &Meta;
    /// Added or changed.
    fn upsert(object: &Self::Object) -> Event;
    /// Gone.
    fn gone(namespace: SmolStr, name: SmolStr) -> Event;
    /// Everything there is: namespaces and names.
    fn listed(names: Vec<(SmolStr, SmolStr)>) -> RelistedKind;
}

/// A kind of such objects.
macro_rules! plain {
    (
        $(#[$doc:meta])* $name:ident: $object:ty, $plural:literal, $path:expr, $(optional $optional:literal,)?
        $(foreign $foreign:literal,)?
        upsert $upsert:expr, gone $gone:expr, listed $listed:expr
    ) => {
        $(#[$doc])*
        pub struct $name;

        impl $crate::kinds::Plain for $name {
            type Object = $object;
            const PLURAL: &'static str = $plural;
            const PATH: &'static str = $path;
            $(const OPTIONAL: bool = $optional;)?
            $(const FOREIGN: bool = $foreign;)?

            fn meta(object: &$object) -> &$crate::types::Meta {
                &object.metadata
            }

            fn upsert(object: &$object) -> Event {
                let event: fn(&$object) -> Event = $upsert;
                event(object)
            }

            fn gone(namespace: SmolStr, name: SmolStr) -> Event {
                let event: fn(SmolStr, SmolStr) -> Event = $gone;
                event(namespace, name)
            }

            fn listed(names: Vec<(SmolStr, SmolStr)>) -> RelistedKind {
                let kind: fn(Vec<(SmolStr, SmolStr)>) -> RelistedKind = $listed;
                kind(names)
            }
        }
    };
}

use plain;
