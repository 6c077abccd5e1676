//! Virtual world with faults that drives the pure cores.
