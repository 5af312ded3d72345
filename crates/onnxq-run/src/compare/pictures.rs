//! Small pictures of the worst sample of an output that is an image.

use super::accumulate::Context;
use onnxq_report::pictures::{InputPicture, MAX_SIDE, Picture, Pictures};

/// An image has at least as many rows and columns.
const MIN_SIDE: usize = 16;

/// A picture shows one of at most so many channels; more are features, not an image.
const MAX_CHANNELS: usize = 32;

/// Where the axes of an image are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    height: usize,
    width: usize,
    channels: usize,
    channels_last: bool,
}

impl Layout {
    /// What `[N, C, H, W]` or `[N, H, W, C]` is, if it is an image.
    fn of(shape: &[usize]) -> Option<Layout> {
        let &[_, a, b, c] = shape else { return None };
        let first = Layout { height: b, width: c, channels: a, channels_last: false };
        let last = Layout { height: a, width: b, channels: c, channels_last: true };
        [first, last].into_iter().find(Layout::is_image)
    }

    /// Also `[N, H, W]` with the proportions of the input: other outputs of that rank are vectors.
    fn of_output(shape: &[usize], context: &Context) -> Option<Layout> {
        let &[_, height, width] = shape else { return Layout::of(shape) };
        let input = Layout::of(&context.image.as_ref()?.1.shape)?;
        let own = Layout { height, width, channels: 1, channels_last: false };
        let apart = (height * input.width).abs_diff(width * input.height);
        (own.is_image() && apart <= input.width.max(input.height)).then_some(own)
    }

    fn is_image(&self) -> bool {
        let sides = [self.height, self.width];
        (1..=MAX_CHANNELS).contains(&self.channels) && sides.iter().all(|it| *it >= MIN_SIDE)
    }

    fn at(&self, channel: usize, y: usize, x: usize) -> usize {
        if self.channels_last {
            (y * self.width + x) * self.channels + channel
        } else {
            (channel * self.height + y) * self.width + x
        }
    }

    /// The channels that a picture shows if `worst` is the one to show of many.
    fn shown(&self, worst: impl Fn() -> usize) -> Vec<usize> {
        if [1, 3].contains(&self.channels) { (0..self.channels).collect() } else { vec![worst()] }
    }
}

/// The pictures of sample `at` of a batch; both slices are that sample's. `None` of no image.
pub(super) fn pictures(
    shape: &[usize],
    (reference, candidate): (&[f32], &[f32]),
    context: &Context,
    (at, sample): (usize, usize),
) -> Option<Pictures> {
    let layout = Layout::of_output(shape, context)?;
    let Layout { height, width, channels, .. } = layout;
    let difference = |it: usize| (f64::from(reference[it]) - f64::from(candidate[it])).abs();
    let shown = layout.shown(|| worst_channel(layout, difference));
    let of = |values: &[f32]| Means::of(layout, &shown, |it| f64::from(values[it]));
    let (expected, actual) = (of(reference), of(candidate));
    let range = range(expected.values.iter().chain(&actual.values));
    let apart = Means::of(layout, &shown, difference).over_channels();
    let high = range_of(&apart).1.max(0.0);
    Some(Pictures {
        sample,
        height,
        width,
        channels,
        channel: (channels != shown.len()).then(|| shown[0]),
        reference: expected.picture(range),
        candidate: actual.picture(range),
        difference: apart.picture((0.0, high)),
        input: input(context, at),
    })
}

/// The input of a sample, if it is an image that a picture shows as it is.
fn input(context: &Context, at: usize) -> Option<InputPicture> {
    let (name, tensor) = context.image.as_ref()?;
    let layout = Layout::of(&tensor.shape).filter(|it| [1, 3].contains(&it.channels))?;
    if at >= tensor.shape[0] {
        return None;
    }
    let values = tensor.f32s().ok()?;
    let size = layout.height * layout.width * layout.channels;
    let own = values.get(at * size..(at + 1) * size)?;
    let shown = layout.shown(|| 0);
    let means = Means::of(layout, &shown, |it| f64::from(own[it]));
    Some(InputPicture { name: name.clone(), picture: means.picture(range_of(&means)) })
}

/// The channel with the largest squared error; the first of equals.
fn worst_channel(layout: Layout, difference: impl Fn(usize) -> f64) -> usize {
    let error = |channel: usize| -> f64 {
        let places = (0..layout.height).flat_map(|y| (0..layout.width).map(move |x| (y, x)));
        let squares = places.map(|(y, x)| difference(layout.at(channel, y, x)).powi(2));
        squares.filter(|it| it.is_finite()).sum()
    };
    let errors: Vec<f64> = (0..layout.channels).map(error).collect();
    (1..errors.len()).fold(0, |worst, it| if errors[it] > errors[worst] { it } else { worst })
}

/// Means of squares of elements: `[height, width, channels]`.
struct Means {
    size: [usize; 3],
    values: Vec<f64>,
    non_finite: usize,
}

impl Means {
    fn of(layout: Layout, channels: &[usize], value: impl Fn(usize) -> f64) -> Means {
        let side = layout.height.max(layout.width).div_ceil(MAX_SIDE);
        let (height, width) = (layout.height.div_ceil(side), layout.width.div_ceil(side));
        let size = [height, width, channels.len()];
        let mut means = Means { size, values: Vec::new(), non_finite: 0 };
        let along = |at: usize, all: usize| at * side..all.min((at + 1) * side);
        for (y, x) in (0..height).flat_map(|y| (0..width).map(move |x| (y, x))) {
            for channel in channels {
                let rows = along(y, layout.height);
                let mut own = rows.flat_map(|y| along(x, layout.width).map(move |x| (y, x)));
                means.add(&mut own.by_ref().map(|(y, x)| value(layout.at(*channel, y, x))));
            }
        }
        means
    }

    /// One more pixel; NaN if nothing in it is finite.
    fn add(&mut self, elements: &mut dyn Iterator<Item = f64>) {
        let (mut sum, mut count) = (0.0, 0);
        for it in elements {
            if it.is_finite() {
                sum += it;
                count += 1;
            } else {
                self.non_finite += 1;
            }
        }
        self.values.push(sum / f64::from(count));
    }

    /// Grey: the mean of the channels.
    fn over_channels(self) -> Means {
        let [height, width, channels] = self.size;
        let mean = |it: &[f64]| it.iter().sum::<f64>() / channels as f64;
        let values = self.values.chunks_exact(channels).map(mean).collect();
        Means { size: [height, width, 1], values, ..self }
    }

    fn picture(&self, range: (f64, f64)) -> Picture {
        Picture { non_finite: self.non_finite, ..Picture::new(self.size, &self.values, range) }
    }
}

fn range_of(means: &Means) -> (f64, f64) {
    range(means.values.iter())
}

/// From the least to the largest finite value; of none, 0.
fn range<'a>(values: impl Iterator<Item = &'a f64>) -> (f64, f64) {
    let finite = values.copied().filter(|it| it.is_finite());
    let widen = |range: Option<(f64, f64)>, it: f64| {
        let (low, high) = range.unwrap_or((it, it));
        Some((low.min(it), high.max(it)))
    };
    finite.fold(None, widen).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::tensor::Tensor;

    fn context(shape: &[usize]) -> Context {
        let zeros = vec![0.0; shape.iter().product()];
        Context { image: Some(("x".into(), Tensor::from_f32(shape, zeros))), ..Context::default() }
    }

    #[test]
    fn shapes_tell_what_is_an_image() {
        let found = |shape: &[usize]| {
            let layout = Layout::of_output(shape, &context(&[1, 3, 64, 32]));
            layout.map(|it| (it.height, it.width, it.channels, it.channels_last))
        };
        assert_eq!(found(&[1, 1, 64, 32]), Some((64, 32, 1, false)));
        assert_eq!(found(&[1, 64, 32, 3]), Some((64, 32, 3, true)));
        assert_eq!(found(&[1, 21, 64, 32]), Some((64, 32, 21, false)));
        assert_eq!(found(&[1, 32, 16]), Some((32, 16, 1, false)));
        // Patches and features, boxes and scores, features of an inner layer, a vector.
        for shape in
            [&[1, 197, 768][..], &[1, 84, 8400], &[1, 512, 64, 64], &[1, 256, 8, 8], &[1, 1000]]
        {
            assert_eq!(found(shape), None, "{shape:?}");
        }
        assert_eq!(Layout::of_output(&[1, 64, 64], &Context::default()), None);
    }

    #[test]
    fn the_channel_that_differs_most_is_shown_whatever_the_order_of_axes() {
        let (h, w, c) = (16, 16, 2);
        let first: Vec<f32> = (0..c * h * w).map(|it| it as f32).collect();
        let mut other = first.clone();
        other[h * w + 17] += 3.0;
        let last = |it: &[f32]| -> Vec<f32> {
            (0..h * w).flat_map(|at| (0..c).map(move |k| it[k * h * w + at])).collect()
        };
        let none = Context::default();
        let a = pictures(&[1, c, h, w], (&first, &other), &none, (0, 5)).unwrap();
        let (first, other) = (last(&first), last(&other));
        let b = pictures(&[1, h, w, c], (&first, &other), &none, (0, 5)).unwrap();
        assert_eq!(a, b);
        assert_eq!((a.sample, a.channel, a.channels, a.input), (5, Some(1), 2, None));
        assert_eq!((a.difference.low, a.difference.high), (0.0, 3.0));
        assert_eq!(a.difference.bytes().unwrap().iter().position(|it| *it == 255), Some(17));
        assert_eq!((a.reference.low, a.reference.high), (256.0, 511.0));
        assert_eq!((a.candidate.low, a.candidate.high), (256.0, 511.0));
    }

    #[test]
    fn large_images_are_averaged_and_what_is_not_finite_is_counted() {
        let (h, w) = (300, 130);
        let mut reference = vec![1.0f32; 3 * h * w];
        reference[0] = f32::NAN;
        reference[1] = 4.0;
        let candidate = vec![1.0f32; 3 * h * w];
        let context = context(&[2, 3, h, w]);
        let made = pictures(&[2, 3, h, w], (&reference, &candidate), &context, (1, 1)).unwrap();
        // Squares of three: the last ones are narrower.
        assert_eq!(
            (made.reference.height, made.reference.width, made.reference.channels),
            (100, 44, 3)
        );
        assert_eq!(
            (made.channel, made.reference.non_finite, made.candidate.non_finite),
            (None, 1, 0)
        );
        assert_eq!((made.reference.low, made.reference.high), (1.0, 1.375));
        assert_eq!((made.difference.channels, made.difference.high), (1, 0.125));
        let input = made.input.unwrap();
        assert_eq!((&*input.name, input.picture.high), ("x", 0.0));
        assert!(input.picture.bytes().is_some());
    }

    #[test]
    fn a_picture_of_nothing_finite_is_dark() {
        let (a, b) = (vec![f32::NAN; 256], vec![f32::INFINITY; 256]);
        let made = pictures(&[1, 1, 16, 16], (&a, &b), &Context::default(), (0, 0)).unwrap();
        for it in [&made.reference, &made.candidate, &made.difference] {
            assert_eq!((it.low, it.high, it.non_finite), (0.0, 0.0, 256));
            assert!(it.bytes().unwrap().iter().all(|it| *it == 0));
        }
    }
}
