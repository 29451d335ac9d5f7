use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// Also SQLite's, where the linker lets it be. The system's keeps what many threads have freed in a heap for each of them, so
/// that a server grows for hours, and is slower beside that.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    residuum::cli::Cli::parse().run()
}
