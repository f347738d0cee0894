//! A small separate network of a client's host, a NAT and a server's host, as network namespaces of this kernel.
//!
//! ```text
//! client 10.77.1.2 --- 10.77.1.1 NAT 10.77.2.1 --- 10.77.2.2 server
//! ```
//!
//! The NAT masquerades and tracks connections. It silently drops packets without an entry, as most routers do.

use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::world::command::{run, try_run};

/// Address of the server.
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 2, 2);

/// Outgoing packets are masqueraded. Incoming packets must belong to a known connection, and only the client's side may open
/// one.
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

/// The three hosts. A drop removes them.
pub(crate) struct Network {
    client: Host,
    nat: Host,
    server: Host,
    addresses_used: AtomicU32,
}

/// A network namespace.
struct Host(String);

impl Network {
    /// Creates a network whose NAT forgets a connection after `seconds` without a packet.
    pub(crate) fn with_nat_timeout(seconds: u32) -> Self {
        assert!(
            rustix::process::geteuid().is_root(),
            "this scenario makes network namespaces and needs root"
        );
        let [client, nat, server] = ["client", "nat", "server"].map(Host::create);
        client.connect("to-nat", &nat, "inside");
        server.connect("to-nat", &nat, "outside");
        for (host, device, address) in [
            (&client, "to-nat", "10.77.1.2/24"),
            (&nat, "inside", "10.77.1.1/24"),
            (&nat, "outside", "10.77.2.1/24"),
            (&server, "to-nat", "10.77.2.2/24"),
        ] {
            host.ip(&["addr", "add", address, "dev", device]);
            host.ip(&["link", "set", device, "up"]);
        }
        client.ip(&["route", "add", "default", "via", "10.77.1.1"]);
        nat.run("sysctl", &["-q", "-w", "net.ipv4.ip_forward=1"]);
        nat.run("nft", &[RULES]);
        // Not loose: a packet within an unknown connection creates no entry.
        nat.run("sysctl", &["-q", "-w", "net.netfilter.nf_conntrack_tcp_loose=0"]);
        let timeout = format!("net.netfilter.nf_conntrack_tcp_timeout_established={seconds}");
        nat.run("sysctl", &["-q", "-w", &timeout]);
        Self { client, nat, server, addresses_used: AtomicU32::new(1) }
    }

    /// Runs `work` on a thread of the client's host. Threads and processes that it starts are in the same namespace.
    pub(crate) fn on_client<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.client.spawn(work)
    }

    /// Runs `work` on a thread of the server's host.
    pub(crate) fn on_server<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> JoinHandle<T> {
        self.server.spawn(work)
    }

    /// Gives the client another address, like a new lease or a change from Wi-Fi to a cellular network. Neither end is told;
    /// connections of the old address are dead.
    pub(crate) fn change_client_address(&self) {
        let used = self.addresses_used.fetch_add(1, Ordering::Relaxed);
        let [old, new] = [used, used + 1].map(|host| format!("10.77.1.{}/24", host + 1));
        self.client.ip(&["addr", "del", &old, "dev", "to-nat"]);
        self.client.ip(&["addr", "add", &new, "dev", "to-nat"]);
        // The default route was removed together with the last address.
        self.client.ip(&["route", "add", "default", "via", "10.77.1.1"]);
    }

    /// Returns the number of TCP connections that the NAT tracks.
    pub(crate) fn connections_known(&self) -> usize {
        self.nat.run("conntrack", &["-L", "-p", "tcp", "--state", "ESTABLISHED"]).lines().count()
    }
}

impl Host {
    fn create(role: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let host = Self(format!("pollgate-{}-{number}-{role}", std::process::id()));
        run("ip", &["netns", "add", &host.0]);
        host.ip(&["link", "set", "lo", "up"]);
        host
    }

    /// Connects `device` on this host to `their_device` on the other host.
    fn connect(&self, device: &str, other: &Self, their_device: &str) {
        let peer = ["peer", "name", their_device, "netns", &other.0];
        self.ip(&[&["link", "add", device, "type", "veth"][..], &peer].concat());
    }

    fn ip(&self, arguments: &[&str]) {
        run("ip", &[&["-n", &self.0], arguments].concat());
    }

    fn run(&self, program: &str, arguments: &[&str]) -> String {
        run("ip", &[&["netns", "exec", &self.0, program], arguments].concat())
    }

    fn spawn<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> JoinHandle<T> {
        let namespace = File::open(format!("/run/netns/{}", self.0)).expect("the namespace");
        thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("we are root");
            work()
        })
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // A process that still runs in the namespace keeps it alive until it ends, but its name is free.
        let _gone = try_run("ip", &["netns", "del", &self.0]);
    }
}
