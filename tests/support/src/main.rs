//! `flowforge-testbed`: a control plane for a person.
//!
//! `up` brings one up and leaves it running, `down` ends it, `build` builds the
//! binaries that both need. What is said on stdout is for scripts (the path of
//! the kubeconfig); everything else goes to stderr.

use std::{io, process::ExitCode, time::Instant};

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand, ValueEnum};
use flowforge_testbed::{
    Profile, Testbed, binaries, real,
    running::{self, Running},
};

#[derive(Parser)]
#[command(name = "flowforge-testbed", about = "A real Kubernetes control plane on one machine")]
struct Cli {
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Bring a testbed up and leave it running.
    Up(Up),
    /// End what `up` and `make demo KEEP=1` left running.
    Down {
        /// Only the one of this name; the demo's is `demo`.
        #[arg(long)]
        name: Option<String>,
    },
    /// Build the testbed's binaries, or those of one Kubernetes version.
    Build {
        /// Build this Kubernetes version instead of the default one.
        #[arg(long, value_enum)]
        k8s: Option<Kubernetes>,
        /// Leave out what only real nodes need.
        #[arg(long)]
        fake_only: bool,
    },
}

#[derive(clap::Args)]
struct Up {
    /// The kind of machines.
    #[arg(long, default_value_t = Profile::DgxH100)]
    profile: Profile,
    /// Number of fake nodes.
    #[arg(long, default_value_t = 28)]
    fake: usize,
    /// Number of real nodes, where containers really run; needs root.
    #[arg(long, default_value_t = 0)]
    real: usize,
    /// Also run kube-scheduler.
    #[arg(long)]
    kube_scheduler: bool,
    /// The Kubernetes version.
    #[arg(long, value_enum, default_value_t = Kubernetes::V1_37)]
    k8s: Kubernetes,
    /// Stay, and take the testbed down when this process ends, however it ends.
    #[arg(long)]
    foreground: bool,
    /// A name for `down`, to have several.
    #[arg(long, default_value = "default")]
    name: String,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kubernetes {
    #[value(name = "1.37")]
    V1_37,
    #[value(name = "1.33")]
    V1_33,
}

impl Kubernetes {
    fn module(self) -> binaries::Module {
        match self {
            Self::V1_37 => binaries::KUBERNETES,
            Self::V1_33 => binaries::KUBERNETES_1_33,
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info,kube_client=off".into()),
        )
        .init();
    let outcome = match Cli::parse().command {
        Verb::Up(arguments) => up(arguments).await,
        Verb::Down { name } => down(name),
        Verb::Build { k8s, fake_only } => build(k8s, fake_only),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flowforge-testbed: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn up(arguments: Up) -> Result<()> {
    running::ensure_free(&arguments.name)?;
    let begin = Instant::now();
    let mut builder = Testbed::builder()
        .nodes(arguments.profile, arguments.fake)
        .kube_scheduler(arguments.kube_scheduler)
        .kubernetes(arguments.k8s.module());
    if arguments.real > 0 {
        builder = builder.real_nodes(arguments.profile, arguments.real);
    }
    let testbed = builder.start().await?;
    eprintln!(
        "{} real and {} fake {} nodes on {} after {:.1} s",
        arguments.real,
        arguments.fake,
        arguments.profile,
        testbed.apiserver_url(),
        begin.elapsed().as_secs_f64(),
    );
    explain_access(&testbed)?;
    println!("{}", testbed.admin_kubeconfig().display());
    if arguments.foreground {
        tokio::signal::ctrl_c().await?;
        return testbed.stop();
    }
    running::leave(testbed, &arguments.name)
}

/// Says how to reach the testbed. The binary that has everything in it is
/// kubectl when it is called so.
fn explain_access(testbed: &Testbed) -> Result<()> {
    let kubectl = testbed.dir().join("kubectl");
    std::os::unix::fs::symlink(testbed.kubectl().get_program(), &kubectl)?;
    eprintln!("  export KUBECONFIG={}", testbed.admin_kubeconfig().display());
    eprintln!("  {} get nodes", kubectl.display());
    eprintln!("logs: {}", testbed.dir().join("logs").display());
    Ok(())
}

fn down(name: Option<String>) -> Result<()> {
    let running = match name {
        Some(name) => Running::find(&name)?.into_iter().collect(),
        None => Running::all()?,
    };
    if running.is_empty() {
        eprintln!("no such testbed is running");
    }
    for testbed in running {
        let name = testbed.name.clone();
        testbed.end().with_context(|| format!("end testbed {name}"))?;
        eprintln!("testbed {name} is gone");
    }
    Ok(())
}

fn build(k8s: Option<Kubernetes>, fake_only: bool) -> Result<()> {
    let modules = match k8s {
        Some(version) => vec![version.module()],
        None if fake_only => vec![binaries::SUPERVISE, binaries::KWOK, binaries::KUBERNETES],
        None => [&binaries::DEFAULT[..], &real::MODULES[..]].concat(),
    };
    for module in modules {
        println!("{}", module.build()?.display());
    }
    Ok(())
}
