//! axum's extractors with Muster's own errors.

use axum::extract::{FromRequestParts, Path as AxumPath, Query as AxumQuery};
use axum::http::request::Parts;
use serde::de::DeserializeOwned;

use crate::api::problem::ApiError;

/// The parameters in the path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match AxumPath::from_request_parts(parts, state).await {
            Ok(AxumPath(value)) => Ok(Self(value)),
            // Whatever it is, nothing has such a name.
            Err(_) => Err(ApiError::not_found(
                "the path is not UTF-8 text once decoded: there is nothing at it",
            )),
        }
    }
}

/// What is wrong with a query: the value that a parameter does not take, where it is that.
fn refused(parts: &Parts, said: &str) -> ApiError {
    let said = said.trim_start_matches("Failed to deserialize query string: ");
    let sent = AxumQuery::<Vec<(String, String)>>::try_from_uri(&parts.uri);
    let sent = sent.map(|AxumQuery(sent)| sent).unwrap_or_default();
    let parameter = said.split_once(": ").map(|(name, _)| name);
    let wrong = sent.iter().find(|(name, _)| Some(&**name) == parameter);
    ApiError::bad_request(match wrong {
        Some((name, value)) => {
            format!("{name} is {value:?}, which it can not be: see /docs for what it takes")
        }
        None => format!("the query can not be read ({said}): see /docs for what it takes"),
    })
}

/// The parameters after the `?`.
pub struct Query<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        match AxumQuery::from_request_parts(parts, state).await {
            Ok(AxumQuery(value)) => Ok(Self(value)),
            Err(rejection) => Err(refused(parts, &rejection.body_text())),
        }
    }
}
