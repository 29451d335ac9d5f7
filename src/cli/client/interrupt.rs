//! Ctrl-C: what is done before the program ends.

use std::process;

/// Exit code of a program that SIGINT ended, as shells give it.
const INTERRUPTED: i32 = 130;

/// Calls `last` at the first Ctrl-C and then ends the program; a second Ctrl-C ends it at once. Without this, Ctrl-C ends
/// the program as usual.
pub(super) fn before_ending(last: impl FnOnce() + Send + 'static) {
    // a thread that could not be started leaves the usual Ctrl-C
    let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return };
    let _ = std::thread::Builder::new().name("interrupt".to_owned()).spawn(move || {
        runtime.block_on(async {
            if tokio::signal::ctrl_c().await.is_err() {
                return;
            }
            let work = tokio::task::spawn_blocking(last);
            tokio::select! {
                _ = work => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            process::exit(INTERRUPTED);
        });
    });
}
