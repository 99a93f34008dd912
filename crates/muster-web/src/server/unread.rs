//! What nobody read of a request, an unauthorised upload's photograph for one.
//!
//! A connection that still has some of it can't carry another request, and where it is closed with
//! unread bytes, the system may take the answer from the client too. So the rest is read, within
//! limits, and the answer says that the connection ends where that was not enough.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Bytes;
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{HeaderMap, header};
use tokio::sync::oneshot;

/// Longest rest that is read: about what a photograph has.
const MAX_BYTES: u64 = 32 << 20;
/// How long the answer waits for it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A request's body, whose rest is handed back when it is dropped.
pub struct Asked {
    body: Option<Incoming>,
    rest: Option<oneshot::Sender<Incoming>>,
}

/// What is left of a request's body.
pub struct Rest {
    rest: oneshot::Receiver<Incoming>,
    /// The client sends none of it before it is asked to.
    held_back: bool,
}

impl Asked {
    /// The body of a request with those headers.
    pub fn new(body: Incoming, headers: &HeaderMap) -> (Self, Rest) {
        let (give, rest) = oneshot::channel();
        let asked = Self {
            body: Some(body),
            rest: Some(give),
        };
        let held_back = headers.contains_key(header::EXPECT);
        (asked, Rest { rest, held_back })
    }
}

impl Drop for Asked {
    fn drop(&mut self) {
        if let (Some(body), Some(rest)) = (self.body.take(), self.rest.take())
            && !body.is_end_stream()
        {
            // Without a receiver nothing is to be answered any more.
            let _ = rest.send(body);
        }
    }
}

impl Body for Asked {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = &mut self.body else {
            return Poll::Ready(None);
        };
        let frame = Pin::new(body).poll_frame(context);
        if matches!(frame, Poll::Ready(None | Some(Err(_)))) {
            self.body = None;
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        let none = SizeHint::with_exact(0);
        self.body.as_ref().map_or(none, Body::size_hint)
    }
}

impl Rest {
    /// Reads it once the request is answered; whether the connection can carry another request.
    pub async fn read(mut self) -> bool {
        let mut body = match self.rest.try_recv() {
            Ok(body) => body,
            Err(oneshot::error::TryRecvError::Closed) => return true,
            // Something reads on.
            Err(oneshot::error::TryRecvError::Empty) => return false,
        };
        if self.held_back || body.size_hint().lower() > MAX_BYTES {
            return false;
        }
        let read = async {
            let mut bytes = 0;
            while let Some(frame) = body.frame().await {
                let Ok(frame) = frame else { return false };
                bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
                if bytes > MAX_BYTES {
                    return false;
                }
            }
            true
        };
        tokio::time::timeout(PATIENCE, read).await.unwrap_or(false)
    }
}
