//! What a matrix has measured, as `networks.json` holds it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Matrix;
use crate::data::{Deliveries, Machine};
use crate::machine::machine;
use crate::network::Passed;
use crate::workload::Plan;

/// All of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rows {
    /// The exact command.
    pub command: String,
    /// Where it ran.
    pub machine: Machine,
    /// Scaled seconds for one of a real path.
    pub scale: f64,
    /// Messages a second to each stream within a burst.
    pub rate: f64,
    /// From the first message to the last, in scaled seconds.
    pub seconds: f64,
    /// One a network and way of reading.
    pub rows: Vec<Row>,
}

/// One way of reading through one network. Times are scaled ones, as they were measured.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// The network's name.
    pub network: String,
    /// Where its figures come from.
    pub source: String,
    /// The way of reading.
    pub reader: String,
    /// What arrived.
    pub deliveries: Deliveries,
    /// From the intended publish time to the receipt; of what was delivered.
    pub p50_millis: f64,
    /// The same.
    pub p95_millis: f64,
    /// The longest that a message had to wait, which is how long it took to recover from the worst that happened.
    pub longest_millis: f64,
    /// Connections and requests of the reader, and what the network did to them.
    pub passed: Passed,
    /// The form in the end.
    pub form: String,
    /// Each change of form with its reason, and what else the fallback client has said, in order.
    pub changes: Vec<String>,
    /// What went wrong for a bare strategy, and how often.
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
