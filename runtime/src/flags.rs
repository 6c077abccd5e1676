//! Flags that both binaries take. Wiring only: what a binary decides is in its configuration file.

use crate::election::LeaseTiming;
use clap::{Args, ValueEnum};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Flags shared by both binaries; every one has a default that works inside a cluster.
#[derive(Args, Clone, Debug)]
pub struct RuntimeArgs {
    /// kubeconfig file; without it KUBECONFIG, ~/.kube/config and the in-cluster configuration are tried in turn
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Configuration file (YAML); without it the defaults apply
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Address of /livez, /readyz and /metrics; port 0 chooses a free one
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub listen: Option<SocketAddr>,
    /// Log filter: a level (error, warn, info, debug, trace) or tracing directives such as `info,kube=debug`
    #[arg(long, env = "FLOWFORGE_LOG", default_value = "info")]
    pub log_level: String,
    /// Log format
    #[arg(long, value_enum, default_value_t = LogFormat::Text)]
    pub log_format: LogFormat,
    /// Namespace of the Lease and of everything else this binary keeps for itself
    #[arg(long, env = "POD_NAMESPACE", default_value = "flowforge-system")]
    pub namespace: String,
    /// How long a silent leader is waited for, whole seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 15)]
    pub lease_duration_s: u64,
    /// How long the leader goes on without an acknowledged renewal
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 10_000)]
    pub lease_renew_deadline_ms: u64,
    /// Pause between renewals of the lease
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 2_000)]
    pub lease_retry_period_ms: u64,
}

/// Format of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum LogFormat {
    /// One line per event, for people.
    Text,
    /// One JSON object per event.
    Json,
}

impl RuntimeArgs {
    /// Timing of the lease.
    ///
    /// # Errors
    /// A sentence when the values do not fit together.
    pub fn lease_timing(&self) -> Result<LeaseTiming, String> {
        let timing = LeaseTiming {
            duration: Duration::from_secs(self.lease_duration_s),
            renew_deadline: Duration::from_millis(self.lease_renew_deadline_ms),
            retry_period: Duration::from_millis(self.lease_retry_period_ms),
        };
        timing.validate().map(|()| timing)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        runtime: RuntimeArgs,
    }

    #[test]
    fn no_flag_at_all_is_a_working_configuration() {
        let cli = Cli::try_parse_from(["x"]).expect("defaults");
        assert_eq!(cli.runtime.lease_timing(), Ok(LeaseTiming::default()));
        assert_eq!(cli.runtime.listen, None);
    }

    #[test]
    fn a_lease_that_cannot_work_is_refused() {
        let cli = Cli::try_parse_from(["x", "--lease-duration-s", "5"]).expect("parses");
        assert!(cli.runtime.lease_timing().expect_err("10 s > 5 s").contains("renew deadline"));
    }
}
