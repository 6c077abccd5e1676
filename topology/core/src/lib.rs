//! Pure model of cluster topology: levels, domains, node hardware.
