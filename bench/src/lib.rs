//! Criterion benches, one per boundary.
