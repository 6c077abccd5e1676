//! `flowforge lint -f FILE`: the admission webhook's checks, offline. WorkTemplates are checked, and known to the workflows
//! of the same input; what is made from a template that only the cluster has is checked by the webhook.

use flowforge_dag_controller_core::frontend::Levels;
use serde::Serialize;
use serde_json::Value;

use crate::args::LintArgs;
use crate::failure::{Exit, Failure};
use crate::input;
use crate::input::check::{self, Problem};
use crate::output::Output;
use crate::render::style::Tone;

#[derive(Serialize)]
struct Report {
    source: String,
    problems: Vec<Problem>,
}

pub(crate) fn run(args: &LintArgs, out: &mut Output) -> Result<Exit, Failure> {
    let documents = input::read(&args.input)?;
    let levels: Vec<&str> = args.levels.iter().map(String::as_str).collect();
    let templates = check::templates_of(&documents);
    let check = |document: &Value| match levels.as_slice() {
        [] => check::problems_by_default_levels(document, &templates),
        own => check::problems(document, Levels::These(own), &templates),
    };
    let reports: Vec<Report> = documents
        .iter()
        .map(|document| Report { source: document.source.clone(), problems: check(&document.value) })
        .collect();
    let clean = reports.iter().all(|report| report.problems.is_empty());
    if !out.data(args.output, &reports)? {
        for report in &reports {
            if report.problems.is_empty() {
                out.line(&format!("{}: {}", report.source, out.style().paint(Tone::Good, "ok")))?;
            }
            for problem in &report.problems {
                out.text(&problem.text(&report.source, out.style()))?;
            }
        }
    }
    Ok(if clean { Exit::Success } else { Exit::Failed })
}
