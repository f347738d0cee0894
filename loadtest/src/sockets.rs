//! The kernel's figures of a server's connections (`ss`, /proc/net/netstat): their memory, unread data and unaccepted
//! connections, and dropped connects.

use std::fs::read_to_string;
use std::net::SocketAddr;
use std::process::Command;

/// Returns the bytes of socket buffers that the kernel holds for a server's connections at `addresses`: received, reserved,
/// queued to be sent, options and backlog (`skmem` of `ss -tm`). The sockets' own structures, about 2 KiB each, are not
/// included. `None` without `ss`.
pub fn socket_bytes(addresses: &[SocketAddr]) -> Option<u64> {
    let text = ss(addresses, "--memory")?;
    Some(text.split("skmem:(").skip(1).map(buffers).sum())
}

/// How many connections a server has, and what it has not handled yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Connections on the server's side, accepted or not.
    pub established: usize,
    /// Unread bytes plus unaccepted connections.
    pub waiting: u64,
}

impl Progress {
    /// Returns the present state of the server that listens at `addresses`; `None` without `ss`.
    pub fn of(addresses: &[SocketAddr]) -> Option<Self> {
        Some(Self::parse(&ss(addresses, "--all")?))
    }

    fn parse(text: &str) -> Self {
        let lines = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            Some((words.next()?, words.next()?.parse::<u64>().ok()?))
        });
        let mut progress = Self { established: 0, waiting: 0 };
        for (state, receive_queue) in lines {
            progress.established += usize::from(state == "ESTAB");
            // The receive queue of a listener counts the connections that wait to be accepted.
            progress.waiting += receive_queue;
        }
        progress
    }
}

/// Returns how many connects listeners have dropped since the machine started, for any reason, mostly full queues. `None` if
/// the kernel does not report it.
pub fn connects_dropped() -> Option<u64> {
    counter(&read_to_string("/proc/net/netstat").ok()?, "TcpExt:", "ListenDrops")
}

/// Returns a value of a table that has names in one line and values in the next.
fn counter(text: &str, group: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix(group));
    let (names, values) = (lines.next()?.split_whitespace(), lines.next()?.split_whitespace());
    names.zip(values).find(|(this, _)| *this == name)?.1.parse().ok()
}

/// Returns the server's sockets at `addresses`, one per line.
fn ss(addresses: &[SocketAddr], what: &str) -> Option<String> {
    let filters: Vec<_> = addresses.iter().map(|address| format!("sport = :{}", address.port())).collect();
    let filter = filters.join(" or ");
    let output =
        Command::new("ss").args(["--tcp", what, "--numeric", "--no-header", &filter]).output().ok()?;
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Sums `r0,rb131072,t0,tb87040,f0,w0,o0,bl0,d0)` without the limits `rb` and `tb`, without `t`, which is part of `w`, and
/// without the count of drops.
fn buffers(skmem: &str) -> u64 {
    let fields = skmem.split(')').next().unwrap_or_default().split(',');
    let bytes = |field: &str| {
        let digits = field.find(|letter: char| letter.is_ascii_digit())?;
        let (name, value) = field.split_at(digits);
        ["r", "f", "w", "o", "bl"].contains(&name).then(|| value.parse::<u64>().ok())?
    };
    fields.filter_map(bytes).sum()
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn limits_do_not_count_as_memory() {
        assert_eq!(buffers("r1,rb131072,t0,tb87040,f20,w300,o4000,bl50000,d7) and so on"), 54_321);
    }

    #[test]
    fn connections_and_their_waiting_data_are_counted() {
        let text = "LISTEN    2  4096 127.0.0.1:4437 0.0.0.0:*\nESTAB    30     5 127.0.0.1:4437 127.0.0.1:5\n\
                    SYN-RECV  0     0 127.0.0.1:4437 127.0.0.1:6\nESTAB     0     0 127.0.0.1:4437 127.0.0.1:7\n";
        assert_eq!(Progress::parse(text), Progress { established: 2, waiting: 32 });
        assert_eq!(Progress::parse(""), Progress { established: 0, waiting: 0 });
    }

    /// A server that neither accepts nor reads.
    #[test]
    fn a_server_that_does_nothing_makes_no_progress() {
        let _alone = crate::PROGRAMS.write();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(Progress::of(&[address]).unwrap(), Progress { established: 0, waiting: 0 });
        let mut client = TcpStream::connect(address).unwrap();
        assert_eq!(Progress::of(&[address]).unwrap(), Progress { established: 1, waiting: 1 });
        client.write_all(b"hello").unwrap();
        assert_eq!(Progress::of(&[address]).unwrap(), Progress { established: 1, waiting: 6 });
        let _accepted = listener.accept().unwrap();
        assert_eq!(Progress::of(&[address]).unwrap(), Progress { established: 1, waiting: 5 });
    }

    #[test]
    fn a_counter_is_found_by_its_name() {
        let text = "TcpExt: A ListenDrops B\nTcpExt: 1 22 3\nIpExt: ListenDrops\nIpExt: 9\n";
        assert_eq!(counter(text, "TcpExt:", "ListenDrops"), Some(22));
        assert_eq!(counter(text, "TcpExt:", "ListenOverflows"), None);
        assert!(connects_dropped().is_some(), "this kernel counts them");
    }
}
