//! `flowforge get [NAME]`: a list, or one workflow as a tree.

use jiff::Timestamp;
use kube::api::{DynamicObject, ListParams};
use serde_json::{Value, json};

use flowforge_api::Workflow;

use super::watch;
use crate::args::{Format, GetArgs};
use crate::cluster::{Cluster, list_all};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::render::{table, tree::Extent};

pub(crate) async fn run(args: &GetArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    match &args.name {
        Some(name) => one(name, args.output, cluster, out).await,
        None => many(args, cluster, out).await,
    }
}

async fn one(name: &str, format: Format, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    if format == Format::Table {
        let view = watch::view(name, cluster).await?;
        let extent = Extent { columns: if out.is_terminal() { out.size().0 } else { usize::MAX }, ..Extent::WHOLE };
        for line in view.lines(Timestamp::now(), extent, out.style()) {
            out.line(&line)?;
        }
        return Ok(Exit::Success);
    }
    let doing = format!("read workflow {}", cluster.path(name));
    let found = cluster.raw_workflows(Some(&cluster.namespace)).get_opt(name).await;
    let object =
        found.map_err(|error| Failure::of_request(&doing, &error))?.ok_or_else(|| cluster.absent("workflow", name))?;
    out.data(format, &object)?;
    Ok(Exit::Success)
}

async fn many(args: &GetArgs, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let namespace = (!args.all_namespaces).then_some(cluster.namespace.as_str());
    let api = cluster.raw_workflows(namespace);
    let params = ListParams { label_selector: args.selector.clone(), ..ListParams::default() };
    let objects = list_all(&api, params, "workflows").await?;
    if out.data(args.output, &list(&objects))? {
        return Ok(Exit::Success);
    }
    if objects.is_empty() {
        let place = namespace.map_or("this cluster".into(), |name| format!("namespace {name}"));
        eprintln!("no workflows in {place}");
        return Ok(Exit::Success);
    }
    let workflows: Vec<Workflow> = objects.into_iter().map(typed).collect::<Result<_, _>>()?;
    out.text(&table::workflows(&workflows, args.all_namespaces, Timestamp::now(), out.style()))?;
    Ok(Exit::Success)
}

fn typed(object: DynamicObject) -> Result<Workflow, Failure> {
    let name = object.metadata.name.clone().unwrap_or_default();
    object.try_parse().map_err(|error| {
        Failure::new(format!("workflow {name} has a form that this version does not know: {error}"))
            .fix("use a newer flowforge, or -o yaml")
    })
}

/// Objects as a `List`, which is what kubectl reads and writes.
pub(crate) fn list(items: &[DynamicObject]) -> Value {
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}
