//! What the benches share, and instruction counts.
//!
//! Time is measured by the criterion benches in `benches/`, one for each boundary, beside the crates that one would take
//! otherwise. On a machine that others use too, time varies by a tenth and more. What a change costs by little is seen in
//! [`instructions`], which are counted, and held against figures that are committed.

pub mod instructions;
pub mod plain;

#[allow(missing_docs, reason = "a file of the engine's tests, shared by path")]
#[path = "../../engine/tests/common/detached.rs"]
pub mod detached;
