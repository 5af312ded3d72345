//! Stands in for the sampler where its way to see the processor's place is unknown.

use super::{super::Located, KernelSamples};

/// Never exists here.
pub enum Sampler {}

impl Sampler {
    pub fn start() -> Option<Sampler> {
        None
    }

    pub fn resume(&self) {
        match *self {}
    }

    pub fn pause(&self) {
        match *self {}
    }

    pub fn taken(&self) -> usize {
        match *self {}
    }

    pub fn finish(self, _: &Located) -> KernelSamples {
        match self {}
    }
}
