//! `flowforge version`: of the command line, and with `--server` of the cluster.

use serde::Serialize;

use crate::args::Format;
use crate::cluster::Cluster;
use crate::failure::{Exit, Failure};
use crate::output::Output;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Versions {
    client: &'static str,
    /// Version of the API this client speaks.
    api: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    kubernetes: Option<String>,
    /// Versions of FlowForge's API that the cluster serves; empty where it is not installed.
    #[serde(skip_serializing_if = "Option::is_none")]
    served: Option<Vec<String>>,
}

const CLIENT: Versions =
    Versions { client: env!("CARGO_PKG_VERSION"), api: "flowforge.dev/v1alpha1", kubernetes: None, served: None };

pub(crate) fn client(format: Format, out: &mut Output) -> Result<Exit, Failure> {
    print(&CLIENT, format, out)
}

pub(crate) async fn server(format: Format, cluster: &Cluster, out: &mut Output) -> Result<Exit, Failure> {
    let failed = |error| Failure::of_request("ask the API server for its version", &error);
    let info = cluster.client.apiserver_version().await.map_err(failed)?;
    let groups = cluster.client.list_api_groups().await.map_err(failed)?;
    let ours = groups.groups.into_iter().find(|group| group.name == flowforge_api::GROUP);
    let served = ours.map(|group| group.versions.into_iter().map(|v| v.group_version).collect()).unwrap_or_default();
    print(&Versions { kubernetes: Some(info.git_version), served: Some(served), ..CLIENT }, format, out)
}

fn print(versions: &Versions, format: Format, out: &mut Output) -> Result<Exit, Failure> {
    if !out.data(format, versions)? {
        out.line(&format!("flowforge   {}  ({})", versions.client, versions.api))?;
        if let Some(kubernetes) = &versions.kubernetes {
            out.line(&format!("kubernetes  {kubernetes}"))?;
        }
        if let Some(served) = &versions.served {
            let list = if served.is_empty() { "not installed".into() } else { served.join(", ") };
            out.line(&format!("served      {list}"))?;
        }
    }
    Ok(Exit::Success)
}
