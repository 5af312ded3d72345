//! How the weights and activations of the worst layers are spread, beside what the candidate's
//! quantized numbers can hold.

use std::collections::BTreeMap;

use super::{cut::Region, grid, inputs, noise::Meter, rank::Ranking};
use crate::Error;
use onnxq_ir::{Model, ValueId};
use onnxq_quant::{
    ops::{self, Site, Weight},
    raise::{self, Input, Kind, Weights},
};
use onnxq_report::document::{LayerError, Spread};

/// Layers that are looked at: a report shows no more of them in detail.
const LAYERS: usize = 30;

/// A layer of the candidate that has a quantized weight.
struct Met {
    layer: usize,
    /// The activation in the reference, if the weight is the reference's but for rounding, and how
    /// the candidate quantizes it.
    activation: Option<(ValueId, Input)>,
    weight: Spread,
}

/// Adds what is known to the layers that hurt most.
pub(super) fn add(
    ranking: &Ranking,
    meter: &Meter,
    layers: &mut [LayerError],
) -> Result<(), Error> {
    let is_worst = |it: &LayerError| it.quantized && it.rank <= LAYERS;
    let worst: Vec<usize> = (0..layers.len()).filter(|at| is_worst(&layers[*at])).collect();
    let mut weights = Weights::default();
    let mut found = Vec::new();
    for at in worst {
        found.extend(meet(ranking, at, &mut weights)?);
    }
    let [reference, candidate] = ranking.sides;
    let values = found.iter().filter_map(|met| Some(met.activation?.0)).collect();
    let counts = inputs::count(reference, meter, values)?;
    for Met { layer, activation, weight } in found {
        layers[layer].weight_spread = Some(weight);
        let Some((value, input)) = activation else { continue };
        let name = reference.model.value(value).name.to_string();
        let counts = counts.get(&value).filter(|counts| counts.count() > 0);
        layers[layer].input_spread =
            counts.map(|counts| inputs::spread(name, counts, &candidate.model, &input));
    }
    Ok(())
}

/// The first weight of the candidate's nodes that stands for one of the reference's, or else the
/// first of them.
fn meet(ranking: &Ranking, at: usize, weights: &mut Weights) -> Result<Option<Met>, Error> {
    let [of, mine] = [0, 1].map(|side| &ranking.sides[side].model);
    let sites = sites(of, &ranking.region(at, 0));
    let list = quantized(mine, &ranking.region(at, 1), weights);
    for (stored, input) in &list {
        for site in &sites {
            let float = of.constant(site.weight).expect("a site's weight is constant");
            let name = of.value(site.weight).name.to_string();
            let rows = ops::rows(site, float);
            let Some(weight) = grid::spread(name, &rows, &*stored.source)? else { continue };
            let x = of.operand(site.node, 0).ok().filter(|_| site.kind != Weight::Gather);
            return Ok(Some(Met { layer: at, activation: x.zip(*input), weight }));
        }
    }
    let Some((first, _)) = list.first() else { return Ok(None) };
    let weight = grid::stored(first.stem.clone(), &*first.source)?;
    Ok(weight.map(|weight| Met { layer: at, activation: None, weight }))
}

fn sites(m: &Model, region: &Region) -> Vec<Site> {
    region.nodes.iter().filter_map(|node| ops::site(m, *node)?.ok()).collect()
}

/// The quantized weights of some nodes, and how the activations are that meet them.
fn quantized(
    m: &Model,
    region: &Region,
    weights: &mut Weights,
) -> Vec<(raise::Weight, Option<Input>)> {
    let mut list = Vec::new();
    for node in &region.nodes {
        if let Some(Ok(site)) = raise::site(m, *node, weights) {
            let x = match site.kind {
                Kind::Product { x, .. } => Some(x),
                Kind::Rows { .. } => None,
            };
            list.push((site.weight, x));
        } else if let Ok((weight, x)) = raise::kernel(m, *node, weights) {
            list.push((weight, Some(x)));
        }
    }
    list
}

/// How often each value of the reference was counted.
pub(super) type Counts = BTreeMap<ValueId, onnxq_numerics::observe::Histogram>;
