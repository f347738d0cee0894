//! The command line.

mod agree;
mod conditions;
#[cfg(test)]
pub(crate) mod documented;
mod generator;
mod heartbeat;
mod networks;
mod promise;
mod readme;
mod rounds;
mod scale;
mod simulate;
mod values;

use std::net::SocketAddr;

use clap::{Args, Parser, Subcommand};

use crate::network::Profile;
use crate::report::sweep::Grid;
use crate::servers::Server;
use crate::strategies::{DEFAULTS, Strategy};
use crate::wire::Transport;
use values::{rate, setting, whole_setting};

pub use agree::AgreeOptions;
pub use conditions::Conditions;
pub use generator::GeneratorOptions;
pub use heartbeat::HeartbeatOptions;
pub use networks::NetworksOptions;
pub use promise::Promised;
pub use readme::ReadmeOptions;
pub use rounds::{AppendsOptions, FanOutOptions, HoldOptions, Rounds, ShortPollsOptions, WakeOptions};
pub use scale::ScaleOptions;
pub use simulate::SimulateOptions;

/// Runs the same workload over every delivery strategy and reports the cost of each one.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// The command; `compare` if absent.
    #[command(subcommand)]
    pub command: Option<Command>,
    /// Options of `compare`, the default command.
    #[command(flatten)]
    pub compare: Comparison,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Compare strategies and servers (the default command)
    Compare(Box<Comparison>),
    /// Run the gateway over lists of settings and rates, for the trade-off between latency and cost
    Sweep(Box<SweepOptions>),
    /// Recommend the strategy that keeps a promise at the least cost, with the reason
    Recommend(Box<Promised>),
    /// Simulate a day of many phones: the real gateway and client in virtual time, with models of networks and radios
    Simulate(Box<SimulateOptions>),
    /// Simulate days behind NATs that forget idle connections, to compare heartbeats
    Heartbeat(Box<HeartbeatOptions>),
    /// Compute the machines that many clients need and what breaks first, from simulated clients and measured costs
    Scale(Box<ScaleOptions>),
    /// Check that simulations agree with measurements through real networks, and with the formulas
    Agree(Box<AgreeOptions>),
    /// Append in a closed loop to the gateway and rivals in turn, and compare them
    Appends(Box<AppendsOptions>),
    /// Publish to held polls of the gateway and rivals in turn, and compare them
    Wake(Box<WakeOptions>),
    /// Hold polls or idle readers on the gateway and rivals in turn, and measure the memory that each one takes
    Hold(Box<HoldOptions>),
    /// Publish one message to many held polls of the gateway and rivals in turn, and compare them
    FanOut(Box<FanOutOptions>),
    /// Poll streams without new messages in a closed loop, the gateway and rivals in turn, and compare them
    ShortPolls(Box<ShortPollsOptions>),
    /// Read through every hostile network with every strategy, and with the client that falls back
    Networks(Box<NetworksOptions>),
    /// Make the tables and the picture of docs/comparison.md anew, in half an hour
    Readme(ReadmeOptions),
    /// Run a hostile network in front of a running server, until a signal
    Middlebox(MiddleboxOptions),
    /// Run one share of a run; the parent process of this program starts it
    #[command(hide = true)]
    Generate,
}

/// Options of `compare`.
#[derive(Debug, Clone, Args)]
pub struct Comparison {
    /// Messages per second that are published to each stream, on average (Poisson)
    #[arg(long, value_name = "PER_SECOND", default_value_t = 0.2, value_parser = rate)]
    pub rate: f64,
    /// short-poll:INTERVAL, long-poll:HOLD, sse, ndjson, websocket or mqtt; the last four also with :HEARTBEAT; xmpp:websocket or xmpp:bosh; push:fcm, push:web or sms; repeatable
    /// [default: short-poll:1s, short-poll:5s, long-poll:25s and the others]
    #[arg(long)]
    pub strategy: Vec<Strategy>,
    /// Another server for the same runs: nchan, nchan-workers (one for each processor), mosquitto, prosody, ejabberd, socket.io,
    /// durable-streams-node, pushpin, redis-streams, valkey-streams, nats or durable-streams=PROGRAM; repeatable
    #[arg(long, value_name = "NAME")]
    pub rival: Vec<Server>,
    /// What carries the requests of strategies over HTTP: http1, http2, http1+tls or http2+tls; repeatable, each a line of the table [default:
    /// http1]
    #[arg(long, value_name = "NAME", conflicts_with = "network")]
    pub transport: Vec<Transport>,
    /// Phones of a simulated day beside the measured runs of the default strategies; 0 leaves it out, and so does --strategy
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub day_phones: u32,
    /// Options of every run.
    #[command(flatten)]
    pub conditions: Conditions,
}

/// Options of `middlebox`.
#[derive(Debug, Clone, Args)]
pub struct MiddleboxOptions {
    /// Network profile: NAME or NAME:TIME of src/network/profiles.toml, or FILE#NAME of a file in the same format
    #[arg(long, value_name = "NAME")]
    pub network: Profile,
    /// Address of the server
    #[arg(long, value_name = "ADDRESS")]
    pub upstream: SocketAddr,
    /// Address that clients connect to
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
}

/// Options of `sweep`.
#[derive(Debug, Clone, Args)]
pub struct SweepOptions {
    /// Messages per second to each stream; each rate has its own trade-off
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "0.2", value_parser = rate)]
    pub rate: Vec<f64>,
    /// Intervals of short polls
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "500ms,1s,2s,5s", value_parser = setting)]
    pub interval: Vec<std::time::Duration>,
    /// Hold times of long polls
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "5s,25s,55s", value_parser = whole_setting)]
    pub hold: Vec<std::time::Duration>,
    /// Heartbeat intervals of SSE, NDJSON, WebSocket and MQTT
    #[arg(long, value_name = "LIST", value_delimiter = ',', default_value = "5s,45s", value_parser = whole_setting)]
    pub heartbeat: Vec<std::time::Duration>,
    /// Radio profile for the energy figures, by name [default: the first profile]
    #[arg(long)]
    pub radio: Option<String>,
    /// Options of every run.
    #[command(flatten)]
    pub conditions: Conditions,
}

impl Comparison {
    /// Returns the simulated day beside the runs, if there is to be one.
    pub fn day(&self) -> Option<SimulateOptions> {
        let is_wanted = self.strategy.is_empty() && self.day_phones > 0;
        is_wanted.then(|| SimulateOptions::typical(self.day_phones, self.conditions.seed))
    }

    /// Returns the transports without duplicates.
    pub fn transports(&self) -> Vec<Transport> {
        let mut wanted = if self.transport.is_empty() { vec![Transport::default()] } else { Vec::new() };
        for transport in &self.transport {
            if !wanted.contains(transport) {
                wanted.push(*transport);
            }
        }
        wanted
    }

    /// Returns the strategies without duplicates.
    pub fn strategies(&self) -> Vec<Strategy> {
        let mut wanted = if self.strategy.is_empty() { DEFAULTS.to_vec() } else { Vec::new() };
        for strategy in &self.strategy {
            if !wanted.contains(strategy) {
                wanted.push(*strategy);
            }
        }
        wanted
    }
}

impl SweepOptions {
    /// Returns all settings and rates of the sweep.
    pub fn grid(&self) -> Grid {
        Grid {
            intervals: self.interval.clone(),
            holds: self.hold.clone(),
            heartbeats: self.heartbeat.clone(),
            rates: self.rate.clone(),
        }
    }

    /// Returns the runs of one rate.
    pub fn at(&self, rate: f64) -> Comparison {
        let strategy = self.grid().strategies();
        let (rival, transport, conditions) = (Vec::new(), Vec::new(), self.conditions.clone());
        Comparison { rate, strategy, rival, transport, day_phones: 0, conditions }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::loads::Generator;
    use crate::loads::hold::{Form, Hold};
    use crate::servers::{Rival, Storage};

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
        let cli = Cli::try_parse_from(["loadtest", "--strategy", "sse", "--strategy", "sse"]).unwrap();
        assert_eq!(cli.compare.strategies(), [Strategy::Sse(None)]);
        for wrong in [["--size", "36"], ["--rate", "-1"], ["--clients", "0"], ["--strategy", "post"]] {
            assert!(Cli::try_parse_from([&["loadtest"], &wrong[..]].concat()).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn load_commands_parse_their_options() {
        let parse = |line: &str| Cli::try_parse_from(line.split(' ')).map(|cli| cli.command);
        let line = "loadtest appends --rival durable-streams=/bin/server --rival pollgate=/older --rival memory --store /data \
                    --streams 8";
        let Ok(Some(Command::Appends(appends))) = parse(line) else { panic!("no appends") };
        assert_eq!((appends.load().connections, appends.load().streams), (64, 8));
        let name = |rival: &Rival| rival.server(&Server::Gateway("pollgate".into(), None)).unwrap().name();
        assert_eq!(appends.rounds.store, Storage::Disk("/data".into()));
        assert_eq!(
            appends.rounds.rival.iter().map(name).collect::<Vec<_>>(),
            ["durable-streams", "other build", "memory"]
        );
        let Ok(Some(Command::Wake(wake))) = parse("loadtest wake --held 7 --rate 20 --rounds 3") else {
            panic!("no wake")
        };
        assert_eq!((wake.load().held, wake.load().rate, wake.rounds.rounds), (7, Some(20.0), 3));
        assert_eq!((wake.rounds.size, &wake.rounds.store), (100, &Storage::Memory));
        let Ok(Some(Command::Hold(hold))) = parse("loadtest hold --clients 7 --form sse --rival nchan")
        else {
            panic!("no hold")
        };
        assert_eq!(hold.load(), Hold { clients: 7, streams: 7, at_once: 7, form: Form::Sse });
        let Ok(Some(Command::FanOut(fan_out))) = parse("loadtest fan-out") else { panic!("no fan-out") };
        assert_eq!(fan_out.load().clients, 1000);
        let Ok(Some(Command::ShortPolls(polls))) = parse("loadtest short-polls --streams 8") else {
            panic!("no short polls")
        };
        assert_eq!((polls.load().connections, polls.load().streams), (64, 8));
        assert_eq!(polls.load().generator, Generator::Own);
        let Ok(Some(Command::Appends(by_wrk))) = parse("loadtest appends --generator wrk --threads 3") else {
            panic!("no appends")
        };
        assert_eq!((by_wrk.load().streams, by_wrk.load().generator), (1, Generator::Wrk(3)));
        for wrong in [
            "appends --connections 0",
            "appends --size 30",
            "appends --rounds 0",
            "appends --rate 1",
            "appends --target http://127.0.0.1:1 --store /data",
            "wake --rate 0",
            "wake --held 0",
            "wake --rival carrier-pigeon",
            "hold --form ndjson",
            "hold --clients 18001",
            "hold --at-once 0",
            "fan-out --clients 0",
            "fan-out --streams 2",
            "short-polls --connections 0",
            "short-polls --generator ab",
            "appends --generator wrk --threads 0",
        ] {
            assert!(parse(&format!("loadtest {wrong}")).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sweep_options_are_lists() {
        let line = "loadtest sweep --interval 1s,250ms --hold 5s --heartbeat 45s --rate 0.1,2 --clients 7";
        let Some(Command::Sweep(sweep)) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("no sweep")
        };
        assert_eq!((sweep.rate.as_slice(), sweep.conditions.clients), (&[0.1, 2.0][..], 7));
        let texts: Vec<_> = sweep.at(2.0).strategies().iter().map(ToString::to_string).collect();
        let all = [
            "short-poll:1s",
            "short-poll:250ms",
            "long-poll:5s",
            "sse:45s",
            "ndjson:45s",
            "websocket:45s",
            "mqtt:45s",
        ];
        assert_eq!(texts, all);
        assert!(Cli::try_parse_from("loadtest sweep --hold 1500ms".split(' ')).is_err());
    }
}
