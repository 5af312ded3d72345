//! The sample with the largest error of an output that is an image, as small pictures.

use base64::prelude::{BASE64_STANDARD, Engine};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Pixels along each side, at most.
pub const MAX_SIDE: usize = 128;

/// Outputs of a comparison that have pictures, at most: those with the lowest SQNR.
pub const MAX_OUTPUTS: usize = 4;

/// What both models made of one sample, side by side.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Pictures {
    /// The one with the largest error, from 0, as in `worst_samples`.
    pub sample: usize,
    /// Of the output, in elements.
    pub height: usize,
    pub width: usize,
    pub channels: usize,
    /// Of more channels than a picture has, the one that is shown: where the squared error is largest.
    /// `null` if all are shown.
    pub channel: Option<usize>,
    /// Both have the same `low` and `high`, in the units of the output.
    pub reference: Picture,
    pub candidate: Picture,
    /// The absolute difference, in the units of the output, from 0; of three channels their mean.
    pub difference: Picture,
    /// What the models were given, if their first input is an image of one or three channels.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input: Option<InputPicture>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct InputPicture {
    pub name: String,
    /// In the units of the input.
    pub picture: Picture,
}

/// Pixels, each the mean of the elements that it covers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Picture {
    /// In pixels, from 1 to 128.
    pub height: usize,
    pub width: usize,
    /// 1: grey, or 3: channels 0, 1 and 2 as red, green and blue.
    pub channels: usize,
    /// What the code 0 stands for.
    pub low: f64,
    /// What the code 255 stands for.
    pub high: f64,
    /// Elements that are NaN or Inf, which no mean counts; a pixel of nothing else has the code 0.
    pub non_finite: usize,
    /// Base64 of one byte per pixel and channel: \[height, width, channels\].
    pub codes: String,
}

impl Picture {
    /// `values` has one number per pixel and channel; codes are linear between `low` and `high`.
    pub fn new(
        [height, width, channels]: [usize; 3],
        values: &[f64],
        (low, high): (f64, f64),
    ) -> Picture {
        let span = if high > low { high - low } else { 1.0 };
        // NaN becomes 0.
        let code = |it: &f64| ((it - low) / span * 255.0).round() as u8;
        let codes = BASE64_STANDARD.encode(values.iter().map(code).collect::<Vec<u8>>());
        Picture { height, width, channels, low, high, non_finite: 0, codes }
    }

    /// The codes, if they are as many as the size says. Nothing is allocated before that is known.
    pub fn bytes(&self) -> Option<Vec<u8>> {
        let sides = [self.height, self.width];
        let is_small = sides.iter().all(|it| (1..=MAX_SIDE).contains(it));
        if !is_small || ![1, 3].contains(&self.channels) {
            return None;
        }
        let count = self.height * self.width * self.channels;
        if self.codes.len() != count.div_ceil(3) * 4 {
            return None;
        }
        BASE64_STANDARD.decode(&self.codes).ok().filter(|it| it.len() == count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_span_the_range_and_what_is_no_number_is_dark() {
        let grey = Picture::new([1, 4, 1], &[-1.0, 1.0, 0.0, f64::NAN], (-1.0, 1.0));
        assert_eq!(grey.bytes().unwrap(), [0, 255, 128, 0]);
        let flat = Picture::new([1, 1, 3], &[2.0; 3], (2.0, 2.0));
        assert_eq!(flat.bytes().unwrap(), [0; 3]);
    }

    #[test]
    fn codes_of_another_size_are_no_picture() {
        let good = Picture::new([2, 2, 1], &[0.0; 4], (0.0, 1.0));
        assert!(good.bytes().is_some());
        let huge = usize::MAX;
        for (height, width, channels) in
            [(0, 2, 1), (2, 3, 1), (huge, huge, 3), (129, 1, 1), (2, 2, 4), (2, 2, 3), (2, 2, 0)]
        {
            let odd = Picture { height, width, channels, ..good.clone() };
            assert_eq!(odd.bytes(), None, "{height} {width} {channels}");
        }
        for codes in ["", "!!!!!!!!", "AAAAAA", "AAAA<svg", "AAAAAAAA", "AAAAé=="] {
            assert_eq!(Picture { codes: codes.into(), ..good.clone() }.bytes(), None, "{codes}");
        }
        assert_eq!(Picture::default().bytes(), None);
    }
}
