//! The worker role: receive requests, recognise, store, reply, delete, in that order.
//!
//! One thread does nothing but inference; everything that waits runs beside it, so that the next
//! photograph is fetched and the last answer is stored while the models run. A request is deleted
//! only after its result is stored and its reply sent, so a worker killed at any point loses
//! nothing: the visibility timeout returns its requests.

mod answer;
mod deliver;
mod inference;
mod lease;
mod orphan;
mod place;
mod replies;
mod report;
mod role;
mod slot;
mod steps;
mod worker;

pub use role::{Ended, WorkerOptions, run};
