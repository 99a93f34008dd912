//! The failure that a photograph's client is answered with.

use muster_jobs::{Failure, FailureCode};
use muster_recognize::decode::ImageError;

/// The contract's failure for a photograph that can not be decoded.
pub fn image_failure(error: &ImageError) -> Failure {
    let code = match error.code() {
        "image.unsupported" => FailureCode::ImageUnsupported,
        "image.too_large" => FailureCode::ImageTooLarge,
        _ => FailureCode::ImageUnreadable,
    };
    Failure {
        code,
        detail: error.to_string(),
    }
}
