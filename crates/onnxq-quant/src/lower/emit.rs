//! What the forms have in common: parts of weights, activations, biases, results.

use std::sync::Arc;

use crate::{
    insert::short,
    raise::{Bias, Input, Site, Weight, constant, stored::Stored},
};
use onnxq_ir::{
    Attrs, Model, NoMatch, Patch, Ref, ValueId, no_match,
    tensor::{DType, Packing, Part, QSource, Tensor, from_f32},
};

/// Writes the nodes of one site.
pub(super) struct Emit<'a> {
    pub m: &'a Model,
    pub site: &'a Site,
    pub patch: Patch,
    /// What new values are called after.
    pub stem: String,
}

impl<'a> Emit<'a> {
    pub(super) fn new(m: &'a Model, site: &'a Site) -> Emit<'a> {
        let stem = short(&m.value(site.output).name);
        Emit { m, site, patch: Patch::before(site.last), stem }
    }

    pub(super) fn step(&mut self, suffix: &str, op: &str, inputs: &[Ref], attrs: Attrs) -> Ref {
        let name = match suffix {
            "" => self.stem.clone(),
            suffix => format!("{}_{suffix}", self.stem),
        };
        self.patch.step(&name, op, inputs.iter().copied(), attrs)
    }

    /// The node that does the work: it keeps the name of the one that did.
    pub(super) fn main(&mut self, op: &str, inputs: &[Ref], attrs: Attrs) -> Ref {
        let name = self.m.node(self.site.last).name.to_string();
        self.patch.named(&name, &self.stem, op, inputs.iter().copied(), attrs)
    }

    pub(super) fn part(
        &mut self,
        source: &Arc<Stored>,
        part: Part,
        packing: Packing,
        as_: &str,
    ) -> Ref {
        let dynamic: Arc<dyn QSource> = source.clone();
        let name = format!("{}_{as_}", self.site.weight.stem);
        self.patch.constant(&name, Tensor::packed(dynamic, part, packing))
    }

    /// Scales in the type of the weight: a `Cast` widens those that are stored in half.
    pub(super) fn scales(&mut self, source: &Arc<Stored>, packing: Packing) -> Ref {
        let scales = self.part(source, Part::Scales, packing, "scales");
        let dtype = self.site.weight.dtype;
        if source.shape().scale == dtype {
            return scales;
        }
        crate::format::widened(&mut self.patch, &self.site.weight.stem, scales, dtype)
    }

    /// The activation in float. Pairs of fixed scales stay: they may stand for a `Relu`, which
    /// whoever removes them knows.
    pub(super) fn float_x(&mut self, x: &Input) -> Ref {
        match *x {
            Input::Float(x)
            | Input::Fused(x)
            | Input::Quantized { x: Some(x), dynamic: true, .. } => x.into(),
            Input::Quantized { .. } => self.dequantized_x(x),
        }
    }

    /// The activation as `DequantizeLinear` of its quantized values, if it is quantized.
    pub(super) fn dequantized_x(&mut self, x: &Input) -> Ref {
        if let Input::Float(x) = *x {
            return x.into();
        }
        let [quantized, scale, zero] = self.quantized_x(x).expect("it has quantized values");
        let inputs: &[Ref] =
            if zero == Ref::None { &[quantized, scale] } else { &[quantized, scale, zero] };
        self.step("x", "DequantizeLinear", inputs, Attrs::default())
    }

    /// The quantized values of the activation, their scale and zero.
    pub(super) fn quantized_x(&mut self, x: &Input) -> Result<[Ref; 3], NoMatch> {
        match *x {
            Input::Float(_) => Err(NoMatch(FLOAT.into())),
            Input::Quantized { quantized, scale, zero, .. } => {
                Ok([quantized.into(), scale.into(), zero.map_or(Ref::None, Ref::from)])
            }
            Input::Fused(x) => {
                let name = short(&self.m.value(x).name);
                let names = ["u8", "scale", "zero"].map(|it| format!("{name}_{it}"));
                Ok(self.patch.step_with_outputs(
                    [&names[0], &names[1], &names[2]],
                    "DynamicQuantizeLinear",
                    [x.into()],
                    Attrs::default(),
                ))
            }
        }
    }

    /// The product with its bias added.
    pub(super) fn biased(&mut self, y: Ref, x: &Input, bias: Option<Bias>) -> Result<Ref, NoMatch> {
        let bias = match bias {
            None => return Ok(y),
            Some(Bias::Float(it)) => it.into(),
            Some(Bias::Sums(it)) => {
                let tensor = self.sums(it, x)?;
                self.patch.constant(&format!("{}_bias", self.site.weight.stem), tensor)
            }
        };
        Ok(self.step("biased", "Add", &[y, bias], Attrs::default()))
    }

    /// A bias of int32 in float.
    fn sums(&self, bias: ValueId, x: &Input) -> Result<Tensor, NoMatch> {
        let Input::Quantized { scale, .. } = *x else { return Err(NoMatch(FLOAT.into())) };
        let a = self.m.small_f32(scale)?;
        let (sums, b) = (self.m.small_i64(bias)?, self.weight_scales()?);
        if a.len() != 1 || sums.len() != b.len() {
            return Err(no_match!("its bias has {} elements, not {}", sums.len(), b.len()));
        }
        let values = sums.iter().zip(&b).map(|(it, b)| (*it as f64 * f64::from(a[0] * b)) as f32);
        Ok(Tensor::from_f32(&[sums.len()], values))
    }

    fn weight_scales(&self) -> Result<Vec<f32>, NoMatch> {
        let source = &self.site.weight.source;
        let q = source.solve(0..source.shape().n).map_err(|err| no_match!("its scales: {err}"))?;
        Ok(q.scales.column(0).to_vec())
    }

    /// Ends the patch: quantized values, if the site yields quantized values.
    pub(super) fn finish(mut self, y: Ref) -> Patch {
        let y = match self.site.requantized {
            None => y,
            Some((scale, zero)) => {
                let inputs = [y, scale.into(), zero.into()];
                self.step("codes", "QuantizeLinear", &inputs, Attrs::default())
            }
        };
        self.patch.replace(self.site.output, y)
    }
}

pub(super) const FLOAT: &str = "its activation is float: `onnxq quantize` can quantize it";

/// Fails if the model's operator set lacks what a form needs.
pub(super) fn needs(m: &Model, opset: i64, what: &str) -> Result<(), NoMatch> {
    match m.opset("") {
        it if it >= opset => Ok(()),
        it => Err(no_match!("{what} needs opset {opset}, the model has {it}")),
    }
}

/// Whether all of a row has one scale.
pub(super) fn by_channel(weight: &Weight) -> bool {
    weight.source.shape().blocks() == 1
}

pub(super) fn to(dtype: DType) -> Attrs {
    Attrs::default().with("to", i64::from(dtype.number()))
}

/// A float constant that broadcasts.
pub(super) fn scalar(dtype: DType, value: f32) -> Result<Tensor, NoMatch> {
    let bytes = from_f32(dtype, &[value]).map_err(|err| no_match!("{err}"))?;
    Ok(Tensor::new(dtype, vec![], bytes))
}

/// The only element of a constant.
pub(super) fn only(m: &Model, value: ValueId) -> Result<f32, NoMatch> {
    match constant(m, value)?.0.to_f32() {
        Ok(it) if it.len() == 1 => Ok(it[0]),
        _ => Err(no_match!("`{}` is no single number", m.value(value).name)),
    }
}
