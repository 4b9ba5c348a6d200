//! Batched double-SHA256, merkle roots, targets and difficulty.
