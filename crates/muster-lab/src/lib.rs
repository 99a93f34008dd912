//! The laboratory: the commands that measure Muster, its models and its planner.

pub mod bench;
pub mod eval;
mod evaluate;
mod identification;
mod photos;
pub mod profile;
pub mod simulate;
