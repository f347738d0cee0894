//! What differs between operating systems: options of sockets, memory, figures of the process, and the clock that counts suspends.
//!
//! `linux` reads `/proc` and uses options that other kernels lack; `portable` is for macOS and the BSDs. Both have the same functions. What a system
//! lacks does nothing or is `None`:
//!
//! | | Linux | other systems |
//! |---|---|---|
//! | client that acknowledges nothing | closed after the write timeout | after minutes, by the kernel |
//! | connections that arrive while a listener closes | their SYN is dropped, and sent again | may be reset |
//! | default memory budget | half of the control group's limit or of the machine | half of the machine |
//! | time while the machine is suspended | counts | counts on macOS |
//! | time while a store is closed | by the boot-time clock, or the time of day after a boot | by the time of day |
//!
//! Linux compiles `portable` for its tests only.

#[cfg(target_os = "linux")]
mod linux;
#[cfg(any(test, not(target_os = "linux")))]
#[cfg_attr(target_os = "linux", allow(dead_code, reason = "only its tests run on Linux"))]
mod portable;

use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, Timespec, clock_gettime};

#[cfg(target_os = "linux")]
pub(crate) use linux::{
    boot_id, close_when_unacknowledged_for, drop_new_handshakes, memory_max, open_descriptors,
    process_memory, resident_bytes, send_buffer_size, since_boot, started_at, suspended, threads,
};
#[cfg(not(target_os = "linux"))]
pub(crate) use portable::{
    boot_id, close_when_unacknowledged_for, drop_new_handshakes, memory_max, open_descriptors,
    process_memory, resident_bytes, send_buffer_size, since_boot, started_at, suspended, threads,
};

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ProcessMemory {
    /// Pages in memory, those of files included.
    pub(crate) resident: u64,
    /// Size of the address space.
    pub(crate) virtual_size: u64,
}

/// File descriptors that the process may have open (`ulimit -n`). `None`: any number.
pub(crate) fn descriptors_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Processor time that the process has used, user and system together.
#[cfg(not(target_os = "netbsd"))]
pub(crate) fn cpu_time() -> Duration {
    duration(clock_gettime(ClockId::ProcessCPUTime))
}

/// Processor time that the process has used: this system has no clock for it.
#[cfg(target_os = "netbsd")]
pub(crate) fn cpu_time() -> Duration {
    Duration::ZERO
}

fn duration(time: Timespec) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
