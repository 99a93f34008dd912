//! What becomes of an outcome: the result is stored, then the reply sent.
//!
//! A reply that is too large for its queue is sent in its shorter form. One that is too large all the same
//! goes by the output store: it points to the result where that is all there is to say, or else to the
//! outcome, which is put there for its web tier to read and delete.

use std::time::Instant;

use muster_jobs::keys::ObjectKeys;
use muster_jobs::{Attributes, FailureCode, Outcome, Purpose, Reply, Request, WorkerCpu};
use muster_queue::{Outgoing, QueueError};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};

use super::worker::{HandleError, Worker, millis};
use muster_base::aws;
use muster_base::backend::Backend;
use muster_base::cpu;

impl Worker {
    /// Stores the result, then sends the reply; says in a word what came of the request.
    ///
    /// A failure never replaces what is stored: an answered request whose deletion was lost may come
    /// back until it counts as failed. The reply then points to what is there.
    pub(super) async fn deliver(
        &self,
        request: &Request,
        outcome: Outcome,
    ) -> Result<&'static str, HandleError> {
        let how = match &outcome {
            Outcome::Recognized(_) => "recognized",
            Outcome::Embedded(_) => "embedded",
            Outcome::Failed(_) => "failed",
            Outcome::Stored => "stored",
        };
        let mut reply = Reply::new(request.id, request.file.clone(), outcome);
        reply.cpu = cpu::beside_models().map(|used| WorkerCpu {
            instance: self.id.clone(),
            io_ms: millis(used),
        });
        reply.slot_ms = Some(millis(self.slot.take_occupied()));
        let begun = Instant::now();
        let layout = request.layout();
        if let Some(body) = stored(&reply, request, layout) {
            let key = Path::from(layout.output(request.id, &request.file));
            let mode = match &reply.outcome {
                Outcome::Failed(_) => PutMode::Create,
                _ => PutMode::Overwrite,
            };
            let payload = PutPayload::from(body);
            let put = self
                .backend
                .output
                .put_opts(&key, payload, mode.into())
                .await;
            match (put, &reply.outcome) {
                (Ok(_), _) if request.job => self.unless_deleted(request, &key).await?,
                (Ok(_), _) => {}
                (Err(object_store::Error::AlreadyExists { .. }), Outcome::Failed(_)) => {
                    reply.outcome = Outcome::Stored;
                }
                // Its client is told at least.
                (Err(error), Outcome::Failed(_)) if !request.job => {
                    aws::failed("a failure could not be stored", &error);
                }
                (Err(error), _) => return Err(error.into()),
            }
            self.traces.stage(request.trace, "store", begun.elapsed());
        }
        if let Outcome::Recognized(recognition) = &mut reply.outcome {
            recognition.timing_ms.store = millis(begun.elapsed());
        }
        let mut span = self
            .traces
            .send(request.trace, &request.reply_to, request.id);
        match self.send(request, reply, span.attributes()).await {
            Err(HandleError::Queue(QueueError::NotFound { .. })) => {
                span.fail("no_such_queue");
                tracing::warn!("the web tier that asked is gone; the result is stored");
                Ok(how)
            }
            Err(error) => {
                span.fail("not_queued");
                Err(error)
            }
            Ok(()) => Ok(how),
        }
    }

    /// Sends a reply, by the output store where the queue does not take as much.
    async fn send(
        &self,
        request: &Request,
        reply: Reply,
        attributes: Attributes,
    ) -> Result<(), HandleError> {
        let limit = self.replies.limit(&request.reply_to).await?;
        let (message, pointed_to) = for_queue(reply, attributes, limit);
        if let Some(outcome) = pointed_to
            && !Backend::stores_outcome(request.layout(), request.purpose)
        {
            let whole = serde_json::to_vec(&outcome).expect("an outcome has only string keys");
            let key = Backend::carried_key(request.id);
            self.backend.output.put(&key, whole.into()).await?;
        }
        Ok(self.replies.send(&request.reply_to, message).await?)
    }

    /// Deletes what was just stored of a job whose photograph was deleted meanwhile: whoever deletes
    /// a job deletes the photograph first, and the result that is there by then.
    async fn unless_deleted(
        &self,
        request: &Request,
        stored: &Path,
    ) -> Result<(), object_store::Error> {
        let photo = Path::from(request.layout().input(request.id, &request.file));
        match self.backend.input.head(&photo).await {
            Ok(_) => return Ok(()),
            Err(object_store::Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        match self.backend.output.delete(stored).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// What is written to the output object; nothing of embeddings, which are for the gallery alone, and
/// nothing of a job that was deleted.
fn stored(reply: &Reply, request: &Request, keys: ObjectKeys) -> Option<Vec<u8>> {
    if let Purpose::Embed { .. } = request.purpose {
        return None;
    }
    if let Outcome::Failed(failure) = &reply.outcome
        && failure.code == FailureCode::InputMissing
        && request.job
    {
        return None;
    }
    let json = match (&reply.outcome, keys) {
        (Outcome::Embedded(_) | Outcome::Stored, _) => return None,
        (Outcome::Recognized(recognition), ObjectKeys::Filename) => {
            return Some(recognition.headline().as_bytes().to_vec());
        }
        (Outcome::Failed(_), ObjectKeys::Filename) => return None,
        (Outcome::Recognized(recognition), _) => serde_json::to_vec(recognition),
        (Outcome::Failed(failure), _) => serde_json::to_vec(failure),
    };
    Some(json.expect("a result has only string keys"))
}

/// The message of a reply, in its shorter form if need be. Where it is too large for the queue all the same,
/// the message only points to the outcome, which is returned beside it.
fn for_queue(
    mut reply: Reply,
    attributes: Attributes,
    limit: usize,
) -> (Outgoing, Option<Outcome>) {
    let mut message = Outgoing {
        body: reply.to_json(),
        attributes,
    };
    if message.bytes() <= limit {
        return (message, None);
    }
    message.body = reply.to_compact();
    if message.bytes() <= limit {
        return (message, None);
    }
    let outcome = std::mem::replace(&mut reply.outcome, Outcome::Stored);
    message.body = reply.to_json();
    (message, Some(outcome))
}

#[cfg(test)]
mod tests {
    use muster_jobs::{
        CandidateReport, Decision, FaceBox, FaceReport, FileName, ImageSize, PersonRef,
        Recognition, RequestId, TimingMs, TraceParent,
    };
    use muster_queue::LEAST_MESSAGE_BYTES;

    use super::*;

    fn reply(faces: usize) -> Reply {
        let face = FaceReport {
            bounds: FaceBox {
                x: 0.0,
                y: 0.0,
                width: 10.0,
                height: 10.0,
            },
            landmarks: [[1.5; 2]; 5],
            confidence: 0.9,
            turned_deg: 0,
            decision: Decision::Unknown,
            person: None,
            similarity: None,
            margin: None,
            cutoff: None,
            quality: None,
            candidates: Vec::new(),
            reasons: vec!["nobody is enrolled".to_owned()],
        };
        let recognition = Recognition {
            request_id: RequestId::new(),
            image: ImageSize {
                width: 10,
                height: 10,
                turned_deg: 0,
                frame: 0,
                repaired: vec![],
            },
            faces: vec![face; faces],
            model: "sface".to_owned(),
            timing_ms: TimingMs::default(),
        };
        let outcome = Outcome::Recognized(Box::new(recognition));
        Reply::new(RequestId::new(), FileName::from_client("a.jpg"), outcome)
    }

    /// A reply whose faces have little in common.
    fn various(faces: usize) -> Reply {
        let mut reply = reply(faces);
        let Outcome::Recognized(recognition) = &mut reply.outcome else {
            unreachable!("it is a recognition")
        };
        for (n, face) in recognition.faces.iter_mut().enumerate() {
            let some = |k: usize| (((n * 31 + k) as f32) * 0.618).fract() * 1000.0;
            face.landmarks = std::array::from_fn(|k| [some(2 * k), some(2 * k + 1)]);
            face.bounds.x = some(10);
            face.bounds.y = some(11);
            face.confidence = some(12);
            face.candidates = (0..5)
                .map(|k| CandidateReport {
                    person: PersonRef {
                        id: RequestId::new().to_string(),
                        name: format!("person {n} {k}"),
                    },
                    similarity: some(13 + k),
                })
                .collect();
        }
        reply
    }

    #[test]
    fn the_answer_about_one_face_fits_every_queue() {
        let one = various(1);
        let trace = [TraceParent::new().to_attribute()];
        assert!(one.to_json().len() > LEAST_MESSAGE_BYTES);
        let (sent, pointed_to) = for_queue(one, trace.into(), LEAST_MESSAGE_BYTES);
        assert!(pointed_to.is_none() && sent.bytes() <= LEAST_MESSAGE_BYTES);
    }

    #[test]
    fn a_result_that_is_too_large_for_the_queue_is_pointed_to() {
        let small = reply(2);
        let all = small.to_json();
        let send = |reply: &Reply| for_queue(reply.clone(), Attributes::new(), all.len());
        let (sent, pointed_to) = send(&small);
        assert_eq!((sent.body, pointed_to), (all.clone(), None));
        // Five faces that are alike take little more than one.
        let alike = reply(5);
        let (sent, pointed_to) = send(&alike);
        assert!(sent.body.len() <= all.len() && !sent.body.starts_with('{'));
        assert_eq!(pointed_to, None);
        assert_eq!(Reply::from_body(&sent.body).unwrap(), alike);
        let large = various(20);
        let (pointer, pointed_to) = send(&large);
        assert_eq!(pointed_to, Some(large.outcome));
        let pointer = Reply::from_body(&pointer.body).unwrap();
        assert_eq!((pointer.id, pointer.outcome), (large.id, Outcome::Stored));
        // Attributes count.
        let trace = [TraceParent::new().to_attribute()];
        let (sent, _) = for_queue(small, trace.into(), all.len());
        assert!(sent.body.len() < all.len());
    }

    #[test]
    fn the_longest_pointer_fits_every_queue() {
        // Names are cut to 200 bytes as keys spell them; a quote takes three there and two here.
        for name in ["x".repeat(300), "\"".repeat(300), "\u{e000}".repeat(300)] {
            let mut long = various(100);
            long.file = FileName::from_client(&name);
            long.cpu = Some(WorkerCpu {
                instance: "i-0123456789abcdef0".to_owned(),
                io_ms: 123_456_789.123,
            });
            long.slot_ms = Some(123_456_789.123);
            let trace = [TraceParent::new().to_attribute()];
            let (pointer, pointed_to) = for_queue(long, trace.into(), LEAST_MESSAGE_BYTES);
            assert!(pointed_to.is_some());
            assert!(pointer.bytes() <= LEAST_MESSAGE_BYTES, "{pointer:?}");
        }
    }
}
