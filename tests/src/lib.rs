//! Tests of FlowForge against a real control plane.
