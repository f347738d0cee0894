//! Which matrix is wanted.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::rate_above_zero;
use crate::matrix::{Contender, Matrix, Scale};
use crate::network::{Profile, ProfileError, Profiles};

/// A network that makes itself felt where the built-in profile is milder than the heartbeats of the gateway.
const HARSH: &str = "nat-idle:20s";

/// Networks and workload.
#[derive(Debug, Clone, Args)]
pub struct Crossing {
    /// NAME or NAME:TIME of src/network/profiles.toml, FILE#NAME of a file like it; may repeat [default: none, all
    /// built-in ones, and nat-idle:20s]
    #[arg(long, value_name = "NAME")]
    pub network: Vec<Profile>,
    /// Who reads through each of them; may repeat [default: all]
    #[arg(long, value_enum)]
    pub reader: Vec<Contender>,
    /// All times, of networks, gateway and readers, are so many times as long
    #[arg(long, value_name = "FACTOR", default_value = "0.2")]
    pub scale: Scale,
    /// Messages a second to each stream while a burst lasts
    #[arg(long, value_name = "PER_SECOND", default_value_t = 5.0, value_parser = rate_above_zero)]
    pub rate: f64,
    /// Bursts of messages: 30 s, then 90 s without, both scaled
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub bursts: u32,
    /// Of the random schedule
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The gateway's program [default: the one beside this program, built anew if its sources are newer]
    #[arg(long, value_name = "PATH")]
    pub gateway: Option<PathBuf>,
    /// Where networks.json is written
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub output: PathBuf,
}

impl Crossing {
    /// All of it.
    pub fn matrix(&self) -> Result<Matrix, ProfileError> {
        let Self { scale, rate, bursts, seed, gateway, .. } = self.clone();
        let networks = match self.network.as_slice() {
            [] => {
                let mut all = vec![Profile::none(), HARSH.parse()?];
                all.extend_from_slice(Profiles::default().all());
                all
            }
            some => some.to_vec(),
        };
        let readers = match self.reader.as_slice() {
            [] => Contender::value_variants(),
            some => some,
        };
        Ok(Matrix { networks, readers: readers.to_vec(), scale, rate, bursts, seed, gateway })
    }
}
