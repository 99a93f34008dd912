//! Tests of the queues against real ones: SQLite files, several processes, and moto's server.
//!
//! One binary, so that all tests of SQS share one server.

mod conformance;
mod processes;
mod sqlite;
mod sqs;
