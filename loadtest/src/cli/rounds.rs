//! Options of the commands that put a load on the gateway and its rivals in turn: [`Rounds`], which they share, and the options
//! of each load.

use std::path::PathBuf;

use clap::Args;

use super::generator::GeneratorOptions;
use super::values::{message_bytes, rate_above_zero, seconds};
use crate::loads::Generator;
use crate::loads::appends::Appends;
use crate::loads::fan_out::FanOut;
use crate::loads::hold::{Form, Hold};
use crate::loads::short_polls::ShortPolls;
use crate::loads::wake::Wake;
use crate::servers::{Rival, Storage};

/// Options of `appends`.
#[derive(Debug, Clone, Args)]
pub struct AppendsOptions {
    /// Number of connections, each with one append in flight
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub connections: u32,
    /// Streams that the connections share [default: each has its own; 1 with wrk]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub streams: Option<u32>,
    /// The request generator.
    #[command(flatten)]
    pub generator: GeneratorOptions,
    /// Options of every round.
    #[command(flatten)]
    pub rounds: Rounds,
}

/// Options of `wake`.
#[derive(Debug, Clone, Args)]
pub struct WakeOptions {
    /// Number of held polls, each on a stream of its own; the messages go to them in turn
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX / 2))]
    pub held: u32,
    /// Messages per second, over all streams
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20.0, value_parser = rate_above_zero)]
    pub rate: f64,
    /// Publish each message when the one before has arrived and its publisher has its answer, from the same thread, after a pause of 300 us
    #[arg(long, conflicts_with = "rate")]
    pub closed_loop: bool,
    /// Options of every round.
    #[command(flatten)]
    pub rounds: Rounds,
}

/// Options of `hold`.
#[derive(Debug, Clone, Args)]
pub struct HoldOptions {
    /// Number of connections, each with a held poll or an idle reader
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub clients: u32,
    /// Connects in one batch; the next batch follows when the server holds this one [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub at_once: Option<u32>,
    /// Request that each connection holds
    #[arg(long, value_enum, default_value_t = Form::LongPoll)]
    pub form: Form,
    /// Streams that the clients share [default: each has its own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub streams: Option<u32>,
    /// Options of every round.
    #[command(flatten)]
    pub rounds: Rounds,
}

/// Options of `fan-out`.
#[derive(Debug, Clone, Args)]
pub struct FanOutOptions {
    /// Number of polls held on one stream
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub clients: u32,
    /// Options of every round.
    #[command(flatten)]
    pub rounds: Rounds,
}

/// Options of `short-polls`.
#[derive(Debug, Clone, Args)]
pub struct ShortPollsOptions {
    /// Number of connections, each with one poll in flight
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub connections: u32,
    /// Streams that the connections share
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub streams: u32,
    /// The request generator.
    #[command(flatten)]
    pub generator: GeneratorOptions,
    /// Options of every round.
    #[command(flatten)]
    pub rounds: Rounds,
}

/// Options of every round: servers, messages and times.
#[derive(Debug, Clone, Args)]
pub struct Rounds {
    /// Another server under the same load: nchan, nchan-workers (one for each processor), durable-streams-node, durable-streams=PROGRAM or
    /// another build of the gateway, pollgate=PROGRAM; memory: one gateway with messages in memory; or engine: for `appends`, the
    /// gateway's function in the Redis of --store, called directly; repeatable
    #[arg(long, value_name = "NAME")]
    pub rival: Vec<Rival>,
    /// Where servers keep messages: memory; a folder, where each server gets a new subfolder and syncs before it answers; or the URL
    /// of a Redis that runs already
    #[arg(long, value_name = "memory|FOLDER|URL", default_value = "memory")]
    pub store: Storage,
    /// Instances of each server that share a Redis: `wake` publishes at another one than it polls; all other clients are spread over them
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub gateways: u8,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = message_bytes)]
    pub size: usize,
    /// Measured seconds of each server in each round
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
    /// Seconds of warm-up before the measured time
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub warm_up: f64,
    /// Number of rounds; each server runs once in each
    #[arg(long, default_value_t = 5, value_parser = whole_rounds)]
    pub rounds: usize,
    /// A gateway that is already running, http://HOST:PORT [default: one is started]
    #[arg(long, value_name = "URL", conflicts_with_all = ["gateway", "store"])]
    pub target: Option<String>,
    /// Path of the gateway's program [default: the one beside this program, rebuilt if its sources are newer]
    #[arg(long, value_name = "PATH")]
    pub gateway: Option<PathBuf>,
}

/// Connections of one process, within the usual limit on descriptors.
const CONNECTIONS_MAX: i64 = 9000;

/// Connections that servers hold at the same time: the gateway keeps 1024 of 20 000 descriptors for itself.
const CLIENTS_MAX: i64 = 18_000;

impl Rounds {
    /// Where servers keep messages.
    pub fn storage(&self) -> Storage {
        match &self.store {
            Storage::Engine(url, _) => Storage::Engine(url.clone(), self.gateways.into()),
            other => other.clone(),
        }
    }
}

impl AppendsOptions {
    /// Returns the load.
    pub fn load(&self) -> Appends {
        let (connections, generator) = (self.connections, self.generator.generator());
        let each_its_own = if generator == Generator::Own { connections } else { 1 };
        Appends { connections, streams: self.streams.unwrap_or(each_its_own), generator }
    }
}

impl WakeOptions {
    /// Returns the load.
    pub fn load(&self) -> Wake {
        Wake { held: self.held, rate: (!self.closed_loop).then_some(self.rate) }
    }
}

impl HoldOptions {
    /// Returns the load.
    pub fn load(&self) -> Hold {
        let all = self.clients;
        let (streams, at_once) = (self.streams.unwrap_or(all), self.at_once.unwrap_or(all));
        Hold { clients: all, streams, at_once, form: self.form }
    }
}

impl FanOutOptions {
    /// Returns the load.
    pub fn load(&self) -> FanOut {
        FanOut { clients: self.clients }
    }
}

impl ShortPollsOptions {
    /// Returns the load.
    pub fn load(&self) -> ShortPolls {
        let generator = self.generator.generator();
        ShortPolls { connections: self.connections, streams: self.streams, generator }
    }
}

fn whole_rounds(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|rounds| *rounds > 0).ok_or_else(|| "want one or more".to_owned())
}
