//! The cutoff that keeps strangers from being taken for somebody at a chosen rate.
//!
//! What is aimed at is the false-positive identification rate: the share of strangers for whom
//! anybody enrolled is named. It grows with the gallery, so the cutoff does. A cutoff is a function
//! of the gallery alone: every worker has the same at the same version.

mod cutoff;
mod impostors;
mod normal;
mod rate;
mod report;
mod tail;

pub use cutoff::{Basis, Cutoff, DEFAULT_TARGET};
#[cfg(test)]
pub(crate) use impostors::tests::strangers;
pub use impostors::{Impostors, SAMPLED};
pub use rate::Rate;
pub use report::{AtCutoff, Report, report};
