//! How the service fares: its status, its metrics, and its events.

pub mod audit;
pub mod events;
mod instances;
pub mod observer;
pub mod prometheus;
pub mod status;
