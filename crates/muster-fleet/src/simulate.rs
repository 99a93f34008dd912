//! A discrete-event simulation of a fleet under a trace of arrivals.
//!
//! The [`plan()`](crate::plan()) that the controller calls is replayed against what today's
//! autoscalers would have done, by their published formulas, and against the optimum of one who
//! knows the future.

mod arrivals;
mod autoscaler;
mod counts;
mod engine;
mod oracle;
mod outcome;
pub mod peers;
pub(crate) mod random;
mod scaling_policy;
mod scenario;

pub use arrivals::spread;
pub use autoscaler::{Autoscaler, ORACLE};
pub use engine::run;
pub use oracle::optimum;
pub use outcome::Outcome;
pub use scaling_policy::{FleetMetrics, ScalingPolicy};
pub use scenario::Scenario;
