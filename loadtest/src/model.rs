//! The cost model: computes the cost of a delivery strategy by formula, without a run.
//!
//! Pure functions and embedded tables; the only IO reads the user's profile files. docs/design/cost-model.md has the
//! formulas. The marks grade a figure's certainty: V read in the source itself, S quoted by others, X
//! from memory but it reproduces a published result, M from memory, D derived.

pub mod asleep;
pub mod candidate;
pub mod energy;
pub mod network;
pub mod pareto;
pub mod prediction;
pub mod radio;
pub mod recommend;
pub mod server_load;
pub mod settings;
pub mod wakes;

#[cfg(test)]
mod simulation;
