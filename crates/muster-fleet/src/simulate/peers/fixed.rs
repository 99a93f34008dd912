//! A fleet that never changes.

use crate::simulate::scaling_policy::{FleetMetrics, ScalingPolicy};
use crate::simulate::scenario::Scenario;

/// A fleet that never changes, booted before the trace begins.
#[derive(Clone, Copy, Debug)]
pub struct Fixed(
    /// Instances.
    pub u32,
);

impl ScalingPolicy for Fixed {
    fn name(&self) -> String {
        format!("fixed:{}", self.0)
    }

    fn interval_s(&self) -> f64 {
        60.0
    }

    fn desired_instances(&mut self, _: &FleetMetrics, _: &Scenario) -> u32 {
        self.0
    }

    fn initial_instances(&self) -> u32 {
        self.0
    }
}
