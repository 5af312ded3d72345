//! Statistics of a model's inputs in a file.

/// A file that statistics are kept in.
pub struct StatsFile {}
