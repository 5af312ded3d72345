//! What would help: the worst nodes with more bits, at their price.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    cut::Region,
    flags::{EIGHT, ROWS, pattern, quantizable},
    noise::each,
    rank::{Ranking, is_quantized_op},
};
use crate::{
    Error,
    origin::{CALIBRATION_COUNT, RECIPE_YAML},
};
use onnxq_ir::{
    Model, NodeId, User, ValueId,
    human::bytes,
    tensor::{DType, QSource, ZeroPoints},
    untrusted::escape,
};
use onnxq_numerics::{
    scheme::{Granularity, Range, Scheme},
    solve::SolverSpec,
};
use onnxq_quant::{
    ops::{self, Site, Weight},
    recipe::load_text,
    weight::{FloatWeight, dequantized},
};
use onnxq_report::document::{Attribution, LayerError, Suggestion};
use onnxq_run::calibrate::Replacement;

/// Less is not worth a word.
const GAIN: f64 = 0.02;
const MOST: usize = 8;
/// How much of the gain 8 bits must bring to be preferred to float.
const ENOUGH: f64 = 0.5;

/// The largest gain first.
pub(super) fn suggestions(
    ranking: &Ranking,
    found: &Attribution,
    threads: usize,
) -> Result<Vec<Suggestion>, Error> {
    let gains = |it: &LayerError| {
        let without = it.loss_without.unwrap_or(f64::INFINITY);
        it.quantized && found.loss - without > GAIN * found.loss
    };
    let layers = found.layers.iter().enumerate();
    let mut worst: Vec<(usize, &LayerError)> = layers.filter(|it| gains(it.1)).collect();
    worst.sort_by_key(|it| it.1.rank);
    worst.truncate(MOST);
    let helped = Helped { ranking, found, by_row: may_change_rows(&ranking.sides[1].model) };
    let suggest = |(): &mut (), at: usize| helped.suggest(worst[at]);
    let mut list = each(threads, worst.len(), || Ok(()), suggest)?.concat();
    list.sort_by(|a, b| a.loss_after.total_cmp(&b.loss_after));
    Ok(list)
}

/// Whether a recipe's word on rows counts: where data decided, it would decide again.
fn may_change_rows(m: &Model) -> bool {
    let told = |key: &str| m.metadata.iter().find(|it| it.0 == key).map(|it| &*it.1);
    let recipe = told(RECIPE_YAML).and_then(|text| load_text(text, "recipe").ok());
    recipe.is_some_and(|it| it.adapt.is_none() || told(CALIBRATION_COUNT).is_none())
}

struct Helped<'a> {
    ranking: &'a Ranking<'a>,
    found: &'a Attribution,
    /// Whether a range for each row can be asked for.
    by_row: bool,
}

impl Helped<'_> {
    /// What keeps more of the weight, and a range for each row if the activation is to blame.
    fn suggest(&self, (at, layer): (usize, &LayerError)) -> Result<Vec<Suggestion>, Error> {
        let mut list = vec![self.kept(at, layer)?];
        list.extend(self.rows(at, layer)?);
        Ok(list)
    }

    fn rows(&self, at: usize, layer: &LayerError) -> Result<Option<Suggestion>, Error> {
        if !self.by_row {
            return Ok(None);
        }
        let [reference, candidate] = [0, 1].map(|side| self.ranking.region(at, side));
        let names = quantizable(&self.ranking.sides[0].model, &reference);
        let Some(loss) = self.ranking.loss_by_row(&candidate)? else { return Ok(None) };
        let gains = self.found.loss - loss > GAIN * self.found.loss && !names.is_empty();
        let text = |name: &str| format!("give the activation of `{name}` {ROWS}");
        Ok(gains.then(|| {
            let row = self.row(layer, ROWS, 0, loss, text);
            Suggestion { names, ..row }
        }))
    }

    fn kept(&self, at: usize, layer: &LayerError) -> Result<Suggestion, Error> {
        let [reference, candidate] = [0, 1].map(|side| self.ranking.region(at, side));
        let [of, mine] = [0, 1].map(|side| &self.ranking.sides[side].model);
        let float = layer.loss_without.unwrap_or(self.found.loss);
        let price = size(of, &reference) - freed(mine, &candidate);
        let found = self.found.loss;
        if let Some(wider) = Wider::new(of, &reference, mine, &candidate) {
            let loss = self.ranking.loss_without(at, &[wider.replacement(of)])?;
            if found - loss > ENOUGH * (found - float) {
                let names = vec![pattern(&of.node_label(wider.site.node))];
                let price = price + wider.growth(of);
                let row =
                    self.row(layer, EIGHT, price, loss, |it| format!("keep `{it}` in {EIGHT}"));
                return Ok(Suggestion { names, ..row });
            }
        }
        let names = quantizable(of, &reference);
        let row = self.row(layer, "float", price, float, |it| format!("keep `{it}` in float"));
        Ok(Suggestion { names, ..row })
    }

    fn short(&self, name: &str) -> String {
        tail(name, self.found.layers.iter().map(|it| it.node.as_str()))
    }

    fn row(
        &self,
        layer: &LayerError,
        keep_in: &str,
        price: i64,
        loss_after: f64,
        text: impl Fn(&str) -> String,
    ) -> Suggestion {
        // A few bytes of scales more or less are no price.
        let price = price.max(0);
        let name = match self.found.measure.as_str() {
            "kl" => "KL",
            _ => "noise to signal",
        };
        let [before, after] = [self.found.loss, loss_after].map(short_number);
        let text = format!(
            "{}: +{}, {name} {before} → {after}",
            text(&escape(&self.short(&layer.node))),
            bytes(price.unsigned_abs()),
        );
        Suggestion {
            node: layer.node.clone(),
            keep_in: keep_in.into(),
            bytes: price,
            loss_before: self.found.loss,
            loss_after,
            text,
            ..Suggestion::default()
        }
    }
}

/// The weight of a region, to be rounded to 8 bits instead of fewer.
struct Wider {
    site: Site,
    scheme: Scheme,
}

impl Wider {
    /// `None` if there is no single matrix, or it has 8 bits already.
    fn new(of: &Model, reference: &Region, mine: &Model, candidate: &Region) -> Option<Wider> {
        let mut sites = reference.nodes.iter().filter_map(|it| ops::site(of, *it)?.ok());
        let site = sites.next().filter(|it| matches!(it.kind, Weight::MatMul | Weight::Gather))?;
        if sites.next().is_some() {
            return None;
        }
        let (bits, block, stores_zeros) =
            candidate.nodes.iter().find_map(|it| coarse(mine, *it))?;
        let granularity = block.map_or(Granularity::Channel, Granularity::Block);
        let zero_points = if stores_zeros { ZeroPoints::Asymmetric } else { ZeroPoints::Symmetric };
        let range = Range::Full;
        (bits < 8).then_some(Wider {
            site,
            scheme: Scheme { bits: 8, zero_points, granularity, range, superblock: None },
        })
    }

    fn weight(&self, of: &Model) -> FloatWeight {
        let tensor = of.constant(self.site.weight).expect("a site's weight is constant");
        FloatWeight {
            name: of.value(self.site.weight).name.to_string(),
            rows: ops::rows(&self.site, tensor),
            transposed: self.site.kind == Weight::MatMul,
            scheme: self.scheme,
            solver: SolverSpec::Rtn,
            scale: DType::F32,
            inputs: Vec::new(),
            errors: Arc::default(),
        }
    }

    fn replacement(&self, of: &Model) -> Replacement {
        let dtype = of.constant(self.site.weight).map_or(DType::F32, |it| it.dtype);
        let rows = dequantized(Arc::new(self.weight(of)), dtype);
        let (index, tensor) = match self.site.kind {
            Weight::MatMul => (1, rows.transposed()),
            _ => (0, rows),
        };
        Replacement { node: self.site.node, index, tensor }
    }

    /// Quantized values, scales and zero points instead of floats.
    fn growth(&self, of: &Model) -> i64 {
        let shape = self.weight(of).shape();
        let floats = of.constant(self.site.weight).map_or(0, |it| it.nbytes());
        let per_block = if self.scheme.zero_points == ZeroPoints::Asymmetric { 5 } else { 4 };
        (shape.n * (shape.k + shape.blocks() * per_block)) as i64 - floats as i64
    }
}

/// Bits of the quantized values that a node reads, the block that shares a scale, and whether zero
/// points are stored.
fn coarse(m: &Model, node: NodeId) -> Option<(usize, Option<usize>, bool)> {
    let op = &m.node(node).op.name;
    if !is_quantized_op(op) {
        return None;
    }
    let int = |name| usize::try_from(m.int_attr(node, name, 0)).ok().filter(|it| *it > 0);
    let packed = ["NBits", "BlockQuantized"].iter().any(|it| op.contains(it));
    let quantized =
        |it: &ValueId| Some(m.constant(*it).ok()?.dtype.bits()).filter(|it| (1..=8).contains(it));
    let stated = m.node(node).inputs.iter().flatten().filter_map(quantized).min()?;
    let bits = if packed { int("bits").unwrap_or(4) } else { stated };
    Some((bits, int("block_size"), m.node(node).inputs.get(3).copied().flatten().is_some()))
}

/// Bytes of a region's constants.
fn size(m: &Model, region: &Region) -> i64 {
    let sizes =
        region.constants.iter().filter_map(|it| Some(m.constant(*it).ok()?.nbytes() as i64));
    sizes.sum()
}

/// Bytes that nobody needs without the region: a tied weight stays for its other nodes.
fn freed(m: &Model, region: &Region) -> i64 {
    let inside = |it: &&ValueId| {
        m.value(**it)
            .uses
            .iter()
            .all(|it| matches!(it.user, User::Node(node) if region.nodes.contains(&node)))
    };
    let own: BTreeSet<ValueId> = region.constants.iter().filter(inside).copied().collect();
    size(m, &Region { constants: own, ..Region::default() })
}

/// The end of a path that names one node only, `…/down_proj/MatMul`: names begin alike.
fn tail<'a>(name: &str, all: impl Iterator<Item = &'a str> + Clone) -> String {
    let parts: Vec<&str> = name.split('/').collect();
    let others = |end: &str| all.clone().filter(|it| *it != name && it.ends_with(end)).count();
    let ends = (2..parts.len().saturating_sub(1)).map(|it| parts[parts.len() - it..].join("/"));
    let end = ends.map(|it| format!("/{it}")).find(|it| others(it) == 0);
    end.map_or_else(|| name.to_owned(), |it| format!("…{it}"))
}

/// Three digits.
fn short_number(value: f64) -> String {
    if value == 0.0 || !(1e-4..1e6).contains(&value.abs()) {
        return if value == 0.0 { "0".into() } else { format!("{value:.2e}") };
    }
    let digits = (2 - value.abs().log10().floor() as i32).clamp(0, 8) as usize;
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_short() {
        let nodes = ["/m/layers.0/mlp/down_proj/MatMul", "/m/layers.1/mlp/down_proj/MatMul"];
        let alone = tail(nodes[0], nodes[..1].iter().copied());
        assert_eq!(alone, "…/down_proj/MatMul");
        let beside = tail(nodes[0], nodes.iter().copied());
        assert_eq!(beside, "…/layers.0/mlp/down_proj/MatMul");
        assert_eq!(tail("Conv_7", ["Conv_7"].into_iter()), "Conv_7");
        let numbers = [0.0041, 0.0, 2.5e-9, 1.26].map(short_number);
        assert_eq!(numbers, ["0.00410", "0", "2.50e-9", "1.26"]);
    }
}
