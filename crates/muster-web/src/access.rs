//! Who may call the API, how often, and the record of what they did to people.

pub mod audit;
pub mod guard;
pub mod keyless;
pub mod rate;
