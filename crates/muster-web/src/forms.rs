//! Request bodies: forms with photographs and JSON, read with a limit on everything.

pub mod disposition;
pub mod fields;
pub mod json;
pub mod memory;
pub mod printable;
pub mod upload;
pub mod uploads;
