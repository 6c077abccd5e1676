//! What both FlowForge binaries share: flags, telemetry, admin HTTP, leader lease, shutdown.
