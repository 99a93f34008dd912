//! What a proxy in front of Muster brings with it: the host that it was asked for, and the path below
//! which it publishes Muster; and what nobody may send, since two readers could take it for two things.

use axum::extract::{Request, State};
use axum::http::{HeaderValue, Version, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use muster_base::settings::BasePath;

use crate::api::problem::ApiError;

/// Refuses a request for two hosts or by two callers, and puts the base path before the places that answers name.
pub async fn behind(State(base): State<BasePath>, request: Request, next: Next) -> Response {
    if let Err(refusal) = check(&request) {
        return refusal.into_response();
    }
    let mut response = next.run(request).await;
    if let Some(location) = response.headers().get(header::LOCATION) {
        let at = [base.as_str().as_bytes(), location.as_bytes()].concat();
        let at = HeaderValue::from_bytes(&at).expect("two parts of a path are one");
        response.headers_mut().insert(header::LOCATION, at);
    }
    response
}

/// Refuses what two readers could take for two hosts (a `Host` header that is there twice or is no ASCII
/// text, or beside it a whole URL) or for two callers.
fn check(request: &Request) -> Result<(), ApiError> {
    let headers = request.headers();
    if headers
        .get_all(header::AUTHORIZATION)
        .iter()
        .nth(1)
        .is_some()
    {
        return Err(ApiError::bad_request(
            "the request has several Authorization headers: send one",
        ));
    }
    if request.version() < Version::HTTP_2 && request.uri().authority().is_some() {
        return Err(ApiError::bad_request(
            "the request asks for a whole URL, as one asks a proxy, which Muster is not: ask for the path",
        ));
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (_, Some(_)) => Err(ApiError::bad_request(
            "the request has several Host headers: send one",
        )),
        (Some(host), None) if host.to_str().is_err() => Err(ApiError::bad_request(
            "the Host header is not ASCII: send the host's name in its ASCII form (punycode)",
        )),
        _ => Ok(()),
    }
}
