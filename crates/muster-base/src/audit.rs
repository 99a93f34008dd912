//! The audit log: who enrolled, changed, deleted or looked at whom, and when.

mod entry;
mod store;

pub use entry::{Action, End, Entry, Who};
pub use store::{AuditLog, Part};
