//! NumPy's broadcasting: which element of an operand stands at a place of the result.

use onnxq_ir::{NoMatch, no_match};

use crate::{real::Real, tape::Gradient};

/// How an operand is stretched to the shape of the result.
#[derive(Clone, Debug)]
pub(super) enum Stretch {
    Same,
    Single,
    /// The operand again and again: its shape is the end of the result's.
    Repeated(usize),
    /// By place of the result, the place in the operand.
    Places(Vec<u32>),
}

/// The shape that two shapes have in common.
pub(super) fn common(a: &[usize], b: &[usize]) -> Result<Vec<usize>, NoMatch> {
    let rank = a.len().max(b.len());
    let at = |shape: &[usize], i: usize| {
        (i + shape.len()).checked_sub(rank).map_or(1, |index| shape[index])
    };
    let size = |i| match (at(a, i), at(b, i)) {
        (x, y) if x == y => Ok(x),
        (1, y) => Ok(y),
        (x, 1) => Ok(x),
        (x, y) => Err(no_match!("sizes {x} and {y} do not go together")),
    };
    (0..rank).map(size).collect()
}

impl Stretch {
    pub(super) fn new(own: &[usize], to: &[usize]) -> Stretch {
        let len: usize = own.iter().product();
        if own == to {
            return Stretch::Same;
        }
        if len == 1 {
            return Stretch::Single;
        }
        let start = own.iter().position(|it| *it != 1).unwrap_or(own.len());
        if to.ends_with(&own[start..]) {
            return Stretch::Repeated(len);
        }
        Stretch::Places(places(own, to))
    }

    #[inline(always)]
    pub(super) fn place(&self, at: usize) -> usize {
        match self {
            Stretch::Same => at,
            Stretch::Single => 0,
            Stretch::Repeated(len) => at % len,
            Stretch::Places(list) => list[at] as usize,
        }
    }

    /// Calls `of` with runs of places: `(start in the result, start in the operand, length, step)`
    /// with a step of 0 or 1 in the operand.
    #[inline(always)]
    pub(super) fn runs(&self, len: usize, mut of: impl FnMut(usize, usize, usize, usize)) {
        match self {
            Stretch::Same => of(0, 0, len, 1),
            Stretch::Single => of(0, 0, len, 0),
            Stretch::Repeated(own) => {
                for start in (0..len).step_by((*own).max(1)) {
                    of(start, 0, *own, 1);
                }
            }
            Stretch::Places(list) => {
                for (at, place) in list.iter().enumerate() {
                    of(at, *place as usize, 1, 0);
                }
            }
        }
    }

    /// Adds a gradient of the result's shape to that of the operand.
    pub(super) fn add<R: Real>(
        &self,
        gradient: &mut Gradient<R>,
        len: usize,
        of: impl Fn(usize) -> R,
    ) {
        match self {
            Stretch::Same => gradient.add(of),
            Stretch::Single => {
                let sum = (0..len).map(of).sum();
                gradient.add(|_| sum);
            }
            _ => {
                let sums = gradient.cleared();
                self.runs(len, |start, place, count, step| {
                    for i in 0..count {
                        sums[place + i * step] += of(start + i);
                    }
                });
            }
        }
    }
}

fn places(own: &[usize], to: &[usize]) -> Vec<u32> {
    let offset = to.len() - own.len();
    let mut strides = vec![0usize; to.len()];
    let mut stride = 1;
    for (i, size) in own.iter().enumerate().rev() {
        strides[i + offset] = if *size == 1 { 0 } else { stride };
        stride *= size;
    }
    let len: usize = to.iter().product();
    let mut index = vec![0usize; to.len()];
    let mut place = 0usize;
    let mut list = Vec::with_capacity(len);
    for _ in 0..len {
        list.push(place as u32);
        for axis in (0..to.len()).rev() {
            index[axis] += 1;
            place += strides[axis];
            if index[axis] < to[axis] {
                break;
            }
            place -= strides[axis] * to[axis];
            index[axis] = 0;
        }
    }
    list
}
