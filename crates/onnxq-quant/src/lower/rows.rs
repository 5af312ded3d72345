//! Look-ups in quantized tables in standard operators: rows of quantized values and of scales are
//! gathered, then multiplied.
//!
//! ```text
//! Gather(w, i) → unpack → Cast → Sub(zero) → Mul(Gather(scales, i))
//! ```

use std::sync::Arc;

use super::emit::{Emit, needs, scalar, to};
use crate::raise::{Kind, Site, Weights, stored::Stored};
use onnxq_ir::{
    Attrs, Model, NoMatch, Patch, Ref, ValueId, no_match,
    tensor::{DType, Packing, Part, QSource, Tensor, ZeroPoints},
};

pub(super) fn lower(m: &Model, site: &Site, _: &mut Weights) -> Result<Patch, NoMatch> {
    let Kind::Rows { indices } = site.kind else { unreachable!("a look-up") };
    site.weight.source.integer_zeros()?;
    let shape = site.weight.source.shape();
    let groups = shape.blocks();
    if groups > 1 && !shape.k.is_multiple_of(shape.block) {
        return Err(no_match!("rows of {} do not divide into blocks of {}", shape.k, shape.block));
    }
    if shape.bits < 8 {
        needs(m, 11, "BitShift")?;
    }
    let is_flat = groups == 1 && shape.bits == 8;
    let rank = match m.rank(indices) {
        Some(it) => it,
        None if is_flat => 0,
        None => return Err(no_match!("the rank of `{}` is not known", m.value(indices).name)),
    };
    let mut it = Rows { to: Emit::new(m, site), source: &site.weight.source, indices, rank };
    let y = it.emit()?;
    Ok(it.to.finish(y))
}

struct Rows<'a> {
    to: Emit<'a>,
    source: &'a Arc<Stored>,
    indices: ValueId,
    /// Of the indices.
    rank: usize,
}

impl Rows<'_> {
    fn emit(&mut self) -> Result<Ref, NoMatch> {
        let (shape, dtype) = (self.source.shape(), self.to.site.weight.dtype);
        let groups = shape.blocks();
        let quantized = self.to.part(self.source, Part::Quantized, Packing::Gather, "rows");
        let mut quantized = self.gather(quantized, "codes");
        let blocks = [groups, shape.block];
        let tail = if groups > 1 { &blocks[..] } else { &[shape.k] };
        if shape.bits < 8 {
            quantized = self.unpack(quantized, tail);
        } else if groups > 1 {
            quantized = self.reshape(quantized, tail, "blocks");
        }
        let quantized = self.to.step("float", "Cast", &[quantized], to(dtype));
        let zero_points = self.zero_points(dtype)?;
        let quantized = self.to.step("centred", "Sub", &[quantized, zero_points], Attrs::default());
        let scales = self.to.scales(self.source, Packing::Gather);
        let scales = self.per_block(scales, "scales");
        let y = self.to.step("values", "Mul", &[quantized, scales], Attrs::default());
        Ok(if groups > 1 { self.reshape(y, &[shape.k], "") } else { y })
    }

    fn gather(&mut self, table: Ref, suffix: &str) -> Ref {
        let name = match suffix {
            "codes" => self.to.m.node(self.to.site.last).name.to_string(),
            _ => String::new(),
        };
        let output = format!("{}_{suffix}", self.to.stem);
        let inputs = [table, self.indices.into()];
        self.to.patch.named(&name, &output, "Gather", inputs, Attrs::default())
    }

    /// Gathered rows of `[rows, groups]`, one element for each block.
    fn per_block(&mut self, table: Ref, suffix: &str) -> Ref {
        let groups = self.source.shape().blocks();
        let rows = self.gather(table, suffix);
        if groups == 1 { rows } else { self.reshape(rows, &[groups, 1], suffix) }
    }

    fn zero_points(&mut self, dtype: DType) -> Result<Ref, NoMatch> {
        let shape = self.source.shape();
        if shape.zero_points == ZeroPoints::Symmetric {
            let middle = scalar(dtype, f32::from(shape.middle()))?;
            return Ok(self.to.patch.constant("middle", middle));
        }
        let source = self.source.clone();
        let tensor = Tensor::lazy(DType::U8, vec![shape.n, shape.blocks()], move || {
            let zero_points = source.solve(0..shape.n)?.zero_points;
            Ok(zero_points.iter().copied().collect::<Vec<u8>>().into())
        });
        let name = format!("{}_zeros", self.to.site.weight.stem);
        let zero_points = self.to.patch.constant(&name, tensor);
        let zero_points = self.per_block(zero_points, "zeros");
        Ok(self.to.step("zeros_float", "Cast", &[zero_points], to(dtype)))
    }

    /// The indices' own axes, then `tail`.
    fn reshape(&mut self, x: Ref, tail: &[usize], suffix: &str) -> Ref {
        let dims = std::iter::repeat_n(0, self.rank).chain(tail.iter().map(|it| *it as i64));
        let shape = Tensor::from_i64(&[self.rank + tail.len()], dims);
        let shape = self.to.patch.constant("rows_shape", shape);
        self.to.step(suffix, "Reshape", &[x, shape], Attrs::default())
    }

    /// Quantized values of some bits in bytes become quantized values in bytes of their own, each
    /// row of shape `tail`.
    fn unpack(&mut self, bytes: Ref, tail: &[usize]) -> Ref {
        let shape = self.source.shape();
        let (bits, per_byte) = (shape.bits as u8, 8 / shape.bits as usize);
        let width = shape.k.div_ceil(per_byte);
        let mut parts = Vec::new();
        for i in 0..per_byte as u8 {
            // Up to the top, which cuts what is above, and down to the bottom.
            let up = self.shift(bytes, 8 - bits * (i + 1), "LEFT");
            let down = self.shift(up, 8 - bits, "RIGHT");
            parts.push(self.reshape(down, &[width, 1], "part"));
        }
        let axis = Attrs::default().with("axis", self.rank as i64 + 1);
        let all = self.to.step("parts", "Concat", &parts, axis);
        if width * per_byte == shape.k {
            return self.reshape(all, tail, "unpacked");
        }
        // Rows that end within a byte are one block.
        let all = self.reshape(all, &[width * per_byte], "unpacked");
        let bounds = [0i64, shape.k as i64, self.rank as i64]
            .map(|it| self.to.patch.constant("bound", Tensor::from_i64(&[1], [it])));
        self.to.step("cut", "Slice", &[all, bounds[0], bounds[1], bounds[2]], Attrs::default())
    }

    fn shift(&mut self, x: Ref, by: u8, direction: &str) -> Ref {
        if by == 0 {
            return x;
        }
        let by = self.to.patch.constant("shift", Tensor::new(DType::U8, vec![], vec![by]));
        let attrs = Attrs::default().with("direction", direction);
        self.to.step("shifted", "BitShift", &[x, by], attrs)
    }
}
