//! Stands in for the sampler where its way to see the processor's place is unknown.

use super::{super::Located, KernelSamples};

/// Never exists here.
pub(crate) enum Sampler {}

impl Sampler {
    pub(crate) fn start() -> Option<Sampler> {
        None
    }

    pub(crate) fn resume(&self) {
        match *self {}
    }

    pub(crate) fn pause(&self) {
        match *self {}
    }

    pub(crate) fn taken(&self) -> usize {
        match *self {}
    }

    pub(crate) fn seen(&self, _: &Located) -> KernelSamples {
        match *self {}
    }
}
