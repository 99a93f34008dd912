//! The web role: the HTTP contract, in front of the queue.

mod access;
mod api;
mod app;
mod dispatch;
mod document;
mod exchange;
mod forms;
mod gallery;
mod jobs;
mod metrics;
mod observe;
mod page;
mod people;
mod proxy;
mod quota;
mod recognize;
mod replica;
mod retention;
mod role;
mod routes;
mod server;
mod verify;

pub use replica::{Replica, Reporting};
pub use role::{bind, run};
