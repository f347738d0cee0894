//! What the commands have in common that put a load on the gateway and its rivals in turn, and each one's own.

use std::path::PathBuf;

use clap::Args;

use super::generating::Generating;
use super::values::{message_bytes, rate_above_zero, seconds};
use crate::loads::Generator;
use crate::loads::appends::Appends;
use crate::loads::fan_out::FanOut;
use crate::loads::hold::{Form, Hold};
use crate::loads::short_polls::ShortPolls;
use crate::loads::wake::Wake;
use crate::servers::{Server, Storage};

/// The command `appends`.
#[derive(Debug, Clone, Args)]
pub struct Appending {
    /// Connections, each with one append under way
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub connections: u32,
    /// Streams that the connections share [default: each has its own; 1 with wrk]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub streams: Option<u32>,
    /// Who appends.
    #[command(flatten)]
    pub generating: Generating,
    /// Of every round.
    #[command(flatten)]
    pub rounds: Rounds,
}

/// The command `wake`.
#[derive(Debug, Clone, Args)]
pub struct Waking {
    /// Polls that are held, each on a stream of its own; the messages take turns on them
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX / 2))]
    pub held: u32,
    /// Messages a second, all streams together
    #[arg(long, value_name = "PER_SECOND", default_value_t = 20.0, value_parser = rate_above_zero)]
    pub rate: f64,
    /// Of every round.
    #[command(flatten)]
    pub rounds: Rounds,
}

/// The command `hold`.
#[derive(Debug, Clone, Args)]
pub struct Holding {
    /// Connections, each with a held poll or an idle reader
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub clients: u32,
    /// Connects at a time, the next ones when the server holds those [default: all]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub at_once: Option<u32>,
    /// What they hold
    #[arg(long, value_enum, default_value_t = Form::LongPoll)]
    pub form: Form,
    /// Streams that the clients share [default: each has its own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub streams: Option<u32>,
    /// Of every round.
    #[command(flatten)]
    pub rounds: Rounds,
}

/// The command `fan-out`.
#[derive(Debug, Clone, Args)]
pub struct FanningOut {
    /// Polls that are held on one stream
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=CLIENTS_MAX))]
    pub clients: u32,
    /// Of every round.
    #[command(flatten)]
    pub rounds: Rounds,
}

/// The command `short-polls`.
#[derive(Debug, Clone, Args)]
pub struct ShortPolling {
    /// Connections, each with one poll under way
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=CONNECTIONS_MAX))]
    pub connections: u32,
    /// Streams that the connections share
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub streams: u32,
    /// Who polls.
    #[command(flatten)]
    pub generating: Generating,
    /// Of every round.
    #[command(flatten)]
    pub rounds: Rounds,
}

/// Servers, rounds and messages.
#[derive(Debug, Clone, Args)]
pub struct Rounds {
    /// Another server under the same load: nchan or durable-streams=PROGRAM; may repeat
    #[arg(long, value_name = "NAME")]
    pub rival: Vec<Server>,
    /// Where servers keep messages: memory, or a folder of which each gets a new one and syncs before it answers
    #[arg(long, value_name = "memory|FOLDER", default_value = "memory")]
    pub store: Storage,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 100, value_parser = message_bytes)]
    pub size: usize,
    /// Seconds that are measured of each server in each round
    #[arg(long, default_value_t = 5.0, value_parser = seconds)]
    pub seconds: f64,
    /// Seconds before that
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub warm_up: f64,
    /// How often each server takes its turn
    #[arg(long, default_value_t = 5, value_parser = whole_rounds)]
    pub rounds: usize,
    /// A gateway that runs already, http://HOST:PORT [default: one is started]
    #[arg(long, value_name = "URL", conflicts_with_all = ["gateway", "store"])]
    pub target: Option<String>,
    /// The gateway's program [default: the one beside this program, built anew if its sources are newer]
    #[arg(long, value_name = "PATH")]
    pub gateway: Option<PathBuf>,
}

/// Of one process, within the usual limit on descriptors.
const CONNECTIONS_MAX: i64 = 9000;

/// The same where servers have all of them at once: the gateway keeps 1024 descriptors of 20 000 for itself.
const CLIENTS_MAX: i64 = 18_000;

impl Appending {
    /// The load.
    pub fn load(&self) -> Appends {
        let (connections, generator) = (self.connections, self.generating.generator());
        let each_its_own = if generator == Generator::Own { connections } else { 1 };
        Appends { connections, streams: self.streams.unwrap_or(each_its_own), generator }
    }
}

impl Waking {
    /// The load.
    pub fn load(&self) -> Wake {
        Wake { held: self.held, rate: self.rate }
    }
}

impl Holding {
    /// The load.
    pub fn load(&self) -> Hold {
        let all = self.clients;
        let (streams, at_once) = (self.streams.unwrap_or(all), self.at_once.unwrap_or(all));
        Hold { clients: all, streams, at_once, form: self.form }
    }
}

impl FanningOut {
    /// The load.
    pub fn load(&self) -> FanOut {
        FanOut { clients: self.clients }
    }
}

impl ShortPolling {
    /// The load.
    pub fn load(&self) -> ShortPolls {
        let generator = self.generating.generator();
        ShortPolls { connections: self.connections, streams: self.streams, generator }
    }
}

fn whole_rounds(text: &str) -> Result<usize, String> {
    text.parse().ok().filter(|rounds| *rounds > 0).ok_or_else(|| "want one or more".to_owned())
}
