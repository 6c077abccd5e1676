//! `flowforge snapshot`: the cluster as the scheduler sees it, as JSON.

use crate::args::Format;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::snapshot::Snapshot;

pub(crate) async fn run(cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    out.data(Format::Json, &Snapshot::live(cluster).await?.file())?;
    Ok(Exit::Success)
}
