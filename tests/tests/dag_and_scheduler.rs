//! The controller and our scheduler together, on fake nodes: what neither can show alone.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod dag;
mod scheduler;

use dag::seen::Watch;
use dag::{Setup, World, in_turn, node, until};
use flowforge_api::names::label;
use flowforge_api::workflow::{NodePhase, Workflow, WorkflowPhase};
use k8s_openapi::api::core::v1::{Node, Pod, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

fn cases<F, Fut>(test: F)
where
    F: FnOnce(&'static World) -> Fut,
    Fut: Future<Output = ()>,
{
    in_turn(Setup { our_scheduler: true, ..Setup::default() }, test);
}

#[test]
fn of_two_half_created_gangs_that_fit_the_quota_only_alone_one_runs_then_the_other() {
    cases(|world| async move {
        world.namespace("quota").await;
        // Room for one whole gang, so that a live member of one keeps the other from being whole.
        quota(world, "both", json!({"hard": {"pods": "4"}, "scopes": ["NotTerminating"]})).await;
        // While these two exist, each gang gets two of its four members and no more.
        for name in ["one", "two"] {
            scheduler::priority_class(world.testbed, name, 1_000, true).await;
            let own = json!([{"scopeName": "PriorityClass", "operator": "In", "values": [name]}]);
            quota(world, name, json!({"hard": {"pods": "2"}, "scopeSelector": {"matchExpressions": own}})).await;
            let defaults = json!({"defaults": {"priorityClassName": name}});
            world.submit("quota", name, json!([node("a", 4, 2000, &[])]), defaults).await;
        }
        for name in ["one", "two"] {
            world.shows("quota", name, "QuotaExceeded").await;
        }
        until("both are half created", || async {
            let (one, two) = (live_members(world, "one").await, live_members(world, "two").await);
            assert!(!one.iter().chain(&two).any(is_bound), "a part of a gang was bound");
            if (one.len(), two.len()) == (2, 2) { Ok(()) } else { Err(format!("{} and {}", one.len(), two.len())) }
        })
        .await;
        // From now on each could be whole, were it not for the other's half.
        let quotas: Api<ResourceQuota> = Api::namespaced(world.testbed.client().clone(), "quota");
        for name in ["one", "two"] {
            quotas.delete(name, &DeleteParams::default()).await.unwrap();
        }
        let (one, two) = tokio::select! {
            ends = futures::future::join(
                world.reaches("quota", "one", WorkflowPhase::Succeeded),
                world.reaches("quota", "two", WorkflowPhase::Succeeded),
            ) => ends,
            () = assert_never_both(world) => unreachable!("it looks for ever"),
        };
        let ((s1, e1), (s2, e2)) = (span(&one), span(&two));
        assert!(e1 <= s2 || e2 <= s1, "they ran at the same time: {s1} to {e1}, {s2} to {e2}");
        for workflow in [one, two] {
            assert_eq!(workflow.status.unwrap().nodes[0].attempt, 1, "a wait for quota costs no attempt");
        }
    });
}

/// Creates a quota and waits until it counts.
async fn quota(world: &World, name: &str, spec: Value) {
    let quotas: Api<ResourceQuota> = Api::namespaced(world.testbed.client().clone(), "quota");
    let quota = serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap();
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    until("the quota counts", || async {
        let quota = quotas.get(name).await.map_err(|e| e.to_string())?;
        quota.status.and_then(|s| s.used).map(drop).ok_or("no status yet".to_owned())
    })
    .await;
}

/// Members that have not ended and are not on their way out.
async fn live_members(world: &World, workflow: &str) -> Vec<Pod> {
    let mut pods = world.members("quota", workflow, "a").await;
    pods.retain(|pod| pod.metadata.deletion_timestamp.is_none() && !has_ended(pod));
    pods
}

fn has_ended(pod: &Pod) -> bool {
    matches!(dag::pod_phase(pod), "Succeeded" | "Failed")
}

fn is_bound(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some())
}

/// Looks, for as long as it is awaited, that never a member of both gangs is bound.
async fn assert_never_both(world: &World) {
    loop {
        let pods = world.pods("quota").list(&ListParams::default()).await.unwrap().items;
        let live = pods.iter().filter(|pod| is_bound(pod) && !has_ended(pod));
        let workflows: BTreeSet<&String> = live.map(|pod| &pod.labels()[label::WORKFLOW]).collect();
        assert!(workflows.len() < 2, "members of both are bound");
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

fn span(workflow: &Workflow) -> (jiff::Timestamp, jiff::Timestamp) {
    let node = &workflow.status.as_ref().unwrap().nodes[0];
    (node.scheduled_at.as_ref().unwrap().0, node.finished_at.as_ref().unwrap().0)
}

#[test]
fn twenty_workflows_do_not_notice_a_restart_of_the_api_server() {
    const WORKFLOWS: usize = 20;
    cases(|world| async move {
        world.namespace("restart").await;
        let watch = Watch::start(world, "restart");
        let names: Vec<String> = (0..WORKFLOWS).map(|i| format!("wf{i}")).collect();
        for name in &names {
            // The last node runs until the test ends it: no workflow is over before the restart.
            let nodes = json!([
                node("a", 1, 1500, &[]),
                node("b", 2, 1500, &["a"]),
                node("c", 1, 1000, &["a"]),
                node("d", 1, 600_000, &["b", "c"]),
            ]);
            world.submit("restart", name, nodes, json!({})).await;
        }
        until("some have begun", || async {
            let pods = world.pods("restart").list(&ListParams::default()).await.map_err(|e| e.to_string())?;
            if pods.items.len() >= WORKFLOWS / 2 { Ok(()) } else { Err(format!("{} pods", pods.items.len())) }
        })
        .await;
        world.testbed.restart_apiserver().await.unwrap();
        for name in &names {
            world.runs("restart", name, "d", 1).await;
            world.end("restart", &format!("{name}-d-1-0"), 0).await;
        }
        for name in &names {
            let done = world.reaches("restart", name, WorkflowPhase::Succeeded).await;
            let nodes = done.status.unwrap().nodes;
            assert!(nodes.iter().all(|n| n.phase == NodePhase::Succeeded && n.attempt == 1), "{}", json!(nodes));
        }
        watch.caught_up(world, "restart", WORKFLOWS * 4, WORKFLOWS * 5).await.assert_once();
    });
}

/// Four machines in two racks of two; a member takes more than the half of one.
async fn two_racks(world: &World) -> (BTreeMap<String, String>, String) {
    let mut racks = BTreeMap::new();
    for (at, name) in scheduler::node_names(world.testbed).await.into_iter().enumerate() {
        let rack = format!("rack-{}", at / 2);
        scheduler::label_node(world.testbed, &name, json!({"fabric.topograph.run/tier-0": rack})).await;
        racks.insert(name, rack);
    }
    let nodes: Api<Node> = Api::all(world.testbed.client().clone());
    let first = nodes.list(&ListParams::default()).await.unwrap().items.remove(0);
    let cpu = first.status.unwrap().allocatable.unwrap()["cpu"].0.parse::<u32>().unwrap();
    (racks, (cpu * 6 / 10).to_string())
}

/// A node of large members that asks this of its gang.
fn asking(replicas: i32, cpu: &str, gang: Value) -> Value {
    let mut node = node("a", replicas, 600_000, &[]);
    node["resources"] = json!({"requests": {"cpu": cpu}});
    node["gang"] = gang;
    node
}

#[test]
fn what_a_node_asks_of_its_gang_decides_where_it_stands_and_with_how_many_it_starts() {
    cases(|world| async move {
        world.namespace("racks").await;
        let (racks, cpu) = two_racks(world).await;
        let in_a_rack = |more: Value| {
            let mut gang = json!({"topology": {"required": "rack"}, "queue": "research"});
            gang.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            gang
        };
        // Three machines are free for three members, but no rack has three.
        world.submit("racks", "wide", json!([asking(3, &cpu, in_a_rack(json!({})))]), json!({})).await;
        let selector = format!("{}=wide-a-1", label::GANG);
        let (_, message) = scheduler::refused(world.testbed, "racks", &selector, "rack").await;
        assert!(message.contains("3 members"), "{message}");
        assert!(!world.members("racks", "wide", "a").await.iter().any(is_bound), "a part of it was bound");
        assert_eq!(world.gangs("racks").get("wide-a-1").await.unwrap().spec.queue.as_deref(), Some("research"));

        world.submit("racks", "fits", json!([asking(2, &cpu, in_a_rack(json!({})))]), json!({})).await;
        world.runs("racks", "fits", "a", 2).await;
        assert_eq!(racks_of(&world.members("racks", "fits", "a").await, &racks).len(), 1);

        // The other rack has room for two of three: enough to start, as it says.
        let elastic = asking(3, &cpu, in_a_rack(json!({"minMember": 2})));
        world.submit("racks", "starts", json!([elastic]), json!({})).await;
        let degraded = world.shows("racks", "starts", "Degraded").await;
        assert_eq!(degraded.status.unwrap().nodes[0].phase, NodePhase::Running);
        let members = world.members("racks", "starts", "a").await;
        assert_eq!(members.iter().filter(|pod| is_bound(pod)).count(), 2);
        assert_eq!(racks_of(&members, &racks).len(), 1);
        for name in ["wide", "fits", "starts"] {
            world.workflows("racks").delete(name, &DeleteParams::default()).await.unwrap();
        }
    });
}

fn racks_of(pods: &[Pod], racks: &BTreeMap<String, String>) -> BTreeSet<String> {
    scheduler::nodes_of(pods).into_iter().map(|node| racks[node].clone()).collect()
}

#[test]
fn kubectl_shows_what_matters_in_columns_and_waits_for_conditions() {
    cases(|world| async move {
        world.namespace("kubectl").await;
        world.submit("kubectl", "wf", json!([node("a", 2, 600_000, &[])]), json!({})).await;
        until("the workflow's row is there", || async {
            let told = kubectl(world, &["get", "ffw"]);
            row(&told, "wf", &[("PHASE", "Running"), ("PROGRESS", "0/1"), ("REASON", ""), ("AGE", "*")])
        })
        .await;
        // A category of two kinds: a table for each.
        let gang =
            [("PHASE", "Running"), ("MEMBERS", "2"), ("BOUND", "2"), ("RUNNING", "2"), ("REASON", ""), ("AGE", "*")];
        until("both kinds have their rows", || async {
            let told = kubectl(world, &["get", "flowforge"]);
            row(&told, "workflow.flowforge.dev/wf", &[("PHASE", "Running"), ("PROGRESS", "0/1")])?;
            row(&told, "gang.flowforge.dev/wf-a-1", &gang)
        })
        .await;
        let wide = kubectl(world, &["get", "ffw", "-o", "wide"]);
        row(&wide, "wf", &[("STARTED", "*")]).unwrap();
        let met = |condition: &str| {
            let condition = format!("--for=condition={condition}");
            let told = kubectl(world, &["wait", "workflow/wf", &condition, "--timeout=120s"]);
            assert_eq!(told, "workflow.flowforge.dev/wf condition met\n", "{condition}");
        };
        met("Accepted");
        for rank in 0..2 {
            world.end("kubectl", &format!("wf-a-1-{rank}"), 0).await;
        }
        for condition in ["Succeeded", "Complete", "Failed=False"] {
            met(condition);
        }
        let told = kubectl(world, &["get", "ffw", "wf"]);
        row(&told, "wf", &[("PHASE", "Succeeded"), ("PROGRESS", "1/1")]).unwrap();
    });
}

fn kubectl(world: &World, args: &[&str]) -> String {
    let output = world.testbed.kubectl().args(["-n", "kubectl"]).args(args).output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Whether the row of this name has these values (`*` is any) in the columns of these heads; all that was printed otherwise.
fn row(told: &str, name: &str, values: &[(&str, &str)]) -> Result<(), String> {
    let table = told.split("\n\n").find(|table| table.lines().any(|line| line.starts_with(&format!("{name} "))));
    let table = table.ok_or_else(|| format!("no row {name} in\n{told}"))?;
    let head = table.lines().next().unwrap_or_default();
    let line = table.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap_or_default();
    for (column, expected) in values {
        let start = head.find(column).ok_or_else(|| format!("no column {column} in\n{told}"))?;
        // A column is as wide as its head and the blanks behind it.
        let behind = head[start..].trim_start_matches(|c| c != ' ').trim_start();
        let end = if behind.is_empty() { line.len() } else { head.len() - behind.len() };
        let value = line.get(start..end).unwrap_or_default().trim();
        if value != *expected && (*expected != "*" || value.is_empty()) {
            return Err(format!("{column} is {value:?}, not {expected:?} in\n{told}"));
        }
    }
    Ok(())
}
