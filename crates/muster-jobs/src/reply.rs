//! The answer that a worker sends back, and the result that it writes beside it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::compact::{compact, expand};
use crate::file_name::FileName;
use crate::message::{MESSAGE_VERSION, MessageError, check_version, queue_json};
use crate::name::UNKNOWN;
use crate::quality::Quality;
use crate::request_id::RequestId;

/// The photograph as it was read: its size in pixels, EXIF-upright, and what its file needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ImageSize {
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// How far it had to be turned clockwise to stand upright, by the faces in it: 90, 180 or 270 degrees;
    /// left out where it did. Boxes and landmarks are those of the photograph before that.
    #[serde(default, skip_serializing_if = "is_none")]
    pub turned_deg: u16,
    /// Which picture of an animation the faces are in, counted from 0; left out where it is the first.
    #[serde(default, skip_serializing_if = "is_first")]
    pub frame: u32,
    /// What was wrong with the file and was put right; left out where nothing was.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub repaired: Vec<Repair>,
}

fn is_first(frame: &u32) -> bool {
    *frame == 0
}

fn is_none(turned_deg: &u16) -> bool {
    *turned_deg == 0
}

/// A fault of a photograph's file that takes nothing from its pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Repair {
    /// The mark of the file's end was missing or cut: JPEG's EOI, PNG's IEND, or what WebP has behind its
    /// pixels.
    End,
    /// A JPEG began more than once.
    Start,
    /// A JPEG came without Huffman tables, as webcams send them: the standard ones were taken.
    HuffmanTables,
}

/// An axis-aligned box in pixels of the EXIF-upright photograph.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaceBox {
    /// Left edge.
    pub x: f32,
    /// Top edge.
    pub y: f32,
    /// Extent to the right.
    pub width: f32,
    /// Extent downwards.
    pub height: f32,
}

/// What was decided of one face.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// The face is the named person's.
    Match,
    /// Nobody enrolled is similar enough.
    Unknown,
    /// Two people are too similar to this face to tell which it is.
    Ambiguous,
}

/// An enrolled person, by id and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PersonRef {
    /// The person's id, a UUID.
    pub id: String,
    /// The name given at enrolment.
    pub name: String,
}

/// A person who was considered for a face.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Candidate)]
pub struct CandidateReport {
    /// Who.
    pub person: PersonRef,
    /// Cosine similarity of the nearest enrolled face, -1 to 1.
    pub similarity: f32,
}

/// How fit a face is to be compared, in an answer.
///
/// A [`Quality`] is kept in a gallery, where an unknown field is an error; a client of a newer
/// server passes over one.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaceQuality {
    /// Side of the square that is cut out for the embedder, in pixels of the photograph.
    pub size_px: f32,
    /// How much of the differences between neighbouring pixels another blurring would take away,
    /// 0 to 1.
    pub sharpness: f32,
    /// Mean brightness of the face's inner part, 0 to 255.
    pub brightness: f32,
    /// How far it is turned to a side, in degrees, about.
    pub turn_deg: f32,
    /// How much of a face the model sees in it, about 1 in a good photograph; left out where that is not
    /// measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub strength: Option<f32>,
}

impl From<&Quality> for FaceQuality {
    fn from(quality: &Quality) -> Self {
        Self {
            size_px: quality.size_px,
            sharpness: quality.sharpness,
            brightness: quality.brightness,
            turn_deg: quality.turn_deg,
            strength: quality.strength,
        }
    }
}

/// One face of a photograph and what was decided of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaceReport {
    /// Where the face is.
    #[serde(rename = "box")]
    pub bounds: FaceBox,
    /// Right eye, left eye, nose tip, right and left mouth corner (the person's right), in pixels.
    pub landmarks: [[f32; 2]; 5],
    /// The detector's score, 0 to 1.
    pub confidence: f32,
    /// How far the photograph has to be turned clockwise for this face to be upright, about: 90, 180 or
    /// 270 degrees; left out where it is upright.
    #[serde(default, skip_serializing_if = "is_none")]
    pub turned_deg: u16,
    /// What was decided.
    pub decision: Decision,
    /// Who it is, where the decision is `match`.
    pub person: Option<PersonRef>,
    /// Cosine similarity to the person, or to the best candidate; `null` without one.
    pub similarity: Option<f32>,
    /// How much more similar that one is than the next who comes into question; `null` without a
    /// next.
    pub margin: Option<f32>,
    /// The similarity from which on a face is a person's.
    pub cutoff: Option<f32>,
    /// How fit the face is to be compared.
    #[serde(default)]
    pub quality: Option<FaceQuality>,
    /// The nearest people, best first.
    pub candidates: Vec<CandidateReport>,
    /// Why it is not simply the nearest person's, naming the measured and the required value.
    pub reasons: Vec<String>,
}

/// Milliseconds that a request spent in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct TimingMs {
    /// From the web tier's send to the worker's receive, by the two machines' clocks.
    pub queue: f64,
    /// Reading the photograph from the object store.
    pub fetch: f64,
    /// The photograph's bytes to upright RGB.
    pub decode: f64,
    /// Finding the faces.
    pub detect: f64,
    /// Warping the faces to the embedder's template.
    pub align: f64,
    /// Computing the embeddings.
    pub embed: f64,
    /// Bringing the gallery up to date and searching it.
    #[serde(rename = "match")]
    pub match_: f64,
    /// Writing the result. Zero inside the stored result itself.
    pub store: f64,
    /// From the upload's last byte to the answer, as the web tier saw it; in the stored result,
    /// from the send to the store.
    pub total: f64,
}

impl TimingMs {
    /// How long the photograph occupied the worker's one inference thread, which is less than it occupied
    /// of its slot.
    pub fn inference(&self) -> Duration {
        let milliseconds = self.decode + self.detect + self.align + self.embed;
        Duration::try_from_secs_f64(milliseconds / 1e3).unwrap_or_default()
    }
}

/// The result of recognising one photograph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Recognition {
    /// The request that this answers.
    pub request_id: RequestId,
    /// The photograph's size.
    pub image: ImageSize,
    /// Every face found, largest first.
    pub faces: Vec<FaceReport>,
    /// The embedder's name.
    pub model: String,
    /// Where the time went.
    pub timing_ms: TimingMs,
}

impl Recognition {
    /// The name to answer with one word: the largest face that matched, or `unknown`.
    pub fn headline(&self) -> &str {
        self.faces
            .iter()
            .find_map(|face| face.person.as_ref())
            .map_or(UNKNOWN, |person| person.name.as_str())
    }
}

/// Faces of one photograph at most, the largest.
pub const MAX_FACES: u32 = 100;

/// The embedding of one face of a photograph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Embedded {
    /// Name of the model that made it: embeddings of two models do not compare.
    pub model: String,
    /// How many faces the photograph shows.
    pub found: u32,
    /// The face that was asked for; `None` where the photograph shows no such face.
    pub face: Option<EmbeddedFace>,
}

/// A face with its embedding.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct EmbeddedFace {
    /// Where the face is.
    #[serde(rename = "box")]
    pub bounds: FaceBox,
    /// The detector's score, 0 to 1.
    pub confidence: f32,
    /// Little-endian `f32`, base64.
    pub embedding: String,
    /// The embeddings by the other models that were asked for and that the worker has, by their
    /// names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub others: BTreeMap<String, String>,
    /// How fit it is to be compared.
    pub quality: FaceQuality,
}

/// Stable codes of what can be wrong with a request, as the HTTP contract has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
pub enum FailureCode {
    /// The photograph is damaged.
    #[serde(rename = "image.unreadable")]
    ImageUnreadable,
    /// Not a picture of a kind that is taken: JPEG, PNG, WebP, GIF, BMP, TIFF, HEIC, AVIF or JPEG XL.
    #[serde(rename = "image.unsupported")]
    ImageUnsupported,
    /// Too many bytes or pixels.
    #[serde(rename = "image.too_large")]
    ImageTooLarge,
    /// No face was found.
    #[serde(rename = "face.none")]
    FaceNone,
    /// Several faces where one is needed.
    #[serde(rename = "face.multiple")]
    FaceMultiple,
    /// The face is too small, blurred, dark or turned away to be enrolled.
    #[serde(rename = "face.unfit")]
    FaceUnfit,
    /// Another upload of the same file name replaced the photograph before it was read.
    #[serde(rename = "input.replaced")]
    InputReplaced,
    /// The photograph is no longer in the object store.
    #[serde(rename = "input.missing")]
    InputMissing,
    /// Workers failed on it too often, and it was set aside.
    #[serde(rename = "recognition.failed")]
    RecognitionFailed,
}

/// A refusal or failure, ready to be shown to the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Failure {
    /// The stable code.
    pub code: FailureCode,
    /// One sentence that names the thing and the remedy.
    pub detail: String,
}

/// How a request ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The photograph was recognised.
    Recognized(Box<Recognition>),
    /// A face of the photograph was embedded.
    Embedded(Embedded),
    /// It was refused, or failed.
    Failed(Failure),
    /// The outcome is too large for its queue, or stood there before: it is in the output store, as a
    /// result or as [`carried`](crate::keys::carried) names it.
    Stored,
}

/// Processor time that a worker has spent so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerCpu {
    /// The worker's instance.
    pub instance: String,
    /// What everything but inference took: storage, queues, messages, the gallery.
    pub io_ms: f64,
}

/// A reply as it stands on the queue, in JSON.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reply {
    /// [`MESSAGE_VERSION`] of the sender.
    pub version: u32,
    /// The request that this answers.
    pub id: RequestId,
    /// The client's file name, as the request had it.
    pub file: FileName,
    /// How it ended.
    pub outcome: Outcome,
    /// What its worker has spent so far, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<WorkerCpu>,
    /// How long requests have occupied its worker's slot since the worker's last reply, whatever of that
    /// the request of the last one took after it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_ms: Option<f64>,
}

impl Reply {
    /// A reply in this build's format.
    pub fn new(id: RequestId, file: FileName, outcome: Outcome) -> Self {
        Self {
            version: MESSAGE_VERSION,
            id,
            file,
            outcome,
            cpu: None,
            slot_ms: None,
        }
    }

    /// Reads a message's body, in either form.
    ///
    /// # Errors
    /// [`MessageError`] where the body is not a reply of this build's format.
    pub fn from_body(body: &str) -> Result<Self, MessageError> {
        let json = expand(body).ok_or(MessageError::Garbled)?;
        check_version(&json)?;
        serde_json::from_str(&json).map_err(MessageError::Malformed)
    }

    /// The message's body.
    pub fn to_json(&self) -> String {
        queue_json(self)
    }

    /// The message's body in a shorter form, for a queue that takes less.
    pub fn to_compact(&self) -> String {
        compact(&self.to_json())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn face(person: Option<&str>) -> FaceReport {
        FaceReport {
            bounds: FaceBox {
                x: 1.0,
                y: 2.0,
                width: 3.0,
                height: 4.0,
            },
            landmarks: [[0.0; 2]; 5],
            confidence: 0.9,
            turned_deg: 0,
            decision: if person.is_some() {
                Decision::Match
            } else {
                Decision::Unknown
            },
            person: person.map(|name| PersonRef {
                id: "1".into(),
                name: name.into(),
            }),
            similarity: person.map(|_| 0.7),
            margin: None,
            cutoff: None,
            quality: None,
            candidates: vec![],
            reasons: vec![],
        }
    }

    fn recognition(faces: Vec<FaceReport>) -> Recognition {
        Recognition {
            request_id: RequestId::new(),
            image: ImageSize {
                width: 10,
                height: 20,
                turned_deg: 0,
                frame: 0,
                repaired: vec![],
            },
            faces,
            model: "sface".into(),
            timing_ms: TimingMs::default(),
        }
    }

    #[test]
    fn the_headline_is_the_largest_known_face() {
        assert_eq!(
            recognition(vec![face(None), face(Some("Anna"))]).headline(),
            "Anna"
        );
        assert_eq!(recognition(vec![face(None)]).headline(), "unknown");
    }

    #[test]
    fn replies_survive_the_queue_and_codes_are_the_contracts() {
        let failure = Failure {
            code: FailureCode::FaceNone,
            detail: "no face; send a photo with one".into(),
        };
        for outcome in [
            Outcome::Recognized(Box::new(recognition(vec![face(Some("Anna"))]))),
            Outcome::Failed(failure),
        ] {
            let reply = Reply::new(RequestId::new(), FileName::from_client("a.jpg"), outcome);
            assert_eq!(Reply::from_body(&reply.to_json()).unwrap(), reply);
            assert_eq!(Reply::from_body(&reply.to_compact()).unwrap(), reply);
        }
        assert_eq!(
            serde_json::to_value(FailureCode::FaceNone).unwrap(),
            "face.none"
        );
    }

    #[test]
    fn the_contracts_json_names_are_kept() {
        let json = serde_json::to_value(recognition(vec![face(None)])).unwrap();
        assert!(json["faces"][0]["box"]["width"].is_number());
        assert!(json["faces"][0]["person"].is_null());
        assert!(json["timing_ms"]["match"].is_number());
        assert_eq!(CandidateReport::name(), "Candidate");

        assert_eq!(
            json["image"],
            serde_json::json!({"width": 10, "height": 20})
        );
        let mut noted = recognition(vec![]);
        noted.image.frame = 3;
        noted.image.repaired = vec![Repair::End, Repair::HuffmanTables];
        let json = serde_json::to_value(&noted).unwrap();
        assert_eq!(json["image"]["frame"], 3);
        assert_eq!(
            json["image"]["repaired"],
            serde_json::json!(["end", "huffman_tables"])
        );
        assert_eq!(serde_json::from_value::<Recognition>(json).unwrap(), noted);
    }
}
