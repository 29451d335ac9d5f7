//! Progress on standard error, for people who watch.

use std::{
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::output::Output;

/// What a bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// Things: inputs, cells.
    Things,
    /// Bytes.
    Bytes,
}

/// A bar, or a spinner until the total is known. Nothing is drawn unless standard error is a terminal, nor with `-q`.
pub(super) fn progress(out: &Output, total: Option<u64>, counts: Counts) -> ProgressBar {
    if out.quiet || !io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::with_draw_target(total, ProgressDrawTarget::stderr());
    restyle(&bar, counts);
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}

/// Gives a bar its total.
pub(super) fn set_total(bar: &ProgressBar, total: u64, counts: Counts) {
    if bar.length() != Some(total) {
        bar.set_length(total);
        restyle(bar, counts);
    }
}

fn restyle(bar: &ProgressBar, counts: Counts) {
    let template = match (counts, bar.length()) {
        (Counts::Things, Some(_)) => "{msg} {wide_bar:.cyan/blue} {pos}/{len} {eta}",
        (Counts::Things, None) => "{spinner} {msg} {pos} {elapsed}",
        (Counts::Bytes, Some(_)) => {
            "{msg} {wide_bar:.cyan/blue} {decimal_bytes}/{decimal_total_bytes} {decimal_bytes_per_sec}"
        }
        (Counts::Bytes, None) => "{spinner} {msg} {decimal_bytes} {decimal_bytes_per_sec}",
    };
    // a template that could not be parsed would only cost the looks
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_drawn_where_nobody_watches() {
        let out = Output { quiet: true, ..Output::plain(Some(80)) };
        assert!(progress(&out, Some(3), Counts::Things).is_hidden());
    }

    #[test]
    fn every_template_is_valid() {
        let bar = ProgressBar::hidden();
        for counts in [Counts::Things, Counts::Bytes] {
            restyle(&bar, counts);
            set_total(&bar, 5, counts);
            assert_eq!(bar.length(), Some(5));
        }
    }
}
