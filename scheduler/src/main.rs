//! `flowforge-scheduler`: schedules pods and gangs that ask for one of its scheduler names.

use anyhow::{Context, anyhow};
use clap::Parser;
use flowforge_api::names::SCHEDULER_LEASE;
use flowforge_runtime::admin::Probe;
use flowforge_runtime::{Admin, Elector, Health, Metrics, Pressure, RuntimeArgs, client, shutdown, telemetry};
use flowforge_scheduler::Scheduler;
use flowforge_scheduler::config::Config;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// Pods come and go by the thousand, made by one thread and dropped by another.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long what is left on a runtime may take to end.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(5);

/// Where /livez, /readyz and /metrics are served unless --listen says otherwise.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 8080);

/// Schedules pods and gangs on a Kubernetes cluster.
#[derive(Parser)]
#[command(name = "flowforge-scheduler", version)]
struct Cli {
    #[command(flatten)]
    runtime: RuntimeArgs,
    /// Checks the configuration file, prints what of it has no effect, and ends
    #[arg(long, requires = "config")]
    check: bool,
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    if cli.check {
        return check(cli.runtime.config.as_deref());
    }
    let log = telemetry::init(&cli.runtime.log_level, cli.runtime.log_format).map_err(|why| anyhow!(why))?;
    // Watches and writes have one thread: it decodes more than an API server sends, and threads that wake each other for
    // every message cost more than they save. The lease and the probes have another, which no amount of work delays.
    let work = Builder::new_multi_thread().worker_threads(1).thread_name("io").enable_all().build()?;
    let control = Builder::new_current_thread().enable_all().build()?;
    let ended = control.block_on(run(cli.runtime, log, &work));
    work.shutdown_timeout(SHUTDOWN_LIMIT);
    control.shutdown_timeout(SHUTDOWN_LIMIT);
    ended
}

/// Says whether the file can be used; an error otherwise.
fn check(file: Option<&Path>) -> anyhow::Result<()> {
    let config = file.map(Config::load).transpose()?.unwrap_or_default();
    for notice in config.notices() {
        println!("notice: {notice}");
    }
    println!("valid; scheduler names: {}", config.names().join(", "));
    Ok(())
}

async fn run(args: RuntimeArgs, log: telemetry::LogHandle, work: &Runtime) -> anyhow::Result<()> {
    let config = args.config.as_deref().map(Config::load).transpose()?.unwrap_or_default();
    for notice in config.notices() {
        tracing::warn!("configuration: {notice}");
    }
    let timing = args.lease_timing().map_err(|why| anyhow!(why))?;
    let stop = shutdown::on_signals()?;
    let registry = Metrics::new("scheduler", env!("CARGO_PKG_VERSION"))?;
    let metrics = flowforge_scheduler::metrics::Metrics::new(&registry)?;
    let pressure = Pressure::new(&registry)?;
    let agent = concat!("flowforge-scheduler/", env!("CARGO_PKG_VERSION"));
    let connect = || {
        let (kubeconfig, pressure) = (args.kubeconfig.clone(), pressure.clone());
        async move {
            let client = client::connect(kubeconfig.as_deref(), agent, &pressure).await;
            client.context("cannot configure the API client")
        }
    };
    let client = work.spawn(connect()).await??;
    // The lease has its own connection: a queue of requests must not delay its renewal.
    let lease_client = connect().await?;
    let elector = Elector::new(lease_client, &args.namespace, SCHEDULER_LEASE, timing, &registry)?;
    let holder = elector.identity().to_owned();
    tracing::info!(names = ?config.names(), namespace = %args.namespace, identity = %holder, "starting");
    let scheduler = Scheduler::new(client, pressure.clone(), config, timing, args.namespace.clone(), holder, metrics);
    let admin_stop = CancellationToken::new();
    serve_admin(&scheduler, &registry, log, args.listen.unwrap_or(DEFAULT_LISTEN), &admin_stop).await?;
    let mut terms = elector.start(stop.clone());
    let mut ended = Ok(());
    while let Some(leadership) = terms.next().await {
        let (scheduler, term) = (scheduler.clone(), leadership.clone());
        if let Err(panicked) = work.spawn(async move { scheduler.serve(&term).await }).await? {
            // No further term: a process that starts anew backs off, and people see that.
            ended = Err(panicked.into());
            stop.cancel();
        }
        leadership.finish();
    }
    terms.closed().await;
    admin_stop.cancel();
    tracing::info!("stopped");
    ended
}

async fn serve_admin(
    scheduler: &Scheduler,
    registry: &Metrics,
    log: telemetry::LogHandle,
    listen: SocketAddr,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let health = Health::default();
    let (ready, alive, inspected) = (scheduler.clone(), scheduler.clone(), scheduler.clone());
    health.add(Probe::Ready, "term", move || ready.ready());
    health.add(Probe::Live, "engine", move || alive.alive());
    let debug = move || {
        let scheduler = inspected.clone();
        async move { scheduler.inspect().await }
    };
    let admin = Admin::new(registry.clone(), health, log, debug);
    admin.serve(listen, stop.clone()).await.with_context(|| format!("cannot listen on {listen}"))?;
    Ok(())
}
