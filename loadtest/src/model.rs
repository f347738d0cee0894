//! The cost model: what a delivery strategy costs by formula, without running it.
//!
//! Pure functions and embedded tables, no IO but the user's own profile files. "COST-MODEL" in the comments is the
//! project's collection of facts and formulas; its marks say how sure a figure is: V read in the source itself, S quoted
//! by others, X from memory but it reproduces a published result, M from memory, D derived.

pub mod candidate;
pub mod energy;
pub mod network;
pub mod pareto;
pub mod prediction;
pub mod radio;
pub mod recommend;
pub mod settings;
pub mod wakes;

#[cfg(test)]
mod simulation;
