//! What all clients need together, how many machines that is, and what breaks first.

use serde::Serialize;

use super::events::Events;
use crate::model::server_load::ServerCosts;
use crate::simulate::Reader;

/// A machine with one gateway.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    /// Cores.
    pub cores: f64,
    /// Bytes of memory.
    pub memory: f64,
    /// Descriptors of a process.
    pub descriptors: f64,
    /// Bits a second, in both directions together.
    pub uplink: f64,
}

/// What there is a limited amount of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resource {
    /// Processor time: 70 % of the cores, so that bursts do not wait.
    Processor,
    /// Memory of the gateway: 85 % of its budget, which is half of the machine's. Beyond, it refuses what is to be stored.
    Memory,
    /// Memory of the kernel for sockets: 40 % of the machine's.
    KernelMemory,
    /// Descriptors, of which the gateway keeps 1024 for other uses.
    Descriptors,
    /// Bytes a second: 70 % of the uplink.
    Uplink,
}

/// What the clients of one strategy need.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// The strategy as on the command line.
    pub strategy: String,
    /// Events of one client in a second.
    pub events: Events,
    /// Cores that are busy.
    pub cores: f64,
    /// Bytes of the gateway's memory.
    pub memory: f64,
    /// Bytes of the kernel's memory.
    pub kernel_memory: f64,
    /// Open connections, each with a descriptor.
    pub connections: f64,
    /// Requests a second.
    pub requests: f64,
    /// Bytes a second in both directions, with the headers of packets.
    pub bytes: f64,
    /// Machines.
    pub machines: u64,
    /// What a machine has too little of first.
    pub breaks: Resource,
    /// Clients of one machine until then.
    pub clients_a_machine: f64,
    /// Addresses that a proxy in front of one machine needs for its connections to the gateway: each has 28 232 ports by default.
    pub proxy_addresses: u64,
    /// Seconds until all clients of one machine are connected again after a restart, with the default limit of 2000 new connections a
    /// second and the processor time of the machine.
    pub reconnect_seconds: f64,
}

/// Share of the cores, and of the uplink, that may be in use.
const BUSY_MAX: f64 = 0.7;

/// Share of the memory up to which the gateway stores: half of it is its budget.
const MEMORY_MAX: f64 = 0.5 * 0.85;

/// Share of the memory for the kernel's sockets.
const KERNEL_MEMORY_MAX: f64 = 0.4;

/// Descriptors that the gateway keeps for other uses than connections.
const OTHER_DESCRIPTORS: f64 = 1024.0;

/// Local ports of an address (`net.ipv4.ip_local_port_range`).
const PORTS: f64 = 28_232.0;

/// The gateway's default limit of new connections a second.
const CONNECTIONS_A_SECOND: f64 = 2000.0;

impl Machine {
    /// This machine, with an uplink that is no limit.
    pub(super) fn this() -> Self {
        let crate::data::Machine { cores, memory_bytes, .. } = crate::machine::machine(Vec::new());
        Self {
            cores: cores as f64,
            memory: memory_bytes as f64,
            descriptors: 1_048_576.0,
            uplink: f64::INFINITY,
        }
    }

    /// How much of each resource may be used.
    fn limits(&self) -> [(Resource, f64); 5] {
        [
            (Resource::Processor, BUSY_MAX * self.cores),
            (Resource::Memory, MEMORY_MAX * self.memory),
            (Resource::KernelMemory, KERNEL_MEMORY_MAX * self.memory),
            (Resource::Descriptors, (self.descriptors - OTHER_DESCRIPTORS).max(1.0)),
            (Resource::Uplink, BUSY_MAX * self.uplink),
        ]
    }
}

impl Need {
    /// What `clients` clients need. `None` if their form was not measured.
    pub fn of(
        reader: Reader,
        clients: u32,
        events: &Events,
        costs: &ServerCosts,
        machine: &Machine,
    ) -> Option<Self> {
        let all = f64::from(clients);
        let of_form = costs.events(reader.form())?;
        let (cores, connections) =
            (all * events.processor(of_form, costs.connection) / 1e6, all * events.open);
        // Each client has a stream with its messages, connected or not.
        let memory = costs.process_bytes + all * costs.bytes(reader.form())?;
        let kernel_memory = connections * costs.kernel_bytes;
        let bytes = all * events.bytes;
        let used = |resource| match resource {
            Resource::Processor => cores,
            Resource::Memory => memory,
            Resource::KernelMemory => kernel_memory,
            Resource::Descriptors => connections,
            Resource::Uplink => 8.0 * bytes,
        };
        let shares = machine.limits().map(|(resource, limit)| (resource, used(resource) / limit));
        let (breaks, share) = shares.into_iter().max_by(|one, other| one.1.total_cmp(&other.1))?;
        let machines = share.ceil().max(1.0);
        let of_one = connections / machines;
        let by_processor = of_one * (costs.connection + of_form.request) / 1e6 / machine.cores;
        Some(Self {
            strategy: reader.to_string(),
            events: *events,
            cores,
            memory,
            kernel_memory,
            connections,
            requests: all * events.requests,
            bytes,
            machines: machines as u64,
            breaks,
            clients_a_machine: all / share,
            proxy_addresses: (of_one / PORTS).ceil() as u64,
            reconnect_seconds: (of_one / CONNECTIONS_A_SECOND).max(by_processor),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MACHINE: Machine =
        Machine { cores: 8.0, memory: 32.0 * (1 << 30) as f64, descriptors: 1_048_576.0, uplink: 1e9 };

    fn need(events: Events, machine: Machine) -> Need {
        let costs = ServerCosts::measured().unwrap();
        Need::of("long-poll:25s".parse().unwrap(), 1_000_000, &events, &costs, &machine).unwrap()
    }

    #[test]
    fn what_there_is_too_little_of_breaks_first_and_decides_how_many_machines_there_are() {
        let quiet = Events {
            messages: 0.001,
            requests: 0.04,
            other_requests: 0.039,
            heartbeats: 0.0,
            connections: 0.0,
            bytes: 20.0,
            open: 1.0,
        };
        let large = need(quiet, MACHINE);
        assert_eq!((large.machines, large.breaks), (1, Resource::Descriptors));
        assert!((1_047_000.0..1_048_000.0).contains(&large.clients_a_machine), "{large:?}");
        assert_eq!((large.proxy_addresses, large.reconnect_seconds), (36, 500.0));
        let small = |machine| (need(quiet, machine).machines, need(quiet, machine).breaks);
        assert_eq!(small(Machine { descriptors: 101_024.0, ..MACHINE }), (10, Resource::Descriptors));
        assert_eq!(small(Machine { uplink: 1e8, ..MACHINE }), (3, Resource::Uplink));
        let gib = (1_u64 << 30) as f64;
        assert!(matches!(
            small(Machine { memory: 4.0 * gib, ..MACHINE }),
            (2, Resource::Memory | Resource::KernelMemory)
        ));
        assert_eq!(small(Machine { cores: 0.1, ..MACHINE }).1, Resource::Processor);
    }
}
