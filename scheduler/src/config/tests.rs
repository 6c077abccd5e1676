//! What is read, and what is said about what cannot be used.

use super::*;
use flowforge_scheduler_core::plugins::node_resources_fit::Strategy;

fn problem(text: &str) -> String {
    Config::parse(text, "config.yaml").expect_err("refused").to_string()
}

#[test]
fn nothing_is_the_default_and_the_default_is_valid() {
    for text in ["", "# only a comment\n\n"] {
        assert_eq!(Config::parse(text, "config.yaml").expect("valid"), Config::default());
    }
    let default = Config::default();
    let request_timeout = Duration::from_millis(default.binding.request_timeout_ms);
    assert_eq!(default.core(request_timeout), core::Config::default());
}

#[test]
fn every_field_can_be_set() {
    let text = "
schedulerNames: [flowforge, default-scheduler]
topology:
  - {name: zone, labels: [topology.kubernetes.io/zone]}
  - {name: rack, labels: [a, b]}
planning: {settleMs: 5, backoffInitialMs: 2, backoffMaxMs: 9, shapeCacheMib: 3, seed: 7, reservations: 2, starvationMs: 60000}
binding: {repairDeadlineMs: 4000, volumeBindTimeoutMs: 7000, deviceBindTimeoutMs: 8000, requestTimeoutMs: 500, parallelRequests: 2, parallelReports: 1, journalSlots: 1}
rollback:
  barePods: false
  owners: [{group: batch, kind: Job}]
";
    let config = Config::parse(text, "config.yaml").expect("valid");
    let core = config.core(Duration::from_millis(500));
    assert_eq!(core.topology[1], ("rack".into(), vec!["a".into(), "b".into()]));
    assert_eq!((core.settle_ms, core.shape_cache_bytes, core.seed), (5, 3 << 20, 7));
    assert_eq!((core.reservations, core.starvation_ms), (2, 60_000));
    let protocol = core.protocol;
    assert_eq!((protocol.repair_deadline_ms, protocol.outcome_timeout_ms), (4_000, 1_500));
    assert_eq!((protocol.volume_bind_timeout_ms, protocol.device_bind_timeout_ms), (7_000, 8_000));
    assert!(!protocol.tolerance.bare);
    assert_eq!(protocol.tolerance.owners[0].kind, "Job");
}

#[test]
fn an_unknown_field_is_refused_with_its_place() {
    let text = problem("planning:\n  settleMs: 1\n  setleMs: 2\n");
    assert!(text.starts_with("config.yaml: "), "{text}");
    assert!(text.contains("setleMs") && text.contains('3'), "{text}");
}

#[test]
fn values_that_cannot_work_are_all_named() {
    let text = problem(
        "schedulerNames: []\nplanning: {backoffInitialMs: 9, backoffMaxMs: 1}\ntopology: [{name: a, labels: []}, {name: a, labels: [x]}]\n",
    );
    for part in [
        "schedulerNames must name at least one scheduler",
        "planning.backoffMaxMs must not be smaller than planning.backoffInitialMs",
        "topology[0].labels must name at least one node label",
        "topology[1].name \"a\" is used twice",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn the_two_backoffs_are_compared_as_they_come_to_be_whichever_field_gives_them() {
    let backoff = |text: &str| {
        let core = Config::parse(text, "config.yaml").expect("valid").core(Duration::from_secs(5));
        (core.backoff_initial_ms, core.backoff_max_ms)
    };
    assert_eq!(backoff("podMaxBackoffSeconds: 60\nplanning: {backoffInitialMs: 20000}\n"), (20_000, 60_000));
    assert_eq!(backoff("podInitialBackoffSeconds: 20\nplanning: {backoffMaxMs: 30000}\n"), (20_000, 30_000));
    for (text, said) in [
        (
            "podMaxBackoffSeconds: 10\nplanning: {backoffInitialMs: 20000}\n",
            "podMaxBackoffSeconds must not be smaller than planning.backoffInitialMs, which is 20000 ms",
        ),
        (
            "podInitialBackoffSeconds: 20\n",
            "planning.backoffMaxMs must not be smaller than podInitialBackoffSeconds, which is 20000 ms",
        ),
    ] {
        assert_eq!(problem(text), format!("config.yaml: {said}"));
    }
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(Path::new("/nonexistent/config.yaml")).expect_err("no such file");
    assert!(error.to_string().starts_with("cannot read /nonexistent/config.yaml"), "{error}");
}

const KUBE: &str = "
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
podInitialBackoffSeconds: 2
podMaxBackoffSeconds: 20
percentageOfNodesToScore: 50
parallelism: 8
leaderElection: {leaderElect: true, leaseDuration: 30s, renewDeadline: 20s}
clientConnection: {kubeconfig: /etc/kubeconfig, qps: 100, burst: 200}
profiles:
  - schedulerName: default-scheduler
  - schedulerName: packed
    plugins:
      score:
        disabled: [{name: NodeResourcesBalancedAllocation}]
        enabled: [{name: NodeResourcesFit, weight: 5}]
    pluginConfig:
      - name: NodeResourcesFit
        args:
          apiVersion: kubescheduler.config.k8s.io/v1
          kind: NodeResourcesFitArgs
          ignoredResources: [example.com/foo]
          scoringStrategy:
            type: RequestedToCapacityRatio
            resources: [{name: nvidia.com/gpu, weight: 3}, {name: cpu}]
            requestedToCapacityRatio: {shape: [{utilization: 0, score: 0}, {utilization: 100, score: 10}]}
      - name: NodeAffinity
        args:
          addedAffinity:
            requiredDuringSchedulingIgnoredDuringExecution:
              nodeSelectorTerms: [{matchExpressions: [{key: pool, operator: In, values: [gpu]}]}]
      - name: PodTopologySpread
        args:
          defaultingType: List
          defaultConstraints: [{maxSkew: 1, topologyKey: topology.kubernetes.io/zone, whenUnsatisfiable: DoNotSchedule}]
      - name: InterPodAffinity
        args: {hardPodAffinityWeight: 0, ignorePreferredTermsOfExistingPods: true}
      - name: DefaultPreemption
        args: {minCandidateNodesPercentage: 20}
";

#[test]
fn a_configuration_of_kube_scheduler_is_taken_as_it_is() {
    let config = Config::parse(KUBE, "config.yaml").expect("valid");
    assert_eq!(config.names(), ["default-scheduler", "packed"]);
    let core = config.core(Duration::from_secs(5));
    assert_eq!((core.backoff_initial_ms, core.backoff_max_ms), (2_000, 20_000));
    let packed = core.profiles.of("packed");
    assert_eq!((packed.weights.node_resources_fit, packed.weights.balanced_allocation), (5, 0));
    assert_eq!(packed.fit.strategy, Strategy::RequestedToCapacityRatio(vec![(0, 0), (100, 100)]));
    let weights: Vec<_> = packed.fit.resources.iter().map(|r| (r.name.as_str(), r.weight)).collect();
    assert_eq!(weights, [("nvidia.com/gpu", 3), ("cpu", 1)]);
    assert!(packed.fit.ignores("example.com/foo"));
    assert_eq!(packed.added_affinity.required.as_ref().map(Vec::len), Some(1));
    assert!(packed.spread_defaults.refuse());
    assert_eq!((packed.hard_pod_affinity_weight, packed.ignore_preferred_of_existing), (0, true));
    assert_eq!(packed.preemption.map(|args| (args.candidates_percent, args.candidates_absolute)), Some((20, 100)));
    assert_eq!(*core.profiles.of("default-scheduler"), core_profile::Profile::named("default-scheduler"));
}

#[test]
fn what_has_no_effect_is_noticed_by_field() {
    let notices = Config::parse(KUBE, "config.yaml").expect("valid").notices();
    for field in [
        "percentageOfNodesToScore ",
        "parallelism ",
        "leaderElection.leaseDuration ",
        "leaderElection.renewDeadline ",
        "clientConnection.kubeconfig ",
        "clientConnection.qps ",
        "clientConnection.burst ",
    ] {
        assert!(notices.iter().any(|notice| notice.starts_with(field)), "{field} in {notices:#?}");
    }
    assert_eq!(notices.len(), 7, "{notices:#?}");
    assert_eq!(Config::default().notices(), Vec::<String>::new());
}

#[test]
fn a_single_profile_may_go_without_a_name() {
    let names = |text| Config::parse(text, "config.yaml").expect("valid").names();
    assert_eq!(names("profiles: [{}]"), ["flowforge"]);
    assert_eq!(names("apiVersion: kubescheduler.config.k8s.io/v1\nprofiles: [{}]"), ["default-scheduler"]);
    assert_eq!(names("schedulerNames: [a, b]"), ["a", "b"]);
}

/// The problem that a value of a plugin's arguments has, without the path of the profile.
fn problem_of(plugin: &str, args: &str) -> String {
    let text = problem(&format!("profiles: [{{pluginConfig: [{{name: {plugin}, args: {args}}}]}}]"));
    text.replace("config.yaml: ", "").replace("profiles[0].pluginConfig[0].args", "args")
}

#[test]
fn a_profile_says_how_long_its_volumes_and_devices_may_take() {
    let text = "profiles: [{schedulerName: a, pluginConfig: [{name: VolumeBinding, args: {bindTimeoutSeconds: 30}}, \
                {name: DynamicResources, args: {bindingTimeout: 90s}}]}, {schedulerName: b}]";
    let config = Config::parse(text, "config.yaml").unwrap();
    assert!(config.notices().is_empty(), "{:?}", config.notices());
    let profiles = config.core(Duration::from_secs(1)).profiles;
    assert_eq!(["a", "b"].map(|name| profiles.of(name).patience.volumes_ms), [Some(30_000), None]);
    assert_eq!(["a", "b"].map(|name| profiles.of(name).patience.devices_ms), [Some(90_000), None]);
}

#[test]
fn a_profile_says_how_full_its_volumes_shall_be() {
    let text = "profiles: [{schedulerName: a, pluginConfig: [{name: VolumeBinding, \
                args: {shape: [{utilization: 0, score: 0}, {utilization: 90, score: 10}]}}]}, {schedulerName: b}]";
    let profiles = Config::parse(text, "config.yaml").unwrap().core(Duration::from_secs(1)).profiles;
    assert_eq!(profiles.of("a").volume_line, [(0, 0), (90, 100)]);
    assert_eq!(profiles.of("b").volume_line, [(0, 100), (100, 0)], "what is left free");
    let wrong = problem_of("VolumeBinding", "{shape: [{utilization: 9, score: 1}, {utilization: 8, score: 11}]}");
    let expected = "args.shape[1].utilization must be larger than that of the point before; \
                    args.shape[1].score must be between 0 and 10";
    assert_eq!(wrong, expected);
}

#[test]
fn arguments_that_cannot_work_are_named_with_field_and_fix() {
    for (plugin, args, expected) in [
        (
            "NodeResourcesFit",
            "{scoringStrategy: {type: Least}}",
            "args.scoringStrategy.type \"Least\" must be LeastAllocated, MostAllocated or RequestedToCapacityRatio",
        ),
        (
            "NodeResourcesFit",
            "{scoringStrategy: {type: MostAllocated, resources: [{name: cpu, weight: 101}]}}",
            "args.scoringStrategy.resources[0].weight must be between 1 and 100",
        ),
        (
            "NodeResourcesFit",
            "{scoringStrategy: {type: RequestedToCapacityRatio}}",
            "args.scoringStrategy.requestedToCapacityRatio.shape must have at least one point",
        ),
        (
            "NodeResourcesFit",
            "{scoringStrategy: {type: LeastAllocated, requestedToCapacityRatio: {shape: []}}}",
            "args.scoringStrategy.requestedToCapacityRatio belongs to type RequestedToCapacityRatio; remove it or set that type",
        ),
        (
            "NodeResourcesFit",
            "{scoringStrategy: {type: RequestedToCapacityRatio, requestedToCapacityRatio: {shape: [{utilization: 9, score: 11}, {utilization: 9, score: 0}]}}}",
            "args.scoringStrategy.requestedToCapacityRatio.shape[1].utilization must be larger than that of the point before; args.scoringStrategy.requestedToCapacityRatio.shape[0].score must be between 0 and 10",
        ),
        (
            "NodeResourcesFit",
            "{ignoredResourceGroups: [a/b]}",
            "args.ignoredResourceGroups[0] must be what stands before the slash, without one",
        ),
        (
            "NodeResourcesFit",
            "{ignoredResources: ['-x']}",
            "args.ignoredResources[0] \"-x\" must be a qualified name such as example.com/name",
        ),
        (
            "NodeResourcesBalancedAllocation",
            "{resources: [{name: cpu}, {name: cpu, weight: 2}]}",
            "args.resources[1].name \"cpu\" is named twice; name it once; args.resources[1].weight must be 1",
        ),
        ("InterPodAffinity", "{hardPodAffinityWeight: 101}", "args.hardPodAffinityWeight must be between 0 and 100"),
        (
            "PodTopologySpread",
            "{defaultConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: ScheduleAnyway}]}",
            "args.defaultingType must be List where defaultConstraints are given",
        ),
        (
            "PodTopologySpread",
            "{defaultingType: List, defaultConstraints: [{topologyKey: a, whenUnsatisfiable: Maybe, labelSelector: {}}]}",
            "args.defaultConstraints[0].maxSkew must be at least 1; args.defaultConstraints[0].whenUnsatisfiable \"Maybe\" must be DoNotSchedule or ScheduleAnyway; args.defaultConstraints[0].labelSelector must be absent: the selector comes from the Services and controllers of each pod",
        ),
        (
            "NodeAffinity",
            "{addedAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchExpressions: [{key: a, operator: Is, values: [b]}]}]}}}",
            "args.addedAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0].matchExpressions[0].operator \"Is\" must be In, NotIn, Exists, DoesNotExist, Gt or Lt",
        ),
        ("VolumeBinding", "{bindTimeoutSeconds: -1}", "args.bindTimeoutSeconds must not be negative"),
        (
            "DefaultPreemption",
            "{minCandidateNodesPercentage: 0, minCandidateNodesAbsolute: 0}",
            "args.minCandidateNodesPercentage and minCandidateNodesAbsolute must not both be 0",
        ),
        ("DynamicResources", "{bindingTimeout: 10ms}", "args.bindingTimeout must be at least 1s"),
        ("NodePorts", "{x: 1}", "args must be empty: NodePorts takes no arguments"),
        ("NodeAffinity", "{kind: Other}", "args.kind must be NodeAffinityArgs"),
    ] {
        assert_eq!(problem_of(plugin, args), expected, "{plugin} {args}");
    }
}

#[test]
fn an_unknown_field_has_a_near_one_named() {
    let text = problem("profiles: [{schedulername: x}]");
    assert!(text.contains("did you mean `schedulerName`?"), "{text}");
    let text = problem_of("InterPodAffinity", "{hardPodAfinityWeight: 1}");
    assert!(
        text.starts_with("args cannot be read: ") && text.contains("did you mean `hardPodAffinityWeight`?"),
        "{text}"
    );
}

#[test]
fn fields_that_contradict_each_other_or_cannot_be_followed_are_refused() {
    for (text, expected) in [
        (
            "schedulerNames: [a]\nprofiles: [{}]",
            "schedulerNames must be absent where profiles are given; each profile has its schedulerName",
        ),
        (
            "profiles: [{schedulerName: a}, {schedulerName: a}]",
            "profiles[1].schedulerName \"a\" is used twice; give each profile its own",
        ),
        ("profiles: [{}, {schedulerName: a}]", "profiles[0].schedulerName must not be empty"),
        (
            "podMaxBackoffSeconds: 0",
            "podMaxBackoffSeconds must be at least 1; podMaxBackoffSeconds must not be smaller than planning.backoffInitialMs, which is 1000 ms",
        ),
        (
            "podMaxBackoffSeconds: 4\nplanning: {backoffMaxMs: 5000}",
            "podMaxBackoffSeconds and planning.backoffMaxMs say the same; give one of them",
        ),
        ("percentageOfNodesToScore: 101", "percentageOfNodesToScore must be between 0 and 100"),
        ("extenders: [{urlPrefix: x}]", "extenders must be empty: no extender is called"),
        ("apiVersion: v2", "apiVersion must be kubescheduler.config.k8s.io/v1 or absent"),
        ("leaderElection: {leaseDuration: 5s}", "leaderElection.leaseDuration must be greater than renewDeadline"),
    ] {
        assert_eq!(problem(text), format!("config.yaml: {expected}"), "{text}");
    }
}

#[test]
fn levels_that_contradict_each_other_are_named() {
    let text = problem("topology: [{name: a, labels: [x]}, {name: b, labels: [x]}]");
    let expected =
        "topology: node label \"x\" is read by topology levels \"a\" and \"b\"; a label belongs to one level";
    assert!(text.ends_with(expected), "{text}");
}
