//! How many machines a gateway needs for a number of clients, and what breaks first.
//!
//! The events come from a simulation of a few clients: the real gateway and client on a simulated day ([`events`]). What an event and a
//! connection cost the gateway was measured (`model::server_load`, [`measure`]). [`need`] multiplies them, and [`check`] compares the
//! result with a real gateway that serves as many clients as one machine can generate.

pub mod check;
mod command;
pub mod events;
pub mod measure;
pub mod need;
mod text;

pub use command::scale;

use std::time::Duration;

use serde::Serialize;

use crate::model::server_load::ServerCosts;
use crate::simulate::{Day, Reader, Simulation, SimulationError};
use events::Events;
use need::{Machine, Need};

/// Clients that are simulated for each strategy.
const PHONES: u32 = 20;

/// The question.
#[derive(Debug, Clone)]
pub struct Scale {
    /// Number of clients.
    pub clients: u32,
    /// How they read.
    pub readers: Vec<Reader>,
    /// Mean time between two messages to a client.
    pub every: Duration,
    /// The networks of the clients.
    pub day: Day,
    /// One of the machines.
    pub machine: Machine,
    /// Seed of everything that is random.
    pub seed: u64,
}

/// The answer.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scaled {
    clients: u32,
    seconds_between_messages: f64,
    machine: Machine,
    /// One for each strategy, in the order of the question.
    pub strategies: Vec<Need>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ScaleError {
    /// From a simulation.
    #[error(transparent)]
    Simulation(#[from] SimulationError),
    /// The table of costs has no line for this form.
    #[error("it was not measured what {0} costs the gateway")]
    NotMeasured(String),
}

impl Scale {
    /// Simulates a few clients of each strategy, and computes what all of them need. `told` is called before each strategy.
    pub fn answer(&self, costs: &ServerCosts, told: impl Fn(Reader)) -> Result<Scaled, ScaleError> {
        let strategies = self.readers.iter().map(|&reader| {
            told(reader);
            let simulation = Simulation {
                day: self.day.clone(),
                phones: PHONES,
                reader,
                every: self.every,
                seed: self.seed,
                keeps_trace: false,
            };
            let events = Events::of(&simulation.run()?, reader, self.day.length());
            Need::of(reader, self.clients, &events, costs, &self.machine)
                .ok_or_else(|| ScaleError::NotMeasured(reader.form().to_owned()))
        });
        Ok(Scaled {
            clients: self.clients,
            seconds_between_messages: self.every.as_secs_f64(),
            machine: self.machine,
            strategies: strategies.collect::<Result<_, _>>()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulate::Network;

    const HOUR: Duration = Duration::from_secs(3600);

    /// Each figure follows from the settings: messages every 10 min, polls of 25 s, and heartbeats of a minute.
    #[test]
    fn events_of_simulated_clients_are_those_of_the_strategy() {
        let question = Scale {
            clients: 1_000_000,
            readers: ["short-poll:1m", "long-poll:25s", "websocket:60s"]
                .map(|text| text.parse().unwrap())
                .to_vec(),
            every: HOUR / 6,
            day: Day::within(Network::direct(), 2 * HOUR),
            machine: Machine { cores: 8.0, memory: 3e10, descriptors: 1e6, uplink: 1e9 },
            seed: 1,
        };
        let scaled = question.answer(&ServerCosts::measured().unwrap(), |_| ()).unwrap();
        let [short, long, websocket] = &scaled.strategies[..] else { panic!("{scaled:?}") };
        let near = |figure: f64, expected: f64| {
            assert!((figure / expected - 1.0).abs() < 0.1, "{figure} and not {expected}: {scaled:?}");
        };
        near(short.requests, 1e6 / 60.0);
        near(short.connections, 1e6);
        near(long.requests, 1e6 * (1.0 / 25.0 + 0.5 / 600.0));
        near(websocket.events.heartbeats, 1.0 / 65.0);
        assert!(websocket.requests < 1000.0 && websocket.cores < long.cores, "{scaled:?}");
        let text = scaled.to_string();
        assert!(
            text.starts_with("1 000 000 clients, each with a message every 600 s, on machines with 8 cores"),
            "{text}"
        );
        assert!(text.contains("Least: "), "{text}");
    }
}
