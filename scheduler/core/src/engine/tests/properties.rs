//! Invariants of the engine over random histories.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Act {
    Node(u8, u8),
    NodeGone(u8),
    Pod(u8, u8),
    Gang(u8, u8, u8),
    End(u8),
    Delete(u8),
    Wait(u16),
    StepDown,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (0u8..6, 0u8..3).prop_map(|(n, rack)| Act::Node(n, rack)),
        1 => (0u8..6).prop_map(Act::NodeGone),
        2 => (0u8..20, 1u8..9).prop_map(|(p, gpus)| Act::Pod(p, gpus)),
        4 => (0u8..6, 1u8..5, 1u8..9).prop_map(|(g, size, gpus)| Act::Gang(g, size, gpus)),
        2 => any::<u8>().prop_map(Act::End),
        1 => any::<u8>().prop_map(Act::Delete),
        1 => (1u16..20_000).prop_map(Act::Wait),
        1 => Just(Act::StepDown),
    ]
}

/// Plays acts; after each the cluster is at rest and the invariants hold. Returns every placement.
fn play(acts: &[Act]) -> BTreeMap<SmolStr, Option<SmolStr>> {
    let mut s = Scene::new();
    let mut epoch = 1;
    let mut sizes: BTreeMap<SmolStr, usize> = BTreeMap::new();
    for (at, act) in acts.iter().enumerate() {
        match act {
            Act::Node(n, rack) => s.nodes([dgx(&format!("n{n}"), "b", &format!("r{rack}"))]),
            Act::NodeGone(n) => {
                let name = SmolStr::from(format!("n{n}"));
                s.see(Event::NodeDelete { name: name.clone() });
                // The garbage collector takes the pods of a node that is gone.
                let on: Vec<SmolStr> = s
                    .pods
                    .values()
                    .filter(|p| p.node_name.as_ref() == Some(&name))
                    .map(|p| p.key.name.clone())
                    .collect();
                on.iter().for_each(|p| {
                    if s.pods.contains_key(&SmolStr::from(format!("uid-{p}"))) {
                        s.delete(p);
                    }
                });
            }
            Act::Pod(p, gpus) => {
                if !s.pods.contains_key(&SmolStr::from(format!("uid-p{p}"))) {
                    s.create(pod(&format!("p{p}")).asks("nvidia.com/gpu", i64::from(*gpus)));
                }
            }
            Act::Gang(g, size, gpus) => {
                let name = format!("g{g}-{at}");
                sizes.insert(name.as_str().into(), usize::from(*size));
                s.gang(&name, u32::from(*size), i64::from(*gpus));
            }
            Act::End(i) | Act::Delete(i) => {
                let names: Vec<SmolStr> = s.pods.values().map(|p| p.key.name.clone()).collect();
                if let Some(name) = names.get(usize::from(*i) % names.len().max(1)) {
                    // A gang member that ends takes its gang along, as its owner would.
                    let gang = name.rsplit_once('-').filter(|(g, _)| sizes.contains_key(*g)).map(|(g, _)| g.to_owned());
                    let going: Vec<SmolStr> = match &gang {
                        Some(g) => {
                            names.iter().filter(|n| n.rsplit_once('-').is_some_and(|(x, _)| x == g)).cloned().collect()
                        }
                        None => vec![name.clone()],
                    };
                    for name in going {
                        let bound = s.node_of(&name).is_some();
                        if matches!(act, Act::End(_)) && bound { s.end(&name) } else { s.delete(&name) }
                    }
                    gang.map(|g| sizes.remove(g.as_str()));
                }
            }
            Act::Wait(ms) => s.now += u64::from(*ms),
            Act::StepDown => {
                epoch += 1;
                s.see(Event::Follow);
                s.lead(epoch);
            }
        }
        s.run();
        check_rest(&s, &sizes);
    }
    s.pods.values().map(|p| (p.key.name.clone(), p.node_name.clone())).collect()
}

fn check_rest(s: &Scene, sizes: &BTreeMap<SmolStr, usize>) {
    let cluster = s.engine.snapshot.cluster();
    assert_eq!(cluster.assumed_count(), 0, "assumed_is_confirmed_or_forgotten");
    for (id, record) in cluster.nodes.iter().filter(|(_, n)| !n.placeholder) {
        assert!(cluster.free(id, "nvidia.com/gpu").unwrap() >= 0, "no_overcommit on {}", record.info.name);
    }
    for (gang, size) in sizes {
        let members: Vec<&PodInfo> =
            s.pods.values().filter(|p| p.gang.as_ref().is_some_and(|g| g.name == *gang)).collect();
        let bound = members.iter().filter(|p| p.node_name.is_some()).count();
        // Losing a node later leaves the rest live; that is the owner's matter. A gang never *becomes* partial by us.
        assert!(
            bound == 0 || bound == *size || members.len() < *size,
            "gang_all_or_nothing: {bound} of {size} of {gang}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn at_rest_gangs_are_whole_or_unbound_and_nothing_is_overcommitted(acts in prop::collection::vec(act(), 1..40)) {
        play(&acts);
    }

    #[test]
    fn same_seed_same_plan(acts in prop::collection::vec(act(), 1..25)) {
        prop_assert_eq!(play(&acts), play(&acts));
    }
}
