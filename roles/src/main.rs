//! The program.

use std::process::ExitCode;

/// Shards allocate before they have warmed up, and the embedded node always.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    adit_roles::cli::main()
}
