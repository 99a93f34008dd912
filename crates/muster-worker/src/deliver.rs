//! What becomes of an outcome: the result is stored, then the reply sent.

use std::time::Instant;

use muster_jobs::keys::ObjectKeys;
use muster_jobs::{FailureCode, Outcome, Purpose, Reply, Request, WorkerCpu};
use muster_queue::{Outgoing, QueueError};
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutMode, PutPayload};

use super::worker::{HandleError, Worker, millis};
use muster_base::aws;
use muster_base::cpu;

/// Bytes of a reply that go over the queue; a larger result is pointed to. SQS took 256 KiB for long,
/// and servers that speak its protocol may still.
const MAX_REPLY_BYTES: usize = 200 << 10;

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
        let begun = Instant::now();
        if let Some(body) = stored(&reply, request, self.backend.keys) {
            let key = self.backend.output_key(request.id, &request.file);
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
        let body = match for_queue(reply) {
            Ok(body) => body,
            Err((whole, pointer)) => {
                // By file name, the output object has no more than a name.
                if self.backend.keys == ObjectKeys::Filename {
                    let key = self.backend.large_output_key(request.id, &request.file);
                    let payload = PutPayload::from(whole);
                    self.backend.output.put(&key, payload).await?;
                }
                pointer
            }
        };
        let attributes = span.attributes();
        let reply = Outgoing { body, attributes };
        match self.replies.send(&request.reply_to, reply).await {
            Err(QueueError::NotFound { .. }) => {
                span.fail("no_such_queue");
                tracing::warn!("the web tier that asked is gone; the result is stored");
                Ok(how)
            }
            Err(error) => {
                span.fail("not_queued");
                Err(error.into())
            }
            Ok(()) => Ok(how),
        }
    }

    /// Deletes what was just stored of a job whose photograph was deleted meanwhile: whoever deletes
    /// a job deletes the photograph first, and the result that is there by then.
    async fn unless_deleted(
        &self,
        request: &Request,
        stored: &Path,
    ) -> Result<(), object_store::Error> {
        let photo = self
            .backend
            .input_key(request.purpose, request.id, &request.file);
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

/// The body of a reply; of one that is too large for the queue, the whole result and the body of a
/// reply that points to it.
fn for_queue(mut reply: Reply) -> Result<String, (Vec<u8>, String)> {
    let body = reply.to_json();
    match &reply.outcome {
        Outcome::Recognized(recognition) if body.len() > MAX_REPLY_BYTES => {
            let whole = serde_json::to_vec(recognition).expect("a result has only string keys");
            reply.outcome = Outcome::Stored;
            Err((whole, reply.to_json()))
        }
        _ => Ok(body),
    }
}

#[cfg(test)]
mod tests {
    use muster_jobs::{
        Decision, FaceBox, FaceReport, FileName, ImageSize, Recognition, RequestId, TimingMs,
    };

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
            },
            faces: vec![face; faces],
            model: "sface".to_owned(),
            timing_ms: TimingMs::default(),
        };
        let outcome = Outcome::Recognized(Box::new(recognition));
        Reply::new(RequestId::new(), FileName::from_client("a.jpg"), outcome)
    }

    #[test]
    fn a_result_that_is_too_large_for_the_queue_is_pointed_to() {
        let small = reply(2);
        assert_eq!(for_queue(small.clone()).unwrap(), small.to_json());
        let large = reply(2000);
        let (whole, pointer) = for_queue(large.clone()).unwrap_err();
        assert!(whole.len() > MAX_REPLY_BYTES && pointer.len() < 1000);
        let pointer = Reply::from_json(&pointer).unwrap();
        assert_eq!((pointer.id, pointer.outcome), (large.id, Outcome::Stored));
        let whole: Recognition = serde_json::from_slice(&whole).unwrap();
        assert_eq!(Outcome::Recognized(Box::new(whole)), large.outcome);
    }
}
