//! The way of a photograph to the store, and of its request to the queue.

use std::time::Instant;

use muster_api::problem::Code;
use muster_jobs::keys::ObjectKeys;
use muster_jobs::{MESSAGE_VERSION, Purpose, Request, RequestId, TraceParent, now_ms};
use muster_queue::Outgoing;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use crate::api::problem::ApiError;
use crate::dispatch::dispatcher::{Dispatcher, Submission};
use crate::forms::upload::Photo;

impl Dispatcher {
    /// Stores the photograph, and then puts the request on the queue.
    pub(super) async fn submit(
        &self,
        id: RequestId,
        photo: Photo,
        what: Submission,
        trace: TraceParent,
        deadline: tokio::time::Instant,
    ) -> Result<(), ApiError> {
        let queue = self.inner.backend.requests.name();
        let mut span = self.inner.traces.send(trace, queue, id);
        let sent = self
            .store_and_send(id, photo, what, span.context(), deadline)
            .await;
        if sent.is_err() {
            span.fail("not_queued");
        }
        sent
    }

    async fn store_and_send(
        &self,
        id: RequestId,
        photo: Photo,
        Submission { purpose, job }: Submission,
        trace: TraceParent,
        deadline: tokio::time::Instant,
    ) -> Result<(), ApiError> {
        let inner = &*self.inner;
        let late = |_| {
            let waited = inner.timeout.as_secs_f64();
            let detail = format!(
                "the photograph could not be stored and queued within {waited:.0} s: send it again \
                 later"
            );
            ApiError::new(Code::Timeout, detail)
        };
        let layout = inner.backend.layout(purpose);
        let key = Path::from(layout.input(id, &photo.file));
        inner.quota.take(photo.bytes.len())?;
        let preparation = async {
            tokio::join!(
                async {
                    let begun = Instant::now();
                    let payload = PutPayload::from_bytes(photo.bytes);
                    let stored = inner.backend.input.put(&key, payload).await;
                    inner.traces.stage(trace, "store", begun.elapsed());
                    stored
                },
                inner.gallery.newest(|gallery| match purpose {
                    Purpose::Recognize => (gallery.version(), Vec::new()),
                    // An embedding matches nobody.
                    Purpose::Embed { .. } => (0, inner.catalogue.to_embed(gallery)),
                })
            )
        };
        let prepared = tokio::time::timeout_at(deadline, preparation).await;
        let (stored, prepared) = prepared.map_err(late)?;
        let stored = stored
            .map_err(|error| ApiError::internal("a photograph could not be stored", &error))?;
        let (gallery_version, models) = prepared
            .map_err(|error| ApiError::internal("the gallery could not be read", &error))?;
        drop(photo.memory);
        let request = Request {
            version: MESSAGE_VERSION,
            id,
            purpose,
            models,
            file: photo.file,
            input_etag: match layout {
                ObjectKeys::Request | ObjectKeys::PrefixHashed => None,
                ObjectKeys::Filename => stored.e_tag,
            },
            prefix_hashed: layout == ObjectKeys::PrefixHashed,
            gallery_version,
            job,
            sent_at_ms: now_ms(),
            reply_to: inner.reply_to.clone(),
            trace,
        };
        let (body, attributes) = request.to_message();
        let sending = inner.outbox.send(Outgoing { body, attributes });
        tokio::time::timeout_at(deadline, sending)
            .await
            .map_err(late)?
            .map_err(|error| ApiError::internal("a request could not be queued", &error))?;
        Ok(())
    }
}
