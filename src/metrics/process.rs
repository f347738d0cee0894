//! The metrics of the process, under the names that Prometheus client libraries use for them, and the version of the program.
//! They are read from the system when the metrics are requested; those that it does not tell are left out.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use crate::platform;

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
        let help = "Processor time in seconds that the process has used, user and system together";
        let cpu = platform::cpu_time().as_secs_f64();
        write(&mut encoder, "process_cpu_seconds", help, &ConstCounter::new(cpu))?;
        let memory = platform::process_memory();
        for (name, help, value) in [
            (
                "process_resident_memory_bytes",
                "Resident memory of the process in bytes",
                memory.map(|memory| memory.resident),
            ),
            (
                "process_virtual_memory_bytes",
                "Virtual memory of the process in bytes",
                memory.map(|memory| memory.virtual_size),
            ),
            ("process_threads", "Threads of the process", platform::threads()),
            ("process_open_fds", "Open file descriptors of the process", platform::open_descriptors()),
            // Without a limit there is no number to show.
            (
                "process_max_fds",
                "File descriptors that the process may have open (ulimit -n)",
                platform::descriptors_max(),
            ),
        ] {
            if let Some(value) = value {
                write(&mut encoder, name, help, &ConstGauge::new(value))?;
            }
        }
        if let Some(started) = platform::started_at() {
            let help = "Start of the process, in seconds since 1970";
            write(&mut encoder, "process_start_time_seconds", help, &ConstGauge::new(started))?;
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
