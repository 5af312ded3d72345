//! Rows of a dequantized table are gathered as quantized values and dequantized then.
//!
//! ONNX Runtime does not fuse `Gather(DequantizeLinear(w), i)`: it dequantizes the whole table in
//! each run. One scale for all goes behind the `Gather`; a scale per row is gathered too; blocks
//! along rows become `GatherBlockQuantized`. Each value is computed as before.

use super::recode::{bits, flipped, is_signed, packed_rows, repeated};
use crate::Rule;
use onnxq_ir::{
    Attrs, Model, NoMatch, NodeId, Patch, Ref, ValueId, no_match,
    tensor::{DType, Tensor},
};

pub(super) const GATHER_OF_DEQUANTIZED: Rule = Rule {
    name: "gather-of-dequantized",
    help: "gather the quantized values of a dequantized table instead of the table",
    root: "Gather",
    apply,
};

struct Table<'a> {
    m: &'a Model,
    gather: NodeId,
    dq: NodeId,
    data: ValueId,
    quantized: &'a Tensor,
    scale: ValueId,
    scales: &'a Tensor,
    indices: ValueId,
}

fn apply(m: &Model, gather: NodeId) -> Result<Patch, NoMatch> {
    let dq = m.producer(m.operand(gather, 0)?, "DequantizeLinear")?;
    let (data, scale) = (m.operand(dq, 0)?, m.operand(dq, 1)?);
    let indices = m.operand(gather, 1)?;
    let (quantized, scales) = (m.constant(data)?, m.constant(scale)?);
    bits(quantized.dtype)?;
    if quantized.shape.len() != 2 || m.int_attr(gather, "axis", 0) != 0 {
        return Err(no_match!("it gathers no rows of a matrix"));
    }
    let it = Table { m, gather, dq, data, quantized, scale, scales, indices };
    let axis = match m.int_attr(dq, "axis", 1) {
        it if it < 0 => it + 2,
        it => it,
    };
    match (m.int_attr(dq, "block_size", 0), scales.numel(), axis) {
        (0, 1, _) => it.one_scale(),
        (0, _, 0) => it.scale_per_row(),
        (block, _, 1) if block > 0 => it.blocks(block),
        _ => Err(no_match!("scales go with columns of the table, not with its rows")),
    }
}

impl Table<'_> {
    fn zero(&self) -> Option<ValueId> {
        self.m.operand(self.dq, 2).ok()
    }

    fn gathered(&self, patch: &mut Patch, data: ValueId, name: &str) -> Ref {
        let attrs = self.m.node(self.gather).attrs.clone();
        patch.step(name, "Gather", [data.into(), self.indices.into()], attrs)
    }

    fn output(&self) -> ValueId {
        self.m.node(self.gather).output()
    }

    fn one_scale(&self) -> Result<Patch, NoMatch> {
        let mut patch = Patch::before(self.gather);
        let rows = self.gathered(&mut patch, self.data, "rows");
        let mut inputs = vec![rows, self.scale.into()];
        inputs.extend(self.zero().map(Ref::from));
        // A scale of shape [1] is one scale for the axis too.
        if !self.scales.shape.is_empty() {
            return Err(no_match!("`{}` is no scalar", self.m.value(self.scale).name));
        }
        let name = &self.m.node(self.gather).name;
        let y = patch.named(name, "y", "DequantizeLinear", inputs, Attrs::default());
        Ok(patch.replace(self.output(), y))
    }

    /// `(quantized[i] - zero_points[i]) * scales[i]`, where the last two are columns.
    fn scale_per_row(&self) -> Result<Patch, NoMatch> {
        if self.quantized.dtype.bits() != 8 || self.scales.dtype != DType::F32 {
            return Err(no_match!(
                "quantized values of {} with a scale per row",
                self.quantized.dtype
            ));
        }
        let rows = self.quantized.shape[0];
        let zero_points = self.zero().map(|it| self.m.constant(it)).transpose()?;
        if self.scales.numel() != rows || zero_points.is_some_and(|it| it.numel() != rows) {
            return Err(no_match!("scales or zero points are not one for each row"));
        }
        let to_float = || Attrs::default().with("to", i64::from(DType::F32.number()));
        let mut patch = Patch::before(self.gather);
        let quantized = self.gathered(&mut patch, self.data, "rows");
        let mut values = patch.step("rows_float", "Cast", [quantized], to_float());
        let attrs = || self.m.node(self.gather).attrs.clone();
        if let Some(zero) = self.zero() {
            let column = self.m.constant(zero)?.reshaped(vec![rows, 1]);
            let column = patch.constant(&self.m.value(zero).name, column);
            let zero_points = patch.step("zeros", "Gather", [column, self.indices.into()], attrs());
            let zero_points = patch.step("zeros_float", "Cast", [zero_points], to_float());
            values = patch.step("differences", "Sub", [values, zero_points], Attrs::default());
        }
        let column = self.scales.reshaped(vec![rows, 1]);
        let column = patch.constant(&self.m.value(self.scale).name, column);
        let scales = patch.step("scales", "Gather", [column, self.indices.into()], attrs());
        let name = &self.m.node(self.gather).name;
        let y = patch.named(name, "y", "Mul", [values, scales], Attrs::default());
        Ok(patch.replace(self.output(), y))
    }

    fn blocks(&self, block: i64) -> Result<Patch, NoMatch> {
        if block < 16 || block.count_ones() != 1 {
            return Err(no_match!("GatherBlockQuantized takes no blocks of {block}"));
        }
        let bits = bits(self.quantized.dtype)?;
        if !self.quantized.shape[1].is_multiple_of(8 / bits as usize) {
            return Err(no_match!(
                "rows of {} quantized values are not whole bytes",
                self.quantized.shape[1]
            ));
        }
        let mut patch = Patch::before(self.gather);
        let zero_points = match self.zero() {
            Some(it) => self.m.constant(it)?.clone(),
            None => {
                let zero = Tensor::new(self.quantized.dtype, vec![], vec![0u8]);
                repeated(&zero, self.scales.shape.clone())?
            }
        };
        let name = &self.m.value(self.data).name;
        let inputs: [Ref; 4] = [
            patch.constant(name, bytes(self.quantized)?),
            self.indices.into(),
            self.scale.into(),
            patch.constant(&format!("{name}_zeros"), bytes(&zero_points)?),
        ];
        let attrs = Attrs::default()
            .with("bits", i64::from(bits))
            .with("block_size", block)
            .with("gather_axis", 0i64)
            .with("quantize_axis", 1i64);
        let own = &self.m.node(self.gather).name;
        let op = "com.microsoft.GatherBlockQuantized";
        let y = patch.named(own, "y", op, inputs, attrs);
        Ok(patch.replace(self.output(), y))
    }
}

/// Unsigned integers in bytes.
fn bytes(tensor: &Tensor) -> Result<Tensor, NoMatch> {
    Ok(match tensor.dtype {
        DType::U8 => tensor.clone(),
        it if it.bits() == 8 && is_signed(it) => flipped(tensor, DType::U8),
        _ => packed_rows(tensor)?,
    })
}
