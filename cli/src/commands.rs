//! One file per command; each is a function from its arguments to an exit code.

pub(crate) mod approve;
pub(crate) mod cancel;
pub(crate) mod completion;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod lint;
pub(crate) mod logs;
pub(crate) mod place;
pub(crate) mod rerun;
pub(crate) mod snapshot;
pub(crate) mod submit;
pub(crate) mod topology;
pub(crate) mod version;
pub(crate) mod watch;
