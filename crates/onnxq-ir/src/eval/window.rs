//! The geometry that convolutions and pools share: which input meets which output.

use super::{
    EvalError, LIMIT,
    call::Call,
    index::{Walk, elements, strides},
};

/// A kernel that moves over an image.
#[derive(Clone, Debug)]
pub(super) struct Window {
    pub kernel: Vec<usize>,
    pub strides: Vec<usize>,
    pub dilations: Vec<usize>,
    pub before: Vec<usize>,
    pub after: Vec<usize>,
}

impl Window {
    /// The window of a node for an image of the given size; pads may follow from `auto_pad`.
    pub(super) fn of(call: &Call, kernel: &[usize], image: &[usize]) -> Result<Window, EvalError> {
        let rank = kernel.len();
        let ones = || vec![1; rank];
        let pads = sizes(call, "pads", 0)?.unwrap_or_else(|| vec![0; 2 * rank]);
        let window = Window {
            kernel: kernel.to_vec(),
            strides: sizes(call, "strides", 1)?.unwrap_or_else(ones),
            dilations: sizes(call, "dilations", 1)?.unwrap_or_else(ones),
            before: pads[..pads.len() / 2].to_vec(),
            after: pads[pads.len() / 2..].to_vec(),
        };
        let lists = [&window.strides, &window.dilations, &window.before, &window.after];
        let fits = lists.iter().all(|it| it.len() == rank) && image.len() == rank;
        if !fits || kernel.contains(&0) {
            return Err(call.shape_error("the window does not fit"));
        }
        elements(kernel)?;
        match call.text("auto_pad", "NOTSET")? {
            "NOTSET" | "" => Ok(window),
            "VALID" => Ok(Window { before: vec![0; rank], after: vec![0; rank], ..window }),
            "SAME_UPPER" => Ok(window.same(image, false)),
            "SAME_LOWER" => Ok(window.same(image, true)),
            other => Err(call.unsupported(&format!("with auto_pad {other}"))),
        }
    }

    /// How far the kernel reaches along an axis.
    pub(super) fn reach(&self, axis: usize) -> usize {
        (self.kernel[axis] - 1) * self.dilations[axis] + 1
    }

    /// The number of positions of the kernel along each axis.
    pub(super) fn positions(&self, image: &[usize], ceil: bool) -> Result<Vec<usize>, EvalError> {
        let positions = |axis: usize| {
            let padded = image[axis] + self.before[axis] + self.after[axis];
            let Some(room) = padded.checked_sub(self.reach(axis)) else { return 0 };
            let stride = self.strides[axis];
            if !ceil {
                return room / stride + 1;
            }
            let count = room.div_ceil(stride) + 1;
            // A window that starts in the padding behind the image does not count.
            let outside = (count - 1) * stride >= image[axis] + self.before[axis];
            count - usize::from(outside)
        };
        let shape: Vec<usize> = (0..image.len()).map(positions).collect();
        elements(&shape)?;
        Ok(shape)
    }

    /// For each element of the kernel, the pairs of `(position, offset in the image)` that meet.
    pub(super) fn taps(&self, positions: &[usize], image: &[usize]) -> Result<Taps, EvalError> {
        let count = elements(positions)?;
        let total = count.checked_mul(elements(&self.kernel)?).filter(|it| *it <= LIMIT);
        total.ok_or_else(|| EvalError::TooLarge { shape: vec![count, self.kernel.len()] })?;
        let steps = strides(image);
        let mut taps = Vec::new();
        let kernel = Walk::new(&self.kernel, strides(&self.kernel), 0);
        for element in kernel {
            let mut pairs = vec![(0usize, 0usize)];
            let mut rest = elements(&self.kernel)?;
            let mut element = element;
            for axis in 0..image.len() {
                rest /= self.kernel[axis];
                let tap = element / rest;
                element %= rest;
                let line = self.line(axis, tap, positions[axis], image[axis]);
                let step = steps[axis] as usize;
                let extend = |(position, offset): (usize, usize)| {
                    line.iter().map(move |(small, big)| {
                        (position * positions[axis] + small, offset + big * step)
                    })
                };
                pairs = pairs.into_iter().flat_map(extend).collect();
            }
            taps.push(pairs);
        }
        Ok(taps)
    }

    /// Along one axis: the positions at which a tap of the kernel meets the image, and where.
    fn line(&self, axis: usize, tap: usize, positions: usize, image: usize) -> Vec<(usize, usize)> {
        let place = |position: usize| {
            let at = position * self.strides[axis] + tap * self.dilations[axis];
            let at = at.checked_sub(self.before[axis]).filter(|it| *it < image)?;
            Some((position, at))
        };
        (0..positions).filter_map(place).collect()
    }

    /// Pads such that there are as many positions as a stride allows.
    fn same(mut self, image: &[usize], lower: bool) -> Window {
        for (axis, size) in image.iter().enumerate() {
            let positions = size.div_ceil(self.strides[axis]);
            let needed = positions.saturating_sub(1) * self.strides[axis] + self.reach(axis);
            let pad = needed.saturating_sub(*size);
            let small = pad / 2;
            let (before, after) = if lower { (pad - small, small) } else { (small, pad - small) };
            (self.before[axis], self.after[axis]) = (before, after);
        }
        self
    }
}

pub(super) type Taps = Vec<Vec<(usize, usize)>>;

/// A list attribute of sizes, each at least `least` and small enough to multiply.
pub(super) fn sizes(
    call: &Call,
    name: &str,
    least: usize,
) -> Result<Option<Vec<usize>>, EvalError> {
    let Some(list) = call.ints(name)? else { return Ok(None) };
    let size = |it: &i64| usize::try_from(*it).ok().filter(|it| (least..=LIMIT).contains(it));
    let list: Option<Vec<usize>> = list.iter().map(size).collect();
    list.map(Some).ok_or_else(|| call.shape_error(&format!("{name} is out of range")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(kernel: usize, stride: usize, before: usize, after: usize) -> Window {
        Window {
            kernel: vec![kernel],
            strides: vec![stride],
            dilations: vec![1],
            before: vec![before],
            after: vec![after],
        }
    }

    #[test]
    fn taps_leave_out_the_padding() {
        let window = window(3, 2, 1, 1);
        let positions = window.positions(&[4], false).unwrap();
        assert_eq!(positions, [2]);
        let taps = window.taps(&positions, &[4]).unwrap();
        assert_eq!(taps, [vec![(1, 1)], vec![(0, 0), (1, 2)], vec![(0, 1), (1, 3)]]);
    }

    #[test]
    fn a_last_window_in_the_padding_does_not_count() {
        assert_eq!(window(2, 2, 0, 0).positions(&[5], true).unwrap(), [3]);
        assert_eq!(window(2, 2, 0, 1).positions(&[4], true).unwrap(), [2]);
        assert_eq!(window(9, 1, 0, 0).positions(&[4], false).unwrap(), [0]);
    }
}
