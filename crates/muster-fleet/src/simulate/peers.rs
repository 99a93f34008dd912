//! What today's autoscalers would do, from what their makers publish.
//!
//! Each is given more than it would have in life: instances are drained without ever killing a
//! request, and what it decides is done at once.

mod fixed;
mod keda;
mod knative;
mod target_tracking;

pub use fixed::Fixed;
pub use keda::Keda;
pub use knative::Knative;
pub use target_tracking::TargetTracking;
