//! `flowforge logs WORKFLOW NODE`: the log of one member (`--rank`), or of all of them (`--all-ranks`).
//!
//! The member is the pod with the node's, the attempt's and the rank's label; where the scheduler rolled it back and it
//! was made again, the youngest one counts. With `--follow` the command waits for the member to appear and to start.

use futures::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _};
use futures::stream::{self, StreamExt as _};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt as _;
use kube::api::LogParams;
use std::time::Duration;
use tokio::sync::mpsc;

use flowforge_api::Workflow;
use flowforge_api::names::label;
use flowforge_api::workflow::{WorkflowNode, WorkflowPhase};

use crate::args::LogsArgs;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::plain::plain;

/// Time between two looks at a member that has not started.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Members that are followed at the same time: each is a connection through the API server to a kubelet.
const FOLLOWED: u32 = 64;
/// Lines that wait for stdout.
const WAITING_LINES: usize = 256;

pub(crate) async fn run(args: &LogsArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let workflow = plain(cluster.workflow(&args.workflow).await?);
    let node = node_of(args, &workflow)?;
    let replicas = u32::try_from(node.replicas).unwrap_or(0);
    if args.all_ranks {
        return all(args, replicas, cluster, out).await;
    }
    if args.rank >= replicas {
        return Err(Failure::new(format!("node {} has no rank {}", args.node, args.rank))
            .fix(format!("name a rank from 0 to {}", node.replicas - 1)));
    }
    let log = Log::open(args, args.rank, cluster).await?;
    log.copy(out).await.map(|()| Exit::Success)
}

/// The node must be in the spec.
fn node_of<'w>(args: &LogsArgs, workflow: &'w Workflow) -> Result<&'w WorkflowNode, Failure> {
    workflow.spec.nodes.iter().find(|node| node.id == args.node).ok_or_else(|| {
        let ids: Vec<&str> = workflow.spec.nodes.iter().map(|node| node.id.as_str()).take(20).collect();
        Failure::new(format!("workflow {} has no node {}", args.workflow, args.node))
            .fix(format!("name one of: {}", ids.join(", ")))
    })
}

/// Every member: one after the other, or, with `--follow`, at the same time and line by line. A member without a log is
/// told on stderr; it is a failure when none has one.
async fn all(args: &LogsArgs, replicas: u32, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    if args.follow && replicas > FOLLOWED {
        return Err(Failure::new(format!("node {} has {replicas} ranks; {FOLLOWED} can be followed", args.node))
            .fix("follow one with --rank, or leave --follow out"));
    }
    let (lines, mut inbox) = mpsc::channel::<String>(WAITING_LINES);
    let width = replicas.saturating_sub(1).to_string().len();
    let read = async {
        let at_once = if args.follow { FOLLOWED as usize } else { 1 };
        let members = stream::iter(0..replicas).map(|rank| {
            let lines = lines.clone();
            async move { Log::open(args, rank, cluster).await?.send(&format!("{rank:>width$} | "), &lines).await }
        });
        let ends: Vec<Result<(), Failure>> = members.buffer_unordered(at_once).collect().await;
        drop(lines);
        ends
    };
    let print = async {
        while let Some(line) = inbox.recv().await {
            out.text(&line)?;
            if inbox.is_empty() {
                out.flush()?;
            }
        }
        Ok::<(), Failure>(())
    };
    let (ends, ()) = futures::future::try_join(async { Ok(read.await) }, print).await?;
    let some = ends.iter().any(Result::is_ok);
    for failure in ends.into_iter().filter_map(Result::err) {
        if !some {
            return Err(failure);
        }
        failure.report();
    }
    Ok(Exit::Success)
}

/// The log of a member that has started.
struct Log<R> {
    stream: R,
    doing: String,
}

impl Log<()> {
    async fn open(
        args: &LogsArgs,
        rank: u32,
        cluster: &Cluster,
    ) -> Result<Log<impl AsyncBufRead + Unpin + use<>>, Failure> {
        let pod = find(args, rank, cluster).await?;
        let params = LogParams {
            container: Some(args.container.clone().unwrap_or_else(|| main_container(&pod))),
            follow: args.follow,
            tail_lines: args.tail.map(i64::from),
            timestamps: args.timestamps,
            ..LogParams::default()
        };
        let name = pod.name_any();
        let doing = format!("read the log of pod {}", cluster.path(&name));
        let stream = cluster.pods().log_stream(&name, &params).await;
        let stream = Box::pin(stream.map_err(|error| Failure::of_request(&doing, &error))?);
        Ok(Log { stream, doing })
    }
}

impl<R: AsyncBufRead + Unpin> Log<R> {
    /// Copies it as it is, also where it is no text.
    async fn copy(mut self, out: &mut Output) -> Result<(), Failure> {
        let mut buffer = vec![0_u8; 16 * 1024];
        loop {
            let read = self.stream.read(&mut buffer).await;
            let count = read.map_err(|error| broken(&self.doing, &error))?;
            if count == 0 {
                return Ok(());
            }
            out.bytes(&buffer[..count])?;
            out.flush()?;
        }
    }

    /// Sends it line by line, with `prefix` before each.
    async fn send(mut self, prefix: &str, lines: &mpsc::Sender<String>) -> Result<(), Failure> {
        let mut line = Vec::new();
        loop {
            line.clear();
            let read = self.stream.read_until(b'\n', &mut line).await;
            if read.map_err(|error| broken(&self.doing, &error))? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(line.strip_suffix(b"\n").unwrap_or(&line));
            if lines.send(format!("{prefix}{text}\n")).await.is_err() {
                return Ok(()); // the printer has ended, and says why
            }
        }
    }
}

fn broken(doing: &str, error: &std::io::Error) -> Failure {
    Failure::new(format!("cannot {doing}: the connection broke: {error}"))
}

/// Finds the member's pod; with `--follow`, waits for it to have started.
async fn find(args: &LogsArgs, rank: u32, cluster: &Cluster) -> Result<Pod, Failure> {
    let mut labels = format!("{}={},{}={}", label::WORKFLOW, args.workflow, label::NODE, args.node);
    labels = format!("{labels},{}={rank}", label::RANK);
    if let Some(attempt) = args.attempt {
        labels = format!("{labels},{}={attempt}", label::ATTEMPT);
    }
    let mut told = String::new();
    loop {
        let pod = youngest(cluster.pods_with(&labels).await?);
        let state = match &pod {
            None => "it has no pod".to_owned(),
            Some(pod) if has_started(pod) => return Ok(pod.clone()),
            Some(pod) => {
                format!("pod {} has not started; `flowforge explain pod {}` says why", pod.name_any(), pod.name_any())
            }
        };
        let whole = format!("rank {rank} of node {}: {state}", args.node);
        if is_ended(&cluster.workflow(&args.workflow).await?) {
            return Err(Failure::new(format!("{whole}, and the workflow has ended")));
        }
        if !args.follow {
            return Err(Failure::new(whole).fix("wait for it with --follow"));
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
