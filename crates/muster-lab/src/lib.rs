//! The laboratory: the commands that measure Muster, its models and its planner.

pub mod bench;
pub mod eval;
mod photos;
pub mod profile;
mod random;
pub mod simulate;
