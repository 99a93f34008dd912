//! The memory that uploads take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::api::problem::ApiError;

/// What an upload takes about, and gives its memory back after.
const UPLOAD_TIME: Duration = Duration::from_secs(1);

/// Memory that uploads may take together; what an upload takes it gives back when it is dropped.
#[derive(Clone, Debug)]
pub struct UploadMemory {
    reserved: Arc<AtomicUsize>,
    /// The budget, in bytes.
    pub limit: usize,
}

/// Memory that one photograph takes, given back when this is dropped.
#[derive(Debug)]
pub struct ReservedMemory {
    /// The budget that it is of.
    pub memory: UploadMemory,
    bytes: usize,
}

impl UploadMemory {
    /// A budget of `limit` bytes.
    pub fn new(limit: usize) -> Self {
        Self {
            reserved: Arc::default(),
            limit,
        }
    }

    /// A reservation of nothing yet.
    pub fn reserve(&self) -> ReservedMemory {
        ReservedMemory {
            memory: self.clone(),
            bytes: 0,
        }
    }
}

impl ReservedMemory {
    /// Reserves more.
    ///
    /// # Errors
    /// 429 where the budget is used up.
    pub fn add(&mut self, bytes: usize) -> Result<(), ApiError> {
        let before = self.memory.reserved.fetch_add(bytes, Ordering::Relaxed);
        self.bytes += bytes;
        if before + bytes > self.memory.limit {
            return Err(ApiError::overloaded(
                "too many photographs are being uploaded at this moment: try again shortly",
                UPLOAD_TIME,
            ));
        }
        Ok(())
    }
}

impl Drop for ReservedMemory {
    fn drop(&mut self) {
        self.memory
            .reserved
            .fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
