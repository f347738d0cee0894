//! Options of `networks`: which cells of the matrix of networks and readers to run.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::values::rate_above_zero;
use crate::matrix::{Contender, Matrix, Scale};
use crate::network::{Profile, ProfileError, Profiles};

/// Network with a shorter idle timeout than the built-in profile, which the gateway's heartbeats keep open.
const HARSH: &str = "nat-idle:20s";

/// Options of `networks`.
#[derive(Debug, Clone, Args)]
pub struct NetworksOptions {
    /// Network profile: NAME or NAME:TIME of src/network/profiles.toml, or FILE#NAME of a file in the same format; repeatable
    /// [default: none, all built-in ones, and nat-idle:20s]
    #[arg(long, value_name = "NAME")]
    pub network: Vec<Profile>,
    /// Reader to run through each network; repeatable [default: all]
    #[arg(long, value_enum)]
    pub reader: Vec<Contender>,
    /// Factor for all times of networks, gateway and readers
    #[arg(long, value_name = "FACTOR", default_value = "0.2")]
    pub scale: Scale,
    /// Messages per second to each stream during a burst
    #[arg(long, value_name = "PER_SECOND", default_value_t = 5.0, value_parser = rate_above_zero)]
    pub rate: f64,
    /// Number of bursts: each is 30 s of messages and 90 s of silence, both scaled
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    pub bursts: u32,
    /// Seed of the random schedule
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Path of the gateway's program [default: the one beside this program, rebuilt if its sources are newer]
    #[arg(long, value_name = "PATH")]
    pub gateway: Option<PathBuf>,
    /// Folder for networks.json
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub output: PathBuf,
}

impl NetworksOptions {
    /// Returns the matrix to run.
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
