//! `flowforge place -f FILE`: where gangs would stand, by the scheduler's own decisions; nothing is changed.

use flowforge_scheduler_core::rehearsal::{Outcome, Rehearsal};

use crate::args::PlaceArgs;
use crate::cluster::Target;
use crate::failure::{Exit, Failure};
use crate::input::{self, members};
use crate::output::Output;
use crate::render::rehearsal;
use crate::snapshot::Snapshot;

pub(crate) async fn run(args: &PlaceArgs, target: &Target, out: &mut Output) -> Result<Exit, Failure> {
    let documents = input::read(&args.input)?;
    let (mut snapshot, namespace) = match &args.snapshot {
        Some(path) => (Snapshot::of_file(path)?, target.namespace().unwrap_or("default").to_owned()),
        None => {
            let cluster = target.connect().await?;
            let snapshot = Snapshot::live(&cluster).await?;
            (snapshot, cluster.namespace)
        }
    };
    let asked = members::of(&documents, &namespace, &snapshot.priorities())?;
    snapshot.add(asked.objects);
    let (taken, now) = (snapshot.taken, snapshot.now());
    let mut engine = snapshot.engine("the cluster")?;
    let mut told: Vec<Rehearsal> = Vec::new();
    for (namespace, name) in &asked.gangs {
        let Some(found) = engine.rehearse(&namespace.into(), &name.into(), now) else { continue };
        if !found.standing.is_empty() {
            let what =
                format!("gang {namespace}/{name} exists already, and {} of its members stand", found.standing.len());
            return Err(Failure::new(what)
                .fix(format!("ask for it with `flowforge explain gang {name}`, or rename it in the file")));
        }
        told.push(found);
    }
    let fits = told.iter().all(|told| matches!(told.outcome, Outcome::Fits { .. }));
    if !out.data(args.output, &told)? {
        for (at, told) in told.iter().enumerate() {
            let gap = if at == 0 { "" } else { "\n" };
            out.text(&format!("{gap}{}", rehearsal::text(told, taken, out.style())))?;
        }
        if told.len() > 1 {
            out.line("\neach gang by itself, as if the others were not there")?;
        }
    }
    Ok(if fits { Exit::Success } else { Exit::Failed })
}
