//! The FlowForge DAG controller: reconciler, admission webhook.
