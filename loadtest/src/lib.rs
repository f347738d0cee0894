//! The comparison: the same workload over every delivery strategy, beside other servers, as numbers and
//! plots.
//!
//! It knows the gateway by its wire alone, and starts it as its own process. Of the crate `pollgate` it uses the client,
//! which is one of the ways of reading that it measures, and nothing else.

pub mod advice;
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
pub mod publisher;
pub mod readers;
pub mod recorder;
pub mod report;
pub mod rounds;
pub mod run;
pub mod servers;
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

/// So that the tests and the example share their made-up report.
#[cfg(test)]
extern crate self as loadtest;
