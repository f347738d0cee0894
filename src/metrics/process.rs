//! The metrics of the process, under the names that Prometheus client libraries use for them, and the version of the program.
//! They are read from `/proc` when the metrics are requested.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Clock ticks per second in `/proc` (proc(5), `USER_HZ`): 100 on every architecture that the gateway is built for.
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the metrics of the process.
#[derive(Debug)]
struct Process;

/// Registers the version of the program.
pub(super) fn register_build(registry: &mut Registry) {
    let help = "Version of pollgate, and the operating system and processor that it was built for";
    let build = Info::new(vec![
        ("version", env!("CARGO_PKG_VERSION")),
        ("os", std::env::consts::OS),
        ("arch", std::env::consts::ARCH),
    ]);
    registry.register("build", help, build);
}

/// A registry of the metrics of the process, whose names have no prefix.
pub(super) fn registry() -> Registry {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(Process));
    registry
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        let help = "Processor time in seconds that the process has used, user and system together";
        write(&mut encoder, "process_cpu_seconds", help, &ConstCounter::new(cpu))?;
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (name, help, field, unit) in [
            ("process_resident_memory_bytes", "Resident memory of the process in bytes", "VmRSS:", 1024),
            ("process_virtual_memory_bytes", "Virtual memory of the process in bytes", "VmSize:", 1024),
            ("process_threads", "Threads of the process", "Threads:", 1),
        ] {
            if let Some(value) = status_field(&status, field) {
                write(&mut encoder, name, help, &ConstGauge::new(value.saturating_mul(unit)))?;
            }
        }
        if let Some(started) = start_time() {
            let help = "Start of the process, in seconds since 1970";
            write(&mut encoder, "process_start_time_seconds", help, &ConstGauge::new(started))?;
        }
        if let Some(open) = open_descriptors() {
            write(
                &mut encoder,
                "process_open_fds",
                "Open file descriptors of the process",
                &ConstGauge::new(open),
            )?;
        }
        // Without a limit there is no number to show.
        if let Some(max) = descriptors_max() {
            let help = "File descriptors that the process may have open (ulimit -n)";
            write(&mut encoder, "process_max_fds", help, &ConstGauge::new(max))?;
        }
        Ok(())
    }
}

fn write(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    metric: &impl EncodeMetric,
) -> fmt::Result {
    // Help texts in the exposition end with a full stop, which registries add.
    let help = format!("{help}.");
    metric.encode(encoder.encode_descriptor(name, &help, None, metric.metric_type())?)
}

/// File descriptors that the process may have open. `None`: any number.
pub(super) fn descriptors_max() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The number in a line of `/proc/self/status`.
fn status_field(status: &str, field: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    line.split_whitespace().next()?.parse().ok()
}

/// When the process started, in seconds since 1970 (proc(5), field 22 of `/proc/self/stat`).
fn start_time() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The name of the program, which may contain anything, ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(')')?;
    let ticks: f64 = fields.split_whitespace().nth(19)?.parse().ok()?;
    let system = fs::read_to_string("/proc/stat").ok()?;
    let boot: f64 = system.lines().find_map(|line| line.strip_prefix("btime "))?.parse().ok()?;
    Some(boot + ticks / TICKS_PER_SECOND)
}

/// The number of open file descriptors. Since Linux 6.2 it is the size of their directory, so they need not be counted.
pub(super) fn open_descriptors() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        0 => Some(fs::read_dir("/proc/self/fd").ok()?.count() as u64),
        size => Some(size),
    }
}
