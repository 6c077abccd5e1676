//! The FlowForge scheduler: watches, cache, dispatch.
