//! `flowforge cancel NAME…`: asks the controller to stop workflows with grace.

use futures::TryStreamExt as _;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use serde_json::json;
use std::pin::pin;

use flowforge_api::Workflow;
use flowforge_api::names::field_manager;
use flowforge_api::workflow::WorkflowPhase;

use super::get::list;
use crate::args::{CancelArgs, Format};
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure, chain};
use crate::output::Output;

pub(crate) async fn run(args: &CancelArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let table = args.output == Format::Table;
    let mut tell = |name: &str, text: &str| {
        if table {
            out.line(&format!("workflow {}: {text}", cluster.path(name)))?;
            out.flush()?;
        }
        Ok::<(), Failure>(())
    };
    for name in &args.names {
        tell(name, cancel(name, args.now, cluster).await?)?;
    }
    if args.wait {
        for name in &args.names {
            tell(name, &ended(name, cluster).await?)?;
        }
    }
    if !table {
        match read(&args.names, cluster).await?.as_slice() {
            [one] => out.data(args.output, one)?,
            many => out.data(args.output, &list(many))?,
        };
    }
    Ok(Exit::Success)
}

/// The workflows as they are now; one that was deleted meanwhile is left out.
async fn read(names: &[String], cluster: &Cluster) -> Result<Vec<DynamicObject>, Failure> {
    let mut objects = Vec::new();
    for name in names {
        let found = cluster.raw_workflows(Some(&cluster.namespace)).get_opt(name).await;
        let doing = format!("read workflow {}", cluster.path(name));
        objects.extend(found.map_err(|error| Failure::of_request(&doing, &error))?);
    }
    Ok(objects)
}

async fn cancel(name: &str, now: bool, cluster: &Cluster) -> Result<&'static str, Failure> {
    let workflow = cluster.workflow(name).await?;
    if phase(&workflow).is_some() {
        return Ok("has already ended");
    }
    let spec = if now { json!({ "cancel": true, "terminate": true }) } else { json!({ "cancel": true }) };
    // The UID makes sure that a namesake submitted in between is left alone.
    let patch = json!({ "metadata": { "uid": workflow.metadata.uid }, "spec": spec });
    let params = PatchParams { field_manager: Some(field_manager::CLI.into()), ..PatchParams::default() };
    let done = cluster.workflows().patch(name, &params, &Patch::Merge(patch)).await;
    done.map_err(|error| Failure::of_request(&format!("cancel workflow {}", cluster.path(name)), &error))?;
    Ok("cancel requested")
}

/// Waits until it has ended; how it ended.
async fn ended(name: &str, cluster: &Cluster) -> Result<String, Failure> {
    let mut updates = pin!(watcher::watch_object(cluster.workflows(), name).default_backoff());
    loop {
        match updates.try_next().await {
            Ok(Some(Some(workflow))) => {
                if let Some(phase) = phase(&workflow) {
                    return Ok(format!("{phase:?}"));
                }
            }
            Ok(Some(None)) => return Ok("deleted".into()),
            Ok(None) => return Err(Failure::new("the watch ended unexpectedly")),
            Err(error) => eprintln!("watch: {}; trying again", chain(&error)),
        }
    }
}

/// The phase, if it is a last one.
fn phase(workflow: &Workflow) -> Option<WorkflowPhase> {
    workflow.status.as_ref()?.phase.filter(|p| !matches!(p, WorkflowPhase::Pending | WorkflowPhase::Running))
}
