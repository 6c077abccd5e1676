//! No input at all does harm.

use super::*;
use proptest::prelude::*;

fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[a-z/.-]{0,6}".prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let key = prop_oneof![
        prop::sample::select(vec![
            "apiVersion",
            "kind",
            "metadata",
            "name",
            "generateName",
            "spec",
            "workflow",
            "nodes",
            "id",
            "replicas",
            "dependsOn",
            "dependsMode",
            "onFailure",
            "finally",
            "retry",
            "backoff",
            "exitCodes",
            "reasons",
            "node",
            "on",
            "image",
            "podTemplate",
            "containers",
            "storage",
            "claimRef",
            "mountPath",
            "subPath",
            "defaults",
            "env",
            "value",
            "valueFrom",
            "volumeMounts",
            "volumes",
            "topology",
            "required",
            "preferred",
            "resources",
            "limits",
            "labels",
            "shmSize",
            "args",
            "cancel",
        ])
        .prop_map(String::from),
        any::<String>(),
    ];
    leaf.prop_recursive(6, 96, 8, move |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((key.clone(), inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// Puts `with` at the `at`-th place of a document (depth first), so that most of it stays good.
fn graft(document: &mut Value, at: &mut usize, with: &Value) {
    if *at == 0 {
        *document = with.clone();
    }
    *at = at.wrapping_sub(1);
    match document {
        Value::Array(list) => list.iter_mut().for_each(|v| graft(v, at, with)),
        Value::Object(map) => map.values_mut().for_each(|v| graft(v, at, with)),
        _ => {}
    }
}

proptest! {
    #[test]
    fn no_document_does_harm(document in any_json(), strict in any::<bool>()) {
        let options = Options { strict, ..Options::default() };
        if let Err(errors) = compile(&document, options) {
            prop_assert!(!errors.is_empty() && errors.len() <= MAX_ERRORS + 1);
        }
        let _ = to_manifest(&document);
    }

    #[test]
    fn no_graft_onto_a_good_document_does_harm(at in 0usize..60, with in any_json(), short in any::<bool>()) {
        let mut document = diamond();
        if !short {
            document = to_manifest(&document).expect("the short form");
        }
        graft(&mut document, &mut { at }, &with);
        if let Err(errors) = compile(&document, STRICT) {
            prop_assert!(!errors.is_empty());
            prop_assert!(errors.iter().all(|e| !e.problem.is_empty() && !e.fix.is_empty()));
        }
    }

    #[test]
    fn the_same_document_has_the_same_mistakes(document in any_json()) {
        let copy = document.clone();
        prop_assert_eq!(compile(&document, STRICT), compile(&copy, STRICT));
    }
}
