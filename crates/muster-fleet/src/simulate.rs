//! A discrete-event simulation of a fleet under a trace of arrivals.
//!
//! The [`plan()`](crate::plan()) that the controller calls is replayed against what today's
//! autoscalers would have done, by their published formulas, against the best schedule that is known to
//! one who knows the future, and against what nobody undercuts.

mod arrivals;
mod autoscaler;
mod best;
mod boots;
mod bound;
mod counts;
mod engine;
mod launch_limit;
mod levels;
mod load;
mod outcome;
pub mod peers;
pub(crate) mod random;
mod scaling_policy;
mod scenario;
mod schedule;

pub use arrivals::spread;
pub use autoscaler::{Autoscaler, BEST_KNOWN};
pub use best::{best_known, cheapest_fixed};
pub use bound::lower_bound_hours;
pub use engine::run;
pub use launch_limit::{LaunchLimit, TokenBucket};
pub use outcome::Outcome;
pub use scaling_policy::{FleetMetrics, ScalingPolicy};
pub use scenario::{Scenario, TierScenario};
pub use schedule::{Run, Schedule};
