//! (to come)

pub mod gate;
