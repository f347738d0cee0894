//! The comparison: runs the same workload over every delivery strategy, also on other servers, and reports numbers and plots.
//!
//! What is measured uses only the gateway's wire protocol, and starts the gateway as a separate process. [`simulate`] runs the
//! gateway's own code in this process, on a simulated clock.

pub mod advice;
pub mod agree;
pub mod cli;
pub mod client;
pub mod compare;
pub mod cost;
pub mod data;
pub mod dialects;
pub mod figures;
pub mod files;
pub mod generator;
pub mod generators;
pub mod loads;
pub mod machine;
pub mod matrix;
pub mod measured;
pub mod medians;
pub mod model;
pub mod network;
pub mod predicted;
pub mod providers;
pub mod publisher;
pub mod readers;
pub mod readme;
pub mod recorder;
pub mod report;
pub mod rounds;
pub mod run;
pub mod scale;
pub mod servers;
pub mod simulate;
pub mod sockets;
pub mod strategies;
pub mod streams;
pub mod sweep;
pub mod table;
pub mod tally;
pub mod target;
pub mod troubles;
pub mod wire;
pub mod workload;
pub mod wrk;

/// Keeps unit tests that start programs (writers) apart from simulations that have to repeat themselves (readers): until a child executes its program, it
/// shares all sockets of this process, so that one which a simulation closes stays open, and simulated time passes before its other end knows.
#[cfg(test)]
static PROGRAMS: parking_lot::RwLock<()> = parking_lot::RwLock::new(());

/// Lets unit tests share the sample report of the example.
#[cfg(test)]
extern crate self as loadtest;
