//! What processes cost, as Linux accounts for it (proc(5), ss(8)).

use std::collections::HashSet;
use std::fs::read_to_string;
use std::net::SocketAddr;
use std::process::Command;
use std::time::Duration;

/// The time that the threads of a process have been on a processor, to the nanosecond (`schedstat`; the ticks
/// of `stat` are a hundredth of a second). 0 for a process that is gone.
pub fn processor_time(process: u32) -> Duration {
    let threads = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten();
    let nanos = threads.filter_map(|thread| {
        let text = read_to_string(thread.ok()?.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(nanos.sum())
}

/// A process and what it has started, and so on.
pub fn family(process: u32) -> Vec<u32> {
    let children = |parent: u32| -> Vec<u32> {
        let threads = std::fs::read_dir(format!("/proc/{parent}/task")).into_iter().flatten();
        let lists = threads.filter_map(|thread| read_to_string(thread.ok()?.path().join("children")).ok());
        lists
            .flat_map(|list| list.split_whitespace().filter_map(|id| id.parse().ok()).collect::<Vec<_>>())
            .collect()
    };
    let (mut all, mut next) = (Vec::new(), vec![process]);
    let mut known = HashSet::from([process]);
    while let Some(one) = next.pop() {
        all.push(one);
        next.extend(children(one).into_iter().filter(|child| known.insert(*child)));
    }
    all
}

/// The memory of a process in bytes, pages that it shares counted by their share (`Pss` of `smaps_rollup`).
pub fn memory_bytes(process: u32) -> u64 {
    let text = read_to_string(format!("/proc/{process}/smaps_rollup")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) * 1024
}

/// The bytes of socket buffers that the kernel holds for the connections which a server has at `address`:
/// received, reserved, queued to be sent, options and backlog (`skmem` of `ss -tm`). The sockets' own
/// structures, about 2 KiB each, are not part of it. `None` without `ss`.
pub fn socket_bytes(address: SocketAddr) -> Option<u64> {
    let filter = format!("sport = :{}", address.port());
    let output =
        Command::new("ss").args(["--tcp", "--memory", "--numeric", "--no-header", &filter]).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout);
    Some(text.split("skmem:(").skip(1).map(buffers).sum())
}

/// The sum of `r0,rb131072,t0,tb87040,f0,w0,o0,bl0,d0)` without the limits `rb` and `tb`, without `t`, which
/// is part of `w`, and without the count of drops.
fn buffers(skmem: &str) -> u64 {
    let fields = skmem.split(')').next().unwrap_or_default().split(',');
    let bytes = |field: &str| {
        let digits = field.find(|letter: char| letter.is_ascii_digit())?;
        let (name, value) = field.split_at(digits);
        ["r", "f", "w", "o", "bl"].contains(&name).then(|| value.parse::<u64>().ok())?
    };
    fields.filter_map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_no_memory() {
        assert_eq!(buffers("r1,rb131072,t0,tb87040,f20,w300,o4000,bl50000,d7) and so on"), 54_321);
    }

    #[test]
    fn this_process_costs_something_and_one_that_is_gone_nothing() {
        let own = std::process::id();
        assert!(processor_time(own) > Duration::ZERO && memory_bytes(own) > 100_000);
        assert_eq!((processor_time(u32::MAX), memory_bytes(u32::MAX)), (Duration::ZERO, 0));
        assert_eq!(family(own).first(), Some(&own));
    }
}
