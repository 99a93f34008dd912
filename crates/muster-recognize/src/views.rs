//! What the detector looks at: which part of a photograph, at which input size, in which order.
//!
//! A photograph is first seen whole. It is looked at again, closer or from further away, when
//! nothing was found, when the faces found are so small that smaller ones must be expected, and when
//! it is so large or long that a face of [`FOUND_SIDE`] pixels was too small to be found.

use crate::bounds::Bounds;
use crate::detection::Detection;
use crate::turn::Turn;

/// The scale of the second look at a photograph in which nothing was found: a face that fills it
/// is larger than any the detector was trained on, and needs something around it.
const INSET: f32 = 0.5;

/// The side, in input pixels, under which a face tells of others too small to be found.
///
/// YuNet finds faces from about 10 pixels on; twice that leaves room for the ones behind.
const SMALL_FACE: f32 = 20.0;

/// The side of a face that is found in a photograph of any size, in the photograph's pixels, and the
/// side in input pixels at which it is: at 20, YuNet missed a quarter of LFW's faces on large canvases.
const FOUND_SIDE: f32 = 48.0;
const SEEN_SIDE: f32 = 24.0;

/// The longest side at which a photograph with small faces is read in tiles, unless that shrinks it by
/// more than [`FOUND_SIDE`] allows: 16 tiles of one that is as high as wide.
const CROWD_SIDE: f32 = 1920.0;

/// How much closer one look may be than the one before: a face that is too large for a tile's overlap
/// was large enough to be found then.
const MAX_STEP: f32 = (TILE_OVERLAP as f32 - 2.0 * CUT_MARGIN) / SEEN_SIDE;

/// How much closer a look at a crowd has to be to show enough more than the one before.
const MIN_STEP: f32 = 1.25;

/// How far neighbouring tiles overlap, in input pixels.
///
/// A face up to this size is whole in one of them; larger ones were seen at the size before.
const TILE_OVERLAP: u32 = 128;

/// How much is shown of a face's surroundings, as a multiple of its longer side: as much above and
/// below it as the face is high.
const AROUND: f32 = 2.0;

/// How near a tile's inner edge, in input pixels, a box counts as cut by it.
const CUT_MARGIN: f32 = 2.0;

/// A side of the detector's square input; there are two, so that two models are compiled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputSize {
    /// 320: most photographs need no more.
    Small,
    /// 640: four times the work.
    Large,
}

impl InputSize {
    /// Returns the side in pixels.
    pub(crate) fn side(self) -> u32 {
        match self {
            Self::Small => 320,
            Self::Large => 640,
        }
    }

    /// Returns the size at which a photograph is first seen: one larger than the larger input has
    /// detail that the smaller one would lose.
    pub(crate) fn first(width: u32, height: u32) -> Self {
        if width.max(height) > Self::Large.side() {
            Self::Large
        } else {
            Self::Small
        }
    }
}

/// A part of a photograph and its place in a detector's input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    /// The side of the square input it is read into, in pixels.
    pub(crate) side: u32,
    /// The part, in photograph pixels.
    pub(crate) source: Bounds,
    /// Where it stands in the input, before that is turned.
    pub(crate) left: u32,
    /// Where it stands in the input, before that is turned.
    pub(crate) top: u32,
    /// Its size in the input, before that is turned.
    pub(crate) width: u32,
    /// Its size in the input, before that is turned.
    pub(crate) height: u32,
    /// How the input is turned, with what stands in it.
    pub(crate) turn: Turn,
    /// Whether the photograph goes on beyond the part's left, top, right and bottom edge.
    continues: [bool; 4],
}

impl View {
    /// Fits a whole photograph into `share` of the input's side, its aspect kept; a full view
    /// starts at the top left, a smaller one stands in the middle.
    pub(crate) fn whole(width: u32, height: u32, side: u32, share: f32) -> Self {
        let scale = side as f32 * share / width.max(height) as f32;
        let fit = |length: u32| ((length as f32 * scale).round() as u32).clamp(1, side);
        let (fit_width, fit_height) = (fit(width), fit(height));
        let [left, top] = if share < 1.0 {
            [(side - fit_width) / 2, (side - fit_height) / 2]
        } else {
            [0, 0]
        };
        Self {
            side,
            source: Bounds {
                x: 0.0,
                y: 0.0,
                width: width as f32,
                height: height as f32,
            },
            left,
            top,
            width: fit_width,
            height: fit_height,
            turn: Turn::None,
            continues: [false; 4],
        }
    }

    /// Shows a face with as much around it as it is wide or high; `None` when it lies outside the
    /// photograph.
    pub(crate) fn around(width: u32, height: u32, face: &Bounds, side: u32) -> Option<Self> {
        let [x, y] = face.centre();
        let square = AROUND * face.width.max(face.height);
        let wanted = Bounds {
            x: x - square / 2.0,
            y: y - square / 2.0,
            width: square,
            height: square,
        };
        let photo = Self::whole(width, height, side, 1.0).source;
        let source = wanted.intersection(&photo);
        if source.area() < 1.0 {
            return None;
        }
        let scale = side as f32 / square;
        let span = |from: f32, length: f32| {
            let start = ((from * scale).round().max(0.0) as u32).min(side - 1);
            (
                start,
                ((length * scale).round() as u32).clamp(1, side - start),
            )
        };
        let (left, fit_width) = span(source.x - wanted.x, source.width);
        let (top, fit_height) = span(source.y - wanted.y, source.height);
        Some(Self {
            side,
            source,
            left,
            top,
            width: fit_width,
            height: fit_height,
            turn: Turn::None,
            continues: [false; 4],
        })
    }

    /// The same, with the input turned.
    pub(crate) fn turned(&self, turn: Turn) -> Self {
        Self {
            turn,
            ..self.clone()
        }
    }

    /// Divides a photograph that is shrunk by that scale into overlapping tiles.
    fn tiles(width: u32, height: u32, scale: f32) -> Vec<Self> {
        let side = InputSize::Large.side();
        let spans = |length: u32| {
            let (scaled, count) = tiled(length, scale);
            let per_pixel = length as f32 / scaled as f32;
            let tile = side.min(scaled);
            (0..count).map(move |index| {
                let start = (scaled - tile) * index / (count - 1).max(1);
                (start, tile, start > 0, start + tile < scaled, per_pixel)
            })
        };
        let row = |(top, tall, above, below, per_y): (u32, u32, bool, bool, f32)| {
            spans(width).map(move |(left, wide, before, after, per_x)| Self {
                side,
                source: Bounds {
                    x: left as f32 * per_x,
                    y: top as f32 * per_y,
                    width: (wide as f32 * per_x).min(width as f32 - left as f32 * per_x),
                    height: (tall as f32 * per_y).min(height as f32 - top as f32 * per_y),
                },
                left: 0,
                top: 0,
                width: wide,
                height: tall,
                turn: Turn::None,
                continues: [before, above, after, below],
            })
        };
        spans(height).flat_map(row).collect()
    }

    /// Tells whether a box in the input is wholly seen: not cut by an edge beyond which the
    /// photograph goes on.
    pub(crate) fn holds(&self, seen: &Bounds) -> bool {
        let seen = self.turn.undo_box(seen, self.side as f32);
        let distances = [
            seen.x - self.left as f32,
            seen.y - self.top as f32,
            (self.left + self.width) as f32 - (seen.x + seen.width),
            (self.top + self.height) as f32 - (seen.y + seen.height),
        ];
        let cut = |(distance, continues): (f32, bool)| continues && distance < CUT_MARGIN;
        !distances.into_iter().zip(self.continues).any(cut)
    }

    /// Moves a detection from the input to the photograph.
    pub(crate) fn to_photo(&self, seen: &Detection) -> Detection {
        let seen = self.turn.undo_detection(seen, self.side as f32);
        let per_x = self.source.width / self.width as f32;
        let per_y = self.source.height / self.height as f32;
        let point = |x: f32, y: f32| {
            [
                self.source.x + (x - self.left as f32) * per_x,
                self.source.y + (y - self.top as f32) * per_y,
            ]
        };
        let [x, y] = point(seen.bounds.x, seen.bounds.y);
        Detection {
            bounds: Bounds {
                x,
                y,
                width: seen.bounds.width * per_x,
                height: seen.bounds.height * per_y,
            },
            landmarks: seen.landmarks.map(|[x, y]| point(x, y)),
            confidence: seen.confidence,
        }
    }
}

/// The length of a side that is shrunk by that scale, and how many tiles it takes.
fn tiled(length: u32, scale: f32) -> (u32, u32) {
    let side = InputSize::Large.side();
    let scaled = ((length as f32 * scale).round() as u32).max(1);
    let tile = side.min(scaled);
    (scaled, (scaled - tile).div_ceil(side - TILE_OVERLAP) + 1)
}

/// The looks at one photograph, each decided by what the ones before it found.
pub(crate) struct Plan {
    width: u32,
    height: u32,
    turn: Turn,
    max_tiles: u32,
    stage: Stage,
}

#[derive(Clone, Copy)]
enum Stage {
    First,
    Inset,
    Closer,
    Done,
}

impl Plan {
    /// Plans for a photograph of this size, which stands upright once it is turned, with that many tiles
    /// at most.
    pub(crate) fn new(width: u32, height: u32, turn: Turn, max_tiles: u32) -> Self {
        Self {
            width,
            height,
            turn,
            max_tiles,
            stage: Stage::First,
        }
    }

    /// Returns what to look at next, given the faces found so far; `None` when it is enough.
    pub(crate) fn next(&mut self, found: &[Detection]) -> Option<Vec<View>> {
        let first = InputSize::first(self.width, self.height);
        loop {
            let (wanted, views, then) = match self.stage {
                Stage::First => (true, vec![self.whole(first, 1.0)], Stage::Inset),
                Stage::Inset => (
                    found.is_empty(),
                    vec![self.whole(InputSize::Small, INSET)],
                    Stage::Closer,
                ),
                Stage::Closer => {
                    let crowd = found.is_empty() || self.has_small(found, first);
                    let closer = match first {
                        InputSize::Small => vec![self.whole(InputSize::Large, 1.0)],
                        InputSize::Large => self.tiles(crowd),
                    };
                    (crowd || first == InputSize::Large, closer, Stage::Done)
                }
                Stage::Done => return None,
            };
            self.stage = then;
            if wanted && !views.is_empty() {
                let turned = |view: View| view.turned(self.turn);
                return Some(views.into_iter().map(turned).collect());
            }
        }
    }

    fn whole(&self, input: InputSize, share: f32) -> View {
        View::whole(self.width, self.height, input.side(), share)
    }

    /// The tiles in which everything is found that has to be, of a photograph that was seen whole at the
    /// larger input; coarser ones first where one step would be too large.
    fn tiles(&self, crowd: bool) -> Vec<View> {
        let longest = self.width.max(self.height);
        let seen = InputSize::Large.side() as f32 / longest as f32;
        let least = SEEN_SIDE / FOUND_SIDE;
        let mut scale = if crowd {
            (CROWD_SIDE / longest as f32).max(least).min(1.0)
        } else {
            least
        };
        let mut levels = Vec::new();
        let mut step = if crowd { MIN_STEP } else { 1.0 };
        while scale > step * seen {
            levels.push(scale);
            step = 1.0;
            if scale <= MAX_STEP * seen {
                break;
            }
            scale /= MAX_STEP;
        }
        let count = |scale: f32| tiled(self.width, scale).1 * tiled(self.height, scale).1;
        let mut shrunk = 1.0;
        let all = |shrunk: f32| {
            levels
                .iter()
                .map(|scale| count(scale * shrunk))
                .sum::<u32>()
        };
        while all(shrunk) > self.max_tiles.max(levels.len() as u32) {
            shrunk *= 0.9;
        }
        (levels.iter().rev())
            .flat_map(|scale| View::tiles(self.width, self.height, scale * shrunk))
            .collect()
    }

    fn has_small(&self, found: &[Detection], seen_at: InputSize) -> bool {
        let scale = seen_at.side() as f32 / self.width.max(self.height) as f32;
        found
            .iter()
            .any(|face| face.bounds.width.max(face.bounds.height) * scale < SMALL_FACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn face(x: f32, y: f32, side: f32) -> Detection {
        Detection {
            bounds: Bounds {
                x,
                y,
                width: side,
                height: side,
            },
            landmarks: [[x, y]; 5],
            confidence: 0.9,
        }
    }

    fn sides(plan: &mut Plan, found: &[Detection]) -> Option<Vec<u32>> {
        plan.next(found)
            .map(|views| views.iter().map(|view| view.side).collect())
    }

    proptest! {
        #[test]
        fn a_whole_view_fits_keeps_its_aspect_and_brings_corners_back(
            width in 1u32..5000, height in 1u32..5000, large: bool, inset: bool,
        ) {
            let side = if large { 640 } else { 320 };
            let view = View::whole(width, height, side, if inset { INSET } else { 1.0 });
            prop_assert!(view.left + view.width <= side);
            prop_assert!(view.top + view.height <= side);
            let (per_x, per_y) =
                (width as f32 / view.width as f32, height as f32 / view.height as f32);
            if view.width.min(view.height) > 50 {
                prop_assert!((per_x / per_y - 1.0).abs() < 0.02);
            }
            let corner = view.to_photo(&face(view.left as f32, view.top as f32, 0.0));
            prop_assert_eq!((corner.bounds.x, corner.bounds.y), (0.0, 0.0));
            let [x, y] = view.to_photo(&face(
                (view.left + view.width) as f32, (view.top + view.height) as f32, 0.0,
            )).landmarks[0];
            prop_assert!((x - width as f32).abs() < 0.01 * width as f32);
            prop_assert!((y - height as f32).abs() < 0.01 * height as f32);
        }

        #[test]
        fn a_face_is_whole_and_large_enough_in_a_look(
            (width, height) in (641u32..60_000, 641u32..60_000)
                .prop_filter("a photograph", |(width, height)| width * (height / 1000) < 50_000),
            at_x in 0f32..1.0, at_y in 0f32..1.0, side in 0f32..1.0, crowd: bool,
        ) {
            let mut plan = Plan::new(width, height, Turn::None, 100);
            let side = FOUND_SIDE * (width.min(height) as f32 / FOUND_SIDE).powf(side);
            let x = at_x * (width as f32 - side);
            let y = at_y * (height as f32 - side);
            let small = [face(0.0, 0.0, 1.0)];
            let large = [face(0.0, 0.0, 10_000.0)];
            let mut looks = Vec::new();
            while let Some(views) = plan.next(if crowd { &small } else { &large }) {
                looks.extend(views);
            }
            let held = looks.iter().any(|look| {
                let per_x = look.source.width / look.width as f32;
                let per_y = look.source.height / look.height as f32;
                side / per_x >= 0.99 * SEEN_SIDE
                && look.holds(&Bounds {
                    x: (x - look.source.x) / per_x,
                    y: (y - look.source.y) / per_y,
                    width: side / per_x,
                    height: side / per_y,
                }) && x >= look.source.x && y >= look.source.y
                    && x + side <= look.source.x + look.source.width + 0.5
                    && y + side <= look.source.y + look.source.height + 0.5
            });
            prop_assert!(held, "{width}x{height}: {x} {y} {side}");
        }

        #[test]
        fn tiles_lie_within_the_photograph_and_are_as_many_as_allowed(
            width in 641u32..60_000, height in 641u32..60_000, crowd: bool, max in 1u32..64,
        ) {
            let tiles = Plan::new(width, height, Turn::None, max).tiles(crowd);
            prop_assert!(tiles.len() <= max.max(3) as usize);
            for tile in tiles {
                let Bounds { x, y, width: wide, height: tall } = tile.source;
                prop_assert!(x >= 0.0 && y >= 0.0 && wide > 0.0 && tall > 0.0);
                prop_assert!(x + wide <= width as f32 * 1.0001 && y + tall <= height as f32 * 1.0001);
            }
        }
    }

    #[test]
    fn a_photograph_with_a_plain_face_is_looked_at_once() {
        let mut plan = Plan::new(512, 512, Turn::None, 72);
        assert_eq!(sides(&mut plan, &[]), Some(vec![320]));
        assert_eq!(sides(&mut plan, &[face(100.0, 100.0, 200.0)]), None);
        let mut plan = Plan::new(1280, 1100, Turn::None, 72);
        assert_eq!(sides(&mut plan, &[]), Some(vec![640]));
        assert_eq!(sides(&mut plan, &[face(100.0, 100.0, 900.0)]), None);
    }

    #[test]
    fn a_photograph_with_nothing_found_is_looked_at_from_afar_then_closer() {
        let mut plan = Plan::new(512, 512, Turn::None, 72);
        assert_eq!(sides(&mut plan, &[]), Some(vec![320]));
        assert_eq!(sides(&mut plan, &[]), Some(vec![320]));
        assert_eq!(sides(&mut plan, &[]), Some(vec![640]));
        assert_eq!(sides(&mut plan, &[]), None);
    }

    #[test]
    fn a_crowd_is_looked_at_closer() {
        let mut plan = Plan::new(512, 384, Turn::None, 72);
        plan.next(&[]);
        assert_eq!(
            sides(&mut plan, &[face(0.0, 0.0, 200.0), face(300.0, 0.0, 25.0)]),
            Some(vec![640])
        );
        let mut plan = Plan::new(1280, 886, Turn::None, 72);
        plan.next(&[]);
        assert_eq!(
            sides(&mut plan, &[face(0.0, 0.0, 30.0)]),
            Some(vec![640; 6])
        );
        assert_eq!(sides(&mut plan, &[]), None);
    }

    #[test]
    fn a_large_or_long_photograph_is_read_in_tiles_whatever_was_found() {
        for (width, height, tiles) in [
            (1280, 1100, 0),
            (1281, 900, 2),
            (1920, 1080, 2),
            (4000, 3000, 12),
            (8000, 6000, 48 + 2),
            (12_000, 2000, 24 + 3),
            (30_000, 1000, 30 + 6),
            // The most that a photograph within the default limits takes.
            (1300, 32_768, 64 + 6),
        ] {
            let mut plan = Plan::new(width, height, Turn::None, 72);
            assert_eq!(sides(&mut plan, &[]), Some(vec![640]));
            let closer = sides(&mut plan, &[face(0.0, 0.0, 1000.0)]);
            assert_eq!(
                closer.map_or(0, |views| views.len()),
                tiles,
                "{width}x{height}"
            );
            assert_eq!(sides(&mut plan, &[]), None);
        }
    }

    #[test]
    fn a_box_cut_by_a_tile_is_left_to_its_neighbour() {
        let tile = &View::tiles(1280, 600, 1.0)[0];
        assert!(tile.holds(&Bounds {
            x: 0.0,
            y: 0.0,
            width: 100.0,
            height: 599.0
        }));
        assert!(!tile.holds(&Bounds {
            x: 600.0,
            y: 100.0,
            width: 40.0,
            height: 40.0
        }));
    }
}
