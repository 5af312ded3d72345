//! What an operator sees of a run.

use crate::real::Real;

/// What of a step the reverse pass reads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Keeps {
    /// By input: whether its elements are read.
    pub inputs: u32,
    pub output: bool,
}

impl Keeps {
    pub const NOTHING: Keeps = Keeps { inputs: 0, output: false };
    pub const OUTPUT: Keeps = Keeps { inputs: 0, output: true };

    /// The elements of these inputs.
    pub const fn inputs(list: &[usize]) -> Keeps {
        let (mut inputs, mut at) = (0, 0);
        while at < list.len() {
            inputs |= 1 << list[at];
            at += 1;
        }
        Keeps { inputs, output: false }
    }

    pub fn input(self, index: usize) -> bool {
        index < 32 && self.inputs & (1 << index) != 0
    }
}

/// The elements of an operand.
pub(super) enum Elements<'a, R> {
    Real(&'a [R]),
    Ints(&'a [i64]),
}

impl<'a, R> Elements<'a, R> {
    pub(super) fn reals(&self) -> &'a [R] {
        match self {
            Elements::Real(it) => it,
            Elements::Ints(_) => panic!("an operator reads integers as reals"),
        }
    }

    pub(super) fn ints(&self) -> &'a [i64] {
        match self {
            Elements::Ints(it) => it,
            Elements::Real(_) => panic!("an operator reads reals as integers"),
        }
    }
}

/// One step of a forward run.
pub struct Forward<'a, R> {
    pub(super) inputs: Vec<Elements<'a, R>>,
    /// Not cleared: the operator writes each element.
    pub y: &'a mut [R],
    pub saved: &'a mut [Vec<R>],
}

impl<'a, R> Forward<'a, R> {
    pub fn x(&self, index: usize) -> &'a [R] {
        self.inputs[index].reals()
    }

    pub fn ints(&self, index: usize) -> &'a [i64] {
        self.inputs[index].ints()
    }
}

/// A gradient that is being summed.
pub struct Gradient<R> {
    pub values: Vec<R>,
    /// Nothing was added so far: the elements do not count.
    pub fresh: bool,
}

impl<R: Real> Gradient<R> {
    /// The elements, which are zero if nothing was added: for operators that do not reach all of them.
    pub fn cleared(&mut self) -> &mut [R] {
        if std::mem::take(&mut self.fresh) {
            self.values.fill(R::default());
        }
        &mut self.values
    }

    /// Adds what `of` says of each element.
    #[inline(always)]
    pub fn add(&mut self, of: impl Fn(usize) -> R) {
        if std::mem::take(&mut self.fresh) {
            for (at, it) in self.values.iter_mut().enumerate() {
                *it = of(at);
            }
        } else {
            for (at, it) in self.values.iter_mut().enumerate() {
                *it += of(at);
            }
        }
    }
}

/// One step of a reverse run.
pub struct Backward<'a, R> {
    pub(super) inputs: Vec<Option<Elements<'a, R>>>,
    pub(super) y: Option<&'a [R]>,
    /// The gradient of the output.
    pub dy: &'a [R],
    pub saved: &'a [Vec<R>],
    /// By input: `None` where nobody wants the gradient.
    pub(super) grads: Vec<Option<Gradient<R>>>,
}

impl<'a, R> Backward<'a, R> {
    /// The elements of an input that the operator [keeps](super::Op::keeps).
    pub fn x(&self, index: usize) -> &'a [R] {
        self.inputs[index].as_ref().expect("an operator reads only what it keeps").reals()
    }

    pub fn ints(&self, index: usize) -> &'a [i64] {
        self.inputs[index].as_ref().expect("an operator reads only what it keeps").ints()
    }

    pub fn y(&self) -> &'a [R] {
        self.y.expect("an operator reads only what it keeps")
    }

    /// The gradient of an input, if it is of use.
    pub fn grad(&mut self, index: usize) -> Option<&mut Gradient<R>> {
        self.grads[index].as_mut()
    }
}
