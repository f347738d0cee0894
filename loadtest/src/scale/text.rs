//! The answers as tables on the terminal, with the verdict before.

use std::fmt;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::Scaled;
use super::check::{Checked, Pair};
use super::need::{Machine, Need, Resource};
use crate::model::recommend::thousands;
use crate::table::quantity;

/// What the columns of the answer mean.
const LEGEND: &str = "\
machines: with one gateway each; breaks first: what a machine has too little of, and at how many of these clients: 70 % of its cores or of its uplink,
85 % of the gateway's memory budget, which is half of the memory, 40 % of the memory for the kernel's sockets, or its descriptors
cores: busy ones; memory, kernel: of the gateways, and of the kernel for sockets; all of these, sockets, requests and bytes for all clients
reconnect: after a restart, until the clients of one machine are connected again; ports: addresses of a proxy in front of one machine, 28 232 ports each
The events are simulated (gateway and client are the real code); what each costs the gateway was measured (src/model/server_load.toml)";

/// What the columns of a check mean.
pub(super) const CHECK_LEGEND: &str = "\
each figure: predicted / measured, and how far the prediction is off; cores, memory: of the gateway, without what it takes without clients
predicted: from a simulation of 20 clients, and from what events cost that were measured before; measured: a gateway with all clients, on this machine";

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Processor => "processor",
            Self::Memory => "memory",
            Self::KernelMemory => "kernel memory",
            Self::Descriptors => "descriptors",
            Self::Uplink => "uplink",
        })
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cores, memory, descriptors, uplink } = self;
        let memory = memory / f64::from(1 << 30);
        let uplink = uplink / 1e9;
        write!(
            f,
            "{cores} cores, {memory:.0} GiB, {} descriptors and {uplink} Gbit/s",
            thousands(*descriptors)
        )
    }
}

fn aligned(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>, left: usize) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(left) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Rounds to two digits, for figures that are estimates.
fn two_digits(figure: f64) -> f64 {
    if figure < 1.0 {
        return figure;
    }
    let unit = 10_f64.powf(figure.log10().floor() - 1.0);
    (figure / unit).round() * unit
}

fn size(bytes: f64) -> String {
    if bytes < 1e9 { quantity(bytes) } else { format!("{:.1} GB", bytes / 1e9) }
}

fn row(need: &Need) -> Vec<String> {
    vec![
        need.strategy.clone(),
        need.machines.to_string(),
        format!("{} at {}", need.breaks, thousands(two_digits(need.clients_a_machine))),
        format!("{:.1}", need.cores),
        size(need.memory),
        size(need.kernel_memory),
        thousands(two_digits(need.connections)),
        thousands(two_digits(need.requests)),
        size(need.bytes),
        format!("{:.0} s", need.reconnect_seconds),
        need.proxy_addresses.to_string(),
    ]
}

impl fmt::Display for Scaled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (clients, every) = (thousands(f64::from(self.clients)), self.seconds_between_messages);
        writeln!(
            f,
            "{clients} clients, each with a message every {every:.0} s, on machines with {}.",
            self.machine
        )?;
        let least = self.strategies.iter().min_by(|one, other| {
            (one.machines, one.cores)
                .partial_cmp(&(other.machines, other.cores))
                .unwrap_or(std::cmp::Ordering::Equal)
        });
        if let Some(Need { strategy, machines, breaks, clients_a_machine, .. }) = least {
            let machines =
                if *machines == 1 { "one machine".to_owned() } else { format!("{machines} machines") };
            let at = thousands(two_digits(*clients_a_machine));
            writeln!(
                f,
                "Least: {strategy}, on {machines}; {breaks} is exhausted first, with {at} clients a machine.\n"
            )?;
        }
        let header = [
            "strategy",
            "machines",
            "breaks first",
            "cores",
            "memory",
            "kernel",
            "sockets",
            "requests/s",
            "bytes/s",
            "reconnect",
            "ports",
        ];
        writeln!(f, "{}\n{LEGEND}", aligned(&header, self.strategies.iter().map(row), 1))
    }
}

fn pair(pair: Pair, format: impl Fn(f64) -> String) -> String {
    let both = format!("{} / {}", format(pair.predicted), format(pair.measured));
    pair.deviation().map_or(both.clone(), |off| format!("{both} {:+.0} %", 100.0 * off))
}

/// Formats the table of a check.
pub(super) fn check_table(checked: &[Checked]) -> String {
    let header = ["strategy", "clients", "messages/s", "cores", "memory", "requests/s", "bytes/s", "lost"];
    let rows = checked.iter().map(|one| {
        vec![
            one.strategy.clone(),
            one.clients.to_string(),
            format!("{:.0}", one.messages),
            pair(one.cores, |cores| format!("{cores:.3}")),
            pair(one.memory, size),
            pair(one.requests, |requests| format!("{requests:.0}")),
            pair(one.bytes, size),
            one.lost.to_string(),
        ]
    });
    aligned(&header, rows, 1).to_string()
}
