//! The kinds that pods are found by: namespaces, and the Services and controllers that select pods. The engine takes them as
//! they are.

use crate::convert::{self, types};
use crate::input::Fact;
use crate::watch::{Listed, Watched};
use flowforge_scheduler_core::event::{Event, RelistedKind};
use flowforge_scheduler_core::relations::SelectorKind;

/// Namespaces.
pub(crate) struct Namespaces;

impl Watched for Namespaces {
    type Object = types::Namespace;
    const KIND: &'static str = "namespaces";
    const PATH: &'static str = "/api/v1/namespaces";

    fn meta(object: &types::Namespace) -> &types::Meta {
        &object.metadata
    }

    fn upsert(&self, object: &types::Namespace) -> Fact {
        let types::Meta { name, labels, .. } = object.metadata.clone();
        Fact::Plain(Box::new(Event::NamespaceUpsert { name, labels }))
    }

    fn gone(object: &types::Namespace) -> Fact {
        Fact::Plain(Box::new(Event::NamespaceDelete { name: object.metadata.name.clone() }))
    }

    fn listed(metas: Vec<Listed>) -> Fact {
        let names = metas.into_iter().map(|listed| listed.name).collect();
        Fact::Plain(Box::new(Event::Relisted(RelistedKind::Namespaces(names))))
    }
}

/// A kind that selects pods.
macro_rules! selecting {
    ($(#[$doc:meta])* $kind:ident, $object:ty, $plural:literal, $path:literal, $convert:path) => {
        $(#[$doc])*
        pub(crate) struct $kind;

        impl Watched for $kind {
            type Object = $object;
            const KIND: &'static str = $plural;
            const PATH: &'static str = $path;

            fn meta(object: &$object) -> &types::Meta {
                &object.metadata
            }

            fn upsert(&self, object: &$object) -> Fact {
                Fact::Plain(Box::new(Event::SelectorUpsert(Box::new($convert(SelectorKind::$kind, object)))))
            }

            fn gone(object: &$object) -> Fact {
                let types::Meta { namespace, name, .. } = object.metadata.clone();
                Fact::Plain(Box::new(Event::SelectorDelete { kind: SelectorKind::$kind, namespace, name }))
            }

            fn listed(metas: Vec<Listed>) -> Fact {
                let names = metas.into_iter().map(|listed| (listed.namespace, listed.name)).collect();
                Fact::Plain(Box::new(Event::Relisted(RelistedKind::Selectors(SelectorKind::$kind, names))))
            }
        }
    };
}

selecting!(
    /// Services.
    Service, types::LabelOwner, "services", "/api/v1/services", convert::selecting_labels
);
selecting!(
    /// ReplicationControllers.
    ReplicationController, types::LabelOwner, "replicationcontrollers", "/api/v1/replicationcontrollers",
    convert::selecting_labels
);
selecting!(
    /// ReplicaSets.
    ReplicaSet, types::SelectorOwner, "replicasets", "/apis/apps/v1/replicasets", convert::selecting_pods
);
selecting!(
    /// StatefulSets.
    StatefulSet, types::SelectorOwner, "statefulsets", "/apis/apps/v1/statefulsets", convert::selecting_pods
);

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn object<W: Watched>(value: Value) -> W::Object {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn each_kind_becomes_a_selector_of_its_kind() {
        let service =
            object::<Service>(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"selector": {"a": "b"}}}));
        let Fact::Plain(event) = Service.upsert(&service) else { panic!("not for the engine") };
        let Event::SelectorUpsert(info) = *event else { panic!("{event:?}") };
        assert_eq!((info.kind, info.name.as_str()), (SelectorKind::Service, "s"));
        assert!(info.selector.is_some_and(|selector| selector.requirements.len() == 1));
        let set = object::<StatefulSet>(json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {}}));
        let Fact::Plain(event) = StatefulSet.upsert(&set) else { panic!("not for the engine") };
        assert!(matches!(*event, Event::SelectorUpsert(info) if info.selector.is_none()));
    }
}
