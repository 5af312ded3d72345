//! `TensorProto` → `Tensor`: every rule of the format, checked before memory is spent.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use prost::Message;
use sha1::{Digest, Sha1};

use super::{
    ExternalProblem, Files, Limits, LoadError, TensorProblem,
    proto::{self, TensorProto},
    scan,
    tensor_data::{embedded, typed_field},
};
use crate::{
    diag::{Code, Warning},
    ir::Sparse,
    tensor::{DType, Tensor},
    untrusted::Untrusted,
};

/// What reading a tensor needs besides the message.
pub(super) struct TensorReader {
    pub files: Option<Files>,
    pub limits: Limits,
    pub warnings: Vec<Warning>,
    /// SHA-1 of data files, by location: each is computed once.
    digests: BTreeMap<String, String>,
    /// Ranges of data files that tensors refer to, by location.
    ranges: BTreeMap<String, BTreeSet<(u64, u64)>>,
}

pub(super) fn from_pb(bytes: Bytes) -> Result<(String, Tensor), LoadError> {
    scan::scan(&bytes, "TensorProto", &Limits::default())?;
    let proto = TensorProto::decode(bytes).map_err(LoadError::Decode)?;
    let mut reader = TensorReader::new(None, Limits::default());
    let tensor = reader.tensor(&proto)?;
    Ok((proto.name.unwrap_or_default(), tensor))
}

impl TensorReader {
    pub(super) fn new(files: Option<Files>, limits: Limits) -> TensorReader {
        let (digests, ranges) = (BTreeMap::new(), BTreeMap::new());
        TensorReader { files, limits, warnings: Vec::new(), digests, ranges }
    }

    /// A warning for each data file in which tensors overlap without being the same.
    pub(super) fn overlaps(&self) -> Vec<Warning> {
        let overlap = |ranges: &BTreeSet<(u64, u64)>| {
            let mut end = 0;
            ranges.iter().any(|it| {
                let before = end;
                end = end.max(it.1);
                it.0 < before
            })
        };
        let files = self.ranges.iter().filter(|it| overlap(it.1)).map(|it| Untrusted(it.0));
        let warning = |it| Warning::new(Code::W210, format!("tensors overlap in `{it}`"));
        files.map(warning).collect()
    }

    pub(super) fn tensor(&mut self, proto: &TensorProto) -> Result<Tensor, LoadError> {
        let name = || proto.name.clone().unwrap_or_default();
        let fail = |problem| LoadError::Tensor { tensor: name(), problem };
        if proto.segment.is_some() {
            return Err(LoadError::Segment { tensor: name() });
        }
        let number = proto.data_type.unwrap_or(0);
        let dtype = DType::from_number(number).ok_or_else(|| fail(TensorProblem::DType(number)))?;
        let shape = shape(&proto.dims, &self.limits).map_err(fail)?;
        let nbytes = dtype
            .nbytes_of(&shape)
            .ok_or_else(|| fail(TensorProblem::Overflow(proto.dims.clone())))?;
        if proto.data_location() == proto::tensor_proto::DataLocation::External {
            if let Some(field) = typed_field(proto).map(|it| it.0) {
                return Err(fail(TensorProblem::Twice(field)));
            }
            if proto.raw_data.as_ref().is_some_and(|it| !it.is_empty()) {
                return Err(fail(TensorProblem::Twice("external data")));
            }
            let bytes = self
                .external(proto, dtype, &shape, nbytes)
                .map_err(|problem| LoadError::External { tensor: name(), problem })?;
            return Ok(Tensor::new(dtype, shape, bytes));
        }
        let tensor = embedded(proto, dtype, shape, nbytes).map_err(fail)?;
        self.notice(&tensor, proto.name());
        Ok(tensor)
    }

    /// What is odd, but means the same to everyone.
    fn notice(&mut self, tensor: &Tensor, name: &str) {
        let mut warn = |code, text: &str| {
            let text = format!("{text} in tensor `{}`", Untrusted(name));
            self.warnings.push(Warning::new(code, text));
        };
        if let Some(list) = tensor.string_values() {
            if list.iter().any(|it| std::str::from_utf8(it).is_err()) {
                warn(Code::W309, "strings that are not UTF-8");
            }
            return;
        }
        let used = tensor.numel() * tensor.dtype.bits() % 8;
        if used > 0
            && let Ok(bytes) = tensor.bytes()
            && bytes.last().is_some_and(|it| it >> used != 0)
        {
            warn(Code::W307, "padding bits that are not zero");
        }
    }

    pub(super) fn sparse(&mut self, proto: &proto::SparseTensorProto) -> Result<Sparse, LoadError> {
        let (Some(values), Some(indices)) = (&proto.values, &proto.indices) else {
            let problem = TensorProblem::Sparse("values or indices are missing");
            return Err(LoadError::Tensor { tensor: String::new(), problem });
        };
        let tensor = values.name.clone().unwrap_or_default();
        let fail = |problem| LoadError::Tensor { tensor: tensor.clone(), problem };
        let shape = shape(&proto.dims, &self.limits).map_err(fail)?;
        let (values, indices) = (self.tensor(values)?, self.tensor(indices)?);
        check_sparse(&values, &indices, &shape, &proto.dims).map_err(fail)?;
        if values.dtype.nbytes_of(&shape).is_none_or(|it| it > self.limits.dense) {
            return Err(fail(TensorProblem::Sparse("the dense form is larger than any weight")));
        }
        Ok(Sparse { values, indices, shape })
    }

    fn external(
        &mut self,
        proto: &TensorProto,
        dtype: DType,
        shape: &[usize],
        nbytes: usize,
    ) -> Result<Bytes, ExternalProblem> {
        let mut place = Place::default();
        for entry in &proto.external_data {
            place.set(entry.key(), entry.value(), &mut self.warnings)?;
        }
        let files = self.files.as_mut().ok_or(ExternalProblem::Refused)?;
        let location = place.location.unwrap_or_default();
        let file = files.map_external(&location)?;
        let size = file.len() as u64;
        let offset = place.offset.unwrap_or(0);
        let rest = size.saturating_sub(offset);
        let length = place.length.unwrap_or(rest);
        let end = u128::from(offset) + u128::from(length);
        if end > u128::from(size) {
            return Err(ExternalProblem::BeyondEnd { location, offset, end, size });
        }
        if dtype == DType::String || length != nbytes as u64 {
            let shape = shape.to_vec();
            return Err(ExternalProblem::Length { length, dtype, shape, expected: nbytes });
        }
        if let Some(expected) = place.checksum {
            let digest = || hex::encode(Sha1::digest(&file));
            let actual = self.digests.entry(location.clone()).or_insert_with(digest);
            if !expected.eq_ignore_ascii_case(actual) {
                return Err(ExternalProblem::Checksum { location });
            }
        }
        if length > 0 {
            self.ranges.entry(location).or_default().insert((offset, offset + length));
        }
        // Checked against the file's size, so the range fits usize.
        Ok(file.slice(offset as usize..end as usize))
    }
}

#[derive(Default)]
struct Place {
    location: Option<String>,
    offset: Option<u64>,
    length: Option<u64>,
    checksum: Option<String>,
}

impl Place {
    fn set(
        &mut self,
        key: &str,
        value: &str,
        warnings: &mut Vec<Warning>,
    ) -> Result<(), ExternalProblem> {
        let number = |key, value: &str| {
            let fits = value.parse::<u64>().ok().filter(|it| i64::try_from(*it).is_ok());
            fits.ok_or_else(|| ExternalProblem::Number { key, value: value.to_owned() })
        };
        let twice = match key {
            "location" => self.location.replace(value.to_owned()).is_some(),
            "offset" => self.offset.replace(number("offset", value)?).is_some(),
            "length" => self.length.replace(number("length", value)?).is_some(),
            "checksum" => self.checksum.replace(value.to_owned()).is_some(),
            "basepath" => false,
            _ => {
                let key = Untrusted(key);
                let text = format!("unknown key `{key}` of external data is dropped");
                warnings.push(Warning::new(Code::W208, text));
                false
            }
        };
        if twice {
            return Err(ExternalProblem::DuplicateKey { key: key.to_owned() });
        }
        Ok(())
    }
}

fn shape(dims: &[i64], limits: &Limits) -> Result<Vec<usize>, TensorProblem> {
    if dims.len() > limits.rank {
        return Err(TensorProblem::Rank(dims.len()));
    }
    dims.iter()
        .map(|&dim| usize::try_from(dim).map_err(|_| TensorProblem::NegativeDim(dim)))
        .collect()
}

fn check_sparse(
    values: &Tensor,
    indices: &Tensor,
    shape: &[usize],
    dims: &[i64],
) -> Result<(), TensorProblem> {
    let fail = |what| Err(TensorProblem::Sparse(what));
    let Some(dense) = shape.iter().try_fold(1usize, |a, b| a.checked_mul(*b)) else {
        return Err(TensorProblem::Overflow(dims.to_vec()));
    };
    let [count] = values.shape[..] else { return fail("values are not a vector") };
    let width = match indices.shape[..] {
        [rows] if rows == count => None,
        [rows, width] if rows == count && width == shape.len() => Some(width),
        _ => return fail("indices do not match values and shape"),
    };
    let Ok(list) = indices.to_i64() else { return fail("indices are not integers") };
    if indices.dtype != DType::I64 {
        return fail("indices are not int64");
    }
    let mut last = None;
    for at in list.chunks(width.unwrap_or(1).max(1)) {
        let inside = match width {
            None => usize::try_from(at[0]).is_ok_and(|it| it < dense),
            Some(_) => {
                at.iter().zip(shape).all(|(i, dim)| usize::try_from(*i).is_ok_and(|it| it < *dim))
            }
        };
        if !inside {
            return fail("an index is out of range");
        }
        if last.is_some_and(|last: &[i64]| last >= at) {
            return fail("indices are not strictly ascending");
        }
        last = Some(at);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diag::{Code, Diagnostic};

    fn read(proto: TensorProto) -> Result<Tensor, Code> {
        from_pb(proto.encode_to_vec().into()).map(|it| it.1).map_err(|err| err.code())
    }

    fn proto(dtype: DType, dims: &[i64]) -> TensorProto {
        TensorProto { data_type: Some(dtype.number()), dims: dims.to_vec(), ..Default::default() }
    }

    #[test]
    fn every_rule_has_its_code() {
        let raw = |dtype, dims: &[i64], len: usize| TensorProto {
            raw_data: Some(vec![0; len].into()),
            ..proto(dtype, dims)
        };
        assert_eq!(read(raw(DType::F32, &[-1], 0)).unwrap_err(), Code::E301);
        assert_eq!(read(raw(DType::F32, &[1 << 32, 1 << 32], 0)).unwrap_err(), Code::E302);
        assert_eq!(read(raw(DType::F32, &[2], 7)).unwrap_err(), Code::E303);
        assert_eq!(read(raw(DType::F32, &[2], 9)).unwrap_err(), Code::E303);
        assert_eq!(read(raw(DType::I4, &[3], 1)).unwrap_err(), Code::E307);
        let twice = TensorProto { float_data: vec![1.0], ..raw(DType::F32, &[1], 4) };
        assert_eq!(read(twice).unwrap_err(), Code::E304);
        let unknown = TensorProto { data_type: Some(99), ..raw(DType::F32, &[1], 4) };
        assert_eq!(read(unknown).unwrap_err(), Code::E305);
        let wrong = TensorProto { float_data: vec![1.0], ..proto(DType::I8, &[1]) };
        assert_eq!(read(wrong).unwrap_err(), Code::E306);
        let range = TensorProto { int32_data: vec![128], ..proto(DType::I8, &[1]) };
        assert_eq!(read(range).unwrap_err(), Code::E306);
        let external = TensorProto { data_location: Some(1), ..proto(DType::F32, &[1]) };
        assert_eq!(read(external).unwrap_err(), Code::E201);
    }

    /// Every element type through `raw_data`, with odd, even and zero element counts.
    #[test]
    fn every_type_is_read_from_raw_data() {
        for &dtype in DType::ALL.iter().filter(|it| **it != DType::String) {
            for count in [0usize, 3, 4] {
                let bytes: Vec<u8> = (0..dtype.nbytes(count).unwrap() as u8).collect();
                let message = TensorProto {
                    raw_data: Some(bytes.clone().into()),
                    ..proto(dtype, &[count as i64])
                };
                let tensor = read(message).unwrap();
                assert_eq!((tensor.dtype, &tensor.bytes().unwrap()[..]), (dtype, &bytes[..]));
            }
        }
    }

    #[test]
    fn typed_fields_equal_raw_data() {
        let halfs = TensorProto { int32_data: vec![0x3c00, 0xbc00], ..proto(DType::F16, &[2]) };
        assert_eq!(read(halfs).unwrap().to_f32().unwrap(), [1.0, -1.0]);
        let nibbles = TensorProto { int32_data: vec![0x21, 0x03], ..proto(DType::U4, &[3]) };
        assert_eq!(&read(nibbles).unwrap().bytes().unwrap()[..], [0x21, 0x03]);
        let words = TensorProto { uint64_data: vec![7], ..proto(DType::U32, &[1]) };
        assert_eq!(read(words).unwrap().to_i64().unwrap(), [7]);
    }
}
