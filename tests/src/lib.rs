//! End to end, conformance, peers and faults, with the fixtures they need.
