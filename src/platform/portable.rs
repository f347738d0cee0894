//! macOS and the BSDs: what POSIX and the crate `sysinfo` have.

use std::io;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use socket2::SockRef;
use sysinfo::{MemoryRefreshKind, Pid, Process, ProcessRefreshKind, ProcessesToUpdate, System};

use super::{ProcessMemory, duration};

/// Does nothing: these kernels give a peer that acknowledges nothing up minutes later, and have no option for it that is common to them. A
/// response that waits in the gateway itself still ends after the write timeout.
pub(crate) fn close_when_unacknowledged_for(_socket: SockRef<'_>, _patience: Duration) -> io::Result<()> {
    Ok(())
}

/// Does nothing: a listener has no packet filter. Connections that arrive just before it closes are reset, and their clients come back.
pub(crate) fn drop_new_handshakes(_listener: SockRef<'_>) -> io::Result<()> {
    Ok(())
}

/// The value of `SO_SNDBUF` for a send buffer of `bytes`.
pub(crate) fn send_buffer_size(bytes: usize) -> usize {
    bytes
}

/// Memory of the machine, in bytes. `None`: unknown.
pub(crate) fn memory_max() -> Option<u64> {
    let mut system = System::new();
    system.refresh_memory_specifics(MemoryRefreshKind::nothing().with_ram());
    Some(system.total_memory()).filter(|bytes| *bytes > 0)
}

/// Resident memory of the process in bytes. Unlike on Linux, it includes pages of files.
pub(crate) fn resident_bytes() -> Option<u64> {
    process_memory().map(|memory| memory.resident)
}

/// The memory of this process. `None`: unknown, and the memory budget counts its accounts alone.
pub(crate) fn process_memory() -> Option<ProcessMemory> {
    let memory = of_process(|process| ProcessMemory {
        resident: process.memory(),
        virtual_size: process.virtual_memory(),
    });
    memory.filter(|memory| memory.resident > 0)
}

/// Number of threads of this process: unknown.
pub(crate) fn threads() -> Option<u64> {
    None
}

/// When the process started, in seconds since 1970.
pub(crate) fn started_at() -> Option<f64> {
    of_process(Process::start_time).filter(|seconds| *seconds > 0).map(|seconds| seconds as f64)
}

/// The number of open file descriptors.
pub(crate) fn open_descriptors() -> Option<u64> {
    of_process(Process::open_files).flatten().map(|count| count as u64)
}

/// The time since some moment before the start of the process. The clock of macOS counts suspends; with those of the BSDs, lifetimes stand
/// still while the machine is suspended.
pub(crate) fn since_boot() -> Duration {
    duration(clock_gettime(ClockId::Monotonic))
}

/// Zero: there is no second clock to compare with.
pub(crate) fn suspended() -> Duration {
    Duration::ZERO
}

/// `None`: after a restart, a store takes the time for which it was closed from the time of day.
pub(crate) fn boot_id() -> Option<String> {
    None
}

/// Reads something of this process.
fn of_process<T>(read: impl FnOnce(&Process) -> T) -> Option<T> {
    let own = Pid::from_u32(std::process::id());
    let mut system = System::new();
    let what = ProcessRefreshKind::nothing().with_memory();
    system.refresh_processes_specifics(ProcessesToUpdate::Some(&[own]), false, what);
    system.process(own).map(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn it_finds_what_linux_tells() {
        use crate::platform::linux;

        // What changes between two readings, or is rounded, may differ.
        let near = |own: Option<u64>, other: Option<u64>| {
            own.zip(other).is_some_and(|(own, other)| own > 0 && own.abs_diff(other) <= other / 4)
        };
        let (own, other) = (process_memory(), linux::process_memory());
        let resident = |memory: Option<ProcessMemory>| memory.map(|memory| memory.resident);
        let virtual_size = |memory: Option<ProcessMemory>| memory.map(|memory| memory.virtual_size);
        assert!(near(resident(own), resident(other)), "{own:?}, {other:?}");
        assert!(near(virtual_size(own), virtual_size(other)), "{own:?}, {other:?}");
        assert!(memory_max() >= linux::memory_max(), "a control group may have less than the machine");
        let started = started_at().zip(linux::started_at());
        assert!(started.is_some_and(|(own, other)| (own - other).abs() < 2.0), "{started:?}");
        assert!(open_descriptors().is_some_and(|count| count >= 3));
        assert!(since_boot() <= linux::since_boot());
    }
}
