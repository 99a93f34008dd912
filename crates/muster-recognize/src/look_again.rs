//! Looking again where the detector is in doubt of a face, or has found none.
//!
//! YuNet finds upright faces better than any model of its size. Of faces that are turned in the
//! picture it finds some, with the landmarks of an upright face and with a lower score; the second
//! detector tells where the landmarks are, as long as a face is turned by no more than 45 degrees from
//! how it is held before it. It is shown each face in doubt in four turns, and of what it answers,
//! and of what was found at first, the embedder makes the choice: the longer an embedding is before
//! it is scaled to length one, the more of a face was in it.

use muster_jobs::Quality;

use crate::bounds::Bounds;
use crate::decode::Photo;
use crate::detection::{Detection, SAME_FACE_OVERLAP, suppress};
use crate::engine::{Engine, EngineError};
use crate::retinaface::RetinaFace;
use crate::turn::Turn;
use crate::views::{InputSize, View};

/// The first detector's score from which its landmarks are trusted.
const TRUSTED: f32 = 0.92;

/// The strength below which a face that was trusted is looked at again after all: of LFW's faces turned
/// upside down all but one in a hundred have less, of the upright ones one in a hundred (in Python).
const WEAK: f32 = 0.8;

/// The second detector's score from which something is a face where the first has found none: its
/// publisher's default.
const FACE_SCORE: f32 = 0.9;

/// The same where there is a face by all that is known.
const LANDMARKS_SCORE: f32 = 0.5;

/// How far a face may be turned from upright in the turned picture, in degrees: half a quarter, and
/// as much for the landmarks' own error as leaves no face to none.
const MAX_ROLL_DEG: f32 = 60.0;

/// The side in which a face and its surroundings are shown to the second detector, in pixels.
const CLOSE_SIDE: u32 = 160;

/// How much longer the embedding of another sight has to be than that of what the first detector saw.
/// Landmarks that are about right make embeddings of about one length; those of an upside-down face
/// read as an upright one make one of two thirds.
const HEAD_START: f32 = 1.1;

/// How far landmarks of two detectors may lie apart to tell the same, as a share of the face's side: those of an
/// upside-down face and of an upright one are half a side apart.
const SAME_PLACE: f32 = 0.1;

/// One way to see a face.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sight {
    pub(crate) detection: Detection,
    /// How the photograph was turned for it.
    pub(crate) turn: Turn,
    /// What the length of its embedding is multiplied by when sights are compared.
    pub(crate) head_start: f32,
}

impl Sight {
    /// What the first detector saw in the photograph so turned.
    pub(crate) fn first(detection: Detection, turn: Turn) -> Self {
        Self {
            detection,
            turn,
            head_start: HEAD_START,
        }
    }

    /// Whether the landmarks are about the same: off by [`SAME_PLACE`] of the face's longer side, on average.
    pub(crate) fn agrees_with(&self, other: &Self) -> bool {
        let pairs = self
            .detection
            .landmarks
            .iter()
            .zip(&other.detection.landmarks);
        let off = pairs.map(|(one, other)| (one[0] - other[0]).hypot(one[1] - other[1]));
        let bounds = &self.detection.bounds;
        let off = off.sum::<f32>() / self.detection.landmarks.len() as f32;
        off <= SAME_PLACE * bounds.width.max(bounds.height)
    }
}

/// What a second look found.
pub(crate) struct Found {
    /// The ways to see each face, the likeliest first.
    pub(crate) faces: Vec<Vec<Sight>>,
    /// The side of the second detector's input for each of its runs.
    pub(crate) runs: Vec<u32>,
}

/// Whether a face of the first detector needs no second look.
pub(crate) fn is_trusted(face: &Detection) -> bool {
    face.confidence >= TRUSTED
}

/// Whether so little is seen of a face that it may be turned.
pub(crate) fn is_weak(quality: &Quality) -> bool {
    quality.strength.is_some_and(|strength| strength < WEAK)
}

/// Looks at the whole of a photograph in which nothing was found.
///
/// # Errors
///
/// As [`RetinaFace::look`].
pub(crate) fn at_all_of(
    retinaface: &mut RetinaFace,
    engine: &mut Engine,
    photo: &Photo,
) -> Result<Found, EngineError> {
    let (width, height) = (photo.width, photo.height);
    let side = InputSize::first(width, height).side();
    let whole = View::whole(width, height, side, 1.0);
    let mut sights = in_four_turns(retinaface, engine, photo, &whole, FACE_SCORE)?;
    sights.sort_by(|a, b| b.detection.confidence.total_cmp(&a.detection.confidence));
    let mut faces: Vec<Vec<Sight>> = Vec::new();
    for sight in sights {
        let same = |face: &&mut Vec<Sight>| is_same(&face[0].detection, &sight.detection);
        match faces.iter_mut().find(same) {
            Some(face) => face.push(sight),
            None => faces.push(vec![sight]),
        }
    }
    let runs = vec![side; Turn::ALL.len()];
    Ok(Found { faces, runs })
}

/// Looks at one face again: one way to see it a turn, or no face.
///
/// # Errors
///
/// As [`RetinaFace::look`].
pub(crate) fn at_face(
    retinaface: &mut RetinaFace,
    engine: &mut Engine,
    photo: &Photo,
    face: &Detection,
) -> Result<Found, EngineError> {
    let Some(view) = View::around(photo.width, photo.height, &face.bounds, CLOSE_SIDE) else {
        let (faces, runs) = (Vec::new(), Vec::new());
        return Ok(Found { faces, runs });
    };
    let mut sights = in_four_turns(retinaface, engine, photo, &view, LANDMARKS_SCORE)?;
    sights.retain(|sight| is_same(&sight.detection, face));
    sights.sort_by(|a, b| b.detection.confidence.total_cmp(&a.detection.confidence));
    // Of each turn the surest is the face.
    let mut turns = Vec::new();
    sights.retain(|sight| {
        let first = !turns.contains(&sight.turn);
        turns.push(sight.turn);
        first
    });
    let runs = vec![CLOSE_SIDE; Turn::ALL.len()];
    Ok(Found {
        faces: vec![sights],
        runs,
    })
}

fn in_four_turns(
    retinaface: &mut RetinaFace,
    engine: &mut Engine,
    photo: &Photo,
    view: &View,
    cutoff: f32,
) -> Result<Vec<Sight>, EngineError> {
    let mut sights = Vec::new();
    for turn in Turn::ALL {
        let found = retinaface.look(engine, photo, &view.turned(turn), cutoff)?;
        let within = View::whole(photo.width, photo.height, view.side, 1.0).source;
        let upright = suppress(found)
            .into_iter()
            .map(|seen| Detection {
                bounds: seen.bounds.intersection(&within),
                ..seen
            })
            .filter(|seen| seen.bounds.area() >= 1.0)
            .filter(|seen| roll_deg(&seen.landmarks, turn) <= MAX_ROLL_DEG);
        sights.extend(upright.map(|detection| Sight {
            detection,
            turn,
            head_start: 1.0,
        }));
    }
    Ok(sights)
}

/// How far a face is turned from upright, once the photograph is turned: 0 to 180 degrees, by the
/// line from the middle of the eyes to the middle of the mouth.
fn roll_deg(landmarks: &[[f32; 2]; 5], turn: Turn) -> f32 {
    let [left_eye, right_eye, _, left_mouth, right_mouth] = landmarks;
    let down =
        [0, 1].map(|axis| left_mouth[axis] + right_mouth[axis] - left_eye[axis] - right_eye[axis]);
    // The angle clockwise from straight down, as pictures count: x to the right, y downwards.
    let angle = (-down[0]).atan2(down[1]).to_degrees() + f32::from(turn.degrees());
    let around = angle.rem_euclid(360.0);
    around.min(360.0 - around)
}

/// Whether two detections are of one face.
pub(crate) fn is_same(one: &Detection, other: &Detection) -> bool {
    one.bounds.overlap(&other.bounds) > SAME_FACE_OVERLAP
}

/// How a photograph stands by its faces, each with its box and its turn: as most of what is face in it.
pub(crate) fn turn_of<'a>(faces: impl Iterator<Item = (&'a Bounds, Turn)> + Clone) -> Turn {
    let share = |turn: &Turn| {
        let alike = faces.clone().filter(|(_, of)| of == turn);
        alike.map(|(bounds, _)| bounds.area()).sum::<f32>()
    };
    // Of equal ones the first.
    Turn::ALL
        .into_iter()
        .rev()
        .max_by(|a, b| share(a).total_cmp(&share(b)))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::align::TEMPLATE;

    #[test]
    fn the_roll_is_what_is_left_after_the_turn() {
        let template = [
            TEMPLATE[0],
            TEMPLATE[1],
            TEMPLATE[2],
            TEMPLATE[3],
            TEMPLATE[4],
        ];
        for clockwise in [0.0f32, 30.0, 90.0, 135.0, 180.0, 270.0, 340.0] {
            let (sin, cos) = clockwise.to_radians().sin_cos();
            // Pictures have y downwards, so this turns clockwise.
            let turned = template.map(|[x, y]| [x * cos - y * sin, x * sin + y * cos]);
            for turn in Turn::ALL {
                let left = (clockwise + f32::from(turn.degrees())).rem_euclid(360.0);
                let expected = left.min(360.0 - left);
                let roll = roll_deg(&turned, turn);
                assert!(
                    (roll - expected).abs() < 2.0,
                    "{clockwise} {turn:?}: {roll}"
                );
            }
        }
    }

    #[test]
    fn most_of_what_is_face_says_how_a_photograph_stands() {
        let square = |side: f32| Bounds {
            x: 0.0,
            y: 0.0,
            width: side,
            height: side,
        };
        let (large, small) = (square(30.0), square(10.0));
        let of = |faces: &[(&Bounds, Turn)]| turn_of(faces.iter().copied());
        assert_eq!(of(&[]), Turn::None);
        assert_eq!(
            of(&[(&small, Turn::Half), (&small, Turn::None)]),
            Turn::None
        );
        let crowd = [
            (&large, Turn::Half),
            (&small, Turn::None),
            (&small, Turn::None),
        ];
        assert_eq!(of(&crowd), Turn::Half);
    }
}
