//! `flowforge explain gang|pod|workflow NAME`.

use jiff::Timestamp;
use kube::ResourceExt as _;
use std::collections::BTreeMap;

use flowforge_api::names::label;
use k8s_openapi::api::core::v1::Pod;

use super::watch;
use crate::args::{ExplainArgs, ExplainKind};
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::render::explanation::{Explanation, of_gang, of_pod, of_workflow};

pub(crate) async fn run(args: &ExplainArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let explanation = match args.kind {
        ExplainKind::Gang => gang(&args.name, cluster).await?,
        ExplainKind::Pod => pod(&args.name, cluster).await?,
        ExplainKind::Workflow => workflow(&args.name, cluster).await?,
    };
    if !out.data(args.output, &explanation)? {
        out.text(&explanation.text(out.style()))?;
    }
    Ok(Exit::Success)
}

async fn gang(name: &str, cluster: &Cluster) -> Result<Explanation, Failure> {
    let doing = format!("read gang {}", cluster.path(name));
    let gang = cluster.gangs().get_opt(name).await.map_err(|error| Failure::of_request(&doing, &error))?;
    let pods = cluster.pods_with(&format!("{}={name}", label::GANG)).await?;
    if gang.is_none() && pods.is_empty() {
        return Err(cluster.absent("gang", name));
    }
    Ok(of_gang(&cluster.namespace, name, gang.as_ref(), &pods, Timestamp::now()))
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
