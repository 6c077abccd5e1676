//! Why something waits or ended: one closed vocabulary for statuses, events, metrics, the command line and the UI.
//!
//! The text of a [`Reason`] is what stands in `status.reason`; [`Reason::class`] is what a policy decides by.

use smol_str::SmolStr;
use std::fmt;

/// Who is to blame for an end, which is what a policy asks.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Class {
    /// Nobody: it waits, or it ended well.
    None,
    /// The user's program or spec.
    User,
    /// The machines, the cluster or another tenant.
    Infrastructure,
    /// A rule of the cluster that trying again does not change.
    Policy,
    /// Collateral: we stopped it ourselves.
    Stopped,
    /// Nobody: its own conditions say that it does not run.
    Skipped,
}

macro_rules! reasons {
    ($($(#[$doc:meta])+ $name:ident = $text:literal, $class:ident;)+) => {
        /// Why something waits or ended.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Reason { $($(#[$doc])+ $name,)+ }

        impl Reason {
            /// Every reason, in the order of declaration.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The text in `status.reason`: CamelCase, as conditions want it.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// Who is to blame.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$name => Class::$class,)+ }
            }
        }
    };
}

reasons! {
    /// All members, all nodes ended well.
    Completed = "Completed", None;

    /// The spec does not compile; it must be corrected in a new workflow.
    InvalidSpec = "InvalidSpec", User;
    /// A claim named in `spec.storage` does not exist; creating it lets the workflow go on.
    ClaimMissing = "ClaimMissing", None;
    /// A claim named in `spec.storage` is not bound; binding it lets the workflow go on.
    ClaimPending = "ClaimPending", None;
    /// A ReadWriteOnce claim cannot be mounted by a gang that may span hosts; use ReadWriteMany, or one replica.
    ClaimNotShared = "ClaimNotShared", User;
    /// The namespace's quota has no room; freeing some, or a larger quota, lets the gang go on.
    QuotaExceeded = "QuotaExceeded", None;
    /// An object that is not ours has the name we need; deleting it lets the gang go on.
    NameTaken = "NameTaken", None;
    /// It had succeeded in the workflow that this one runs again.
    TakenOver = "TakenOver", None;
    /// A person approved it.
    Approved = "Approved", None;
    /// It waits for a person to approve it: `flowforge approve`.
    WaitingForApproval = "WaitingForApproval", None;
    /// The workflow is suspended: nothing is released.
    Suspended = "Suspended", None;
    /// An attempt failed; the next one starts when its pause is over.
    BackOff = "BackOff", None;
    /// A pod of the attempt before may still run on a machine that does not answer.
    PredecessorUnreachable = "PredecessorUnreachable", None;
    /// It runs with fewer members than it is to have: one is made again, or was left out.
    Degraded = "Degraded", None;
    /// Members vanished before they ran, again and again; the next one is made after a pause.
    MembersVanish = "MembersVanish", None;

    /// A person refused it.
    Denied = "Denied", User;
    /// A member's main container exited non-zero.
    MemberFailed = "MemberFailed", User;
    /// A member's main container used more memory than its limit.
    OomKilled = "OOMKilled", User;
    /// An init container of a member failed.
    InitFailed = "InitContainerFailed", User;
    /// A declared output is not in the termination message; declare it optional, give it a default, or write it.
    OutputMissing = "OutputMissing", User;
    /// A declared output is of another type, or the outputs are too large.
    OutputInvalid = "OutputInvalid", User;
    /// An image of a member was not there in time.
    ImagePull = "ImagePull", User;
    /// What a container of a member is configured with was not there in time.
    ConfigError = "ConfigError", User;
    /// It ran for longer than it may.
    RunTimeout = "RunTimeout", User;
    /// A volume of a member was not mounted in time.
    VolumeMount = "VolumeMount", Infrastructure;
    /// A member got no sandbox in time.
    SandboxNotReady = "SandboxNotReady", Infrastructure;
    /// Bound members did not all start in time.
    StartTimeout = "StartTimeout", Infrastructure;
    /// Its members did not all find a place in time.
    QueueTimeout = "QueueTimeout", Policy;
    /// A member was evicted from its node.
    Evicted = "Evicted", Infrastructure;
    /// A member was preempted by pods of a higher priority.
    Preempted = "Preempted", Infrastructure;
    /// A member's node became unreachable or was deleted.
    NodeLost = "NodeLost", Infrastructure;
    /// A member's node was shut down.
    NodeShutdown = "NodeShutdown", Infrastructure;
    /// The kubelet refused a member that was bound to it.
    KubeletRefused = "KubeletRefused", Infrastructure;
    /// A member's pod was deleted while it ran.
    MemberDeleted = "MemberDeleted", Infrastructure;
    /// A member ended without telling why.
    MemberLost = "MemberLost", Infrastructure;
    /// The scheduler took a partly bound gang back; the member is made again.
    GangRollback = "GangRollback", Infrastructure;
    /// The Gang object was deleted while its attempt ran.
    GangDeleted = "GangDeleted", Infrastructure;
    /// The API server forbids an object of the gang (PodSecurity, LimitRange, RBAC).
    CreateForbidden = "CreateForbidden", Policy;
    /// The API server finds an object of the gang invalid.
    CreateInvalid = "CreateInvalid", Policy;

    /// Another node failed, which stops the workflow.
    NodeFailed = "NodeFailed", Stopped;
    /// What it waits for can not happen any more.
    Unsatisfiable = "Unsatisfiable", Skipped;
    /// Its `when` is false.
    WhenFalse = "WhenFalse", Skipped;
    /// All that it waits for was passed over by a `when`.
    UpstreamSkipped = "UpstreamSkipped", Skipped;
    /// Its `when` can not be evaluated.
    WhenInvalid = "WhenInvalid", User;
    /// A text of the node can not be filled with what upstream nodes left.
    TextInvalid = "TextInvalid", User;
    /// The workflow's own time is over.
    WorkflowTimeout = "WorkflowTimeout", Stopped;
    /// The workflow was canceled.
    Canceled = "Canceled", Stopped;
    /// The workflow was terminated.
    Terminated = "Terminated", Stopped;
    /// The workflow is being deleted.
    Deleted = "Deleted", Stopped;
    /// An earlier end whose reason this version does not know.
    Unrecorded = "Unrecorded", Infrastructure;
}

impl Reason {
    /// The reason with this text; [`Reason::Unrecorded`] for a text this version does not know.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        Self::ALL.iter().copied().find(|r| r.as_str() == text).unwrap_or(Self::Unrecorded)
    }
}

impl Reason {
    /// Passed over by a `when`, its own or those of all that it waits for: what waits for it goes on without it.
    #[must_use]
    pub const fn is_bypass(self) -> bool {
        matches!(self, Self::WhenFalse | Self::UpstreamSkipped)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A reason with what is known about it: the root cause that a node, its gang and its workflow show.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Cause {
    /// Why.
    pub reason: Reason,
    /// The member it began with.
    pub rank: Option<u32>,
    /// Exit code of that member's main container.
    pub exit_code: Option<i32>,
    /// What else is known: the container's reason, the server's refusal, the id of the failed node. May be empty.
    pub detail: SmolStr,
}

impl Cause {
    /// A cause of which only the reason is known.
    #[must_use]
    pub const fn of(reason: Reason) -> Self {
        Self { reason, rank: None, exit_code: None, detail: SmolStr::new_static("") }
    }

    /// The same cause with a detail.
    #[must_use]
    pub fn with_detail(mut self, detail: impl Into<SmolStr>) -> Self {
        self.detail = detail.into();
        self
    }

    /// One sentence for `status.message`; empty where the reason says it all.
    #[must_use]
    pub fn message(&self) -> String {
        let detail = self.detail.as_str();
        match (self.rank, self.exit_code) {
            (Some(rank), Some(code)) if detail.is_empty() => format!("member {rank} exited with code {code}"),
            (Some(rank), Some(code)) => format!("member {rank} exited with code {code} ({detail})"),
            (Some(rank), None) if detail.is_empty() => format!("member {rank}: {}", self.reason),
            (Some(rank), None) => format!("member {rank}: {detail}"),
            (None, _) => detail.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_survives_being_written_and_read() {
        for &reason in Reason::ALL {
            assert_eq!(Reason::parse(reason.as_str()), reason);
        }
        assert_eq!(Reason::parse("FromTheFuture"), Reason::Unrecorded);
    }

    #[test]
    fn reasons_are_fit_for_conditions() {
        for reason in Reason::ALL {
            let text = reason.as_str();
            assert!(text.starts_with(|c: char| c.is_ascii_uppercase()), "{text}");
            assert!(text.chars().all(|c| c.is_ascii_alphanumeric()), "{text}");
        }
    }
}
