//! Profiles by themselves, and several of them over one cluster.

use super::*;
use crate::config::Config;
use crate::cycle;
use crate::fixture::{NodeChain, PodChain, node, pod};
use crate::model::{NodeInfo, NodeOperator, NodeRequirement, PodInfo};
use crate::snapshot::Snapshot;

#[test]
fn a_filter_is_in_the_set_until_it_is_taken_out() {
    assert!(Filter::ALL.iter().all(|(filter, _)| Filters::ALL.has(*filter)));
    let fewer = Filters::ALL.without(Filter::NodePorts);
    assert!(!fewer.has(Filter::NodePorts) && fewer.has(Filter::NodeAffinity) && fewer.has(Filter::NodeName));
}

#[test]
fn pods_find_their_profile_by_name_and_the_first_one_otherwise() {
    let profiles = Profiles::new(vec![Profile::named("a"), Profile::named("b")]);
    let found = |name| profiles.of(name).name.clone();
    assert_eq!([found("a"), found("b"), found("x")], ["a", "b", "a"]);
    assert_ne!(profiles.of("a"), profiles.of("b"));
    assert_eq!(profiles.of("b").id(), 1);
}

#[test]
fn extended_resources_are_numbered_over_all_profiles() {
    let mut gpus = Profile::named("gpus");
    gpus.fit.resources = vec![Scored::new("nvidia.com/gpu", 5), Scored::new("cpu", 1)];
    let mut nics = Profile::named("nics");
    nics.fit.resources = vec![Scored::new("example.com/nic", 1), Scored::new("nvidia.com/gpu", 1)];
    let profiles = Profiles::new(vec![gpus, nics]);
    assert_eq!(profiles.extended(), ["nvidia.com/gpu", "example.com/nic"]);
    let lanes: Vec<Lane> = profiles.of("nics").fit.resources.iter().map(|r| r.lane).collect();
    assert_eq!(lanes, [Lane::Extended(1), Lane::Extended(0)]);
}

#[test]
fn only_extended_resources_can_be_ignored() {
    let args = FitArgs {
        ignored: ["cpu".into(), "example.com/foo".into()].into(),
        ignored_groups: ["acme.io".into(), "kubernetes.io".into()].into(),
        ..FitArgs::default()
    };
    let ignored = ["cpu", "example.com/foo", "example.com/bar", "acme.io/x", "kubernetes.io/y", "hugepages-2Mi"];
    assert_eq!(ignored.map(|name| args.ignores(name)), [false, true, false, true, false, false]);
}

fn cluster(profiles: Vec<Profile>) -> Snapshot {
    Snapshot::new(&Config { profiles: Profiles::new(profiles), ..Config::default() })
}

/// Where a pod of this profile goes, or the message; it does not stay there.
fn goes(snapshot: &mut Snapshot, profile: &str, pod: PodInfo) -> Result<String, String> {
    let id = snapshot.upsert_pod(PodInfo { scheduler_name: profile.into(), ..pod }).expect("a pod").id;
    let found = cycle::find(snapshot, id);
    let answer = found.map(|node| snapshot.cluster().node_name(node).to_string());
    snapshot.delete_pod(id);
    answer.map_err(|refusal| refusal.message())
}

/// Only NodeResourcesFit scores, by this strategy.
fn only_fit(name: &str, strategy: Strategy, resources: &[(&str, i64)]) -> Profile {
    let weights = Weights::of(|plugin| i64::from(plugin == node_resources_fit::NAME));
    let resources = resources.iter().map(|(name, weight)| Scored::new(*name, *weight)).collect();
    Profile { weights, fit: FitArgs { strategy, resources, ..FitArgs::default() }, ..Profile::named(name) }
}

#[test]
fn two_profiles_send_equal_pods_to_different_nodes() {
    let mut s = cluster(vec![
        only_fit("spread", Strategy::LeastAllocated, &[("cpu", 1)]),
        only_fit("packed", Strategy::MostAllocated, &[("cpu", 1)]),
    ]);
    s.upsert_node(node("a-used"));
    s.upsert_node(node("b-free"));
    let used =
        PodInfo { node_name: Some("a-used".into()), scoring_requests: (8_000, 0), ..pod("used").asks("cpu", 8_000) };
    s.upsert_pod(used);
    let asks = || PodInfo { scoring_requests: (1_000, 0), ..pod("p").asks("cpu", 1_000) };
    assert_eq!(goes(&mut s, "spread", asks()).as_deref(), Ok("b-free"));
    assert_eq!(goes(&mut s, "packed", asks()).as_deref(), Ok("a-used"));
    assert_eq!(goes(&mut s, "unknown", asks()).as_deref(), Ok("b-free"), "the first profile takes it");
}

#[test]
fn an_extended_resource_scores_from_when_the_first_node_has_it_and_only_for_pods_that_ask_for_it() {
    let mut s = cluster(vec![only_fit("gpus", Strategy::MostAllocated, &[("nvidia.com/gpu", 3), ("cpu", 1)])]);
    s.upsert_node(node("a"));
    let asks = || PodInfo { scoring_requests: (100, 0), ..pod("p").asks("nvidia.com/gpu", 1) };
    assert!(goes(&mut s, "gpus", asks()).is_err());
    s.upsert_node(node("b").has("nvidia.com/gpu", 8));
    s.upsert_node(node("c").has("nvidia.com/gpu", 2));
    assert_eq!(goes(&mut s, "gpus", asks()).as_deref(), Ok("c"), "half of it is in use there");
    let plain = || PodInfo { scoring_requests: (100, 0), ..pod("plain").asks("cpu", 100) };
    assert_eq!(goes(&mut s, "gpus", plain()).as_deref(), Ok("a"), "all are equal in CPU");
}

#[test]
fn a_filter_that_one_profile_leaves_out_still_refuses_for_the_other() {
    let lenient = Profile {
        filters: Filters::ALL.without(Filter::NodeUnschedulable).without(Filter::NodeResourcesFit),
        ..Profile::named("lenient")
    };
    let mut s = cluster(vec![Profile::named("strict"), lenient]);
    s.upsert_node(NodeInfo { unschedulable: true, ..node("cordoned") });
    let asks = || pod("p").asks("cpu", 10_000_000);
    assert_eq!(goes(&mut s, "lenient", asks()).as_deref(), Ok("cordoned"));
    let message = goes(&mut s, "strict", asks()).expect_err("refused");
    assert!(message.contains("1 node(s) were unschedulable"), "{message}");
}

#[test]
fn ignored_resources_are_not_looked_at_and_the_others_are() {
    let mut careless = Profile::named("careless");
    careless.fit.ignored_groups = ["example.com".into()].into();
    let mut s = cluster(vec![careless]);
    s.upsert_node(node("a"));
    assert_eq!(goes(&mut s, "careless", pod("p").asks("example.com/absent", 1)).as_deref(), Ok("a"));
    let message = goes(&mut s, "careless", pod("q").asks("nvidia.com/gpu", 1)).expect_err("refused");
    assert!(message.contains("Insufficient nvidia.com/gpu"), "{message}");
}

#[test]
fn affinity_that_a_profile_adds_refuses_with_a_reason_of_its_own() {
    let requirement = NodeRequirement { key: "pool".into(), operator: NodeOperator::In, values: vec!["gpu".into()] };
    let term = NodeSelectorTerm { match_expressions: vec![requirement], match_fields: Vec::new() };
    let added_affinity = AddedAffinity { required: Some(vec![term]), preferred: Vec::new() };
    let mut s = cluster(vec![Profile { added_affinity, ..Profile::named("gpu-only") }, Profile::named("any")]);
    s.upsert_node(node("plain"));
    let message = goes(&mut s, "gpu-only", pod("p")).expect_err("refused");
    assert!(message.contains("1 node(s) didn't match scheduler-enforced node affinity"), "{message}");
    assert_eq!(goes(&mut s, "any", pod("p")).as_deref(), Ok("plain"));
    s.upsert_node(node("plain").label("pool", "gpu"));
    assert_eq!(goes(&mut s, "gpu-only", pod("p")).as_deref(), Ok("plain"), "a changed label is seen");
}
