//! A multipart form's fields, from a parser that holds little of the form at a time.
//!
//! The parser keeps whatever it is given until it can give it out: before the first field, and
//! within a field's headers, that would be all that a client cares to send.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::body::{Body, BodyDataStream};
use axum::extract::multipart::{Field, MultipartError, MultipartRejection};
use axum::extract::{DefaultBodyLimit, FromRequest, Multipart, Request};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};

use crate::api::problem::ApiError;
use crate::forms::disposition;
use muster_api::problem::Code;

/// What the parser is given at a time, in bytes.
const STEP: usize = 64 << 10;
/// What it may hold that it has not given out: a few steps, of which a field's headers are the
/// smallest part.
const MAX_HELD: usize = 4 * STEP;

/// The count of what the parser buffers.
#[derive(Clone, Debug, Default)]
struct ParserBuffer(Arc<Counts>);

#[derive(Debug, Default)]
struct Counts {
    /// Bytes that it was given and did not give out, but for the little that stands between the
    /// fields.
    bytes: AtomicUsize,
    /// How often it gave something out, be it empty.
    given: AtomicUsize,
}

impl ParserBuffer {
    fn bytes(&self) -> usize {
        self.0.bytes.load(Ordering::Relaxed)
    }

    fn given(&self) -> usize {
        self.0.given.load(Ordering::Relaxed)
    }

    fn add(&self, bytes: usize) {
        self.0.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn give(&self, bytes: usize) {
        self.0.bytes.fetch_sub(bytes, Ordering::Relaxed);
        self.0.given.fetch_add(1, Ordering::Relaxed);
    }

    fn refusal(&self, error: &MultipartError) -> ApiError {
        if self.bytes() > MAX_HELD {
            return ApiError::new(
                Code::RequestTooLarge,
                format!(
                    "the form has more than {MAX_HELD} bytes before a field, or in a field's \
                     headers: send photographs as the contents of fields"
                ),
            );
        }
        ApiError::bad_request(format!(
            "the multipart form could not be read ({}): send it again",
            error.body_text()
        ))
    }
}

/// The fields of a form, one after the other.
pub struct Fields {
    multipart: Multipart,
    buffered: ParserBuffer,
}

/// A field of a form.
pub struct FormField<'a> {
    field: Field<'a>,
    buffered: ParserBuffer,
}

impl Fields {
    /// Begins to read a request's form.
    ///
    /// # Errors
    /// When its headers announce none.
    pub async fn of(request: Request) -> Result<Self, MultipartRejection> {
        let buffered = ParserBuffer::default();
        let steps = |body: Body| in_steps(body.into_data_stream(), buffered.clone());
        let mut request = request.map(|body| Body::from_stream(steps(body)));
        // Whoever reads the fields has limits of their own.
        DefaultBodyLimit::disable().apply(&mut request);
        Ok(Self {
            multipart: Multipart::from_request(request, &()).await?,
            buffered,
        })
    }

    /// The next field. What was not read of the one before counts as buffered.
    ///
    /// # Errors
    /// 400 where it is no such form, 413 where what stands around its fields is too long.
    pub async fn next(&mut self) -> Result<Option<FormField<'_>>, ApiError> {
        let buffered = self.buffered.clone();
        let field = self.multipart.next_field().await;
        let Some(field) = field.map_err(|error| buffered.refusal(&error))? else {
            return Ok(None);
        };
        let headers = field.headers().iter();
        buffered.give(
            headers
                .map(|(name, value)| name.as_str().len() + value.len())
                .sum(),
        );
        Ok(Some(FormField { field, buffered }))
    }
}

impl FormField<'_> {
    /// The field's name, empty where it has none.
    pub fn name(&self) -> &str {
        self.field.name().unwrap_or_default()
    }

    /// The name of the file that it is.
    pub fn file_name(&self) -> Option<String> {
        disposition::file_name(self.field.headers())
    }

    /// Some more of its contents; `None` at its end.
    ///
    /// # Errors
    /// As [`Fields::next`].
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ApiError> {
        let chunk = self.field.chunk().await;
        let chunk = chunk.map_err(|error| self.buffered.refusal(&error))?;
        self.buffered.give(chunk.as_ref().map_or(0, Bytes::len));
        Ok(chunk)
    }
}

/// Hands out a body in steps, as long as whoever takes them does not hold too much.
fn in_steps(
    body: BodyDataStream,
    buffered: ParserBuffer,
) -> impl Stream<Item = Result<Bytes, axum::Error>> + Send {
    stream::unfold((body, Bytes::new()), move |(mut body, mut rest)| {
        let buffered = buffered.clone();
        async move {
            while rest.is_empty() {
                match body.next().await? {
                    Ok(bytes) => rest = bytes,
                    Err(error) => return Some((Err(error), (body, rest))),
                }
            }
            // The parser takes all that is there before it looks at any of it. It is let look,
            // until it holds little or has found nothing to give out.
            let mut before = None;
            while buffered.bytes() >= STEP && before != Some(buffered.given()) {
                before = Some(buffered.given());
                tokio::task::yield_now().await;
            }
            let step = rest.split_to(rest.len().min(STEP));
            buffered.add(step.len());
            let step = if buffered.bytes() > MAX_HELD {
                Err(axum::Error::new(std::io::Error::other("too much to hold")))
            } else {
                Ok(step)
            };
            Some((step, (body, rest)))
        }
    })
}

#[cfg(test)]
mod tests {
    use axum::http::header::CONTENT_TYPE;

    use super::*;

    /// A form from a client that sends as fast as it is read, and how much of it was.
    fn form(chunks: impl Iterator<Item = Bytes> + Send + 'static) -> (Request, Arc<AtomicUsize>) {
        let read = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&read);
        let chunks = stream::iter(chunks.map(move |chunk| {
            count.fetch_add(chunk.len(), Ordering::Relaxed);
            Ok::<_, std::io::Error>(chunk)
        }));
        let request = Request::builder().header(CONTENT_TYPE, "multipart/form-data; boundary=x");
        (request.body(Body::from_stream(chunks)).unwrap(), read)
    }

    fn field(name: &str, contents: &[u8]) -> Vec<u8> {
        let head = format!("--x\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n");
        [head.as_bytes(), contents, b"\r\n"].concat()
    }

    #[tokio::test]
    async fn what_gives_no_field_is_refused_before_it_fills_the_memory() {
        for begin in ["", "--x", "--x\r\n", "--x\r\nA: "] {
            for size in [1, 500_000, 20 << 20] {
                let begin = Bytes::from(begin);
                let endless = std::iter::repeat_n(Bytes::from(vec![b'a'; size]), (40 << 20) / size);
                let (request, read) = form(std::iter::once(begin.clone()).chain(endless));
                let mut fields = Fields::of(request).await.unwrap();
                let refused = fields.next().await.err().unwrap();
                let read = read.load(Ordering::Relaxed);
                assert!(
                    read <= begin.len() + size.max(2 * MAX_HELD),
                    "{begin:?} {size}: {read}"
                );
                let code = if begin == "--x" {
                    Code::RequestInvalid
                } else {
                    Code::RequestTooLarge
                };
                assert_eq!(refused.code(), code, "{begin:?} {size}");
            }
        }
    }

    #[tokio::test]
    async fn many_fields_of_any_size_come_whole_however_they_are_sent() {
        let sizes = [
            0, 1, 900, 65_000, 66_000, 300_000, 0, 0, 0, 0, 0, 0, 0, 3_000_000,
        ];
        let contents = |n: usize| vec![n as u8; sizes[n % sizes.len()]];
        let mut whole: Vec<u8> = (0..100).flat_map(|n| field("f", &contents(n))).collect();
        whole.extend(std::iter::repeat_n(field("f", b"tiny"), 5_000).flatten());
        whole.extend(b"--x--\r\n");
        let whole = Bytes::from(whole);
        for size in [700, STEP, 400_000, whole.len()] {
            let body = whole.clone();
            let at = (0..whole.len()).step_by(size);
            let (request, _) = form(at.map(move |at| body.slice(at..body.len().min(at + size))));
            let mut fields = Fields::of(request).await.unwrap();
            let mut number = 0;
            while let Some(mut field) = fields.next().await.unwrap() {
                let mut read = Vec::new();
                while let Some(chunk) = field.chunk().await.unwrap() {
                    read.extend_from_slice(&chunk);
                }
                let sent = if number < 100 {
                    contents(number)
                } else {
                    b"tiny".to_vec()
                };
                assert!(read == sent, "{number} in steps of {size}");
                number += 1;
            }
            assert_eq!(number, 5_100);
        }
    }
}
