//! `flowforge logs WORKFLOW NODE --rank N`: the log of one member.
//!
//! The member is the pod with the node's, the attempt's and the rank's label; where the scheduler rolled it back and it
//! was made again, the youngest one counts. With `--follow` the command waits for the member to appear and to start.

use futures::io::AsyncReadExt as _;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::LogParams;
use std::time::Duration;

use flowforge_api::Workflow;
use flowforge_api::names::label;
use flowforge_api::workflow::WorkflowPhase;

use crate::args::LogsArgs;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Time between two looks at a member that has not started.
const LOOK_AGAIN: Duration = Duration::from_millis(500);

pub(crate) async fn run(args: &LogsArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let workflow = cluster.workflow(&args.workflow).await?;
    check_member(args, &workflow)?;
    let pod = find(args, cluster).await?;
    let params = LogParams {
        container: Some(args.container.clone().unwrap_or_else(|| main_container(&pod))),
        follow: args.follow,
        tail_lines: args.tail.map(i64::from),
        timestamps: args.timestamps,
        ..LogParams::default()
    };
    let name = pod.name_any();
    let doing = format!("read the log of pod {}", cluster.path(&name));
    let failed = |error: &kube::Error| Failure::of_request(&doing, error);
    let mut stream = cluster.pods().log_stream(&name, &params).await.map_err(|error| failed(&error))?;
    let mut buffer = vec![0_u8; 16 * 1024];
    loop {
        let read = stream.read(&mut buffer).await;
        let count = read.map_err(|error| Failure::new(format!("cannot {doing}: the connection broke: {error}")))?;
        if count == 0 {
            return Ok(Exit::Success);
        }
        out.bytes(&buffer[..count])?;
        out.flush()?;
    }
}

/// The node and the rank must be in the spec.
fn check_member(args: &LogsArgs, workflow: &Workflow) -> Result<(), Failure> {
    let Some(node) = workflow.spec.nodes.iter().find(|node| node.id == args.node) else {
        let ids: Vec<&str> = workflow.spec.nodes.iter().map(|node| node.id.as_str()).take(20).collect();
        return Err(Failure::new(format!("workflow {} has no node {}", args.workflow, args.node))
            .fix(format!("name one of: {}", ids.join(", "))));
    };
    if i64::from(args.rank) >= i64::from(node.replicas) {
        return Err(Failure::new(format!("node {} has no rank {}", args.node, args.rank))
            .fix(format!("name a rank from 0 to {}", node.replicas - 1)));
    }
    Ok(())
}

/// Finds the member's pod; with `--follow`, waits for it to have started.
async fn find(args: &LogsArgs, cluster: &Cluster) -> Result<Pod, Failure> {
    let mut labels = format!("{}={},{}={}", label::WORKFLOW, args.workflow, label::NODE, args.node);
    labels = format!("{labels},{}={}", label::RANK, args.rank);
    if let Some(attempt) = args.attempt {
        labels = format!("{labels},{}={attempt}", label::ATTEMPT);
    }
    let mut told = String::new();
    loop {
        let pod = youngest(cluster.pods_with(&labels).await?);
        let state = match &pod {
            None => "it has no pod yet".to_owned(),
            Some(pod) if has_started(pod) => return Ok(pod.clone()),
            Some(pod) => {
                format!("pod {} has not started; `flowforge explain pod {}` says why", pod.name_any(), pod.name_any())
            }
        };
        let whole = format!("rank {} of node {}: {state}", args.rank, args.node);
        if !args.follow {
            return Err(Failure::new(whole).fix("wait for it with --follow"));
        }
        if is_ended(&cluster.workflow(&args.workflow).await?) {
            return Err(Failure::new(format!("{whole}, and the workflow has ended")));
        }
        if told != whole {
            eprintln!("{whole}; waiting");
            told = whole;
        }
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

fn youngest(pods: Vec<Pod>) -> Option<Pod> {
    pods.into_iter().max_by_key(|pod| {
        let attempt: u32 = pod.labels().get(label::ATTEMPT).and_then(|a| a.parse().ok()).unwrap_or(0);
        (attempt, pod.creation_timestamp().map(|time| time.0), pod.name_any())
    })
}

/// Whether a container of the pod has run, so that there may be a log.
fn has_started(pod: &Pod) -> bool {
    let Some(status) = &pod.status else { return false };
    if matches!(status.phase.as_deref(), Some("Running" | "Succeeded" | "Failed")) {
        return true;
    }
    let states = status.init_container_statuses.iter().chain(&status.container_statuses).flatten();
    states.filter_map(|c| c.state.as_ref()).any(|state| state.running.is_some() || state.terminated.is_some())
}

/// The container named `main`, else the first.
fn main_container(pod: &Pod) -> String {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let main = containers.iter().find(|c| c.name == "main").or_else(|| containers.first());
    main.map(|c| c.name.clone()).unwrap_or_default()
}

fn is_ended(workflow: &Workflow) -> bool {
    let phase = workflow.status.as_ref().and_then(|s| s.phase);
    phase.is_some_and(|p| !matches!(p, WorkflowPhase::Pending | WorkflowPhase::Running))
}
