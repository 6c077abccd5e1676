//! How a command ends: its exit code, and what it says when it could not do what was asked.

use std::fmt::Write as _;
use std::process::ExitCode;

use kube::core::Status;

/// Exit codes of every command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Exit {
    /// 0: done; for `watch` and `submit --watch`: the workflow succeeded.
    Success,
    /// 1: the answer is no: the workflow failed, `lint` found problems, or `place` found no place.
    Failed,
    /// 2: what was asked could not be done: wrong usage, bad input, nothing of that name, no cluster.
    Refused,
    /// 3: the workflow was canceled.
    Canceled,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(match exit {
            Exit::Success => 0,
            Exit::Failed => 1,
            Exit::Refused => 2,
            Exit::Canceled => 3,
        })
    }
}

/// Why a command could not do what was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    fix: Option<String>,
    exit: Exit,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), fix: None, exit: Exit::Refused }
    }

    /// Adds what would help.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// The reader of stdout left: nobody is there to read an error, and nothing went wrong.
    pub(crate) fn reader_left() -> Self {
        Self { message: String::new(), fix: None, exit: Exit::Success }
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The text for stderr; empty when there is nothing to say.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if !self.message.is_empty() {
            let _ = writeln!(text, "error: {}", self.message);
        }
        if let Some(fix) = &self.fix {
            let _ = writeln!(text, "  fix: {fix}");
        }
        text
    }

    pub(crate) fn report(&self) {
        eprint!("{}", self.text());
    }

    /// A refused or failed request; `doing` completes "cannot …".
    pub(crate) fn of_request(doing: &str, error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::of_status(doing, status),
            kube::Error::Auth(error) => Self::new(format!("cannot {doing}: no valid credentials: {error}"))
                .fix("log in again, or choose other credentials with --context or --kubeconfig"),
            kube::Error::Service(error) => Self::unreachable(doing, &chain(error.as_ref())),
            kube::Error::HyperError(error) => Self::unreachable(doing, &chain(error)),
            other => Self::new(format!("cannot {doing}: {}", chain(other))),
        }
    }

    fn unreachable(doing: &str, cause: &str) -> Self {
        Self::new(format!("cannot {doing}: the API server does not answer: {cause}"))
            .fix("check that the cluster is up and that the right one is meant (--context, --kubeconfig, KUBECONFIG)")
    }

    fn of_status(doing: &str, status: &Status) -> Self {
        let message = status.message.trim();
        if status.code == 404 && status.details.as_ref().is_none_or(|d| d.name.is_empty()) {
            return Self::new(format!("cannot {doing}: this cluster does not know FlowForge's kinds"))
                .fix("install FlowForge: kubectl apply --server-side -f manifests/install.yaml");
        }
        if let Some((_, why)) = message.split_once("denied the request: ") {
            return Self::new(format!("cannot {doing}: refused by the admission webhook:\n{}", indent(why)))
                .fix("correct the fields named above; `flowforge lint -f FILE` makes the same checks offline");
        }
        let failure = Self::new(format!("cannot {doing}: {message}"));
        match status.code {
            401 => failure.fix("log in again, or choose other credentials with --context or --kubeconfig"),
            403 if message.contains("exceeded quota") => {
                failure.fix("free some of the namespace's quota, or ask for more")
            }
            403 => failure
                .fix("ask the cluster's administrator for this permission (`kubectl auth can-i --list` shows yours)"),
            404 => failure.fix("check the name and the namespace (-n)"),
            409 => failure.fix("somebody else changed it at the same time: try again"),
            422 => {
                failure.fix("correct the fields named above; `flowforge lint -f FILE` makes the same checks offline")
            }
            429 | 500..=599 => failure.fix("the API server is overloaded or restarting: try again in a moment"),
            _ => failure,
        }
    }
}

/// An error with its causes, each once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            let _ = write!(text, ": {inner_text}");
        }
        cause = inner.source();
    }
    text
}

fn indent(text: &str) -> String {
    text.trim().lines().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};
    use kube::core::response::StatusDetails;

    #[track_caller]
    fn check(status: Status, expected: &Expect) {
        expected.assert_eq(&Failure::of_request("submit workflow demo/x", &kube::Error::Api(Box::new(status))).text());
    }

    fn status(code: u16, reason: &str, message: &str) -> Status {
        let details: StatusDetails = serde_json::from_value(serde_json::json!({ "name": "x" })).expect("details");
        Status { code, reason: reason.into(), message: message.into(), details: Some(details), ..Status::default() }
    }

    #[test]
    fn a_missing_crd_names_the_installation() {
        check(
            Status { code: 404, message: "404 page not found".into(), ..Status::default() },
            &expect![[r#"
                error: cannot submit workflow demo/x: this cluster does not know FlowForge's kinds
                  fix: install FlowForge: kubectl apply --server-side -f manifests/install.yaml
            "#]],
        );
    }

    #[test]
    fn a_refusal_by_the_webhook_keeps_every_line() {
        check(
            status(
                422,
                "Invalid",
                r#"admission webhook "workflows.flowforge.dev" denied the request: spec.nodes[0].image: is missing
spec.nodes[1].dependsOn[0]: no node has the id "x""#,
            ),
            &expect![[r#"
                error: cannot submit workflow demo/x: refused by the admission webhook:
                  spec.nodes[0].image: is missing
                  spec.nodes[1].dependsOn[0]: no node has the id "x"
                  fix: correct the fields named above; `flowforge lint -f FILE` makes the same checks offline
            "#]],
        );
    }

    #[test]
    fn a_missing_permission_says_whom_to_ask() {
        check(
            status(403, "Forbidden", r#"workflows.flowforge.dev is forbidden: User "eve" cannot create resource"#),
            &expect![[r#"
                error: cannot submit workflow demo/x: workflows.flowforge.dev is forbidden: User "eve" cannot create resource
                  fix: ask the cluster's administrator for this permission (`kubectl auth can-i --list` shows yours)
            "#]],
        );
    }

    #[test]
    fn a_reader_that_left_is_no_error() {
        assert_eq!(Failure::reader_left().text(), "");
        assert_eq!(Failure::reader_left().exit(), Exit::Success);
    }
}
