//! [`Case`]: one strategy on one network, to be simulated and measured.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::model::candidate::Setting;
use crate::network::Profile;
use crate::simulate::{Day, Network, Reader, Simulation};
use crate::strategies::{Strategy, whole_seconds};

/// Round trip between client and gateway, on top of what the network does.
pub(super) const ROUND_TRIP: Duration = Duration::from_millis(400);

/// The networks that are compared by default: all of profiles.toml, with times that matter within a minute, and a NAT of the kernel.
pub const NETWORKS: [&str; 20] = [
    "none",
    "nat-idle:6s",
    "nat-reset:6s",
    "kernel-nat:6s",
    "address-change:30s",
    "kernel-address-change:30s",
    "proxy-cut:8s",
    "proxy-cut-30:6s",
    "proxy-cut-100:12s",
    "proxy-buffer",
    "proxy-buffer-4k",
    "proxy-buffer-32k",
    "no-websocket",
    "no-websocket-400",
    "websocket-cut",
    "no-streaming",
    "http10",
    "captive:20s",
    "slow",
    "lossy-answers",
];

/// The strategies that are compared by default, where the network lets them through.
pub const STRATEGIES: [&str; 5] = ["short-poll:2s", "long-poll:20s", "sse", "websocket", "fallback"];

/// What is between the clients and the gateway.
#[derive(Debug, Clone)]
pub enum Between {
    /// A middlebox.
    Middlebox(Profile),
    /// A NAT of the kernel.
    Kernel(KernelFault),
}

/// What the NAT of the kernel does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KernelFault {
    /// It silently forgets a connection after this time without a packet.
    Forgets(Duration),
    /// The client gets another address at this interval, and its connections are silent from then on.
    ChangesAddress(Duration),
}

/// One strategy on one network.
#[derive(Debug, Clone)]
pub(super) struct Case {
    pub(super) between: Between,
    /// The clients, their messages and the simulated network.
    pub(super) simulation: Simulation,
}

impl Case {
    pub(super) fn new(between: &Between, reader: Reader, clients: u32, length: Duration, seed: u64) -> Self {
        let (between, day) = (between.clone(), between.day(length));
        let every = between.message_every(reader);
        let simulation = Simulation { day, phones: clients, reader, every, seed, keeps_trace: false };
        Self { between, simulation }
    }
}

impl Between {
    /// Whether this strategy can get through at all.
    pub(super) fn passes(&self, reader: Reader) -> bool {
        // A network without a path for the formulas passes every form, at times.
        let Self::Middlebox(profile) = self else { return true };
        let Ok(path) = profile.as_path() else { return true };
        match reader {
            Reader::Only(Strategy::Sse(_) | Strategy::Ndjson(_)) => path.streaming,
            Reader::Only(Strategy::WebSocket(_)) => path.websocket,
            _ => true,
        }
    }

    /// Mean time between two messages: long where the network acts on connections that are quiet, and short where the delay of each
    /// message is chance, so that there are many.
    fn message_every(&self, reader: Reader) -> Duration {
        if matches!(reader, Reader::Only(Strategy::ShortPoll(_))) {
            return Duration::from_secs(1);
        }
        let quiet = match self {
            Self::Middlebox(profile) => {
                profile.name.starts_with("nat-") || profile.name.starts_with("proxy-cut")
            }
            Self::Kernel(fault) => matches!(fault, KernelFault::Forgets(_)),
        };
        Duration::from_secs(if quiet { 4 } else { 2 })
    }

    /// Name that clients are told after a number of changes of their network.
    pub(super) fn label(&self, changes: u32) -> String {
        format!("{self} {changes}")
    }

    /// The networks of the simulated clients, one after the other.
    fn day(&self, length: Duration) -> Day {
        let network = |changes| Network {
            name: self.label(changes),
            round_trip: ROUND_TRIP.as_secs_f64(),
            jitter: 0.0,
            loss: 0.0,
            ..Network::mobile("LTE")
        };
        match self {
            Self::Middlebox(profile) => {
                let behind = Some(profile.clone()).filter(|profile| !profile.hops.is_empty());
                Day::within(Network { behind, ..network(0) }, length)
            }
            Self::Kernel(KernelFault::Forgets(after)) => {
                Day::within(Network { nat_idle: Some(after.as_secs_f64()), ..network(0) }, length)
            }
            Self::Kernel(KernelFault::ChangesAddress(every)) => {
                let changes = (0..).take_while(|number| *every * *number < length);
                Day::changing(changes.map(network), *every, length)
            }
        }
    }
}

impl fmt::Display for Between {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Middlebox(profile) => formatter.write_str(&profile.name),
            Self::Kernel(KernelFault::Forgets(after)) => write!(formatter, "kernel-nat:{}", Setting(*after)),
            Self::Kernel(KernelFault::ChangesAddress(every)) => {
                write!(formatter, "kernel-address-change:{}", Setting(*every))
            }
        }
    }
}

impl FromStr for Between {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some(("kernel-nat", after)) => Ok(Self::Kernel(KernelFault::Forgets(whole_seconds(after)?))),
            Some(("kernel-address-change", every)) => {
                Ok(Self::Kernel(KernelFault::ChangesAddress(whole_seconds(every)?)))
            }
            _ => text.parse().map(Self::Middlebox).map_err(|error| format!("{error}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_network_of_the_middlebox_is_compared() {
        for profile in crate::network::Profiles::default().all() {
            let is_it = |text: &&str| text.split(':').next() == Some(&profile.name);
            let text = NETWORKS.iter().find(|text| is_it(text));
            assert!(text.is_some_and(|text| text.parse::<Between>().is_ok()), "{}", profile.name);
        }
    }

    #[test]
    fn a_strategy_is_compared_where_it_gets_through() {
        let passing = |network: &str| {
            let between: Between = network.parse().unwrap();
            STRATEGIES.into_iter().filter(|text| between.passes(text.parse().unwrap())).collect::<Vec<_>>()
        };
        assert_eq!(passing("kernel-nat:6s"), STRATEGIES);
        assert_eq!(passing("captive:20s"), STRATEGIES);
        assert_eq!(passing("no-websocket"), ["short-poll:2s", "long-poll:20s", "sse", "fallback"]);
        assert_eq!(passing("proxy-buffer"), ["short-poll:2s", "long-poll:20s", "fallback"]);
    }
}
