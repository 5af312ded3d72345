//! temp
use crate::ir::*;
pub struct Rule {
    pub name: &'static str,
    pub help: &'static str,
    pub root: &'static str,
    pub apply: fn(&Model, NodeId) -> Result<Patch, NoMatch>,
}
