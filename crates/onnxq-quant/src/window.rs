//! What rows of weights are multiplied with: rows of an activation, or patches of an image.

use onnxq_ir::{Model, NoMatch, NodeId, ValueId, no_match, tensor::Dim};

/// What a weight is multiplied with.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Operand {
    pub value: ValueId,
    /// How a convolution cuts it; `None`: its rows are multiplied as they are.
    pub patches: Option<Patches>,
}

impl From<ValueId> for Operand {
    fn from(value: ValueId) -> Operand {
        Operand { value, patches: None }
    }
}

impl Operand {
    /// What tells it from others of the model: `x`, or `x [3 × 3 patches, …]`.
    pub fn name(&self, m: &Model) -> String {
        let name = m.value(self.value).name.to_string();
        match &self.patches {
            None => name,
            Some(it) => format!("{name} [{it}]"),
        }
    }
}

/// Whose outputs say how much each row of an operand counts, and into how many groups of output
/// channels they are cut.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Guided {
    pub node: NodeId,
    pub groups: usize,
}

impl Guided {
    /// What tells a group of an operand's rows from all others: `x for y, group 1 of 4`, where `y`
    /// is what the node puts out.
    pub fn name(&self, m: &Model, operand: &Operand, group: usize) -> String {
        let output = m.node(self.node).outputs.first().map_or("", |it| &*m.value(*it).name);
        format!("{} for {output}, group {} of {}", operand.name(m), group + 1, self.groups)
    }
}

/// How rows are cut out of a tensor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Window {
    /// Consecutive values.
    Rows(usize),
    Patches(Patches),
}

/// The patches that a convolution of `[n, c, …]` multiplies.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Patches {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    /// Zeros before each dimension, then after.
    pub pads: Vec<usize>,
    pub groups: usize,
    /// Channels of the image, those of all groups.
    pub channels: usize,
}

impl Patches {
    /// Those of a Conv whose weight, `[n, c / groups, …kernel]`, has the given shape.
    pub fn of(m: &Model, node: NodeId, weight: &[usize]) -> Result<Patches, NoMatch> {
        let label = m.node_label(node);
        let [_, channels, kernel @ ..] = weight else {
            return Err(no_match!("the weight of {label} is no kernel"));
        };
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
            channels: 0,
        };
        patches.channels = channels.saturating_mul(patches.groups);
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

    /// Values of a patch.
    pub fn width(&self) -> usize {
        self.channels * self.kernel.iter().product::<usize>()
    }

    /// How many patches a sample `[n, c, …image]` has; 0 if it has another rank or other channels.
    pub fn count(&self, shape: &[usize]) -> usize {
        match shape.len() == self.kernel.len() + 2 && shape[1] == self.channels {
            true => shape[0] * self.positions(&shape[2..]).iter().product::<usize>(),
            false => 0,
        }
    }

    /// The patch at a position of a sample `[n, c, …image]`, in the order of the kernels of
    /// integers: by group, then pixels, then channels.
    pub fn cut(&self, values: &[f32], shape: &[usize], at: usize) -> Vec<f32> {
        let (sample, offsets) = self.sample(values, shape, at);
        let (channels, area) = (shape[1], sample.len() / shape[1].max(1));
        let per_group = channels / self.groups;
        let mut patch = Vec::with_capacity(channels * offsets.len());
        for group in 0..self.groups {
            for offset in &offsets {
                let channels = group * per_group..(group + 1) * per_group;
                patch.extend(channels.map(|it| offset.map_or(0.0, |at| sample[it * area + at])));
            }
        }
        patch
    }

    /// The same in the order of a weight `[n, c, …kernel]`: by channels, then pixels.
    pub fn cut_by_channel(&self, values: &[f32], shape: &[usize], at: usize) -> Vec<f32> {
        let (sample, offsets) = self.sample(values, shape, at);
        let area = sample.len() / shape[1].max(1);
        let channels = sample.chunks_exact(area.max(1));
        let pixels = |it: &'_ [f32]| {
            offsets.iter().map(|at| at.map_or(0.0, |at| it[at])).collect::<Vec<f32>>()
        };
        channels.flat_map(pixels).collect()
    }

    /// The image that a position lies in, and where in a channel each tap of its kernel does.
    fn sample<'a>(
        &self,
        values: &'a [f32],
        shape: &[usize],
        mut at: usize,
    ) -> (&'a [f32], Vec<Option<usize>>) {
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
        (sample, offsets)
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

impl std::fmt::Display for Patches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |it: &[usize]| it.iter().map(usize::to_string).collect::<Vec<_>>().join("×");
        write!(f, "patches of {} pixels", list(&self.kernel))?;
        let mut part =
            |name: &str, sizes: &[usize], usual: usize| match sizes.iter().all(|it| *it == usual) {
                true => Ok(()),
                false => write!(f, ", {name} {}", list(sizes)),
            };
        part("strides", &self.strides, 1)?;
        part("dilations", &self.dilations, 1)?;
        part("pads", &self.pads, 0)
    }
}

/// Some of the positions of a sample, each with its rank: a number as good as random that follows
/// from the values and the position alone, lowest first.
pub fn ranked(values: &[f32], count: usize, limit: usize) -> Vec<(u64, usize)> {
    let seed = values.iter().fold(count as u64, |hash, it| mix(hash ^ u64::from(it.to_bits())));
    let mut ranks: Vec<(u64, usize)> =
        (0..count).map(|at| (mix(seed.wrapping_add(at as u64)), at)).collect();
    ranks.sort_unstable();
    ranks.truncate(limit);
    ranks
}

/// The finalizer of SplitMix64: every bit of the result depends on every bit of the number.
fn mix(number: u64) -> u64 {
    let it = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let it = (it ^ (it >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let it = (it ^ (it >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    it ^ (it >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use onnxq_ir::tensor::Tensor;

    /// Patches by channel, times the rows of the weight as the model has them, are what the
    /// evaluator computes, at every position.
    #[test]
    fn patches_by_channel_meet_weights_as_they_are() {
        for attrs in [
            "strides = [2, 1], pads = [1, 0, 1, 2]",
            "dilations = [2, 1]",
            "auto_pad = \"SAME_UPPER\", strides = [2, 2]",
        ] {
            let text = format!(
                "main (float[2,3,6,7] x) => (float[n,c,h,w] y) <float[5,3,3,2] w>
                 {{ y = Conv <{attrs}> (x, w) }}"
            );
            let m = onnxq_ir::text::parse(&text).unwrap();
            let x: Vec<f32> = (0..252).map(|it| (it * it % 23) as f32).collect();
            let input = Tensor::from_f32(&[2, 3, 6, 7], x.iter().copied());
            let y = onnxq_ir::eval::run(&m, &BTreeMap::from([("x".to_owned(), input)])).unwrap();
            let (y, shape) = (y["y"].to_f32().unwrap(), &y["y"].shape);
            let node = m.nodes()[0];
            let weight = m.constant(m.operand(node, 1).unwrap()).unwrap();
            let patches = Patches::of(&m, node, &weight.shape).unwrap();
            let (count, w) = (patches.count(&[2, 3, 6, 7]), weight.to_f32().unwrap());
            assert_eq!(count * 5, y.len(), "{attrs}");
            let area = shape[2] * shape[3];
            for at in 0..count {
                let patch = patches.cut_by_channel(&x, &[2, 3, 6, 7], at);
                assert_eq!(patch.len(), patches.width());
                for (channel, row) in w.chunks(patch.len()).enumerate() {
                    let sum: f32 = patch.iter().zip(row).map(|(a, b)| a * b).sum();
                    let want = y[(at / area * 5 + channel) * area + at % area];
                    assert!((sum - want).abs() <= 1e-4 * want.abs().max(1.0), "{attrs} at {at}");
                }
            }
            assert_eq!(patches.count(&[2, 4, 6, 7]) + patches.count(&[2, 3, 6]), 0);
        }
    }

    #[test]
    fn positions_are_ranked_by_what_is_there() {
        let (a, b) = (ranked(&[1.0, 2.0], 50, 8), ranked(&[1.0, 2.5], 50, 8));
        assert_eq!((a.len(), a.clone()), (8, ranked(&[1.0, 2.0], 50, 8)));
        assert_ne!(a, b);
        assert_eq!(ranked(&[], 0, 8), []);
    }
}
