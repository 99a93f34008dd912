//! Amazon SQS, or any server that speaks its protocol.
//!
//! Standard queues, long polls, batch calls. Every call has a deadline, and that of a long poll
//! lies beyond its wait.
//!
//! Invariant: the caller sees the names it gave; the prefix that keeps installations apart stays
//! in here.

mod attributes;
mod batch;
mod failure;
mod permissions;
mod queue;
mod queues;
mod time;

pub use self::failure::SqsRefusal;
pub use self::queue::{QueueDescription, SqsQueue};
pub use self::queues::SqsQueues;
