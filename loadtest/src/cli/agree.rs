//! Options of `agree`.

use std::time::Duration;

use clap::Args;

use super::values::whole_setting;
use crate::agree::{Agreement, Between, FormulaGrid, NETWORKS, STRATEGIES};
use crate::simulate::Reader;

/// Options of `agree`.
#[derive(Debug, Clone, Args)]
pub struct AgreeOptions {
    /// NAME or NAME:TIME of src/network/profiles.toml, or with a NAT of the kernel kernel-nat:TIME, which forgets connections without a
    /// packet, and kernel-address-change:TIME; repeatable [default: all, with times of 6 to 30 s]
    #[arg(long, value_name = "NAME", conflicts_with = "formulas")]
    pub network: Vec<Between>,
    /// Strategies of `simulate`; repeatable [default: short-poll:2s, long-poll:20s, sse, websocket and fallback]
    #[arg(long, value_name = "STRATEGY", conflicts_with = "formulas")]
    pub strategy: Vec<Reader>,
    /// Clients of each strategy on each network
    #[arg(long, value_name = "N", default_value_t = 12, conflicts_with = "formulas", value_parser = clap::value_parser!(u32).range(1..=100))]
    pub clients: u32,
    /// How long messages are published
    #[arg(long, value_name = "TIME", default_value = "2m", conflicts_with = "formulas", value_parser = whole_setting)]
    pub lasting: Duration,
    /// Compare simulations with the formulas of the cost model instead, over a grid of strategies, rates and round trips
    #[arg(long)]
    pub formulas: bool,
    /// Number of settings of the grid, at most 160
    #[arg(long, value_name = "N", default_value_t = 100, requires = "formulas", value_parser = clap::value_parser!(u16).range(1..=160))]
    pub settings: u16,
    /// Seed of everything that is random
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Print the figures as JSON instead of a table
    #[arg(long)]
    pub json: bool,
}

impl AgreeOptions {
    /// Returns the settings in which formulas are compared with simulations.
    pub fn grid(&self) -> FormulaGrid {
        FormulaGrid { settings: usize::from(self.settings), seed: self.seed }
    }

    /// Returns what is simulated and measured.
    pub fn agreement(&self) -> Agreement {
        let networks = || NETWORKS.iter().filter_map(|text| text.parse().ok()).collect();
        let readers = || STRATEGIES.iter().filter_map(|text| text.parse().ok()).collect();
        Agreement {
            networks: if self.network.is_empty() { networks() } else { self.network.clone() },
            readers: if self.strategy.is_empty() { readers() } else { self.strategy.clone() },
            clients: self.clients,
            length: self.lasting,
            seed: self.seed,
        }
    }
}
