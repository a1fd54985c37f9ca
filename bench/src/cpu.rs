//! CPU time of processes, from `/proc`.

use anyhow::Context;

/// Milliseconds in a clock tick of `/proc/PID/stat`: `sysconf(_SC_CLK_TCK)` is 100 on every Linux.
const TICK_MS: u64 = 10;

/// CPU time that all threads of a process have used so far, user and system, milliseconds. Errors
/// when there is no such process.
pub(crate) fn process_cpu_ms(pid: u32) -> anyhow::Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let stat = std::fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
    cpu_ms(&stat).with_context(|| format!("{path} is not as proc(5) says"))
}

/// The command in field 2 may hold spaces and brackets, so fields count from its last bracket.
fn cpu_ms(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let user_ticks: u64 = fields.nth(11)?.parse().ok()?;
    let system_ticks: u64 = fields.next()?.parse().ok()?;
    Some((user_ticks + system_ticks) * TICK_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_ticks_are_added() {
        let stat = "42 (a ) b) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 9 9 20 0 1 0 100 1 1";
        assert_eq!(cpu_ms(stat), Some(3_000));
        assert_eq!(cpu_ms("garbage"), None);
    }

    #[test]
    fn own_process_has_a_reading() {
        process_cpu_ms(std::process::id()).unwrap();
    }
}
