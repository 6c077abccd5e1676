//! What a shard makes of the ends of its jobs. Nothing answers its requests: the tests say what came of them.

use super::*;
use flowforge_api::Gang;
use flowforge_dag_controller_core::command::{MemberEnd, MemberOutcome};
use flowforge_dag_controller_core::event::{Object, Refusal, RefusalKind};
use serde_json::{Value, json};

const KEY: AttemptKey = AttemptKey { node: flowforge_dag_controller_core::NodeIx(0), attempt: 1 };

fn shared() -> Shared {
    let registry = flowforge_runtime::Metrics::new("test", "0").unwrap();
    let metrics = Arc::new(Metrics::new(&registry).unwrap());
    let pressure = flowforge_runtime::Pressure::new(&registry).unwrap();
    // Nothing listens there.
    let client = kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let leadership = Leadership::alone(Duration::from_secs(3600));
    let timeout = Duration::from_secs(5);
    let (announcer, _) = Announcer::new(client.clone(), leadership.clone(), timeout, Arc::clone(&metrics));
    Shared {
        writer: Writer::new(client, leadership, pressure, timeout, 64, Arc::clone(&metrics)),
        storage: Arc::default(),
        nodes: Nodes::default(),
        announcer,
        metrics,
        config: Arc::new(Config::default()),
    }
}

/// A shard with one workflow of one node with two members.
fn shard() -> (Shard, FlowKey) {
    let mut shard = Shard::new(shared());
    shard.on_input(Input::ListsIn, Instant::now());
    let workflow = serde_json::from_value(json!({
        "metadata": {"name": "wf", "namespace": "ns", "uid": "wf-uid", "resourceVersion": "5"},
        "spec": {"nodes": [{"id": "a", "replicas": 2, "image": "x"}]}}))
    .unwrap();
    shard.on_input(Input::Workflow(workflow), Instant::now());
    (shard, FlowKey::new("ns", "wf"))
}

fn owner(uid: &str) -> Value {
    json!([{"apiVersion": "v1", "kind": "X", "name": "o", "uid": uid, "controller": true}])
}

fn labels(rank: Option<u32>) -> Value {
    let mut labels = json!({"flowforge.dev/workflow": "wf", "flowforge.dev/node": "a", "flowforge.dev/attempt": "1"});
    if let Some(rank) = rank {
        labels["flowforge.dev/rank"] = json!(rank.to_string());
    }
    labels
}

fn gang(version: u64, phase: &str) -> Box<Gang> {
    serde_json::from_value(json!({
        "metadata": {"name": "wf-a-1", "namespace": "ns", "uid": "g1", "resourceVersion": version.to_string(),
            "labels": labels(None), "ownerReferences": owner("wf-uid")},
        "spec": {"minMember": 2, "roles": [{"name": "worker", "replicas": 2}]},
        "status": {"phase": phase}}))
    .unwrap()
}

impl Shard {
    fn end(&mut self, flow: &FlowKey, outcome: Outcome) {
        self.on_ended(Ended { flow: flow.clone(), uid: "wf-uid".to_owned(), outcome });
    }

    fn lane(&self, flow: &FlowKey) -> &crate::flow::GangLane {
        &self.flows[flow].attempts[&KEY].lane
    }

    fn record(&mut self, flow: &FlowKey, rank: u32) {
        let end = MemberEnd {
            outcome: MemberOutcome::Succeeded,
            exit_code: Some(0),
            reason: "".into(),
            node: "n".into(),
            said: "".into(),
        };
        let member = MemberKey { node: KEY.node, attempt: KEY.attempt, rank, incarnation: 0 };
        self.carry_out(flow, vec![Command::RecordResult(member, Box::new(end))], Instant::now());
    }
}

#[tokio::test]
async fn a_gang_that_is_found_while_its_status_is_written_does_not_end_the_writing() {
    let (mut shard, flow) = shard();
    shard.end(&flow, Outcome::Gang(KEY, gang(10, "Pending")));
    shard.record(&flow, 0);
    assert!(shard.lane(&flow).in_flight.is_some());
    // The answer to a create that was sent twice, or to a look after a list.
    shard.end(&flow, Outcome::Gang(KEY, gang(10, "Pending")));
    assert!(!shard.lane(&flow).ended, "nothing says that the Gang has ended");
    assert_eq!(shard.lane(&flow).in_flight.as_ref().map(|load| load.recording.len()), Some(1));
    // What follows is still written.
    shard.end(&flow, Outcome::GangWritten(KEY, "11".to_owned()));
    shard.record(&flow, 1);
    assert_eq!(shard.lane(&flow).in_flight.as_ref().map(|load| load.recording.len()), Some(1));
}

#[tokio::test]
async fn a_write_that_meets_the_gangs_end_is_the_last() {
    let (mut shard, flow) = shard();
    shard.end(&flow, Outcome::Gang(KEY, gang(10, "Pending")));
    shard.record(&flow, 0);
    shard.end(&flow, Outcome::GangOver(KEY, gang(11, "Failed")));
    assert!(shard.lane(&flow).ended);
    assert!(shard.lane(&flow).in_flight.is_none());
}

#[tokio::test]
async fn creates_that_wait_for_their_turn_when_the_attempt_ends_are_not_sent() {
    let (mut shard, flow) = shard();
    shard.end(&flow, Outcome::Gang(KEY, gang(10, "Pending")));
    shard.drive(&flow, vec![Event::Cancel], Instant::now());
    // No job has had its turn yet: none runs before the first await.
    let mut dropped = Vec::new();
    while dropped.len() < 4 {
        let ended = tokio::time::timeout(Duration::from_secs(10), shard.jobs.join_next()).await;
        match ended.unwrap().unwrap().unwrap().outcome {
            Outcome::Refused(object, Refusal { kind: RefusalKind::Dropped, .. }) => dropped.push(object),
            other => unreachable!("{other:?}"),
        }
    }
    dropped.sort();
    let pod = |rank| Object::Pod(MemberKey { node: KEY.node, attempt: KEY.attempt, rank, incarnation: 0 });
    assert_eq!(dropped, [Object::Gang(KEY), Object::Service(KEY), pod(0), pod(1)]);
}

#[tokio::test]
async fn a_workflow_that_is_gone_leaves_the_nodes_it_ran_on() {
    let (mut shard, flow) = shard();
    shard.end(&flow, Outcome::Gang(KEY, gang(10, "Pending")));
    let pod = serde_json::from_value(json!({
        "metadata": {"name": "wf-a-1-0", "namespace": "ns", "uid": "p0", "resourceVersion": "20", "labels": labels(Some(0)),
            "ownerReferences": owner("g1")},
        "spec": {"nodeName": "n1"}, "status": {"phase": "Running"}}));
    shard.on_input(Input::Pod(flow.clone(), pod.unwrap()), Instant::now());
    assert!(shard.by_node["n1"].contains(&flow));
    shard.on_input(Input::WorkflowGone(flow, "wf-uid".to_owned()), Instant::now());
    assert!(shard.by_node.is_empty(), "{:?}", shard.by_node);
}
