//! One request, from its photograph to its outcome.

use std::sync::atomic::Ordering;
use std::time::Instant;

use base64::Engine as _;
use bytes::Bytes;
use muster_jobs::{
    Embedded, EmbeddedFace, Embedding, FaceBox, FaceQuality, Failure, FailureCode, ImageSize,
    Outcome, Purpose, Recognition, Request, TimingMs, now_ms,
};
use muster_queue::{Outgoing, Received};
use muster_recognize::decode::ImageError;
use muster_recognize::recognizer::Care;
use object_store::GetOptions;
use object_store::path::Path;

use super::inference::Analyzed;
use super::place::Place;
use super::worker::{HandleError, Worker, millis, one};
use muster_base::backoff;

/// What reading a request's photograph came to.
enum Fetched {
    Photo(Bytes),
    /// There is none to be worked on: the client's answer.
    Gone(Failure),
}

/// What matching a photograph's faces came to.
enum Matched {
    Decided(Outcome),
    /// The gallery is matched by this model, and another one embedded the faces.
    ByOtherModel(String),
}

impl Worker {
    /// Answers, and says in a word how; a job that the queue would soon set aside by itself, without
    /// an outcome, is held for as long as a store or a queue fails.
    pub(super) async fn answer_or_persist(
        &self,
        request: &Request,
        message: &Received,
        place: &mut Place,
    ) -> Result<&'static str, HandleError> {
        let mut failures = 0;
        loop {
            let error = match self.answer(request, message).await {
                Err(error) if request.job && message.receive_count >= self.max_receives => error,
                outcome => return outcome,
            };
            failures += 1;
            place.let_others_in();
            self.failures.fetch_add(1, Ordering::Relaxed);
            if failures == 1 {
                tracing::error!(
                    receive_count = message.receive_count,
                    error = %muster_base::ErrorChain(&error),
                    "a job could not be answered and is tried again"
                );
            }
            tokio::select! {
                () = self.drain.cancelled() => return Err(error),
                () = tokio::time::sleep(backoff::after(failures)) => {}
            }
        }
    }

    async fn answer(
        &self,
        request: &Request,
        message: &Received,
    ) -> Result<&'static str, HandleError> {
        let received_ms = now_ms();
        if message.receive_count > self.max_receives {
            tracing::error!(
                receive_count = message.receive_count,
                "workers failed on a request too often; it goes to the dead-letter queue"
            );
            let failure = Failure {
                code: FailureCode::RecognitionFailed,
                detail: format!(
                    "workers did not come to an end with this photograph {} times; it was set \
                     aside for the operator: send it again later, or another",
                    self.max_receives
                ),
            };
            let outcome = Outcome::Failed(failure);
            let how = self.steps.during(self.deliver(request, outcome)).await?;
            let dead = [Outgoing::from(message)];
            one(self
                .steps
                .during(self.backend.dead_letters.send(&dead))
                .await)?;
            return Ok(how);
        }
        let mut timing = TimingMs {
            queue: received_ms.saturating_sub(request.sent_at_ms) as f64,
            ..TimingMs::default()
        };
        let begun = Instant::now();
        let photo = match self.steps.during(self.fetch(request)).await? {
            Fetched::Photo(photo) => photo,
            Fetched::Gone(failure) => {
                let outcome = Outcome::Failed(failure);
                return self.steps.during(self.deliver(request, outcome)).await;
            }
        };
        let fetched = begun.elapsed();
        self.traces.stage(request.trace, "fetch", fetched);
        timing.fetch = millis(fetched);

        let mut models = request.models.clone();
        if models.is_empty() {
            let held = self
                .gallery
                .held(|gallery| self.catalogue.model_of(gallery));
            models.push(held.await?);
        }
        let care = match request.purpose {
            Purpose::Recognize => Care::Usual,
            Purpose::Embed { .. } => Care::ToEnrol,
        };
        let outcome = loop {
            let analysis = self
                .inference
                .analyze(
                    photo.clone(),
                    &models,
                    care,
                    self.processing_timeout,
                    &self.steps,
                    &self.slot,
                )
                .await;
            let analyzed = match analysis {
                Ok(analyzed) => analyzed,
                Err(failure) => break Outcome::Failed(failure),
            };
            let spent = &analyzed.analysis.timing;
            let stages = [
                ("decode", spent.decode),
                ("detect", spent.detect),
                // Face by face in turns; each is shown as a whole.
                ("align", spent.align),
                ("embed", spent.embed),
            ];
            self.traces.stages(request.trace, analyzed.ended, stages);
            timing.decode = millis(spent.decode);
            timing.detect = millis(spent.detect);
            timing.align = millis(spent.align);
            timing.embed = millis(spent.embed);
            match request.purpose {
                Purpose::Embed { face } => break Outcome::Embedded(embedded(&analyzed, face)),
                Purpose::Recognize => {
                    let recognized = self.recognize(request, &analyzed, timing);
                    match self.steps.during(recognized).await? {
                        Matched::Decided(outcome) => break outcome,
                        // It was changed meanwhile.
                        Matched::ByOtherModel(model) => models = vec![model],
                    }
                }
            }
        };
        self.steps.during(self.deliver(request, outcome)).await
    }

    /// Reads the photograph.
    async fn fetch(&self, request: &Request) -> Result<Fetched, object_store::Error> {
        let key = Path::from(request.layout().input(request.id, &request.file));
        let options = GetOptions {
            if_match: request.input_etag.clone(),
            ..GetOptions::default()
        };
        let failure = match self.backend.input.get_opts(&key, options).await {
            // What is stored there may be another's.
            Ok(found) if found.meta.size > self.limits.max_bytes as u64 => {
                Failure::from(&ImageError::TooLargeBytes {
                    got: usize::try_from(found.meta.size).unwrap_or(usize::MAX),
                    max: self.limits.max_bytes,
                })
            }
            Ok(found) => return Ok(Fetched::Photo(found.bytes().await?)),
            Err(object_store::Error::Precondition { .. }) => Failure {
                code: FailureCode::InputReplaced,
                detail: format!(
                    "another upload named {} replaced this photograph before it was read: send it \
                     again, under another name",
                    request.file.as_str()
                ),
            },
            Err(object_store::Error::NotFound { .. }) => Failure {
                code: FailureCode::InputMissing,
                detail: "the photograph is no longer stored: send it again".to_owned(),
            },
            Err(error) => return Err(error),
        };
        Ok(Fetched::Gone(failure))
    }

    async fn recognize(
        &self,
        request: &Request,
        Analyzed {
            analysis, models, ..
        }: &Analyzed,
        mut timing: TimingMs,
    ) -> Result<Matched, HandleError> {
        let begun = Instant::now();
        // Whatever was enrolled before the request was sent is seen: it says which version that is.
        let faces = self
            .gallery
            .at_least(request.gallery_version, |gallery| {
                let model = self.catalogue.model_of(gallery);
                if models.first() == Some(&model) {
                    let shipped = self.catalogue.shipped_of(gallery);
                    let decided = self.judge.decide(&analysis.faces, gallery, &shipped);
                    Ok((model, decided))
                } else {
                    Err(model)
                }
            })
            .await?;
        let (model, faces) = match faces {
            Ok(decided) => decided,
            Err(model) => return Ok(Matched::ByOtherModel(model)),
        };
        let matched = begun.elapsed();
        self.traces.stage(request.trace, "match", matched);
        timing.match_ = millis(matched);
        timing.total = now_ms().saturating_sub(request.sent_at_ms) as f64;
        Ok(Matched::Decided(Outcome::Recognized(Box::new(
            Recognition {
                request_id: request.id,
                image: ImageSize {
                    width: analysis.width,
                    height: analysis.height,
                    turned_deg: analysis.turn.degrees(),
                    frame: analysis.frame,
                    repaired: analysis.repaired.clone(),
                },
                faces,
                model,
                timing_ms: timing,
            },
        ))))
    }
}

/// The answer to who wants a face embedded.
fn embedded(
    Analyzed {
        analysis, models, ..
    }: &Analyzed,
    face: Option<u32>,
) -> Embedded {
    let asked = analysis.faces.get(face.unwrap_or(0) as usize);
    let encode = |made: &Embedding| {
        base64::engine::general_purpose::STANDARD.encode::<Vec<u8>>(made.to_bytes())
    };
    let (model, others) = models.split_first().expect("a model embedded the faces");
    Embedded {
        model: model.clone(),
        found: analysis.faces.len() as u32,
        face: asked.map(|face| EmbeddedFace {
            bounds: FaceBox::from(&face.bounds),
            confidence: face.confidence,
            embedding: encode(&face.embedding),
            others: others
                .iter()
                .cloned()
                .zip(face.others.iter().map(encode))
                .collect(),
            quality: FaceQuality::from(&face.quality),
        }),
    }
}
