//! Request bodies that are JSON.

use axum::extract::Request;
use axum::http::header;
use serde::de::DeserializeOwned;

use crate::api::problem::ApiError;
use muster_api::problem::Code;

/// Longest JSON body, and longest text field that is JSON, in bytes: enough for all the metadata that
/// a person may have, as UTF-8.
pub const MAX_JSON_BYTES: usize = 256 << 10;

/// Reads a body that is JSON, of `MAX_JSON_BYTES` at most.
///
/// # Errors
/// 415 where it says to be something else, 413 where it is longer, 400 where it is not of that
/// shape.
pub async fn read_json<T: DeserializeOwned>(request: Request) -> Result<T, ApiError> {
    let kind = request.headers().get(header::CONTENT_TYPE);
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !matches!(kind, "application/json" | "application/merge-patch+json") {
        return Err(ApiError::new(
            Code::RequestUnsupported,
            "the body is not application/json: send JSON, and say so in Content-Type",
        ));
    }
    let bytes = axum::body::to_bytes(request.into_body(), MAX_JSON_BYTES)
        .await
        .map_err(|_| {
            ApiError::new(
                Code::RequestTooLarge,
                format!("the body was cut short, or has more than {MAX_JSON_BYTES} bytes"),
            )
        })?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(format!("the body is not as expected: {error}")))
}
