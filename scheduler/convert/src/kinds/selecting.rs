//! The kinds that pods are found by: namespaces, and the Services and controllers that select pods. The engine takes them as
//! they are.

use super::plain;
use crate::types;
use flowforge_scheduler_core::event::{Event, RelistedKind};
use flowforge_scheduler_core::relations::SelectorKind;
use smol_str::SmolStr;

plain!(
    /// Namespaces.
    Namespaces: types::Namespace, "namespaces", "/api/v1/namespaces",
    upsert |namespace| {
        let types::Meta { name, labels, .. } = namespace.metadata.clone();
        Event::NamespaceUpsert { name, labels }
    },
    gone |_, name| Event::NamespaceDelete { name },
    listed |names| RelistedKind::Namespaces(names.into_iter().map(|(_, name)| name).collect())
);

/// A kind that selects pods.
macro_rules! selecting {
    ($(#[$doc:meta])* $kind:ident, $object:ty, $plural:literal, $path:literal, $convert:path) => {
        plain!(
            $(#[$doc])*
            $kind: $object, $plural, $path,
            upsert |object| Event::SelectorUpsert(Box::new($convert(SelectorKind::$kind, object))),
            gone |namespace, name| Event::SelectorDelete { kind: SelectorKind::$kind, namespace, name },
            listed |names| RelistedKind::Selectors(SelectorKind::$kind, names)
        );
    };
}

selecting!(
    /// Services.
    Service, types::LabelOwner, "services", "/api/v1/services", crate::selecting_labels
);
selecting!(
    /// ReplicationControllers.
    ReplicationController, types::LabelOwner, "replicationcontrollers", "/api/v1/replicationcontrollers",
    crate::selecting_labels
);
selecting!(
    /// ReplicaSets.
    ReplicaSet, types::SelectorOwner, "replicasets", "/apis/apps/v1/replicasets", crate::selecting_pods
);
selecting!(
    /// StatefulSets.
    StatefulSet, types::SelectorOwner, "statefulsets", "/apis/apps/v1/statefulsets", crate::selecting_pods
);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::Plain;
    use serde_json::{Value, json};

    fn object<W: Plain>(value: Value) -> W::Object {
        serde_json::from_value(value).expect("an object")
    }

    #[test]
    fn each_kind_becomes_a_selector_of_its_kind() {
        let service =
            object::<Service>(json!({"metadata": {"name": "s", "namespace": "n"}, "spec": {"selector": {"a": "b"}}}));
        let event = Service::upsert(&service);
        let Event::SelectorUpsert(info) = event else { panic!("{event:?}") };
        assert_eq!((info.kind, info.name.as_str()), (SelectorKind::Service, "s"));
        assert!(info.selector.is_some_and(|selector| selector.requirements.len() == 1));
        let set = object::<StatefulSet>(json!({"metadata": {"name": "t", "namespace": "n"}, "spec": {}}));
        assert!(matches!(StatefulSet::upsert(&set), Event::SelectorUpsert(info) if info.selector.is_none()));
    }
}
