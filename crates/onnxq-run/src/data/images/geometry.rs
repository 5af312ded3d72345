//! Sizes: what an image is resized to, which part of it is taken, what is added.

use super::{
    super::DataError,
    describe::{Description, Filter, Resize},
};

/// More pixels than that are no photo but an attack, or a mistake.
pub(super) const MAX_PIXELS: u64 = 1 << 26;

/// A resize goes through rows of the new height and the old width, in floats.
const MAX_BETWEEN: u64 = 1 << 25;

/// Height and width.
pub(super) type Size = [u32; 2];

/// The sizes of a description for one model.
#[derive(Debug)]
pub(super) struct Geometry {
    /// What the model takes; 0 where it is open.
    model: Size,
    /// What crops, covers and stretches go to; not used otherwise.
    size: Size,
    resize: Resize,
    multiple_of: u32,
    crop: bool,
    pad: Option<(u32, u8)>,
    pub filter: Filter,
}

/// What happens to an image of a certain size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Steps {
    pub resize: Size,
    /// Top and left of what is taken of the resized image.
    pub corner: Size,
    pub taken: Size,
    pub padded: Size,
    pub pad_value: u8,
}

impl Geometry {
    /// `model` is what the model fixes of height and width.
    pub(super) fn new(it: &Description, model: [Option<usize>; 2]) -> Result<Geometry, DataError> {
        let fixed = model.map(|it| it.and_then(|it| u32::try_from(it).ok()).unwrap_or(0));
        let stated = it.size.unwrap_or([0; 2]);
        let size = [0, 1].map(|at| if fixed[at] > 0 { fixed[at] } else { stated[at] });
        if it.needs_size() && (size.contains(&0) || pixels(size) > MAX_PIXELS) {
            let key = if it.crop { "crop" } else { "resize" };
            let what = match size.contains(&0) {
                true => "the model leaves height and width open; add `size: [height, width]`",
                false => "the model takes larger images than this program makes",
            };
            return Err(it.refuse(key, what));
        }
        Ok(Geometry {
            model: fixed,
            size,
            resize: it.resize,
            multiple_of: it.multiple_of,
            crop: it.crop,
            pad: it.pad,
            filter: it.filter,
        })
    }

    /// Whether images of all sizes become one size.
    pub(super) fn is_fixed(&self) -> bool {
        self.crop || self.resize == Resize::Stretch || !self.model.contains(&0)
    }

    /// The steps for an image, or what is wrong with its size.
    pub(super) fn steps(&self, image: Size) -> Result<Steps, String> {
        let [h, w] = image;
        let resize = self.resized(image).map(|it| rounded(it, self.multiple_of));
        let taken = if self.crop { self.size } else { resize };
        if taken[0] > resize[0] || taken[1] > resize[1] {
            let ([a, b], [c, d]) = (resize, taken);
            return Err(format!("is {a} x {b} (height x width) where {c} x {d} is to be cropped"));
        }
        let (multiple, pad_value) = self.pad.unwrap_or((1, 0));
        let padded = taken.map(|it| it.div_ceil(multiple).saturating_mul(multiple));
        let between = if resize == image { 0 } else { pixels([resize[0], w]) };
        let is_large = [resize, padded].into_iter().any(|it| pixels(it) > MAX_PIXELS);
        if is_large || between > MAX_BETWEEN {
            return Err(format!("is {h} x {w} and would become larger than {MAX_PIXELS} pixels"));
        }
        let differs = |at: usize| self.model[at] > 0 && self.model[at] != padded[at];
        if differs(0) || differs(1) {
            let [a, b] = padded;
            let [c, d] = self.model.map(|it| if it == 0 { "any".into() } else { it.to_string() });
            return Err(format!(
                "becomes {a} x {b} (height x width), and the model takes {c} x {d}"
            ));
        }
        let corner = [0, 1].map(|at| half(resize[at] - taken[at]));
        Ok(Steps { resize, corner, taken, padded, pad_value })
    }

    /// The size after `resize`. The side that follows is rounded down, as torchvision does.
    fn resized(&self, [h, w]: Size) -> Size {
        match self.resize {
            Resize::No => [h, w],
            Resize::Stretch => self.size,
            Resize::Shorter(side) => cover([h, w], [side; 2]),
            Resize::Cover(part) => {
                cover([h, w], self.size.map(|it| (f64::from(it) / part).floor() as u32))
            }
            Resize::LimitLonger(limit) => {
                let longer = h.max(w);
                if longer <= limit {
                    return [h, w];
                }
                [h, w].map(|it| scaled(it, limit, longer))
            }
        }
    }
}

/// The smallest image of the same proportions that covers `least`.
fn cover([h, w]: Size, least: Size) -> Size {
    if u64::from(least[1]) * u64::from(h) >= u64::from(least[0]) * u64::from(w) {
        [scaled(h, least[1], w), least[1]]
    } else {
        [least[0], scaled(w, least[0], h)]
    }
}

/// `side · to / from`, rounded down, at least 1.
fn scaled(side: u32, to: u32, from: u32) -> u32 {
    let exact = u64::from(side) * u64::from(to) / u64::from(from.max(1));
    u32::try_from(exact.max(1)).unwrap_or(u32::MAX)
}

/// The nearest multiple, the even one of two; at least one.
fn rounded(side: u32, multiple: u32) -> u32 {
    let count = (f64::from(side) / f64::from(multiple)).round_ties_even().max(1.0);
    (count as u32).saturating_mul(multiple)
}

/// As Python rounds, so that crops begin where torchvision's do.
fn half(space: u32) -> u32 {
    (f64::from(space) / 2.0).round_ties_even() as u32
}

fn pixels([h, w]: Size) -> u64 {
    u64::from(h) * u64::from(w)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn geometry(text: &str, model: [Option<usize>; 2]) -> Geometry {
        let it = Description::parse(&format!("onnxq: 1\n{text}"), "x").unwrap();
        Geometry::new(&it, model).unwrap()
    }

    fn shipped(name: &str, model: [Option<usize>; 2]) -> Geometry {
        Geometry::new(&super::super::load(name).unwrap(), model).unwrap()
    }

    #[test]
    fn imagenet_is_the_center_of_an_image_of_256() {
        let it = shipped("imagenet", [None; 2]);
        assert!(it.is_fixed());
        // 375 x 500: 256 / 375 · 500 = 341.3; (341 - 224) / 2 = 58.5, which rounds to 58.
        let expected = Steps {
            resize: [256, 341],
            corner: [16, 58],
            taken: [224, 224],
            padded: [224, 224],
            pad_value: 0,
        };
        assert_eq!(it.steps([375, 500]).unwrap(), expected);
        assert_eq!(it.steps([500, 375]).unwrap().resize, [341, 256]);
        assert_eq!(it.steps([10, 10]).unwrap().resize, [256, 256]);
        // The model's own size rules.
        let it = shipped("imagenet", [Some(299), Some(299)]).steps([375, 500]).unwrap();
        assert_eq!((it.resize, it.taken), ([341, 454], [299, 299]));
        // An image that covers 100 x 400 is as wide as that.
        let it = geometry("size: [100, 400]\nresize: {cover: 1}\ncrop: center", [None; 2]);
        assert_eq!(it.steps([300, 400]).unwrap().resize, [300, 400]);
        assert_eq!(it.steps([100, 800]).unwrap().corner, [0, 200]);
    }

    #[test]
    fn text_detection_keeps_proportions_in_steps_of_32() {
        let it = shipped("paddle_ocr_det", [None; 2]);
        assert!(!it.is_fixed());
        // 720 is 22.5 times 32; of 22 and 23, the even one.
        assert_eq!(it.steps([1440, 1920]).unwrap().padded, [704, 960]);
        assert_eq!(it.steps([100, 48]).unwrap().padded, [96, 64]);
        assert_eq!(it.steps([10, 80]).unwrap().padded, [32, 64]);
    }

    #[test]
    fn padding_adds_below_and_to_the_right() {
        let it = geometry("pad: {multiple_of: 8, value: 9}", [None; 2]).steps([9, 16]).unwrap();
        assert_eq!((it.taken, it.padded, it.pad_value), ([9, 16], [16, 16], 9));
    }

    #[test]
    fn what_does_not_fit_says_so() {
        let crop = geometry("size: [8, 8]\ncrop: center", [None; 2]);
        let small = crop.steps([9, 7]).unwrap_err();
        assert_eq!(small, "is 9 x 7 (height x width) where 8 x 8 is to be cropped");
        let other = geometry("", [Some(8), None]).steps([9, 7]).unwrap_err();
        assert_eq!(other, "becomes 9 x 7 (height x width), and the model takes 8 x any");
        let thin = geometry("resize: {shorter: 256}", [None; 2]).steps([1, 65_000]);
        assert!(thin.unwrap_err().contains("would become larger"));
        let huge = geometry("pad: {multiple_of: 16384}", [None; 2]);
        assert!(huge.steps([u32::MAX, u32::MAX]).is_err());
        let open = Description::parse("onnxq: 1\ncrop: center", "x").unwrap();
        let error = Geometry::new(&open, [Some(8), None]).unwrap_err().to_string();
        assert!(error.starts_with("x:2:7: the model leaves height and width open"), "{error}");
    }
}
