//! The flowforge command line.
