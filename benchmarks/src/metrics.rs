//! What a scheduler says of itself on `/metrics`.

use anyhow::{Context as _, Result};
use flowforge_testbed::{Testbed, network::port};
use flowforge_tests::Scrape;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use std::net::SocketAddr;

/// Where a scheduler serves its metrics.
pub(crate) enum Exporter {
    /// FlowForge's: plain HTTP.
    Plain(SocketAddr),
    /// kube-scheduler's: HTTPS, for those whom the API server knows.
    Secure(Client),
}

impl Exporter {
    /// kube-scheduler's, asked by the testbed's administrator.
    pub(crate) async fn of_kube_scheduler(testbed: &Testbed) -> Result<Self> {
        let file = Kubeconfig::read_from(testbed.admin_kubeconfig())?;
        let mut config = kube::Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await?;
        config.cluster_url = format!("https://{}", testbed.network().at(port::SCHEDULER)).parse()?;
        Ok(Self::Secure(Client::try_from(config)?))
    }

    pub(crate) async fn scrape(&self) -> Result<Scrape> {
        match self {
            Self::Plain(address) => Scrape::of(*address).await,
            Self::Secure(client) => {
                let request = http::Request::get("/metrics").body(Vec::new())?;
                let text = client.request_text(request).await.context("kube-scheduler's metrics")?;
                Ok(Scrape::parse(&text))
            }
        }
    }
}
