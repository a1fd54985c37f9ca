//! What happened in a run, line by line: a hash of all of it, and the lines if they are wanted.

use std::fmt::Write;

/// Lines that are kept of a run that nobody asked to see whole.
const TAIL_LEN: usize = 40;

#[derive(Debug)]
pub(crate) struct Trace {
    pub(crate) hash: u64,
    pub(crate) lines: std::collections::VecDeque<String>,
    whole: bool,
}

impl Trace {
    pub(crate) fn new(whole: bool) -> Self {
        Self { hash: 0xcbf2_9ce4_8422_2325, lines: Default::default(), whole }
    }

    pub(crate) fn line(&mut self, now: u64, node: u64, text: impl FnOnce() -> String) {
        let mut line = format!("{now:>6} n{node} ");
        // Writing to a string cannot fail.
        let _ = line.write_str(&text());
        for byte in line.bytes() {
            self.hash = (self.hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        if !self.whole && self.lines.len() == TAIL_LEN {
            self.lines.pop_front();
        }
        self.lines.push_back(line);
    }
}
