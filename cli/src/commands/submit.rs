//! `flowforge submit -f FILE`: checks every document, then creates each; nothing is created when one is wrong.

use flowforge_dag_controller_core::frontend::Levels;
use kube::api::{DynamicObject, PostParams};
use kube::{Api, ResourceExt as _};
use serde_json::Value;

use flowforge_api::names::field_manager;

use super::watch;
use crate::args::SubmitArgs;
use crate::cluster::{Cluster, Target};
use crate::failure::{Exit, Failure};
use crate::input::{self, check, documents};
use crate::output::Output;

pub(crate) async fn run(args: &SubmitArgs, target: &Target, out: &mut Output) -> Result<Exit, Failure> {
    let objects = objects(args)?;
    if args.watch && objects.len() != 1 {
        return Err(Failure::new(format!("--watch follows one workflow, but the input has {}", objects.len()))
            .fix("submit them one by one, or without --watch and follow each with `flowforge watch`"));
    }
    let cluster = target.connect().await?;
    let mut stored = Vec::new();
    for object in objects {
        stored.push(create(&cluster, object, args.dry_run, out, args).await?);
    }
    match stored.as_slice() {
        [one] => out.data(args.output, one)?,
        many => out.data(args.output, &crate::commands::get::list(many))?,
    };
    match stored.first().filter(|_| args.watch) {
        Some(workflow) => {
            let namespace = workflow.namespace().unwrap_or_else(|| cluster.namespace.clone());
            watch::run(&workflow.name_any(), &Cluster { namespace, ..cluster }, out).await
        }
        None => Ok(Exit::Success),
    }
}

/// The objects of all documents, each checked.
fn objects(args: &SubmitArgs) -> Result<Vec<Value>, Failure> {
    let documents = input::read(&args.input)?;
    let mut problems = String::new();
    for document in &documents {
        // The cluster's topology levels are known to its webhook alone.
        for problem in check::problems(&document.value, Levels::Any, &Default::default()) {
            problems.push_str(&problem.text(&document.source, Default::default()));
        }
    }
    if !problems.is_empty() {
        return Err(Failure::new(format!("nothing was submitted:\n{}", problems.trim_end())));
    }
    documents.iter().map(documents::into_object).collect()
}

async fn create(
    cluster: &Cluster,
    object: Value,
    dry_run: bool,
    out: &mut Output,
    args: &SubmitArgs,
) -> Result<DynamicObject, Failure> {
    let object: DynamicObject = serde_json::from_value(object)
        .map_err(|error| Failure::new(format!("the workflow's metadata is malformed: {error}")))?;
    let namespace = object.namespace().unwrap_or_else(|| cluster.namespace.clone());
    let name = object.metadata.name.clone().or(object.metadata.generate_name.clone()).unwrap_or_default();
    let path = format!("{namespace}/{name}");
    let api: Api<DynamicObject> = cluster.raw_workflows(Some(&namespace));
    let params = PostParams { dry_run, field_manager: Some(field_manager::CLI.into()) };
    let stored = api.create(&params, &object).await.map_err(|error| refused(&path, &name, &error))?;
    if args.output == crate::args::Format::Table {
        let note = if dry_run { " (dry run)" } else { "" };
        out.line(&format!("workflow {namespace}/{} created{note}", stored.name_any()))?;
        out.flush()?;
    }
    Ok(stored)
}

fn refused(path: &str, name: &str, error: &kube::Error) -> Failure {
    if let kube::Error::Api(status) = error
        && status.reason == "AlreadyExists"
    {
        return Failure::new(format!("there is already a workflow {path}")).fix(format!(
            "submit under another name, or use metadata.generateName: {name}- ; a workflow never runs twice"
        ));
    }
    Failure::of_request(&format!("submit workflow {path}"), error)
}
