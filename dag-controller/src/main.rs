//! `flowforge-dag-controller`: runs workflows, and refuses those that cannot run.
//!
//! What it calls, which is what its role must allow:
//!
//! | Kind | Verbs |
//! |---|---|
//! | workflows | get, list, watch, patch, delete; workflows/status patch |
//! | gangs | get, list, watch, create; gangs/status patch |
//! | pods | get, list, watch, create, patch, delete |
//! | services | get, list, watch, create |
//! | nodes, persistentvolumeclaims, storageclasses | list, watch |
//! | events (events.k8s.io) | create |
//! | workflows/finalizers, gangs/finalizers | update (owner references that block deletion) |
//! | worktemplates | get |
//! | its two webhook configurations | get, list, watch, patch |
//! | in its namespace: its Lease get, create, update; its Secret get, list, watch, create, update | |

use anyhow::{Context, anyhow};
use clap::Parser;
use flowforge_api::names::{CONTROLLER_LEASE, MANAGED_BY_CONTROLLER};
use flowforge_dag_controller::config::Config;
use flowforge_dag_controller::metrics::Metrics;
use flowforge_dag_controller::session::Controller;
use flowforge_dag_controller::webhook::admit::Admission;
use flowforge_dag_controller::webhook::drain::Drain;
use flowforge_dag_controller::webhook::rotation::{Keeper, Settings};
use flowforge_dag_controller::webhook::serve::{ServingCert, serve};
use flowforge_dag_controller::writer::REQUEST_TIMEOUT;
use flowforge_runtime::admin::Probe;
use flowforge_runtime::{Admin, Elector, Health, Pressure, RuntimeArgs, client, shutdown, telemetry};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Where /livez, /readyz and /metrics are served unless --listen says otherwise.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// Runs workflows: DAGs whose nodes are gangs of pods.
#[derive(Parser)]
#[command(name = "flowforge-dag-controller", version)]
struct Cli {
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Shards of the work queue; overrides the configuration file
    #[arg(long)]
    workers: Option<usize>,
    #[command(flatten)]
    webhook: WebhookArgs,
}

#[derive(clap::Args)]
struct WebhookArgs {
    /// Address of the admission webhook
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "0.0.0.0:9443")]
    webhook_listen: SocketAddr,
    /// Name or address under which the API server reaches the webhook, repeatable; default flowforge-webhook.NAMESPACE.svc and
    /// the address of --webhook-listen
    #[arg(long, value_name = "NAME")]
    webhook_dns_name: Vec<String>,
    /// Secret that holds the webhook's certificate
    #[arg(long, value_name = "NAME", default_value = "flowforge-webhook-tls")]
    webhook_secret: String,
    /// ValidatingWebhookConfiguration and MutatingWebhookConfiguration that get the certificate's CA
    #[arg(long, value_name = "NAME", default_value = "flowforge-dag-controller")]
    webhook_configuration: String,
    /// Seconds for which the webhook goes on answering after SIGTERM, until the API server knows of it
    #[arg(long, value_name = "SECONDS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=60))]
    webhook_shutdown_delay_s: u64,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let log = telemetry::init(&cli.runtime.log_level, cli.runtime.log_format).map_err(|why| anyhow!(why))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(run(cli, log));
    runtime.shutdown_timeout(Duration::from_secs(5));
    ended
}

async fn run(cli: Cli, log: telemetry::LogHandle) -> anyhow::Result<()> {
    let args = cli.runtime;
    let mut config = args.config.as_deref().map(Config::load).transpose()?.unwrap_or_default();
    config.workers = cli.workers.unwrap_or(config.workers);
    config.validate().map_err(|why| anyhow!(why))?;
    let timing = args.lease_timing().map_err(|why| anyhow!(why))?;
    let stop = shutdown::on_signals()?;
    let registry = flowforge_runtime::Metrics::new("dag-controller", env!("CARGO_PKG_VERSION"))?;
    let metrics = Arc::new(Metrics::new(&registry)?);
    let pressure = Pressure::new(&registry)?;
    let agent = concat!("flowforge-dag-controller/", env!("CARGO_PKG_VERSION"));
    let connect = || client::connect(args.kubeconfig.as_deref(), agent, &pressure);
    let client = connect().await.context("cannot configure the API client")?;
    // The lease has its own connections: a queue of requests must not delay its renewal.
    let lease_client = connect().await.context("cannot configure the API client")?;
    let elector = Elector::new(lease_client, &args.namespace, CONTROLLER_LEASE, timing, &registry)?;
    tracing::info!(namespace = %args.namespace, identity = %elector.identity(), workers = config.workers, "starting");

    let late_stop = CancellationToken::new();
    let cert = Arc::new(ServingCert::default());
    let admission = Admission::new(&args.namespace, MANAGED_BY_CONTROLLER, &config.topology_levels);
    let drain = Drain::new(stop.clone(), Duration::from_secs(cli.webhook.webhook_shutdown_delay_s));
    let webhook =
        start_webhook(client.clone(), &args.namespace, admission, cli.webhook, &cert, &metrics, drain).await?;
    let timeout = timing.request_timeout(REQUEST_TIMEOUT);
    let controller = Controller::new(client, pressure.clone(), config, timeout, metrics);
    serve_admin(&controller, &cert, &registry, log, args.listen.unwrap_or(DEFAULT_LISTEN), &late_stop).await?;

    let mut terms = elector.start(stop.clone());
    while let Some(leadership) = terms.next().await {
        controller.serve(&leadership).await;
        leadership.finish();
    }
    terms.closed().await;
    // The lease is free; the webhook answers on for its delay. Terms may also have ended without a signal.
    stop.cancel();
    webhook.await.context("the admission webhook panicked")?;
    late_stop.cancel();
    tracing::info!("stopped");
    Ok(())
}

async fn start_webhook(
    client: kube::Client,
    namespace: &str,
    admission: Admission,
    args: WebhookArgs,
    cert: &Arc<ServingCert>,
    metrics: &Arc<Metrics>,
    drain: Drain,
) -> anyhow::Result<JoinHandle<()>> {
    let listen = args.webhook_listen;
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    let mut dns_names = args.webhook_dns_name;
    if dns_names.is_empty() {
        dns_names.push(format!("flowforge-webhook.{namespace}.svc"));
        // An address of its own is a name too, where the API server calls the process without a Service.
        dns_names.extend((!listen.ip().is_unspecified()).then(|| listen.ip().to_string()));
    }
    let settings = Settings {
        namespace: namespace.to_owned(),
        secret: args.webhook_secret,
        configuration: args.webhook_configuration,
        dns_names,
    };
    tokio::spawn(Keeper::new(client.clone(), settings, Arc::clone(cert)).run(drain.end()));
    let serving = serve(listener, Arc::clone(cert), client, admission, Arc::clone(metrics), drain);
    Ok(tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(%error, "the admission webhook ended");
        }
    }))
}

async fn serve_admin(
    controller: &Controller,
    cert: &Arc<ServingCert>,
    registry: &flowforge_runtime::Metrics,
    log: telemetry::LogHandle,
    listen: SocketAddr,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let health = Health::default();
    let (progress, cert, inspected) = (controller.progress(), Arc::clone(cert), controller.clone());
    health.add(Probe::Ready, "term", move || progress.ready());
    health.add(Probe::Ready, "webhook-certificate", move || {
        if cert.is_set() { Ok(()) } else { Err("there is no certificate yet".to_owned()) }
    });
    let debug = move || {
        let state = inspected.inspect();
        async move { state }
    };
    let admin = Admin::new(registry.clone(), health, log, debug);
    admin.serve(listen, stop.clone()).await.with_context(|| format!("cannot listen on {listen}"))?;
    Ok(())
}
