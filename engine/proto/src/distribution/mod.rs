//! The Template Distribution Protocol (specification chapter 7): [`server`] is a template provider, [`client`] a pool or
//! job declarator that takes its templates.

pub mod client;
mod constraints;
pub mod server;
mod validity;

pub use constraints::{Constraints, Reserve};
pub use validity::{MERKLE_PATH_LEN_MAX, TemplateFault};
