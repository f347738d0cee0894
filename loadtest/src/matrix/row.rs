//! The measured figures of a matrix, in the shape of `networks.json`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Matrix;
use crate::data::{Deliveries, Machine};
use crate::machine::machine;
use crate::network::Passed;
use crate::workload::Plan;

/// The figures of all cells, and how they were measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rows {
    /// The command line.
    pub command: String,
    /// The machine it ran on.
    pub machine: Machine,
    /// Factor from seconds of a real path to measured seconds.
    pub scale: f64,
    /// Messages per second to each stream during a burst.
    pub rate: f64,
    /// From the first message to the end of the last pause, in scaled seconds.
    pub seconds: f64,
    /// One per network and reader.
    pub rows: Vec<Row>,
}

/// Figures of one reader through one network. Times are scaled, as measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Name of the network.
    pub network: String,
    /// Source of the network's figures.
    pub source: String,
    /// Name of the reader.
    pub reader: String,
    /// Counts of deliveries.
    pub deliveries: Deliveries,
    /// 50th percentile of the time from the intended publish to the receipt, over delivered messages; `None` if nothing arrived.
    pub p50_millis: Option<f64>,
    /// 95th percentile of it.
    pub p95_millis: Option<f64>,
    /// Longest such time, which is the time of the slowest recovery.
    pub longest_millis: Option<f64>,
    /// Connections and requests of the reader, and what the network did to them.
    pub passed: Passed,
    /// Delivery form at the end.
    pub form: String,
    /// Events of the fallback client, in order; each change of form has its reason.
    pub changes: Vec<String>,
    /// Errors of the reader and how often each occurred.
    pub troubles: BTreeMap<String, u64>,
}

impl Rows {
    pub(super) fn new(wanted: &Matrix, plan: &Plan, rows: Vec<Row>) -> Self {
        Self {
            command: std::env::args().collect::<Vec<_>>().join(" "),
            machine: machine(vec![("loadtest".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
            scale: wanted.scale.get(),
            rate: wanted.rate,
            seconds: plan.measured.as_secs_f64(),
            rows,
        }
    }
}
