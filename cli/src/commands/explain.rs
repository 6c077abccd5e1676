//! `flowforge explain gang|pod|workflow NAME`. Of a gang also what its next try would come to, by the scheduler's own decisions
//! on the cluster as it is now; who may not list nodes and pods of all namespaces gets the rest.

use jiff::Timestamp;
use kube::ResourceExt as _;
use std::collections::BTreeMap;
use std::path::Path;

use flowforge_api::names::label;
use flowforge_scheduler_core::rehearsal::Rehearsal;
use k8s_openapi::api::core::v1::Pod;

use super::watch;
use crate::args::{ExplainArgs, ExplainKind};
use crate::cluster::{Cluster, Target};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::render::explanation::{Explanation, of_gang, of_pod, of_workflow};
use crate::render::rehearsal;
use crate::snapshot::Snapshot;

pub(crate) async fn run(args: &ExplainArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let explanation = match args.kind {
        ExplainKind::Pod => pod(&args.name, cluster).await?,
        ExplainKind::Gang => return gang(args, cluster, out).await,
        ExplainKind::Workflow => workflow(&args.name, cluster).await?,
    };
    if !out.data(args.output, &explanation)? {
        out.text(&explanation.text(out.style()))?;
    }
    Ok(Exit::Success)
}

/// A gang of a cluster that was written down.
pub(crate) fn written_down(
    args: &ExplainArgs,
    path: &Path,
    target: &Target,
    out: &mut Output,
) -> Result<Exit, Failure> {
    if args.kind != ExplainKind::Gang {
        let what = "--snapshot is for gangs: what is told of pods and workflows stands in the objects alone";
        return Err(Failure::new(what).fix("leave --snapshot out"));
    }
    let namespace = target.namespace().unwrap_or("default");
    let snapshot = Snapshot::of_file(path)?;
    let taken = snapshot.taken;
    let Some(told) = rehearsed(snapshot, namespace, &args.name)? else {
        let what = format!("there is no gang {namespace}/{} in {}", args.name, path.display());
        return Err(Failure::new(what).fix("check the name and the namespace (-n)"));
    };
    if !out.data(args.output, &told)? {
        out.text(&rehearsal::text(&told, taken, out.style()))?;
    }
    Ok(Exit::Success)
}

async fn gang(args: &ExplainArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let explanation = of_objects(&args.name, cluster).await?;
    let now = match Snapshot::live(cluster).await {
        Ok(snapshot) => rehearsed(snapshot, &cluster.namespace, &args.name)?,
        Err(failure) => {
            eprint!("not tried now: {}", failure.text().trim_start_matches("error: "));
            None
        }
    };
    if explanation.is_none() && now.is_none() {
        return Err(cluster.absent("gang", &args.name));
    }
    let mut explanation = explanation.unwrap_or_else(|| Explanation {
        kind: "gang",
        namespace: cluster.namespace.clone(),
        name: args.name.clone(),
        phase: "declared by others".into(),
        ..Explanation::default()
    });
    explanation.now = now;
    if !out.data(args.output, &explanation)? {
        out.text(&explanation.text(out.style()))?;
        if let Some(told) = &explanation.now {
            let (tone, verdict) = rehearsal::verdict(told);
            out.text(&format!("\nnow: {}\n", out.style().paint(tone, &verdict)))?;
            out.text(&rehearsal::body(told, Timestamp::now(), out.style()))?;
        }
    }
    Ok(Exit::Success)
}

/// What its next try would come to.
fn rehearsed(snapshot: Snapshot, namespace: &str, name: &str) -> Result<Option<Rehearsal>, Failure> {
    let now = snapshot.now();
    let mut engine = snapshot.engine("the cluster")?;
    Ok(engine.rehearse(&namespace.into(), &name.into(), now))
}

/// What stands in the objects; None where neither a Gang nor a pod has that name. Gangs that others declare have no object of
/// ours: their names are `kind.group/name`.
async fn of_objects(name: &str, cluster: &Cluster) -> Result<Option<Explanation>, Failure> {
    if name.contains('/') {
        return Ok(None);
    }
    let doing = format!("read gang {}", cluster.path(name));
    let gang = cluster.gangs().get_opt(name).await.map_err(|error| Failure::of_request(&doing, &error))?;
    let pods = cluster.pods_with(&format!("{}={name}", label::GANG)).await?;
    if gang.is_none() && pods.is_empty() {
        return Ok(None);
    }
    Ok(Some(of_gang(&cluster.namespace, name, gang.as_ref(), &pods, Timestamp::now())))
}

async fn pod(name: &str, cluster: &Cluster) -> Result<Explanation, Failure> {
    let doing = format!("read pod {}", cluster.path(name));
    let pod = cluster.pods().get_opt(name).await.map_err(|error| Failure::of_request(&doing, &error))?;
    Ok(of_pod(&pod.ok_or_else(|| cluster.absent("pod", name))?, Timestamp::now()))
}

async fn workflow(name: &str, cluster: &Cluster) -> Result<Explanation, Failure> {
    let view = watch::view(name, cluster).await?;
    let mut pods: BTreeMap<String, Vec<Pod>> = BTreeMap::new();
    for pod in cluster.pods_with(&format!("{}={name}", label::WORKFLOW)).await? {
        if let Some(gang) = pod.labels().get(label::GANG).cloned() {
            pods.entry(gang).or_default().push(pod);
        }
    }
    Ok(of_workflow(&view, &pods, Timestamp::now()))
}
