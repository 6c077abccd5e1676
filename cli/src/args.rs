//! The words of the command line.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const EXIT_CODES: &str = "Exit codes: 0 done or Succeeded, 1 Failed, problems found or no place, 2 refused (usage, input, \
                          nothing of that name, no cluster), 3 Canceled.";

/// Run multi-node DAGs on Kubernetes.
#[derive(Debug, Parser)]
#[command(name = "flowforge", version, about, after_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Which cluster, which namespace.
#[derive(Args, Debug, Default)]
pub(crate) struct Global {
    /// Namespace; that of the context when absent.
    #[arg(short, long, global = true, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Kubeconfig file; KUBECONFIG, ~/.kube/config or the pod's own account when absent.
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig; its current one when absent.
    #[arg(long, global = true, value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// When to colour: on a terminal, unless NO_COLOR is set.
    #[arg(long, global = true, value_enum, default_value_t = Color::Auto, value_name = "WHEN")]
    pub(crate) color: Color,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The form of an answer.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
    /// For files.
    Yaml,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Submit workflows.
    Submit(SubmitArgs),
    /// List workflows, or show one with its nodes and gangs.
    Get(GetArgs),
    /// Follow a workflow until it ends; the exit code tells how.
    Watch(WatchArgs),
    /// Say why something waits, node by node and reason by reason, and what would cure it.
    Explain(ExplainArgs),
    /// Say where gangs would stand and what that costs, or what is missing; nothing is changed.
    Place(PlaceArgs),
    /// Write down the cluster as the scheduler sees it, for `place` and `explain` elsewhere and later.
    Snapshot,
    /// Draw the cluster's topology with free and used GPUs.
    Topology(TopologyArgs),
    /// Stop workflows with grace.
    Cancel(CancelArgs),
    /// Run an ended workflow again, as a new one that takes over what had succeeded.
    Rerun(RerunArgs),
    /// Let a node that waits for a person go on, or deny it.
    Approve(ApproveArgs),
    /// Print the logs of one member of a node.
    Logs(LogsArgs),
    /// Check documents without a cluster; the checks are those of the admission webhook.
    Lint(LintArgs),
    /// Print a completion script for a shell.
    Completion(CompletionArgs),
    /// Print the version.
    Version(VersionArgs),
}

/// Documents and their parameters.
#[derive(Args, Debug)]
pub(crate) struct InputArgs {
    /// File with one or more documents (YAML or JSON); `-` is stdin. May be repeated.
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    pub(crate) files: Vec<PathBuf>,
    /// Value of a declared parameter, or for `{{params.KEY}}` in the documents. May be repeated.
    #[arg(short, long = "param", value_name = "KEY=VALUE")]
    pub(crate) params: Vec<String>,
}

#[derive(Args, Debug)]
pub(crate) struct SubmitArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Follow the workflow until it ends (one workflow only).
    #[arg(short, long, conflicts_with = "dry_run")]
    pub(crate) watch: bool,
    /// Let the API server and the webhook check, but store nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct GetArgs {
    /// Name of a workflow; all of the namespace when absent.
    #[arg(conflicts_with_all = ["all_namespaces", "selector"])]
    pub(crate) name: Option<String>,
    /// Workflows of all namespaces.
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// Only workflows with these labels.
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(crate) selector: Option<String>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct WatchArgs {
    /// Name of the workflow.
    pub(crate) name: String,
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// What is asked about.
    #[arg(value_enum)]
    pub(crate) kind: ExplainKind,
    /// Its name.
    pub(crate) name: String,
    /// Of a gang: ask a cluster that `flowforge snapshot` wrote down instead.
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct PlaceArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Ask a cluster that `flowforge snapshot` wrote down instead.
    #[arg(long, value_name = "FILE")]
    pub(crate) snapshot: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

/// What can be explained.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(crate) enum ExplainKind {
    /// A gang: a Gang object, or the pods that carry the gang's label.
    Gang,
    /// A pod.
    Pod,
    /// A workflow and each of its nodes that has not ended.
    Workflow,
}

/// The form of a drawing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(crate) enum Picture {
    /// For people.
    #[default]
    Tree,
    /// A picture, for a browser or a document.
    Svg,
    /// For programs.
    Json,
    /// For files.
    Yaml,
}

#[derive(Args, Debug)]
pub(crate) struct TopologyArgs {
    /// Draw down to the domains of this level, or to each node with `nodes`; to the nodes when absent, unless they are many.
    #[arg(short, long, value_name = "LEVEL")]
    pub(crate) level: Option<String>,
    /// Resource that counts GPUs; those of NVIDIA, AMD and Intel when absent.
    #[arg(short, long, value_name = "NAME", conflicts_with = "file")]
    pub(crate) resource: Option<String>,
    /// Draw the network that a file describes instead: CSV of hosts and switches, ibnetdiscover, topograph's models, NetQ.
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Picture,
}

#[derive(Args, Debug)]
pub(crate) struct RerunArgs {
    /// Name of the workflow that has ended.
    pub(crate) workflow: String,
    /// Run this node, and all that wait for it, again although it had succeeded. May be repeated.
    #[arg(long, value_name = "NODE")]
    pub(crate) from: Vec<String>,
    /// Name of the new workflow; NAME-r1, NAME-r2, … when absent.
    #[arg(long)]
    pub(crate) name: Option<String>,
}

#[derive(Args, Debug)]
pub(crate) struct ApproveArgs {
    /// Name of the workflow.
    pub(crate) workflow: String,
    /// Id of the node.
    pub(crate) node: String,
    /// The node fails.
    #[arg(long)]
    pub(crate) deny: bool,
}

#[derive(Args, Debug)]
pub(crate) struct CancelArgs {
    /// Names of the workflows.
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
    /// At once: with a grace of a second, and without `finally` nodes.
    #[arg(long)]
    pub(crate) now: bool,
    /// Return only when they have ended.
    #[arg(long)]
    pub(crate) wait: bool,
    /// Form of the answer: what was done, or the workflows as they then are.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct LogsArgs {
    /// Name of the workflow.
    pub(crate) workflow: String,
    /// Id of the node.
    pub(crate) node: String,
    /// Rank of the member.
    #[arg(short, long, default_value_t = 0)]
    pub(crate) rank: u32,
    /// Every member, each line with its rank before it: in the order of ranks, with --follow as the lines come.
    #[arg(long, conflicts_with = "rank")]
    pub(crate) all_ranks: bool,
    /// Wait for the member to start, and print on as it writes.
    #[arg(short, long)]
    pub(crate) follow: bool,
    /// Attempt of the node, from 1; the last when absent.
    #[arg(short, long, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) attempt: Option<u32>,
    /// Container; the main one when absent.
    #[arg(short, long)]
    pub(crate) container: Option<String>,
    /// Only so many of the last lines.
    #[arg(long, value_name = "LINES")]
    pub(crate) tail: Option<u32>,
    /// Put the time before each line.
    #[arg(long)]
    pub(crate) timestamps: bool,
}

#[derive(Args, Debug)]
pub(crate) struct LintArgs {
    #[command(flatten)]
    pub(crate) input: InputArgs,
    /// Topology levels of the cluster, where it names its own; else zone,block,rack,nvlink,host.
    #[arg(short, long, value_delimiter = ',', value_name = "LEVEL,…")]
    pub(crate) levels: Vec<String>,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

#[derive(Args, Debug)]
pub(crate) struct CompletionArgs {
    /// The shell.
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Args, Debug)]
pub(crate) struct VersionArgs {
    /// Ask the cluster for its versions, too.
    #[arg(long)]
    pub(crate) server: bool,
    /// Form of the answer.
    #[arg(short, long, value_enum, default_value_t, value_name = "FORM")]
    pub(crate) output: Format,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_words_do_not_contradict_each_other() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_flags_may_follow_the_command() {
        let cli = Cli::try_parse_from(["flowforge", "get", "x", "-n", "team-a", "-o", "json"]).expect("parses");
        assert_eq!(cli.global.namespace.as_deref(), Some("team-a"));
    }

    #[test]
    fn a_name_and_all_namespaces_exclude_each_other() {
        let error = Cli::try_parse_from(["flowforge", "get", "x", "-A"]).expect_err("conflicts");
        assert_eq!(error.exit_code(), 2);
    }
}
