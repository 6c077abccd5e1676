//! The FlowForge DAG controller: watches, the reconciler's shell around the pure core, and the admission webhook.
pub mod convert;
pub mod inputs;
pub mod metrics;
pub mod objects;
pub mod pods;
pub mod storage;
pub mod watch;
pub mod watched;
pub mod webhook;
pub mod writer;
