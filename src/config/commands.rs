//! The options of the commands `token`, `user`, `engine` and `store`, and the pattern of `ls`.

use std::num::NonZeroU32;
use std::path::PathBuf;
use std::str::FromStr;

use clap::{Args, Subcommand};

use crate::limits::Span;
use crate::stream::{Filter, InvalidFilter, StreamName};

/// What a client may do. A pattern is the name of a stream; `+` stands for one level, a last `#` for any number of levels.
#[derive(Debug, Args)]
pub struct PatternArgs {
    /// Streams that the client may read (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub read: Vec<String>,
    /// Streams that the client may append to (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub append: Vec<String>,
    /// Streams that the client may create (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub create: Vec<String>,
    /// Streams that the client may delete (repeatable)
    #[arg(long, value_name = "PATTERN")]
    pub manage: Vec<String>,
}

/// The options of `token`.
#[derive(Debug, Args)]
pub struct TokenCommand {
    /// File that `pollgate keygen` made
    #[arg(long, value_name = "FILE")]
    pub key_file: PathBuf,
    /// What the client may do.
    #[command(flatten)]
    pub streams: PatternArgs,
    /// How long the token is valid; at most 24 h
    #[arg(long, value_name = "DURATION", default_value = "1h")]
    pub expires: Span,
    /// Name of the client, which limits and logs use
    #[arg(long, value_name = "NAME", default_value = "client")]
    pub subject: String,
    /// Tenant of the client, whose streams are apart from those of others [default: none]
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
}

/// The options of `user`.
#[derive(Debug, Args)]
pub struct UserCommand {
    /// Name of the user, the part of the address before `@`
    #[arg(long, value_name = "NAME")]
    pub name: String,
    /// What the user may do.
    #[command(flatten)]
    pub streams: PatternArgs,
    /// Tenant of the user, whose streams are apart from those of others [default: none]
    #[arg(long, value_name = "NAME")]
    pub tenant: Option<String>,
    /// How often the password is hashed, by each client at each login
    #[arg(long, value_name = "COUNT", default_value = "10000")]
    pub iterations: NonZeroU32,
    /// Make keys for clients that have only SCRAM-SHA-1, too
    #[arg(long)]
    pub sha_1: bool,
}

/// A command for an engine that stores the streams of several gateways.
#[derive(Debug, Subcommand)]
pub enum EngineCommand {
    /// Check the settings of each server, and say what to do; exits with 1 if a gateway cannot use the engine. It loads the gateway's
    /// function library if that is missing, and changes nothing else
    Check(EngineArgs),
    /// Print memory, calls, and the streams, messages and bytes of each partition
    Stats(EngineArgs),
}

/// Which engine.
#[derive(Debug, Args)]
pub struct EngineArgs {
    /// URL of the engine, as for --store
    pub url: String,
    /// Certificate authorities (PEM) of an engine with TLS [default: those of the system]
    #[arg(long, value_name = "FILE")]
    pub store_ca: Option<PathBuf>,
    /// File with the password, which replaces that of the URL [default: none]
    #[arg(long, value_name = "FILE")]
    pub store_password_file: Option<PathBuf>,
}

/// A command for a store on disk.
#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Read the whole store and report damage; changes nothing, exits with 1 if a record is damaged or cut off
    Check {
        /// Directory of the store
        directory: PathBuf,
    },
    /// Write all streams and messages as lines of JSON
    Export {
        /// Directory of the store
        directory: PathBuf,
        /// Export a damaged store without the messages that are lost
        #[arg(long)]
        accept_damage: bool,
        /// File to create [default: standard output]
        file: Option<PathBuf>,
    },
    /// Create the streams of an export, with new epochs; fails if one of them exists
    Import {
        /// Directory of the store, created if it does not exist
        directory: PathBuf,
        /// Export to read [default: standard input]
        file: Option<PathBuf>,
    },
}

/// A pattern of names of streams.
#[derive(Debug, Clone)]
pub struct NamePattern(Filter);

impl NamePattern {
    /// The beginning that all names have.
    pub fn prefix(&self) -> &str {
        self.0.prefix()
    }

    /// Whether a stream has such a name.
    pub fn matches(&self, name: &str) -> bool {
        StreamName::parse(name).is_ok_and(|name| self.0.matches(&name))
    }
}

impl FromStr for NamePattern {
    type Err = InvalidFilter;

    fn from_str(text: &str) -> Result<Self, InvalidFilter> {
        Filter::parse(text).map(Self)
    }
}
