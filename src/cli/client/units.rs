//! Numbers as people read them.

use jiff::Timestamp;

/// Bytes with a unit of a thousand: `532 B`, `1.2 MB`.
pub(super) fn bytes(n: u64) -> String {
    scaled(n, &["B", "kB", "MB", "GB", "TB", "PB", "EB"])
}

/// A count: `532`, `135 M`.
pub(super) fn count(n: u64) -> String {
    scaled(n, &["", "k", "M", "G", "T", "P", "E"]).trim_end().to_owned()
}

fn scaled(n: u64, units: &[&str]) -> String {
    #[expect(clippy::cast_precision_loss, reason = "shown with two or three digits")]
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 999.5 && unit + 1 < units.len() {
        value /= 1000.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && value < 9.95);
    format!("{value:.digits$} {}", units[unit])
}

/// A time span: `0.84 s`, `12 s`, `3 min`, `5 h`, `2 d`.
pub(super) fn span(seconds: f64) -> String {
    let seconds = if seconds.is_finite() { seconds.max(0.0) } else { 0.0 };
    if seconds < 10.0 {
        format!("{seconds:.2} s")
    } else if seconds < 120.0 {
        format!("{seconds:.0} s")
    } else if seconds < 7200.0 {
        format!("{:.0} min", seconds / 60.0)
    } else if seconds < 172_800.0 {
        format!("{:.0} h", seconds / 3600.0)
    } else {
        format!("{:.0} d", seconds / 86_400.0)
    }
}

/// How long ago a time was, in whole seconds or more.
pub(super) fn age(then: Option<Timestamp>, now: Timestamp) -> String {
    let Some(then) = then else { return String::new() };
    let seconds = now.duration_since(then).as_secs_f64();
    if seconds < 10.0 { format!("{:.0} s", seconds.max(0.0)) } else { span(seconds) }
}

/// Seconds between two times.
pub(super) fn between(from: Option<Timestamp>, to: Option<Timestamp>) -> Option<f64> {
    Some(to?.duration_since(from?).as_secs_f64())
}

/// `1 input`, `2 inputs`.
pub(super) fn plural(n: u64, noun: &str) -> String {
    if n == 1 { format!("1 {noun}") } else { format!("{n} {noun}s") }
}

/// A probability: `41 %`, `0.3 %`, `<0.1 %`.
pub(super) fn percent(p: f64) -> String {
    let p = p * 100.0;
    if p >= 9.95 {
        format!("{p:.0} %")
    } else if p >= 0.1 {
        format!("{p:.1} %")
    } else {
        "<0.1 %".to_owned()
    }
}

/// Four significant digits.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "null".to_owned();
    }
    let magnitude = value.abs();
    if magnitude != 0.0 && !(0.001..100_000.0).contains(&magnitude) {
        return format!("{value:.3e}");
    }
    let digits = if magnitude >= 1000.0 {
        1
    } else if magnitude >= 100.0 {
        2
    } else if magnitude >= 10.0 {
        3
    } else {
        4
    };
    let text = format!("{value:.digits$}");
    // a value that is rounded to 0 has no sign
    if text.trim_start_matches(['-', '0', '.']).is_empty() { text.trim_start_matches('-').to_owned() } else { text }
}

/// A bar of this many columns for a share of 0 to 1, in eighths of a column.
pub(super) fn bar(share: f64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let share = if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a few columns, at least 0"
    )]
    let eighths = (share * width as f64 * 8.0).round() as usize;
    "█".repeat(eighths / 8) + EIGHTHS[eighths % 8]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::visible::columns;

    #[test]
    fn numbers_have_units() {
        assert_eq!(
            ["0 B", "999 B", "1.0 kB", "9.9 kB", "10 kB", "98 MB"].map(str::to_owned),
            [bytes(0), bytes(999), bytes(1000), bytes(9_900), bytes(9_999), bytes(98_000_000)]
        );
        assert_eq!((count(12), count(134_515_008), bytes(u64::MAX)), ("12".into(), "135 M".into(), "18 EB".into()));
        assert_eq!(
            (span(0.837), span(75.0), span(600.0), span(f64::NAN)),
            ("0.84 s".into(), "75 s".into(), "10 min".into(), "0.00 s".into())
        );
        assert_eq!((percent(0.412), percent(0.033), percent(1e-9)), ("41 %".into(), "3.3 %".into(), "<0.1 %".into()));
        assert_eq!(
            (number(0.99971), number(-12.34567), number(1e9), number(-0.0)),
            ("0.9997".into(), "-12.346".into(), "1.000e9".into(), "0.0000".into())
        );
        assert_eq!(plural(1, "input") + &plural(0, "run"), "1 input0 runs");
    }

    #[test]
    fn a_bar_is_never_wider_than_its_place() {
        assert_eq!(
            (bar(0.5, 4), bar(0.03, 4), bar(1.5, 3), bar(f64::NAN, 3)),
            ("██".into(), "▏".into(), "███".into(), String::new())
        );
        assert!((0..100).all(|i| columns(&bar(f64::from(i) / 99.0, 10)) <= 10));
    }

    #[test]
    fn an_age_is_told_from_now() {
        let now: Timestamp = "2026-11-23T12:00:00Z".parse().unwrap();
        let ago = |text: &str| age(text.parse().ok(), now);
        assert_eq!((ago("2026-11-23T11:59:57Z"), ago("2026-11-22T12:00:00Z")), ("3 s".into(), "24 h".into()));
        // a server whose clock is ahead
        assert_eq!((ago("2026-11-23T12:05:00Z"), age(None, now)), ("0 s".into(), String::new()));
    }
}
