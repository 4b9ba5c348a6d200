//! Simulated mining devices; the program adit-loadgen.
