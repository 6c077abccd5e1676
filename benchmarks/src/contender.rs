//! Who is measured: started for a load alone, and stopped after it, so that nobody pays for what the other watches.

use anyhow::Result;
use flowforge_testbed::{ProcessSpec, Testbed, component};
use flowforge_tests::eventually;
use flowforge_tests::install::{Installation, NAMESPACE, SCHEDULER, program};
use flowforge_tests::metrics::get;
use std::path::PathBuf;
use std::time::Duration;

use crate::metrics::Exporter;
use crate::process::Process;

const READY_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(20);
/// The process of [`Kind::BindOnly`] and [`Kind::Plain`] on the testbed.
const BIND: &str = "flowforge-bench-bind";

/// What binds the pods of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// kube-scheduler of the testbed.
    KubeScheduler,
    /// FlowForge's scheduler.
    FlowForge,
    /// A client without decisions that holds the same watches and posts the same Events.
    BindOnly,
    /// A client that sends Bindings of pods that are there, and nothing else.
    Plain,
}

impl Kind {
    /// What it is called in tables.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::KubeScheduler => "kube-scheduler",
            Self::FlowForge => "flowforge",
            Self::BindOnly => "bind-only",
            Self::Plain => "bindings alone",
        }
    }

    /// What its pods have as `schedulerName`.
    pub(crate) fn scheduler_name(self) -> &'static str {
        match self {
            Self::KubeScheduler => "default-scheduler",
            Self::FlowForge => "flowforge",
            Self::BindOnly => "bind-only",
            Self::Plain => "bind-plain",
        }
    }

    /// Its process on the testbed.
    fn component(self) -> &'static str {
        match self {
            Self::KubeScheduler => component::SCHEDULER,
            Self::FlowForge => SCHEDULER,
            Self::BindOnly | Self::Plain => BIND,
        }
    }
}

/// A testbed on which one contender runs at a time.
pub(crate) struct Arena<'t> {
    pub(crate) testbed: &'t Testbed,
    installation: Installation<'t>,
    /// FlowForge's scheduler.
    binary: PathBuf,
    pub(crate) apiserver: Process,
}

/// A contender that runs.
pub(crate) struct Running {
    pub(crate) kind: Kind,
    pub(crate) process: Process,
    /// None for the clients.
    pub(crate) exporter: Option<Exporter>,
    /// How many processes of its name had ended before it was started.
    ended_before: usize,
}

impl<'t> Arena<'t> {
    /// An arena in which nobody runs yet: kube-scheduler, which came with the testbed, is stopped.
    ///
    /// # Errors
    /// When the manifests are refused or kube-scheduler does not stop.
    pub(crate) async fn new(testbed: &'t Testbed, installation: Installation<'t>, binary: PathBuf) -> Result<Self> {
        let apiserver = Process::of_testbed(testbed.dir(), component::API_SERVER)?;
        let arena = Self { testbed, installation, binary, apiserver };
        arena.end(Kind::KubeScheduler, 0).await?;
        Ok(arena)
    }

    /// Starts a contender; returns at once.
    ///
    /// # Errors
    /// When its binary is missing.
    pub(crate) async fn launch(&self, kind: Kind) -> Result<Running> {
        let address = self.installation.scheduler;
        let ended_before = self.testbed.exits(kind.component()).len();
        let (pid, exporter) = match kind {
            Kind::KubeScheduler => {
                let pid = self.testbed.respawn(component::SCHEDULER)?;
                (pid, Some(Exporter::of_kube_scheduler(self.testbed).await?))
            }
            Kind::FlowForge => {
                let pid = self.installation.start_scheduler_from(SCHEDULER, address, &self.binary).await?;
                (pid, Some(Exporter::Plain(address)))
            }
            Kind::BindOnly | Kind::Plain => (self.launch_client(kind).await?, None),
        };
        Ok(Running { kind, process: Process::new(pid), exporter, ended_before })
    }

    /// Starts a contender, and waits until it takes pods.
    ///
    /// # Errors
    /// When it does not get ready in time.
    pub(crate) async fn start(&self, kind: Kind) -> Result<Running> {
        let begun = self.testbed.logs(BIND).text().len();
        let running = self.launch(kind).await?;
        eventually(&format!("{} is ready", kind.title()), READY_LIMIT, || async {
            match (&running.exporter, kind) {
                (Some(Exporter::Secure(_)), _) => self.kube_scheduler_is_ready(&running).await,
                (Some(Exporter::Plain(address)), _) => {
                    get(*address, "/readyz").await.map(drop).map_err(|error| format!("{error:#}"))
                }
                (None, _) => {
                    let text = self.testbed.logs(BIND).text();
                    let said = text.get(begun..).unwrap_or_default();
                    if said.contains("ready") { Ok(()) } else { Err("it has not said so".to_owned()) }
                }
            }
        })
        .await?;
        Ok(running)
    }

    /// Ends a contender, in order; returns when it is gone.
    ///
    /// # Errors
    /// When it does not end in time.
    pub(crate) async fn stop(&self, running: Running) -> Result<()> {
        self.end(running.kind, running.ended_before).await
    }

    async fn end(&self, kind: Kind, ended_before: usize) -> Result<()> {
        let name = kind.component();
        let ended = || self.testbed.exits(name).len() > ended_before;
        // A client that has nothing more to do ends by itself.
        if !ended() {
            self.testbed.terminate(name)?;
        }
        eventually(&format!("{name} ends"), STOP_LIMIT, || async {
            if ended() { Ok(()) } else { Err("it still runs".to_owned()) }
        })
        .await
    }

    async fn launch_client(&self, kind: Kind) -> Result<u32> {
        let kubeconfig = self.testbed.service_account_kubeconfig(NAMESPACE, SCHEDULER).await?;
        let scope = if kind == Kind::Plain { "--bindings-alone" } else { "--watch" };
        let spec = ProcessSpec::new(BIND, program(BIND)?)
            .kubeconfig(&kubeconfig)
            .arg(format!("--scheduler-name={}", kind.scheduler_name()))
            .arg(scope);
        self.testbed.spawn(spec)
    }

    async fn kube_scheduler_is_ready(&self, running: &Running) -> Result<(), String> {
        let Some(Exporter::Secure(client)) = &running.exporter else { return Err("it has no client".to_owned()) };
        let request = http::Request::get("/readyz").body(Vec::new()).map_err(|error| error.to_string())?;
        client.request_text(request).await.map(drop).map_err(|error| error.to_string())
    }
}
