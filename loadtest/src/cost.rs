//! Processor time and memory of processes, from Linux's accounting (proc(5)).

use std::collections::HashSet;
use std::fs::read_to_string;
use std::time::Duration;

use rustix::param::clock_ticks_per_second;

/// Returns the processor time of a process's threads in nanoseconds (`schedstat`; `stat` counts in ticks of a hundredth of a
/// second). 0 for a process that is gone.
pub fn processor_time(process: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// Returns the processor time of this process's ended children, in ticks of `stat`.
pub fn processor_time_of_children() -> Duration {
    let stat = read_to_string("/proc/self/stat").unwrap_or_default();
    // The name of the command may have blanks. After it, `cutime` is the 14th value and `cstime` the next.
    let values = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: u64 = values.skip(13).take(2).filter_map(|value| value.parse::<u64>().ok()).sum();
    Duration::from_secs_f64(ticks as f64 / clock_ticks_per_second() as f64)
}

/// A process and its descendants, listed anew on each call.
#[derive(Debug, Clone, Copy)]
pub struct Family {
    /// The ancestor of the others.
    root: u32,
}

impl Family {
    /// Returns the family of process `root`.
    pub fn of(root: u32) -> Self {
        Self { root }
    }

    /// Returns the processor time of all members.
    pub fn processor_time(self) -> Duration {
        self.members().into_iter().map(processor_time).sum()
    }

    /// Returns the memory of all members, in bytes.
    pub fn memory_bytes(self) -> u64 {
        self.members().into_iter().map(memory_bytes).sum()
    }

    /// Returns the process ids, `root` first.
    pub fn members(self) -> Vec<u32> {
        let (mut all, mut next) = (Vec::new(), vec![self.root]);
        let mut known = HashSet::from([self.root]);
        while let Some(one) = next.pop() {
            all.push(one);
            next.extend(children(one).into_iter().filter(|child| known.insert(*child)));
        }
        all
    }
}

fn children(parent: u32) -> Vec<u32> {
    let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten();
    let lists = threads.filter_map(|thread| read_to_string(thread.ok()?.path().join("children")).ok());
    lists
        .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// Returns the memory of a process in bytes; a shared page counts by its share (`smaps_rollup`, proc(5)). Pages of files are
/// left out: their shares change whenever another process runs the same program.
pub fn memory_bytes(process: u32) -> u64 {
    let text = read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let bytes = |line: &str| {
        let value = line.strip_prefix("Pss_Anon:").or_else(|| line.strip_prefix("Pss_Shmem:"))?;
        Some(value.trim().trim_end_matches(" kB").parse::<u64>().ok()? * 1024)
    };
    text.lines().filter_map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_process_has_costs_and_an_ended_one_has_none() {
        let own = std::process::id();
        assert!(processor_time(own) > Duration::ZERO && memory_bytes(own) > 100_000);
        assert_eq!((processor_time(u32::MAX), memory_bytes(u32::MAX)), (Duration::ZERO, 0));
        assert_eq!(Family::of(own).members().first(), Some(&own));
    }

    #[test]
    fn processor_time_of_a_child_counts_after_it_ends() {
        let _alone = crate::PROGRAMS.write();
        let before = processor_time_of_children();
        // The kernel ends it after a second of processor time, however busy the machine is.
        let mut busy = std::process::Command::new("sh");
        busy.args(["-c", "ulimit -t 1; while :; do :; done"]).status().unwrap();
        let cost = processor_time_of_children() - before;
        assert!(cost > Duration::from_millis(500), "{cost:?}");
    }
}
