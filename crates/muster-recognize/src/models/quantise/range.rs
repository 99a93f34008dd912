//! The 8-bit steps between the least and the greatest value of a tensor.

use super::super::onnx::{Tensor, UINT8};

/// How a tensor's values become bytes: `round(value / scale) + zero`, cut off at 0 and 255.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Range {
    /// The step from one byte to the next.
    pub scale: f32,
    /// The byte that is 0.0, so that a convolution's padding is exact.
    zero: u8,
}

impl Range {
    /// From `least` to `greatest`, widened to have 0 in it; `None` where there is nothing between.
    pub(super) fn between(least: f32, greatest: f32) -> Option<Self> {
        let (least, greatest) = (f64::from(least.min(0.0)), f64::from(greatest.max(0.0)));
        let scale = ((greatest - least) / 255.0) as f32;
        let zero = (-least / f64::from(scale)).round_ties_even() as u8;
        scale.is_normal().then_some(Self { scale, zero })
    }

    /// The zero point as a scalar tensor of that name.
    pub(super) fn zero_point(&self, name: String) -> Tensor {
        Tensor {
            data_type: Some(UINT8),
            name: Some(name),
            raw_data: Some(vec![self.zero]),
            ..Tensor::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_a_255th_of_the_range_and_zero_is_a_step() {
        let found = Range::between(-1.0, 4.1).unwrap();
        assert!((found.scale - 0.02).abs() < 1e-8);
        assert_eq!(found.zero, 50);
        // Half a step is to the even one: -127.5 / 128 to 127.5 / 128.
        let found = Range::between(-0.996_093_75, 0.996_093_75).unwrap();
        assert_eq!((found.scale, found.zero), (1.0 / 128.0, 128));
    }

    #[test]
    fn a_range_on_one_side_of_zero_is_widened_to_it() {
        let found = Range::between(1.0, 2.55).unwrap();
        assert!((found.scale - 0.01).abs() < 1e-8);
        assert_eq!(found.zero, 0);
        let found = Range::between(-2.55, -1.0).unwrap();
        assert!((found.scale - 0.01).abs() < 1e-8);
        assert_eq!(found.zero, 255);
    }

    #[test]
    fn a_range_of_nothing_is_none() {
        for [least, greatest] in [
            [0.0, 0.0],
            [f32::NEG_INFINITY, 1.0],
            [0.0, f32::INFINITY],
            [f32::NAN, f32::NAN],
        ] {
            assert_eq!(Range::between(least, greatest), None);
        }
    }
}
