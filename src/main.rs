use std::process::ExitCode;

use clap::Parser;
use tikv_jemallocator::Jemalloc;

/// If the linker permits it, SQLite uses this allocator too. glibc's keeps freed memory in one arena per thread, so the
/// memory of a server with many threads grows for hours; it is also slower.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    residuum::cli::Cli::parse().run()
}
