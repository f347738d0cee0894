//! The machine that a comparison runs on.

use std::fs::read_to_string;

use crate::data::Machine;

/// Describes this machine and the given programs' versions.
pub fn machine(versions: Vec<(String, String)>) -> Machine {
    Machine {
        processor: field("/proc/cpuinfo", "model name").unwrap_or_else(|| "unknown".to_owned()),
        cores: std::thread::available_parallelism().map_or(1, usize::from),
        memory_bytes: memory_bytes().unwrap_or(0),
        kernel: kernel(),
        versions,
    }
}

/// Returns the load average of the last minute: other programs' load distorts every figure. NaN if it is unknown.
pub fn load_average() -> f64 {
    let text = read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|first| first.parse().ok()).unwrap_or(f64::NAN)
}

/// Returns the text after the colon in the first line that begins with `name`.
fn field(path: &str, name: &str) -> Option<String> {
    let text = read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory_bytes() -> Option<u64> {
    let kib: u64 = field("/proc/meminfo", "MemTotal")?.trim_end_matches(" kB").parse().ok()?;
    Some(kib * 1024)
}

fn kernel() -> String {
    let of = |name: &str| read_to_string(format!("/proc/sys/kernel/{name}")).unwrap_or_default();
    format!("{} {}", of("ostype").trim(), of("osrelease").trim())
}
