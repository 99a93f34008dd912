//! What the detector looks at: which part of a photograph, at which input size, in which order.
//!
//! A photograph is first seen whole. It is looked at again, closer or from further away, only
//! when nothing was found or when the faces found are so small that smaller ones must be expected.

use crate::bounds::Bounds;
use crate::detection::Detection;

/// The scale of the second look at a photograph in which nothing was found: a face that fills it
/// is larger than any the detector was trained on, and needs something around it.
const INSET: f32 = 0.5;

/// The side, in input pixels, under which a face tells of others too small to be found.
///
/// YuNet finds faces from about 10 pixels on; twice that leaves room for the ones behind.
const SMALL_FACE: f32 = 20.0;

/// The longest side at which a photograph is read in tiles: 16 runs of the model at most.
const MAX_TILED_SIDE: u32 = 1920;

/// The longest side from which tiles show enough more than the larger input did: a quarter.
const MIN_TILED_SIDE: u32 = 800;

/// How far neighbouring tiles overlap, in input pixels.
///
/// A face up to this size is whole in one of them; larger ones were seen at the size before.
const TILE_OVERLAP: u32 = 128;

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
}

/// A part of a photograph and its place in a detector's input.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    /// The input it is read into.
    pub(crate) input: InputSize,
    /// The part, in photograph pixels.
    pub(crate) source: Bounds,
    /// Where it stands in the input.
    pub(crate) left: u32,
    /// Where it stands in the input.
    pub(crate) top: u32,
    /// Its size in the input.
    pub(crate) width: u32,
    /// Its size in the input.
    pub(crate) height: u32,
    /// Whether the photograph goes on beyond the part's left, top, right and bottom edge.
    continues: [bool; 4],
}

impl View {
    /// Fits a whole photograph into `share` of the input's side, its aspect kept; a full view
    /// starts at the top left, a smaller one stands in the middle.
    pub(crate) fn whole(width: u32, height: u32, input: InputSize, share: f32) -> Self {
        let side = input.side();
        let scale = side as f32 * share / width.max(height) as f32;
        let fit = |length: u32| ((length as f32 * scale).round() as u32).clamp(1, side);
        let (fit_width, fit_height) = (fit(width), fit(height));
        let [left, top] = if share < 1.0 {
            [(side - fit_width) / 2, (side - fit_height) / 2]
        } else {
            [0, 0]
        };
        Self {
            input,
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
            continues: [false; 4],
        }
    }

    /// Divides a photograph, shrunk to [`MAX_TILED_SIDE`] when longer, into overlapping tiles.
    fn tiles(width: u32, height: u32) -> Vec<Self> {
        let input = InputSize::Large;
        let scale = (MAX_TILED_SIDE as f32 / width.max(height) as f32).min(1.0);
        let spans = |length: u32| {
            let scaled = ((length as f32 * scale).round() as u32).max(1);
            let per_pixel = length as f32 / scaled as f32;
            let tile = input.side().min(scaled);
            let count = (scaled - tile).div_ceil(input.side() - TILE_OVERLAP) + 1;
            (0..count).map(move |index| {
                let start = (scaled - tile) * index / (count - 1).max(1);
                (start, tile, start > 0, start + tile < scaled, per_pixel)
            })
        };
        let row = |(top, tall, above, below, per_y): (u32, u32, bool, bool, f32)| {
            spans(width).map(move |(left, wide, before, after, per_x)| Self {
                input,
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
                continues: [before, above, after, below],
            })
        };
        spans(height).flat_map(row).collect()
    }

    /// Tells whether a box in the input is wholly seen: not cut by an edge beyond which the
    /// photograph goes on.
    pub(crate) fn holds(&self, seen: &Bounds) -> bool {
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

/// The looks at one photograph, each decided by what the ones before it found.
pub(crate) struct Plan {
    width: u32,
    height: u32,
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
    /// Plans for a photograph of this size.
    pub(crate) fn new(width: u32, height: u32) -> Self {
        Self {
            width,
            height,
            stage: Stage::First,
        }
    }

    /// Returns what to look at next, given the faces found so far; `None` when it is enough.
    pub(crate) fn next(&mut self, found: &[Detection]) -> Option<Vec<View>> {
        // A photograph larger than the larger input has detail that the smaller one would lose.
        let first = if self.width.max(self.height) > InputSize::Large.side() {
            InputSize::Large
        } else {
            InputSize::Small
        };
        loop {
            let (wanted, views, then) = match self.stage {
                Stage::First => (true, vec![self.whole(first, 1.0)], Stage::Inset),
                Stage::Inset => (
                    found.is_empty(),
                    vec![self.whole(InputSize::Small, INSET)],
                    Stage::Closer,
                ),
                Stage::Closer => {
                    let closer = match first {
                        InputSize::Small => vec![self.whole(InputSize::Large, 1.0)],
                        InputSize::Large if self.width.max(self.height) < MIN_TILED_SIDE => vec![],
                        InputSize::Large => View::tiles(self.width, self.height),
                    };
                    (
                        found.is_empty() || self.has_small(found, first),
                        closer,
                        Stage::Done,
                    )
                }
                Stage::Done => return None,
            };
            self.stage = then;
            if wanted && !views.is_empty() {
                return Some(views);
            }
        }
    }

    fn whole(&self, input: InputSize, share: f32) -> View {
        View::whole(self.width, self.height, input, share)
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
            .map(|views| views.iter().map(|view| view.input.side()).collect())
    }

    proptest! {
        #[test]
        fn a_whole_view_fits_keeps_its_aspect_and_brings_corners_back(
            width in 1u32..5000, height in 1u32..5000, large: bool, inset: bool,
        ) {
            let input = if large { InputSize::Large } else { InputSize::Small };
            let view = View::whole(width, height, input, if inset { INSET } else { 1.0 });
            prop_assert!(view.left + view.width <= input.side());
            prop_assert!(view.top + view.height <= input.side());
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
        fn a_face_up_to_the_overlap_is_whole_in_a_tile(
            width in 641u32..6000, height in 641u32..6000,
            at_x in 0f32..1.0, at_y in 0f32..1.0, side in 4f32..120.0,
        ) {
            let tiles = View::tiles(width, height);
            prop_assert!(tiles.len() <= 16);
            let scale = (MAX_TILED_SIDE as f32 / width.max(height) as f32).min(1.0);
            let side = side / scale;
            let x = at_x * (width as f32 - side);
            let y = at_y * (height as f32 - side);
            let held = tiles.iter().any(|tile| {
                let per_x = tile.source.width / tile.width as f32;
                let per_y = tile.source.height / tile.height as f32;
                tile.holds(&Bounds {
                    x: (x - tile.source.x) / per_x,
                    y: (y - tile.source.y) / per_y,
                    width: side / per_x,
                    height: side / per_y,
                }) && x >= tile.source.x && y >= tile.source.y
                    && x + side <= tile.source.x + tile.source.width + 0.5
                    && y + side <= tile.source.y + tile.source.height + 0.5
            });
            prop_assert!(held, "{width}x{height}: {x} {y} {side}");
        }

        #[test]
        fn tiles_lie_within_the_photograph(width in 1u32..6000, height in 1u32..6000) {
            for tile in View::tiles(width, height) {
                let Bounds { x, y, width: wide, height: tall } = tile.source;
                prop_assert!(x >= 0.0 && y >= 0.0 && wide > 0.0 && tall > 0.0);
                prop_assert!(x + wide <= width as f32 && y + tall <= height as f32);
            }
        }
    }

    #[test]
    fn a_photograph_with_a_plain_face_is_looked_at_once() {
        let mut plan = Plan::new(512, 512);
        assert_eq!(sides(&mut plan, &[]), Some(vec![320]));
        assert_eq!(sides(&mut plan, &[face(100.0, 100.0, 200.0)]), None);
        let mut plan = Plan::new(4000, 3000);
        assert_eq!(sides(&mut plan, &[]), Some(vec![640]));
        assert_eq!(sides(&mut plan, &[face(100.0, 100.0, 900.0)]), None);
    }

    #[test]
    fn a_photograph_with_nothing_found_is_looked_at_from_afar_then_closer() {
        let mut plan = Plan::new(512, 512);
        assert_eq!(sides(&mut plan, &[]), Some(vec![320]));
        assert_eq!(sides(&mut plan, &[]), Some(vec![320]));
        assert_eq!(sides(&mut plan, &[]), Some(vec![640]));
        assert_eq!(sides(&mut plan, &[]), None);
    }

    #[test]
    fn a_crowd_is_looked_at_closer() {
        let mut plan = Plan::new(512, 384);
        plan.next(&[]);
        assert_eq!(
            sides(&mut plan, &[face(0.0, 0.0, 200.0), face(300.0, 0.0, 25.0)]),
            Some(vec![640])
        );
        let mut plan = Plan::new(1280, 886);
        plan.next(&[]);
        assert_eq!(
            sides(&mut plan, &[face(0.0, 0.0, 30.0)]),
            Some(vec![640; 6])
        );
        assert_eq!(sides(&mut plan, &[]), None);
    }

    #[test]
    fn a_box_cut_by_a_tile_is_left_to_its_neighbour() {
        let tile = &View::tiles(1280, 600)[0];
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
