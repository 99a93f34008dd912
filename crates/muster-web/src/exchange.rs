//! One HTTP exchange: its id, taken from the client or made, and its trace, in the log and in the
//! answer.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::Next;
use axum::response::Response;
use muster_jobs::{TRACEPARENT, TraceParent};
use tracing::Instrument;
use uuid::Uuid;

use muster_base::traces::Traces;

/// The header that carries the id, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header that carries the client's trace.
pub const TRACE: HeaderName = HeaderName::from_static(TRACEPARENT);
/// Longest id that is taken from a client.
const MAX_ID_CHARS: usize = 128;

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// The id of the exchange that this task serves; `None` outside of one.
pub fn current() -> Option<Arc<str>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// The id of the exchange that a handler answers.
///
/// # Panics
/// Outside of one: every route is within [`identify`].
pub fn current_id() -> String {
    current()
        .expect("a handler runs within an exchange")
        .to_string()
}

/// Gives every exchange its id and its trace: within, [`current`] has the id and the request's
/// `traceparent` names the exchange's own span.
pub async fn identify(State(traces): State<Traces>, mut request: Request, next: Next) -> Response {
    let id: Arc<str> = request
        .headers()
        .get(REQUEST_ID)
        .and_then(valid_id)
        .map_or_else(|| Uuid::now_v7().to_string().into(), Arc::from);
    let route = request.extensions().get().map(MatchedPath::as_str);
    let client = traceparent(request.headers());
    let mut served = traces.server(client, request.method(), route);
    let trace = served.context();
    let header = |text: &str| HeaderValue::from_str(text).expect("visible ASCII");
    let span = tracing::info_span!(
        "exchange",
        http.request_id = &*id,
        http.method = %request.method(),
        http.route = route,
        trace_id = trace.trace_id(),
    );
    request
        .headers_mut()
        .insert(TRACE, header(&trace.to_string()));
    let answer = header(&id);
    let answering = CURRENT.scope(id, next.run(request));
    let mut response = answering.instrument(span.clone()).await;
    let status = response.status();
    span.in_scope(|| tracing::debug!(http.status = status.as_u16(), "answered"));
    served.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_server_error() {
        served.fail(status.as_str().to_owned());
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, answer);
    // Answers are about people. What anybody may keep says so itself.
    let keep = headers.entry(header::CACHE_CONTROL);
    keep.or_insert(HeaderValue::from_static("no-store"));
    let sniff = HeaderValue::from_static("nosniff");
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, sniff);
    response
}

/// A client's id, where it is valid in a log and a header.
fn valid_id(value: &HeaderValue) -> Option<&str> {
    let id = value.to_str().ok()?;
    let fit = |c: char| c.is_ascii_alphanumeric() || "-_.~:/+=@".contains(c);
    let valid_id = (1..=MAX_ID_CHARS).contains(&id.len()) && id.chars().all(fit);
    valid_id.then_some(id)
}

/// The span of the exchange whose headers these are.
pub fn trace(headers: &HeaderMap) -> TraceParent {
    traceparent(headers).unwrap_or_else(TraceParent::new)
}

fn traceparent(headers: &HeaderMap) -> Option<TraceParent> {
    headers.get(TRACE)?.to_str().ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_forge_a_log_line_are_not_taken() {
        let longest = "x".repeat(MAX_ID_CHARS);
        for id in ["7", "01890a5d-ac96-774b-bcce-b302099a8057", &longest] {
            assert_eq!(valid_id(&HeaderValue::from_str(id).unwrap()), Some(id));
        }
        let too_long = "x".repeat(MAX_ID_CHARS + 1);
        for id in ["", "a b", "a\"b", "{}", "a\tb", &too_long] {
            assert_eq!(valid_id(&HeaderValue::from_str(id).unwrap()), None, "{id}");
        }
        assert_eq!(
            valid_id(&HeaderValue::from_bytes(&[0xff, b'a']).unwrap()),
            None
        );
    }
}
