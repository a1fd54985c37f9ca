//! How far a long command has come: a bar on a terminal, elsewhere a line now and then.
#![expect(clippy::disallowed_methods, reason = "progress is measured against the clock")]

use crate::output;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

/// Between two lines where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(5);
/// Between two looks at the bar.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

/// Blocks that are worked off.
#[derive(Debug)]
pub(crate) struct Progress {
    verb: &'static str,
    total: Option<u64>,
    bar: Option<ProgressBar>,
    started: Instant,
    shown: Instant,
}

impl Progress {
    /// Of `total` blocks, where that is known. Everything goes to standard error.
    pub(crate) fn start(verb: &'static str, total: Option<u64>) -> Self {
        let terminal = std::io::stderr().is_terminal();
        let bar = terminal.then(|| {
            let template = if total.is_some() { "[{bar:30}] {msg}" } else { "{spinner} {msg}" };
            let style = ProgressStyle::with_template(template);
            let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
            ProgressBar::new(total.unwrap_or_default()).with_style(style.progress_chars("=> "))
        });
        let now = Instant::now();
        Self { verb, total, bar, started: now, shown: now }
    }

    /// So many blocks are done, with so much gas.
    pub(crate) fn show(&mut self, blocks: u64, gas: u64) {
        let interval = if self.bar.is_some() { BAR_INTERVAL } else { LINE_INTERVAL };
        if self.shown.elapsed() < interval {
            return;
        }
        self.shown = Instant::now();
        let text = line(self.verb, blocks, self.total, gas, self.started.elapsed());
        match &self.bar {
            Some(bar) => {
                bar.set_position(blocks);
                bar.set_message(text);
            }
            None => output::progress(&text),
        }
    }

    /// Leaves no trace on a terminal. Returns how long it took.
    pub(crate) fn finish(self) -> Duration {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
        self.started.elapsed()
    }
}

/// How fast it was: `imported 600 blocks 3,540 blk/s 720.4 Mgas/s`.
pub(crate) fn speed(verb: &str, blocks: u64, gas: u64, took: Duration) -> String {
    line(verb, blocks, None, gas, took)
}

/// `imported 12,400/50,000 blocks 24.8% 310 blk/s 1.9 Ggas/s eta 2m`
fn line(verb: &str, blocks: u64, total: Option<u64>, gas: u64, elapsed: Duration) -> String {
    let seconds = elapsed.as_secs_f64().max(1e-3);
    let rate = blocks as f64 / seconds;
    let mut line = format!("{verb} {}", grouped(blocks));
    let total = total.filter(|total| *total >= blocks && *total > 0);
    if let Some(total) = total {
        line += &format!("/{}", grouped(total));
    }
    line += " blocks";
    if let Some(total) = total {
        line += &format!(" {:.1}%", 100.0 * blocks as f64 / total as f64);
    }
    line += &format!(" {} blk/s", grouped(rate.round() as u64));
    if gas > 0 {
        line += &format!(" {}", gas_rate(gas as f64 / seconds));
    }
    if let Some(total) = total.filter(|_| rate > 0.0) {
        line += &format!(" eta {}", short((total - blocks) as f64 / rate));
    }
    line
}

fn gas_rate(per_second: f64) -> String {
    match per_second {
        rate if rate >= 1e9 => format!("{:.1} Ggas/s", rate / 1e9),
        rate => format!("{:.1} Mgas/s", rate / 1e6),
    }
}

fn short(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        seconds @ 0..60 => format!("{seconds}s"),
        seconds @ 60..3600 => format!("{}m", (seconds + 30) / 60),
        seconds => format!("{}h{:02}m", seconds / 3600, seconds % 3600 / 60),
    }
}

fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev();
    let groups: Vec<_> = groups.map(|group| String::from_utf8_lossy(group)).collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_far_how_fast_and_how_long_still() {
        let seconds = Duration::from_secs;
        let rows = [
            (
                12_400,
                Some(50_000),
                76_000_000_000,
                40,
                "imported 12,400/50,000 blocks 24.8% 310 blk/s 1.9 Ggas/s eta 2m",
            ),
            (
                50_000,
                Some(50_000),
                5_000_000,
                10,
                "imported 50,000/50,000 blocks 100.0% 5,000 blk/s 0.5 Mgas/s eta 0s",
            ),
            (7, None, 0, 2, "imported 7 blocks 4 blk/s"),
            (10, Some(1_000_000), 0, 10, "imported 10/1,000,000 blocks 0.0% 1 blk/s eta 277h46m"),
        ];
        for (blocks, total, gas, took, expected) in rows {
            assert_eq!(line("imported", blocks, total, gas, seconds(took)), expected);
        }
    }
}
