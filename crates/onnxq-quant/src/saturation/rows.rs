//! Some rows of an activation, chosen so that the order of samples and threads does not matter.

use std::collections::BTreeMap;

use onnxq_ir::{Model, NoMatch, NodeId, no_match, tensor::Dim};
use onnxq_numerics::affine::Interval;

/// Rows of one activation: what a row of a weight is multiplied with. For a convolution, patches.
#[derive(Clone, Debug)]
pub struct SampledRows {
    window: Window,
    /// The most rows that are kept.
    limit: usize,
    /// Every row is divided by its largest magnitude before it is quantized.
    by_row: bool,
    /// By rank: a number as good as random that follows from the values of the sample and the
    /// place of the row in it. Equal samples have equal ranks, and count once.
    kept: BTreeMap<u64, Row>,
}

#[derive(Clone, Debug)]
struct Row {
    values: Vec<f32>,
    /// Of all values of the run.
    range: Interval,
}

/// How rows are cut out of a tensor.
#[derive(Clone, PartialEq, Debug)]
pub enum Window {
    /// Consecutive values.
    Rows(usize),
    Patches(Patches),
}

/// The patches that a convolution of `[n, c, …]` multiplies, in the order of its kernels: by
/// group, then pixels, then channels.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Patches {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    /// Zeros before each dimension, then after.
    pub pads: Vec<usize>,
    pub groups: usize,
}

impl Patches {
    /// Those of a Conv whose weight has the given kernel.
    pub fn of(m: &Model, node: NodeId, kernel: &[usize]) -> Result<Patches, NoMatch> {
        let label = m.node_label(node);
        let rank = kernel.len();
        let list = |name: &str, default: usize, len: usize| match m.ints_attr(node, name) {
            None => Ok(vec![default; len]),
            Some(it) => {
                let sizes: Option<Vec<usize>> =
                    it.iter().map(|it| usize::try_from(*it).ok()).collect();
                let sizes = sizes.filter(|it| it.len() == len);
                sizes.ok_or_else(|| no_match!("`{name}` of {label} makes no sense"))
            }
        };
        let mut patches = Patches {
            kernel: kernel.to_vec(),
            strides: list("strides", 1, rank)?,
            dilations: list("dilations", 1, rank)?,
            pads: list("pads", 0, 2 * rank)?,
            groups: usize::try_from(m.int_attr(node, "group", 1)).unwrap_or(0),
        };
        let zero = |list: &[usize]| list.contains(&0);
        if zero(&patches.strides) || zero(&patches.dilations) || patches.groups == 0 {
            return Err(no_match!("{label} makes no sense"));
        }
        let auto = match m.node(node).attrs.get("auto_pad") {
            Some(onnxq_ir::Attr::String(it)) => String::from_utf8_lossy(it).into_owned(),
            _ => "NOTSET".into(),
        };
        if auto.starts_with("SAME") {
            let shape = m.shape(m.operand(node, 0)?)?;
            for axis in 0..rank {
                let size = shape.get(axis + 2).and_then(Dim::fixed);
                let size = size.ok_or_else(|| no_match!("the padding of {label} is not known"))?;
                let total = patches.same_pads(axis, size);
                let small = total / 2;
                let before = if auto == "SAME_LOWER" { total - small } else { small };
                patches.pads[axis] = before;
                patches.pads[rank + axis] = total - before;
            }
        }
        Ok(patches)
    }

    fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis].saturating_sub(1)).saturating_mul(self.dilations[axis]).saturating_add(1)
    }

    /// Zeros that make as many positions as a stride leaves of `size`.
    fn same_pads(&self, axis: usize, size: usize) -> usize {
        let positions = size.div_ceil(self.strides[axis]);
        (positions.saturating_sub(1) * self.strides[axis] + self.reach(axis)).saturating_sub(size)
    }

    /// Positions along each dimension of an image.
    fn positions(&self, image: &[usize]) -> Vec<usize> {
        let rank = self.kernel.len();
        let along = |(axis, size): (usize, &usize)| {
            let padded = size + self.pads[axis] + self.pads[rank + axis];
            padded.checked_sub(self.reach(axis)).map_or(0, |it| it / self.strides[axis] + 1)
        };
        image.iter().enumerate().map(along).collect()
    }

    /// The patch at a position of a sample `[n, c, …image]`.
    fn cut(&self, values: &[f32], shape: &[usize], mut at: usize) -> Vec<f32> {
        let (channels, image) = (shape[1], &shape[2..]);
        let positions = self.positions(image);
        let mut corner = vec![0isize; image.len()];
        for axis in (0..image.len()).rev() {
            let place = at % positions[axis] * self.strides[axis];
            corner[axis] = place as isize - self.pads[axis] as isize;
            at /= positions[axis];
        }
        let area: usize = image.iter().product();
        let sample = &values[at * channels * area..][..channels * area];
        let taps: usize = self.kernel.iter().product();
        let offsets: Vec<Option<usize>> =
            (0..taps).map(|it| self.offset(it, &corner, image)).collect();
        let per_group = channels / self.groups;
        let mut patch = Vec::with_capacity(channels * taps);
        for group in 0..self.groups {
            for offset in &offsets {
                let channels = group * per_group..(group + 1) * per_group;
                patch.extend(channels.map(|it| offset.map_or(0.0, |at| sample[it * area + at])));
            }
        }
        patch
    }

    /// Where in a channel a tap of the kernel lies; `None`: in the padding.
    fn offset(&self, mut tap: usize, corner: &[isize], image: &[usize]) -> Option<usize> {
        let mut at = 0;
        let mut stride = 1;
        for axis in (0..image.len()).rev() {
            let step = tap % self.kernel[axis] * self.dilations[axis];
            tap /= self.kernel[axis];
            let place = usize::try_from(corner[axis] + step as isize).ok()?;
            if place >= image[axis] {
                return None;
            }
            at += place * stride;
            stride *= image[axis];
        }
        Some(at)
    }
}

impl SampledRows {
    pub fn new(window: Window, limit: usize, by_row: bool) -> SampledRows {
        SampledRows { window, limit, by_row, kept: BTreeMap::new() }
    }

    /// Bytes that it comes to need for rows of `k`.
    pub fn bytes(k: usize, limit: usize) -> usize {
        // Rows of one more sample, before the surplus goes.
        2 * limit * k * size_of::<f32>()
    }

    /// Rows and the range of all values of their run, by rank.
    pub fn iter(&self) -> impl Iterator<Item = (&[f32], Interval)> {
        self.kept.values().map(|it| (&it.values[..], it.range))
    }

    pub fn len(&self) -> usize {
        self.kept.len()
    }

    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Looks at what one run computed.
    pub fn add(&mut self, values: &[f32], shape: &[usize]) {
        let count = match &self.window {
            Window::Rows(k) => values.len() / (*k).max(1),
            Window::Patches(it) if shape.len() == it.kernel.len() + 2 => {
                shape[0] * it.positions(&shape[2..]).iter().product::<usize>()
            }
            Window::Patches(_) => 0,
        };
        if count == 0 {
            return;
        }
        let seed = values.iter().fold(count as u64, |hash, it| mix(hash ^ u64::from(it.to_bits())));
        let mut ranks: Vec<(u64, usize)> =
            (0..count).map(|at| (mix(seed.wrapping_add(at as u64)), at)).collect();
        ranks.sort_unstable();
        ranks.truncate(self.limit);
        let range = self.range(values);
        for (rank, at) in ranks {
            let full = self.kept.len() >= self.limit;
            if full && self.kept.last_key_value().is_some_and(|last| *last.0 < rank) {
                break;
            }
            let row = Row { values: self.row(values, shape, at), range };
            self.kept.insert(rank, row);
            if self.kept.len() > self.limit {
                self.kept.pop_last();
            }
        }
    }

    fn row(&self, values: &[f32], shape: &[usize], at: usize) -> Vec<f32> {
        match &self.window {
            Window::Rows(k) => {
                let mut row = values[at * k..(at + 1) * k].to_vec();
                let inverse = self.inverse(&row);
                row.iter_mut().for_each(|it| *it *= inverse);
                row
            }
            Window::Patches(it) => it.cut(values, shape, at),
        }
    }

    /// What a row is multiplied with.
    fn inverse(&self, row: &[f32]) -> f32 {
        let reach = row.iter().fold(0f32, |max, it| max.max(it.abs()));
        if self.by_row && reach > 0.0 { 1.0 / reach } else { 1.0 }
    }

    fn range(&self, values: &[f32]) -> Interval {
        let k = match self.window {
            Window::Rows(k) => k.max(1),
            Window::Patches(_) => values.len().max(1),
        };
        let of_row = |row: &[f32]| {
            let inverse = self.inverse(row);
            let low = row.iter().copied().fold(0f32, f32::min) * inverse;
            let high = row.iter().copied().fold(0f32, f32::max) * inverse;
            Interval::new(low, high)
        };
        values.chunks(k).map(of_row).fold(Interval::default(), Interval::union)
    }
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of the number.
fn mix(number: u64) -> u64 {
    let it = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    it ^ (it >> 31)
}
