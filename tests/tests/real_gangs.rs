//! Gangs on real nodes, where containers really run: they meet by name, their logs and exit codes come back, a failed
//! member and a lost machine end the workflow with a reason that names them.
//!
//! Four machines serve all steps, one after the other; a step leaves the machines as it found them, which the last step
//! shows. Members wait for files in a shared volume, so that the test decides when they go on and nothing is timed.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod real;

use flowforge_api::gang::{GangPhase, MemberOutcome};
use flowforge_api::workflow::{NodePhase, WorkflowPhase};
use flowforge_testbed::real::{WORKLOAD_IMAGE, available};
use k8s_openapi::api::core::v1::{Node, Taint};
use kube::Api;
use kube::api::{LogParams, PostParams};
use serde_json::json;
use std::collections::BTreeSet;

use real::{LIMIT, World, exit_code, node_status, until};

/// Members of the gang: one a machine, with all of its GPUs.
const SIZE: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gangs_run_fail_and_lose_machines_on_real_nodes() {
    if let Err(missing) = available() {
        return flowforge_tests::skip("real", &missing.to_string());
    }
    let world = World::start(SIZE).await;
    let machines = world.testbed.real_node_names().unwrap();
    members_meet_and_their_logs_and_exit_codes_come_back(&world, &machines).await;
    one_member_exits_1_and_everything_ends_for_that_reason(&world).await;
    a_silent_machine_is_waited_for_and_the_wait_is_explained(&world).await;
    let rebooted = a_dead_machine_taken_out_of_service_is_not_waited_for(&world).await;
    // All four machines are whole again.
    until("a kubelet that was just started hands out its GPUs", async || world.runs_alone(&rebooted).await).await;
    world.submit("again", &[("train", "rank")]).await;
    world.ends("again", WorkflowPhase::Succeeded).await;
    world.testbed.stop().unwrap();
}

async fn members_meet_and_their_logs_and_exit_codes_come_back(world: &World, machines: &[String]) {
    world.submit("meet", &[("train", "rank -- await /mnt/meet-go -- exit 0")]).await;
    // Both wait for the pods, then print while the containers run.
    let one = world.follow(&["logs", "meet", "train", "--rank", "2", "--follow"]);
    let all = world.follow(&["logs", "meet", "train", "--all-ranks", "--follow"]);
    let address = "meet-train-1-0.meet-train-1";
    one.until_shows(&format!("rank 2 of 4 met at {address}"), LIMIT).await.unwrap();
    for rank in 0..SIZE {
        let line = format!("{rank} | rank {rank} of 4 met at {address}");
        all.until_shows(&line, LIMIT).await.unwrap();
    }
    world.reaches_running("meet", "train").await;
    let pods = world.members("meet", "train").await;
    let places: BTreeSet<&str> = pods.iter().filter_map(|p| p.spec.as_ref()?.node_name.as_deref()).collect();
    assert_eq!(places, machines.iter().map(String::as_str).collect(), "one member a machine");
    let early = world.flowforge(&["logs", "meet", "train", "--rank", "3"], 0);
    assert!(early.starts_with("rank 3 of 4 met") && !early.contains("found"), "{early}");

    world.touch("meet-go");
    let done = world.ends("meet", WorkflowPhase::Succeeded).await;
    assert_eq!(node_status(&done, "train").phase, NodePhase::Succeeded);
    for follower in [one, all] {
        let (code, text) = follower.end(LIMIT).await.unwrap();
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("found /mnt/meet-go"), "followed to the end: {text}");
    }
    for pod in world.members("meet", "train").await {
        assert_eq!(exit_code(&pod), Some(0));
        let name = pod.metadata.name.unwrap();
        let log = world.pods().logs(&name, &LogParams::default()).await.unwrap();
        assert!(log.contains("of 4 met at") && log.ends_with("found /mnt/meet-go\n"), "{name}: {log}");
    }
    let whole = world.flowforge(&["logs", "meet", "train", "--all-ranks"], 0);
    let ranks: Vec<&str> = whole.lines().filter_map(|line| line.split(" | ").next()).collect();
    assert_eq!(ranks, ["0", "0", "1", "1", "2", "2", "3", "3"], "in the order of ranks: {whole}");
    let gang = world.gangs().get("meet-train-1").await.unwrap().status.unwrap();
    assert_eq!((gang.phase, gang.succeeded_ranks.as_deref()), (Some(GangPhase::Succeeded), Some("0-3")));
}

async fn one_member_exits_1_and_everything_ends_for_that_reason(world: &World) {
    let nodes =
        [("train", "rank -- await /mnt/end-$(NODE_RANK) -- exit 1"), ("side", "await /mnt/never"), ("after", "exit 0")];
    world.submit("fail", &nodes).await;
    let watch = world.follow(&["watch", "fail"]);
    world.reaches_running("fail", "train").await;
    world.reaches_running("fail", "side").await;
    world.touch("end-1");
    let done = world.ends("fail", WorkflowPhase::Failed).await;
    let phases = ["train", "side", "after"].map(|id| node_status(&done, id).phase);
    assert_eq!(phases, [NodePhase::Failed, NodePhase::Failed, NodePhase::Skipped]);
    let status = done.status.clone().unwrap();
    for (reason, message) in
        [(status.reason, status.message), (node_status(&done, "train").reason, node_status(&done, "train").message)]
    {
        assert_eq!(reason.as_deref(), Some("MemberFailed"));
        assert!(message.clone().unwrap().starts_with("member 1 exited with code 1"), "{message:?}");
    }
    assert_eq!(node_status(&done, "side").reason.as_deref(), Some("NodeFailed"));
    let gang = world.gangs().get("fail-train-1").await.unwrap().status.unwrap();
    assert_eq!(gang.phase, Some(GangPhase::Failed));
    assert_eq!((gang.failed_ranks.as_deref(), gang.stopped_ranks.as_deref()), (Some("1"), Some("0,2-3")));
    let root = gang.results.first().unwrap();
    assert_eq!((root.rank, root.outcome, root.exit_code), (1, MemberOutcome::Failed, Some(1)));
    let stopped: Vec<_> = gang.results.iter().skip(1).map(|r| (r.outcome, r.exit_code)).collect();
    assert_eq!(stopped, [(MemberOutcome::Stopped, Some(143)); 3], "they ended by SIGTERM");

    let left = world.all_members("fail").await;
    let running: Vec<_> = left.iter().filter(|p| exit_code(p).is_none()).map(|p| &p.metadata.name).collect();
    assert!(running.is_empty(), "nothing runs any more: {running:?}");
    let failed = world.pods().get("fail-train-1-1").await.unwrap();
    assert_eq!(exit_code(&failed), Some(1));
    let log = world.flowforge(&["logs", "fail", "train", "--rank", "1"], 0);
    assert!(log.contains("rank 1 of 4 met") && log.contains("found /mnt/end-1"), "{log}");
    let (code, text) = watch.end(LIMIT).await.unwrap();
    assert!(code == Some(1) && text.contains("member 1 exited with code 1"), "{code:?} {text}");
}

/// The kubelet dies and its containers go on. Nobody can know whether the member still writes, so the end waits, and says
/// for what; the others are stopped at once.
async fn a_silent_machine_is_waited_for_and_the_wait_is_explained(world: &World) {
    world.submit_impatient("silent", &[("train", "rank -- await /mnt/never")]).await;
    world.reaches_running("silent", "train").await;
    let machine = world.machine_of("silent-train-1-1").await;
    world.testbed.kill_kubelet(&machine).unwrap();
    until("the machine is lost", async || world.is_ready(&machine, "Unknown").await).await;
    until("the wait is explained", async || {
        let workflow = world.workflows().get("silent").await.map_err(|e| e.to_string())?;
        let node = node_status(&workflow, "train");
        let text = format!("{:?} {:?} {:?}", node.phase, node.reason, node.message);
        let parts = ["Running", "NodeLost", "member 1", &machine, "waits for member 1 to stop"];
        if parts.iter().all(|part| text.contains(part)) { Ok(()) } else { Err(text) }
    })
    .await;
    until("the others are stopped", async || {
        let left = world.all_members("silent").await;
        let left: Vec<_> = left.into_iter().filter_map(|p| p.metadata.name).collect();
        if left == ["silent-train-1-1"] { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
    let told = world.flowforge(&["explain", "workflow", "silent"], 0);
    for part in ["NodeLost", &machine, "waits for members of train to stop", "node.kubernetes.io/out-of-service"] {
        assert!(told.contains(part), "no {part:?}: {told}");
    }

    // It answers again, and ends what it was told to end.
    world.testbed.restart_kubelet(&machine).unwrap();
    world.testbed.await_node(&machine, LIMIT).await.unwrap();
    ended_by_loss(world, "silent", &machine).await;
}

/// The power is gone, and the administrator says so: nothing can run there, so nothing waits.
async fn a_dead_machine_taken_out_of_service_is_not_waited_for(world: &World) -> String {
    world.submit_impatient("dead", &[("train", "rank -- await /mnt/never")]).await;
    world.reaches_running("dead", "train").await;
    let machine = world.machine_of("dead-train-1-1").await;
    world.testbed.stop_node(&machine).await.unwrap();
    until("the machine is lost", async || world.is_ready(&machine, "Unknown").await).await;
    until("the member is lost", async || {
        let workflow = world.workflows().get("dead").await.map_err(|e| e.to_string())?;
        let reason = node_status(&workflow, "train").reason;
        if reason.as_deref() == Some("NodeLost") { Ok(()) } else { Err(format!("{reason:?}")) }
    })
    .await;
    world.taint_out_of_service(&machine, true).await;
    ended_by_loss(world, "dead", &machine).await;
    until("no pod of the lost machine is left", async || {
        let left = world.all_members("dead").await.len();
        if left == 0 { Ok(()) } else { Err(format!("{left}")) }
    })
    .await;
    world.testbed.start_node(&machine).unwrap();
    world.taint_out_of_service(&machine, false).await;
    world.testbed.await_node(&machine, LIMIT).await.unwrap();
    machine
}

async fn ended_by_loss(world: &World, name: &str, machine: &str) {
    let done = world.ends(name, WorkflowPhase::Failed).await;
    let status = done.status.clone().unwrap();
    assert_eq!(status.reason.as_deref(), Some("NodeLost"));
    let message = status.message.unwrap_or_default();
    assert!(message.contains("member 1") && message.contains(machine), "{message}");
    assert!(!message.contains("waits"), "it has ended: {message}");
    let gang = world.gangs().get(&format!("{name}-train-1")).await.unwrap().status.unwrap();
    assert_eq!((gang.phase, gang.reason.as_deref()), (Some(GangPhase::Failed), Some("NodeLost")));
    assert_eq!((gang.failed_ranks.as_deref(), gang.stopped_ranks.as_deref()), (Some("1"), Some("0,2-3")));
    assert_eq!(gang.results.first().and_then(|r| r.node.as_deref()), Some(machine));
}

impl World {
    /// Whether a pod with all GPUs runs on this machine: a kubelet refuses them for a moment after its start, while it still
    /// counts those of the pods before it.
    async fn runs_alone(&self, machine: &str) -> Result<(), String> {
        let pod = json!({"metadata": {"generateName": "probe-"}, "spec": {
            "nodeName": machine, "restartPolicy": "Never", "containers": [{
                "name": "main", "image": WORKLOAD_IMAGE, "imagePullPolicy": "Never", "args": ["exit", "0"],
                "resources": {"limits": {"nvidia.com/gpu": "8"}}}]}});
        let pods = self.pods();
        let made = pods.create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await.unwrap();
        let name = made.metadata.name.unwrap();
        let status = until("the probe ends", async || {
            let status = pods.get(&name).await.map_err(|e| e.to_string())?.status.unwrap_or_default();
            let phase = status.phase.clone().unwrap_or_default();
            if phase == "Succeeded" || phase == "Failed" { Ok(status) } else { Err(phase) }
        })
        .await;
        if status.phase.as_deref() == Some("Succeeded") { Ok(()) } else { Err(format!("{:?}", status.message)) }
    }

    /// Puts the taint on or takes it off, beside those of the node-lifecycle controller, which come and go.
    async fn taint_out_of_service(&self, machine: &str, on: bool) {
        const KEY: &str = "node.kubernetes.io/out-of-service";
        let nodes: Api<Node> = Api::all(self.testbed.client().clone());
        until("the taint is written", async || {
            let mut node = nodes.get(machine).await.map_err(|e| e.to_string())?;
            let taints = node.spec.get_or_insert_default().taints.get_or_insert_default();
            taints.retain(|taint| taint.key != KEY);
            if on {
                let value = Some("nodeshutdown".to_owned());
                taints.push(Taint { key: KEY.to_owned(), value, effect: "NoExecute".to_owned(), time_added: None });
            }
            nodes.replace(machine, &PostParams::default(), &node).await.map(drop).map_err(|e| e.to_string())
        })
        .await;
    }
}
