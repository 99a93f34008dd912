//! Turns by quarters, for photographs that do not stand upright.

use crate::bounds::Bounds;
use crate::detection::Detection;

/// How far a picture is turned clockwise to stand upright.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Turn {
    /// It stands upright.
    #[default]
    None,
    /// By a quarter.
    Right,
    /// By a half.
    Half,
    /// By three quarters, that is a quarter counter-clockwise.
    Left,
}

impl Turn {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::None, Self::Right, Self::Half, Self::Left];

    /// Returns the angle in degrees: 0, 90, 180 or 270.
    #[must_use]
    pub fn degrees(self) -> u16 {
        match self {
            Self::None => 0,
            Self::Right => 90,
            Self::Half => 180,
            Self::Left => 270,
        }
    }

    /// Where a pixel of a picture of that width and height comes to lie when the picture is turned.
    pub(crate) fn pixel(self, [x, y]: [usize; 2], [width, height]: [usize; 2]) -> [usize; 2] {
        match self {
            Self::None => [x, y],
            Self::Right => [height - 1 - y, x],
            Self::Half => [width - 1 - x, height - 1 - y],
            Self::Left => [y, width - 1 - x],
        }
    }

    /// Whether width and height change places.
    pub(crate) fn is_quarter(self) -> bool {
        matches!(self, Self::Right | Self::Left)
    }

    /// Where a point of a turned square of that side was before.
    fn undo(self, [x, y]: [f32; 2], side: f32) -> [f32; 2] {
        match self {
            Self::None => [x, y],
            Self::Right => [y, side - x],
            Self::Half => [side - x, side - y],
            Self::Left => [side - y, x],
        }
    }

    /// Where a box in a turned square of that side was before.
    pub(crate) fn undo_box(self, seen: &Bounds, side: f32) -> Bounds {
        let near = self.undo([seen.x, seen.y], side);
        let far = self.undo([seen.x + seen.width, seen.y + seen.height], side);
        Bounds {
            x: near[0].min(far[0]),
            y: near[1].min(far[1]),
            width: (near[0] - far[0]).abs(),
            height: (near[1] - far[1]).abs(),
        }
    }

    /// Where what was detected in a turned square of that side was before. The landmarks keep their
    /// order, which is that of an upright face.
    pub(crate) fn undo_detection(self, seen: &Detection, side: f32) -> Detection {
        Detection {
            bounds: self.undo_box(&seen.bounds, side),
            landmarks: seen.landmarks.map(|point| self.undo(point, side)),
            confidence: seen.confidence,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_turned_is_turned_back() {
        for turn in Turn::ALL {
            let middle = |[x, y]: [usize; 2]| [x as f32 + 0.5, y as f32 + 0.5];
            let turned = turn.pixel([3, 7], [10, 10]);
            assert_eq!(turn.undo(middle(turned), 10.0), middle([3, 7]), "{turn:?}");
        }
        // What stands at the top left stands at the top right after a quarter clockwise.
        assert_eq!(Turn::Right.pixel([0, 0], [20, 10]), [9, 0]);
        let seen = Bounds {
            x: 1.0,
            y: 2.0,
            width: 3.0,
            height: 5.0,
        };
        let was = Turn::Right.undo_box(&seen, 10.0);
        let expected = Bounds {
            x: 2.0,
            y: 6.0,
            width: 5.0,
            height: 3.0,
        };
        assert_eq!(was, expected);
    }
}
