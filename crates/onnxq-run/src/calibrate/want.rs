//! What a collector is asked for, and where it finds that.

use std::{collections::BTreeMap, sync::Mutex};

use super::{
    CalibrateError, Guide,
    dataflow::{can_observe, width},
    driver::Driver,
    extents::Extents,
    gather::{PATCHES, Rows},
    observe::{Observe, Share, Tap},
};
use crate::data::Batch;
use onnxq_ir::Model;
use onnxq_numerics::{
    drift::Drift,
    moments::Moments,
    stats::{InputStats, Needs},
};
use onnxq_quant::window::{Guided, Operand};

/// What reads a value of the main graph, and how much must be known of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Want {
    pub operand: Operand,
    pub needs: Needs,
    /// Whose outputs say how much rows count; `None`: all count the same.
    pub guided: Option<Guided>,
}

/// The statistics of what was wanted.
#[derive(Clone, Debug, PartialEq)]
pub struct Learnt {
    pub operand: Operand,
    pub guided: Option<Guided>,
    /// One for each group; one alone if nothing guides.
    pub stats: Vec<InputStats>,
}

impl Want {
    /// All rows count the same.
    pub fn of(operand: impl Into<Operand>, needs: Needs) -> Want {
        Want { operand: operand.into(), needs, guided: None }
    }

    /// What files of statistics call it, a name for each group.
    pub fn names(&self, m: &Model) -> Vec<String> {
        match self.guided {
            None => vec![self.operand.name(m)],
            Some(it) => (0..it.groups).map(|group| it.name(m, &self.operand, group)).collect(),
        }
    }
}

pub(super) struct Planned {
    pub want: Want,
    /// As in files of statistics, a name for each group.
    pub names: Vec<String>,
    pub k: usize,
    /// Bytes of the value in a run, if its rows do not follow from its tokens.
    pub image: Option<u64>,
    /// Where the first node that reads it stands.
    pub at: usize,
}

impl Planned {
    pub(super) fn observer(&self, drifts: bool) -> Rows {
        let (k, drift) = (self.k, drifts.then(|| Drift::new(self.k)));
        let patches = self.want.operand.patches.clone();
        Rows { k, patches, moments: Moments::new(k, self.want.needs), drift }
    }

    /// What shows a group's rows of each sample to their observer.
    pub(super) fn tap<'a>(
        &self,
        group: usize,
        rows: &'a mut Rows,
        guide: Option<&'a Guide>,
    ) -> Tap<'a> {
        let observer = Mutex::new(rows as &mut dyn Observe);
        let (value, name) = (self.want.operand.value, self.names[group].clone());
        let is_rows = self.want.operand.patches.is_none();
        let (width, tokens) = (is_rows.then_some(self.k), is_rows.then_some(1));
        let share = guide.zip(self.want.guided);
        let guide = share.map(|(guide, guided)| Share { guide, guided, group });
        Tap { value, name, width, tokens, guide, observer }
    }

    /// Bytes of the statistics of all groups, with how far rows have moved or without.
    pub(super) fn bytes(&self, drifts: bool) -> u64 {
        let drift = if drifts { Drift::bytes(self.k) } else { 0 };
        (Moments::bytes(self.k, self.want.needs) + drift) as u64 * self.names.len() as u64
    }

    /// Bytes of what a worker sees of the value at once, where a number for each token takes `tokens`.
    /// Rows that count differently are copied.
    pub(super) fn observed(&self, tokens: u64) -> u64 {
        let rows = self.k as u64 * PATCHES as u64 * size_of::<f32>() as u64;
        let (seen, rows) = match self.image {
            None => (0, tokens.saturating_mul(self.k as u64)),
            Some(bytes) => (bytes, rows),
        };
        let copies = if self.want.guided.is_some() { 3 } else { 1 };
        seen.saturating_add(rows.saturating_mul(copies))
    }

    pub(super) fn learnt(&self, stats: Vec<InputStats>) -> Learnt {
        let Want { operand, guided, .. } = self.want.clone();
        Learnt { operand, guided, stats }
    }
}

/// Each value once, and once more for each node that guides, as the nodes that read them follow each
/// other.
pub(super) fn in_order(driver: &Driver, wants: Vec<Want>) -> Result<Vec<Planned>, CalibrateError> {
    let model = driver.model();
    let mut merged: BTreeMap<(Operand, Option<Guided>), Needs> = BTreeMap::new();
    for Want { operand, needs, guided } in wants {
        let it = merged.entry((operand, guided)).or_default();
        *it = needs.max(*it);
    }
    let mut list = Vec::new();
    for ((operand, guided), needs) in merged {
        let known = can_observe(model, &operand).and_then(|()| width(model, &operand));
        let k = known.map_err(|it| {
            let (value, reason) = (operand.name(model), it.to_string());
            CalibrateError::Unobservable { value, reason }
        })?;
        let at = driver.dataflow().first_read(operand.value).unwrap_or(usize::MAX);
        let want = Want { operand, needs, guided };
        list.push(Planned { names: want.names(model), want, k, image: None, at });
    }
    // Stable, and so by operand and node.
    list.sort_by_key(|it| it.at);
    Ok(list)
}

/// Notes how large the values are that patches are cut from.
pub(super) fn size_images(driver: &Driver, first: &Batch, wants: &mut [Planned]) {
    let mut images = wants.iter_mut().filter(|it| it.want.operand.patches.is_some()).peekable();
    if images.peek().is_some() {
        let extents = Extents::new(driver.model(), first);
        images.for_each(|it| it.image = Some(extents.bytes(it.want.operand.value)));
    }
}
