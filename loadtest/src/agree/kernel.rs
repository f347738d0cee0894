//! A NAT of the kernel between clients and the gateway, as network namespaces:
//!
//! ```text
//! client 10.78.1.2 --- 10.78.1.1 NAT 10.78.2.1 --- 10.78.2.2 server
//! ```

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

/// Address of the server.
pub(super) const SERVER: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 78, 2, 2));

/// Outgoing packets are masqueraded. Incoming packets must belong to a known connection, which only the client may open.
const RULES: &str = "
table ip nat {
  chain leaving { type nat hook postrouting priority srcnat; oifname outside masquerade; }
}
table ip filter {
  chain through {
    type filter hook forward priority filter; policy drop;
    ct state established,related accept
    iifname inside ct state new tcp flags & (syn | ack) == syn accept
  }
}";

/// How long the kernel remembers an idle connection by default, in seconds.
const DEFAULT_TIMEOUT: u64 = 432_000;

/// The three hosts. A drop removes them.
#[derive(Debug)]
pub(super) struct KernelNat {
    pub(super) client: Host,
    pub(super) server: Host,
    /// Dropped together with the others.
    _nat: Host,
    addresses_used: AtomicU32,
}

/// A network namespace.
#[derive(Debug)]
pub(super) struct Host(String);

impl KernelNat {
    /// Creates a network whose NAT forgets a connection after this time without a packet. Needs root, iproute2, nftables and procps.
    pub(super) fn new(forgets_after: Option<Duration>) -> io::Result<Self> {
        let (client, nat, server) = (Host::create("client")?, Host::create("nat")?, Host::create("server")?);
        client.connect("to-nat", &nat, "inside")?;
        server.connect("to-nat", &nat, "outside")?;
        for (host, device, address) in [
            (&client, "to-nat", "10.78.1.2/24"),
            (&nat, "inside", "10.78.1.1/24"),
            (&nat, "outside", "10.78.2.1/24"),
            (&server, "to-nat", "10.78.2.2/24"),
        ] {
            host.ip(&["addr", "add", address, "dev", device])?;
            host.ip(&["link", "set", device, "up"])?;
        }
        client.ip(&["route", "add", "default", "via", "10.78.1.1"])?;
        let seconds = forgets_after.map_or(DEFAULT_TIMEOUT, |after| after.as_secs());
        nat.exec(&["nft", RULES])?;
        nat.set("net.ipv4.ip_forward", 1)?;
        // A packet of an unknown connection does not make it known.
        nat.set("net.netfilter.nf_conntrack_tcp_loose", 0)?;
        nat.set("net.netfilter.nf_conntrack_tcp_timeout_established", seconds)?;
        Ok(Self { client, server, _nat: nat, addresses_used: AtomicU32::new(1) })
    }

    /// Gives the client another address. Neither end is told; connections of the old address are dead.
    pub(super) fn change_client_address(&self) -> io::Result<()> {
        let used = self.addresses_used.fetch_add(1, Ordering::Relaxed);
        let [old, new] = [used, used + 1].map(|host| format!("10.78.1.{}/24", host + 1));
        self.client.ip(&["addr", "del", &old, "dev", "to-nat"])?;
        self.client.ip(&["addr", "add", &new, "dev", "to-nat"])?;
        // The default route was removed together with the last address.
        self.client.ip(&["route", "add", "default", "via", "10.78.1.1"])
    }
}

impl Host {
    fn create(role: &str) -> io::Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let host = Self(format!("loadtest-{}-{number}-{role}", std::process::id()));
        run(&["ip", "netns", "add", &host.0])?;
        host.ip(&["link", "set", "lo", "up"])?;
        Ok(host)
    }

    fn connect(&self, device: &str, other: &Self, their_device: &str) -> io::Result<()> {
        self.ip(&["link", "add", device, "type", "veth", "peer", "name", their_device, "netns", &other.0])
    }

    fn ip(&self, arguments: &[&str]) -> io::Result<()> {
        run(&[&["ip", "-n", &self.0], arguments].concat())
    }

    fn exec(&self, command: &[&str]) -> io::Result<()> {
        run(&[&["ip", "netns", "exec", &self.0], command].concat())
    }

    fn set(&self, name: &str, value: u64) -> io::Result<()> {
        self.exec(&["sysctl", "-q", "-w", &format!("{name}={value}")])
    }

    /// Moves this thread onto the host, and with it the processes that it starts.
    pub(super) fn enter(&self) -> io::Result<()> {
        let namespace = File::open(format!("/run/netns/{}", self.0))?;
        Ok(move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))?)
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A process that still runs there keeps it alive until it ends, but its name is free.
        let _gone = run(&["ip", "netns", "del", &self.0]);
    }
}

fn run(command: &[&str]) -> io::Result<()> {
    let Some((program, arguments)) = command.split_first() else { return Ok(()) };
    let output = Command::new(program).args(arguments).output()?;
    if output.status.success() {
        return Ok(());
    }
    let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(io::Error::other(format!("{}: {complaint}", command.join(" "))))
}
