//! Pure DAG engine: front ends, validation, apply, rebuild.
