//! Without an endpoint nothing is recorded and the context is handed on as it came.

use super::*;

#[test]
fn where_tracing_is_off_the_clients_context_is_handed_on() {
    let traces = Traces::default();
    let client: TraceParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
        .parse()
        .unwrap();
    let server = traces.server(Some(client), &Method::POST, Some("/v1/recognize"));
    assert_eq!(server.context().trace_id(), client.trace_id());
    assert!(server.context().is_sampled() && server.recorded.is_none());
    let mut sent = traces.send(server.context(), "requests", RequestId::new());
    sent.set("muster.outcome", "recognized");
    sent.fail("timeout");
    assert_eq!(sent.context(), server.context());
    assert!(sent.attributes().is_empty());
    let own = traces.server(None, &Method::GET, None).context();
    assert!(!own.is_sampled());
}
