//! Linux: `/proc` (proc(5)), control groups (cgroups(7)), and options of sockets (tcp(7), socket(7)).

use std::fs::{self, read_to_string};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use socket2::{SockFilter, SockRef};

use super::{ProcessMemory, duration};

/// Clock ticks per second in `/proc` (`USER_HZ`): 100 on every architecture that the gateway is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Makes the kernel close a connection whose peer has acknowledged nothing of what was sent for `patience` (`TCP_USER_TIMEOUT`).
pub(crate) fn close_when_unacknowledged_for(socket: SockRef<'_>, patience: Duration) -> io::Result<()> {
    socket.set_tcp_user_timeout(Some(patience))
}

/// Attaches a packet filter that drops new SYNs, so that no handshake begins and none is refused. Closing a listener resets the
/// connections in its queue, and only when no more can arrive is it certain that the queue has been emptied.
pub(crate) fn drop_new_handshakes(listener: SockRef<'_>) -> io::Result<()> {
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    const FLAGS_AT: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    listener.attach_filter(&[
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS_AT),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ])
}

/// The value of `SO_SNDBUF` for a send buffer of `bytes`. The kernel doubles it.
pub(crate) fn send_buffer_size(bytes: usize) -> usize {
    bytes / 2
}

/// Memory that the process can have, in bytes: that of the machine, or the lowest limit of its control groups (versions 1 and 2).
/// `None`: unknown.
pub(crate) fn memory_max() -> Option<u64> {
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let machine = read_to_string("/proc/meminfo").ok().and_then(|text| bytes_of(&text, "MemTotal:"));
    group_limits(&groups, Path::new("/sys/fs/cgroup")).into_iter().chain(machine).min()
}

/// Resident anonymous memory of the process in bytes (`RssAnon`). It excludes pages of files, which the kernel can take back.
pub(crate) fn resident_bytes() -> Option<u64> {
    bytes_of(&read_to_string("/proc/self/status").ok()?, "RssAnon:")
}

/// The memory of this process.
pub(crate) fn process_memory() -> Option<ProcessMemory> {
    let status = read_to_string("/proc/self/status").ok()?;
    Some(ProcessMemory {
        resident: bytes_of(&status, "VmRSS:")?,
        virtual_size: bytes_of(&status, "VmSize:")?,
    })
}

/// Number of threads of this process.
pub(crate) fn threads() -> Option<u64> {
    let status = read_to_string("/proc/self/status").ok()?;
    status.lines().find_map(|line| line.strip_prefix("Threads:"))?.trim().parse().ok()
}

/// When the process started, in seconds since 1970 (field 22 of `/proc/self/stat`).
pub(crate) fn started_at() -> Option<f64> {
    let stat = read_to_string("/proc/self/stat").ok()?;
    // The name of the program, which may contain anything, ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let system = read_to_string("/proc/stat").ok()?;
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    Some(boot + ticks / TICKS_PER_SECOND)
}

/// The number of open file descriptors. Since Linux 6.2 it is the size of their directory, so they need not be counted.
pub(crate) fn open_descriptors() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        size => Some(size),
    }
}

/// The time since boot, suspends included (`CLOCK_BOOTTIME`).
pub(crate) fn since_boot() -> Duration {
    duration(clock_gettime(ClockId::Boottime))
}

/// The time for which the machine was suspended since boot.
pub(crate) fn suspended() -> Duration {
    since_boot().saturating_sub(duration(clock_gettime(ClockId::Monotonic)))
}

/// The id of the current boot (random(4)).
pub(crate) fn boot_id() -> Option<String> {
    let id = read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(id.trim().to_owned())
}

/// The value in bytes of a line such as `MemTotal:  1024 kB`.
fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let value = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: u64 = value.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// The memory limits, in bytes, of the control groups in `groups` (the text of `/proc/self/cgroup`) and of
/// their parents.
fn group_limits(groups: &str, mounted_at: &Path) -> Vec<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (mounted_at.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (mounted_at.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Inside a container the path often does not exist, and the root of the mount is the group.
        let group: PathBuf = root.join(path.trim_start_matches('/'));
        let up = group.ancestors().take_while(|group| group.starts_with(&root));
        let found = up.filter_map(|group| read_to_string(group.join(file)).ok());
        limits.extend(found.filter_map(|text| text.trim().parse::<u64>().ok()));
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_process_is_resident_in_less_than_the_machine_has() {
        let (resident, max) = (resident_bytes().unwrap(), memory_max().unwrap());
        assert!(resident > 64 * 1024 && max > 128 << 20 && resident < max, "{resident} of {max}");
        assert!(threads().is_some_and(|count| count > 0) && boot_id().is_some_and(|id| id.len() == 36));
    }

    #[test]
    fn the_least_limit_of_a_group_or_of_one_around_it_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("user/app/memory.max", "max\n");
        write("user/memory.max", "1048576\n");
        write("memory/docker/one/memory.limit_in_bytes", "2097152\n");
        assert_eq!(group_limits("0::/user/app\n", root.path()), [1_048_576]);
        assert_eq!(group_limits("5:cpu:/x\n3:memory,hugetlb:/docker/one\n", root.path()), [2_097_152]);
        assert_eq!(group_limits("0::/../outside\n", root.path()), [0; 0]);
        assert_eq!(
            bytes_of("MemTotal:       24030000 kB\nMemFree: 1 kB\n", "MemTotal:"),
            Some(24_606_720_000)
        );
    }
}
