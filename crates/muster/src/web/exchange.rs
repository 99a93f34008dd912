//! One HTTP exchange: its id, taken from the client or made, and its trace, in the log and in the
//! answer.

use std::sync::Arc;

use axum::extract::{MatchedPath, Request};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use muster_jobs::TraceParent;
use tracing::Instrument;
use uuid::Uuid;

/// The header that carries the id, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// W3C Trace Context's header.
const TRACEPARENT: &str = "traceparent";
/// Longest id that is taken from a client.
const MAX_ID_CHARS: usize = 128;

tokio::task_local! {
    static CURRENT: Arc<str>;
}

/// The id of the exchange that this task serves; `None` outside of one.
pub fn current() -> Option<Arc<str>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Gives every exchange its id and its trace: within, [`current`] has the id and the request's
/// `traceparent` is a valid one.
pub async fn identify(mut request: Request, next: Next) -> Response {
    let id: Arc<str> = request
        .headers()
        .get(REQUEST_ID)
        .and_then(sane)
        .map_or_else(|| Uuid::now_v7().to_string().into(), Arc::from);
    let trace = trace(request.headers());
    let header = |text: &str| HeaderValue::from_str(text).expect("visible ASCII");
    request
        .headers_mut()
        .insert(TRACEPARENT, header(&trace.to_string()));
    let route = request.extensions().get().map(MatchedPath::as_str);
    let span = tracing::info_span!(
        "exchange",
        http.request_id = &*id,
        http.method = %request.method(),
        http.route = route,
        trace_id = trace.trace_id(),
    );
    let answer = header(&id);
    let mut response = CURRENT.scope(id, next.run(request)).instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, answer);
    response
}

/// A client's id, where it is fit to be logged and echoed.
fn sane(value: &HeaderValue) -> Option<&str> {
    let id = value.to_str().ok()?;
    let fit = |c: char| c.is_ascii_alphanumeric() || "-_.~:/+=@".contains(c);
    let sane = (1..=MAX_ID_CHARS).contains(&id.len()) && id.chars().all(fit);
    sane.then_some(id)
}

/// The trace that `traceparent` names, continued; a new one where it names none.
pub fn trace(headers: &HeaderMap) -> TraceParent {
    headers
        .get(TRACEPARENT)
        .and_then(|value| value.to_str().ok()?.parse::<TraceParent>().ok())
        .map_or_else(TraceParent::new, TraceParent::child)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_could_forge_a_log_line_are_not_taken() {
        let longest = "x".repeat(MAX_ID_CHARS);
        for id in ["7", "01890a5d-ac96-774b-bcce-b302099a8057", &longest] {
            assert_eq!(sane(&HeaderValue::from_str(id).unwrap()), Some(id));
        }
        let too_long = "x".repeat(MAX_ID_CHARS + 1);
        for id in ["", "a b", "a\"b", "{}", "a\tb", &too_long] {
            assert_eq!(sane(&HeaderValue::from_str(id).unwrap()), None, "{id}");
        }
        assert_eq!(sane(&HeaderValue::from_bytes(&[0xff, b'a']).unwrap()), None);
    }
}
