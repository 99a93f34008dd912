//! Moving points without changing shapes.

use super::template::TEMPLATE_BOUNDS;
use crate::bounds::Bounds;

/// A rotation, a uniform scale and a shift, without reflection:
/// `(x, y) -> (a x - b y + tx, b x + a y + ty)`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Similarity {
    /// Scale times the cosine of the angle.
    pub a: f32,
    /// Scale times the sine of the angle.
    pub b: f32,
    /// Shift to the right.
    pub tx: f32,
    /// Shift downwards.
    pub ty: f32,
}

impl Similarity {
    /// Finds the similarity that brings `from` nearest to `to`, by the sum of squared distances.
    ///
    /// In two dimensions Umeyama's solution (1991) has a closed form: with both sets centred,
    /// `a` is the sum of dot products and `b` of cross products, over the squared lengths of
    /// `from`. Returns `None` when the points do not tell: all in one place, or not finite.
    #[must_use]
    pub fn between(from: &[[f32; 2]], to: &[[f32; 2]]) -> Option<Self> {
        let centre = |points: &[[f32; 2]]| {
            let sum = points.iter().fold([0.0f64; 2], |sum, point| {
                [sum[0] + f64::from(point[0]), sum[1] + f64::from(point[1])]
            });
            sum.map(|sum| sum / points.len() as f64)
        };
        let (from_centre, to_centre) = (centre(from), centre(to));
        let (mut dot, mut cross, mut square) = (0.0, 0.0, 0.0);
        for (from, to) in from.iter().zip(to) {
            let [px, py] = [
                f64::from(from[0]) - from_centre[0],
                f64::from(from[1]) - from_centre[1],
            ];
            let [qx, qy] = [
                f64::from(to[0]) - to_centre[0],
                f64::from(to[1]) - to_centre[1],
            ];
            dot += px * qx + py * qy;
            cross += px * qy - py * qx;
            square += px * px + py * py;
        }
        let (a, b) = (dot / square, cross / square);
        let found = Self {
            a: a as f32,
            b: b as f32,
            tx: (to_centre[0] - a * from_centre[0] + b * from_centre[1]) as f32,
            ty: (to_centre[1] - b * from_centre[0] - a * from_centre[1]) as f32,
        };
        found.is_usable().then_some(found)
    }

    /// Brings the box of a face to the place of a face's box in an aligned face, upright.
    pub(super) fn from_bounds(bounds: &Bounds) -> Option<Self> {
        let scale = TEMPLATE_BOUNDS.height / bounds.height.max(bounds.width);
        let ([from_x, from_y], [to_x, to_y]) = (bounds.centre(), TEMPLATE_BOUNDS.centre());
        let found = Self {
            a: scale,
            b: 0.0,
            tx: to_x - scale * from_x,
            ty: to_y - scale * from_y,
        };
        found.is_usable().then_some(found)
    }

    fn is_usable(&self) -> bool {
        // False for NaN as well. The bounds are far beyond any photo and keep the inverse finite.
        (1e-4..1e4).contains(&self.scale()) && self.tx.abs() < 1e9 && self.ty.abs() < 1e9
    }

    /// Returns the factor by which lengths grow.
    #[must_use]
    pub fn scale(&self) -> f32 {
        // Not `hypot`, which asks for a glibc newer than that of servers in use (2.35).
        (self.a * self.a + self.b * self.b).sqrt()
    }

    /// Moves a point.
    #[must_use]
    pub fn apply(&self, [x, y]: [f32; 2]) -> [f32; 2] {
        [
            self.a * x - self.b * y + self.tx,
            self.b * x + self.a * y + self.ty,
        ]
    }

    /// Returns the similarity to the same places of a picture that is halved: pixel centres are at
    /// whole coordinates, so that the first two pixels' middle becomes the first pixel's.
    pub(super) fn halved(&self) -> Self {
        Self {
            a: self.a / 2.0,
            b: self.b / 2.0,
            tx: self.tx / 2.0 - 0.25,
            ty: self.ty / 2.0 - 0.25,
        }
    }

    /// Returns the similarity to the same places of a picture that is doubled, as [`Self::halved`].
    pub(super) fn doubled(&self) -> Self {
        Self {
            a: self.a * 2.0,
            b: self.b * 2.0,
            tx: self.tx * 2.0 + 0.5,
            ty: self.ty * 2.0 + 0.5,
        }
    }

    /// Returns the similarity that undoes this one.
    #[must_use]
    pub fn inverse(&self) -> Self {
        let square = self.a * self.a + self.b * self.b;
        let (a, b) = (self.a / square, -self.b / square);
        Self {
            a,
            b,
            tx: b * self.ty - a * self.tx,
            ty: -b * self.tx - a * self.ty,
        }
    }
}
