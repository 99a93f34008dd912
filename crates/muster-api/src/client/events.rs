//! The stream of server-sent events that a service tells of itself.
//!
//! Read by hand: Muster sends an event as one line of its name and one of its data, and
//! `eventsource-stream`, the crate for any event stream, has had no release since 2022 and bounds
//! no event.

use reqwest::Response;
use serde_json::Value;

/// Longest event that is taken: five minutes of history have some hundred kilobytes.
const MAX_EVENT_BYTES: usize = 8 << 20;
/// What an event ends with: an empty line.
const END: &[u8] = b"\n\n";

/// An event.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// What it is of.
    pub name: String,
    /// What it tells.
    pub data: Value,
}

/// Why there is no next event.
#[derive(Debug, thiserror::Error)]
pub enum EventError {
    /// The connection broke.
    #[error("the connection broke")]
    Broken(#[source] reqwest::Error),
    /// An event has no name, no data, or data that is not JSON.
    #[error("read an event")]
    Malformed(#[source] Option<serde_json::Error>),
    /// An event does not end.
    #[error("an event has more than {MAX_EVENT_BYTES} bytes: this is not Muster")]
    TooLong,
}

/// The events of one connection.
#[derive(Debug)]
pub struct EventStream {
    response: Response,
    received: Vec<u8>,
}

impl EventStream {
    /// The stream that an answer's body is.
    pub(super) fn new(response: Response) -> Self {
        Self {
            response,
            received: Vec::new(),
        }
    }

    /// The next event; `None` once the service has stopped.
    ///
    /// # Errors
    /// When the connection breaks, or what comes is no event of JSON.
    pub async fn next(&mut self) -> Result<Option<Event>, EventError> {
        loop {
            let end = self.received.windows(END.len()).position(|two| two == END);
            if let Some(end) = end {
                let event: Vec<u8> = self.received.drain(..end + END.len()).collect();
                return parse(&event).map(Some);
            }
            if self.received.len() > MAX_EVENT_BYTES {
                return Err(EventError::TooLong);
            }
            match self.response.chunk().await.map_err(EventError::Broken)? {
                Some(chunk) => self.received.extend_from_slice(&chunk),
                None => return Ok(None),
            }
        }
    }
}

fn parse(event: &[u8]) -> Result<Event, EventError> {
    let field = |name: &[u8]| {
        let mut lines = event.split(|byte| *byte == b'\n');
        lines.find_map(|line| line.strip_prefix(name))
    };
    let name = field(b"event: ").and_then(|name| str::from_utf8(name).ok());
    let (name, data) = name
        .zip(field(b"data: "))
        .ok_or(EventError::Malformed(None))?;
    let data = serde_json::from_slice(data).map_err(|error| EventError::Malformed(Some(error)))?;
    Ok(Event {
        name: name.to_owned(),
        data,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_event_has_a_name_and_data_of_json() {
        let event = parse(b"event: sample\ndata: {\"at_ms\":7}\n\n").unwrap();
        assert_eq!((&*event.name, event.data), ("sample", json!({"at_ms": 7})));
        for wrong in ["data: {}\n\n", "event: sample\n\n", "event: x\ndata: {\n\n"] {
            let error = parse(wrong.as_bytes()).unwrap_err();
            assert!(matches!(error, EventError::Malformed(_)), "{wrong}");
        }
    }
}
