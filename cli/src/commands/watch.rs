//! `flowforge watch NAME`: a live tree until the workflow ends; the exit code tells how.
//!
//! ```text
//!   watch of the workflow ─┐
//!   watch of its gangs ────┼─> View ──> on a terminal: the tree, redrawn in place, at most every REDRAW
//!   a tick every second ───┘       └──> elsewhere: one line for each thing that moved
//! ```
//! A broken watch is taken up again and is told below the picture when it lasts, elsewhere on stderr.

use futures::stream::{BoxStream, StreamExt as _};
use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::runtime::{WatchStreamExt as _, watcher};
use std::time::Duration;
use tokio::time::{Instant, sleep_until};

use flowforge_api::names::label;
use flowforge_api::workflow::WorkflowPhase;
use flowforge_api::{Gang, Workflow};

use crate::cluster::Cluster;
use crate::failure::{Exit, Failure, chain};
use crate::output::Output;
use crate::plain::plain;
use crate::render::picture::Picture;
use crate::render::style::{Tone, cut, printable};
use crate::render::transitions;
use crate::render::tree::{Extent, View};

/// Shortest time between two pictures.
const REDRAW: Duration = Duration::from_millis(100);
/// A broken watch that is not taken up again within this time is told.
const LASTING: Duration = Duration::from_secs(3);
/// Longest time between two pictures: running times move on.
const TICK: Duration = Duration::from_secs(1);

/// Reads a workflow and its gangs once.
pub(crate) async fn view(name: &str, cluster: &Cluster) -> Result<View, Failure> {
    let workflow = cluster.workflow(name).await?;
    let gangs = cluster.gangs_of(name).await?;
    Ok(View { workflow: plain(workflow), gangs: gangs.into_iter().map(|gang| (gang.name_any(), gang)).collect() })
}

/// Follows a workflow until it ends.
pub(crate) async fn run(name: &str, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let view = view(name, cluster).await?;
    let uid = view.workflow.uid();
    let mut updates = updates(name, cluster);
    let picture = out.is_terminal().then(Picture::default);
    let mut screen = Screen { view, shown: None, picture, trouble: None };
    screen.draw(out)?;
    loop {
        if let Some(exit) = verdict(&screen.view.workflow) {
            return Ok(exit);
        }
        let next = Instant::now() + REDRAW;
        let update = tokio::select! {
            update = updates.next() => update,
            () = tokio::time::sleep(TICK) => Some(Update::Tick),
        };
        // What else arrives until the next picture is taken in with it.
        let mut pending = update;
        while let Some(update) = pending.take() {
            screen.take_in(update, uid.as_deref())?;
            if verdict(&screen.view.workflow).is_some() {
                break;
            }
            pending = tokio::select! {
                biased;
                () = sleep_until(next) => None,
                update = updates.next() => update,
            };
        }
        screen.draw(out)?;
    }
}

/// How it ended, if it has.
fn verdict(workflow: &Workflow) -> Option<Exit> {
    match workflow.status.as_ref()?.phase? {
        WorkflowPhase::Pending | WorkflowPhase::Running => None,
        WorkflowPhase::Succeeded => Some(Exit::Success),
        WorkflowPhase::Failed => Some(Exit::Failed),
        WorkflowPhase::Canceled => Some(Exit::Canceled),
    }
}

enum Update {
    Tick,
    Workflow(Option<Box<Workflow>>),
    Gang(Box<watcher::Event<Gang>>),
    Trouble(String),
}

fn updates(name: &str, cluster: &Cluster) -> BoxStream<'static, Update> {
    let workflow = watcher::watch_object(cluster.workflows(), name).default_backoff().map(|result| match result {
        Ok(found) => Update::Workflow(found.map(Box::new)),
        Err(error) => Update::Trouble(chain(&error)),
    });
    let config = watcher::Config::default().labels(&format!("{}={name}", label::WORKFLOW));
    let gangs = watcher(cluster.gangs(), config).default_backoff().map(|result| match result {
        Ok(event) => Update::Gang(Box::new(event)),
        Err(error) => Update::Trouble(chain(&error)),
    });
    futures::stream::select(workflow, gangs).boxed()
}

/// What is known, and what was last shown of it.
struct Screen {
    view: View,
    shown: Option<View>,
    /// The last picture; none where stdout is no terminal.
    picture: Option<Picture>,
    /// Since when there was no news, and why.
    trouble: Option<(Instant, String)>,
}

impl Screen {
    fn take_in(&mut self, update: Update, uid: Option<&str>) -> Result<(), Failure> {
        if !matches!(update, Update::Tick | Update::Trouble(_)) {
            self.trouble = None;
        }
        match update {
            Update::Tick => {}
            Update::Workflow(Some(workflow)) if workflow.uid().as_deref() == uid => {
                self.view.workflow = plain(*workflow);
            }
            Update::Workflow(_) => {
                let name = self.view.workflow.name_any();
                return Err(Failure::new(format!("workflow {name} was deleted while it was watched")));
            }
            Update::Gang(event) => self.take_in_gang(*event),
            Update::Trouble(cause) => {
                if self.picture.is_none() {
                    eprintln!("watch: {cause}; trying again");
                }
                let since = self.trouble.take().map_or_else(Instant::now, |(since, _)| since);
                self.trouble = Some((since, cause));
            }
        }
        Ok(())
    }

    fn take_in_gang(&mut self, event: watcher::Event<Gang>) {
        match event {
            watcher::Event::Apply(gang) | watcher::Event::InitApply(gang) => {
                self.view.gangs.insert(gang.name_any(), gang);
            }
            watcher::Event::Delete(gang) => {
                self.view.gangs.remove(&gang.name_any());
            }
            watcher::Event::Init => self.view.gangs.clear(),
            watcher::Event::InitDone => {}
        }
    }

    fn draw(&mut self, out: &mut Output) -> Result<(), Failure> {
        let now = Timestamp::now();
        let Some(picture) = &mut self.picture else {
            for line in transitions::between(self.shown.as_ref(), &self.view, now) {
                out.line(&line)?;
            }
            self.shown = Some(self.view.clone());
            return out.flush();
        };
        let (columns, rows) = out.size();
        let ended = verdict(&self.view.workflow).is_some();
        // The last picture stays, so that it may scroll.
        let lines = if ended { usize::MAX } else { rows.saturating_sub(1) };
        let extent = Extent { columns, lines, ended_gangs: ended };
        let mut tree = self.view.lines(now, extent, out.style());
        if let Some((since, cause)) = self.trouble.as_ref().filter(|(since, _)| since.elapsed() >= LASTING) {
            tree.truncate(lines.saturating_sub(1));
            let text = format!("! no news for {}s: {}", since.elapsed().as_secs(), printable(cause));
            tree.push(cut(&out.style().paint(Tone::Waiting, &text), columns));
        }
        let text = picture.redraw(&tree, columns, rows);
        out.text(&text)?;
        out.flush()
    }
}
