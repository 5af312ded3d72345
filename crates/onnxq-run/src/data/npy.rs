//! A strict reader of `.npy`: plain arrays only, sizes checked before anything is allocated.

use std::{
    io::{Read, Seek, SeekFrom},
    ops::Range,
    path::{Path, PathBuf},
};

use super::DataError;
use onnxq_ir::tensor::{DType, Tensor};

const MAGIC: &[u8] = b"\x93NUMPY";
const MAX_HEADER: u32 = 64 << 10;

pub trait ReadSeek: Read + Seek + Send {}
impl<T: Read + Seek + Send> ReadSeek for T {}

/// An array in a file, read row by row.
pub struct Npy {
    /// For messages; a member of an archive is `archive.npz/member.npy`.
    pub file: PathBuf,
    pub dtype: DType,
    pub shape: Vec<usize>,
    big_endian: bool,
    start: u64,
    data: Box<dyn ReadSeek>,
}

impl Npy {
    /// Reads the header; the data behind it must be exactly as long as the header says.
    pub fn open(file: &Path, mut data: impl ReadSeek + 'static) -> Result<Npy, DataError> {
        let io = DataError::io(file);
        let total = data.seek(SeekFrom::End(0)).map_err(&io)?;
        data.seek(SeekFrom::Start(0)).map_err(&io)?;
        let (text, start) = read_header(file, &mut data)?;
        let Some(header) = parse(&text) else {
            return Err(DataError::format(file, "has a .npy header that is not of a plain array"));
        };
        let (dtype, big_endian) = element_type(file, &header.descr)?;
        check_size(file, &header.shape, dtype, total - start)?;
        if header.fortran && header.shape.iter().filter(|it| **it > 1).count() > 1 {
            return Err(DataError::Fortran { file: file.into() });
        }
        Ok(Npy {
            file: file.into(),
            dtype,
            shape: header.shape,
            big_endian,
            start,
            data: Box::new(data),
        })
    }

    /// Some entries along the first axis.
    pub fn rows(&mut self, rows: Range<usize>) -> Result<Tensor, DataError> {
        let mut shape = self.shape.clone();
        shape[0] = rows.len();
        let row = shape[1..].iter().product::<usize>() * self.dtype.bits() / 8;
        self.read(shape, rows.start * row, rows.len() * row)
    }

    pub fn whole(&mut self) -> Result<Tensor, DataError> {
        let len = self.shape.iter().product::<usize>() * self.dtype.bits() / 8;
        self.read(self.shape.clone(), 0, len)
    }

    fn read(&mut self, shape: Vec<usize>, at: usize, len: usize) -> Result<Tensor, DataError> {
        let io = DataError::io(&self.file);
        self.data.seek(SeekFrom::Start(self.start + at as u64)).map_err(&io)?;
        let mut bytes = vec![0; len];
        self.data.read_exact(&mut bytes).map_err(&io)?;
        if self.big_endian {
            bytes.chunks_exact_mut(self.dtype.bits() / 8).for_each(<[u8]>::reverse);
        }
        if self.dtype == DType::Bool {
            bytes.iter_mut().for_each(|it| *it = u8::from(*it != 0));
        }
        Ok(Tensor::new(self.dtype, shape, bytes))
    }
}

/// The header's text and where the data begins.
fn read_header(file: &Path, data: &mut impl Read) -> Result<(String, u64), DataError> {
    let short = |_| DataError::format(file, "is not a .npy file");
    let mut fixed = [0; 10];
    data.read_exact(&mut fixed).map_err(short)?;
    let (len, start) = match (&fixed[..6] == MAGIC, fixed[6], fixed[7]) {
        (true, 1, 0) => (u32::from(u16::from_le_bytes([fixed[8], fixed[9]])), 10),
        (true, 2 | 3, 0) => {
            let mut high = [0; 2];
            data.read_exact(&mut high).map_err(short)?;
            (u32::from_le_bytes([fixed[8], fixed[9], high[0], high[1]]), 12)
        }
        (true, ..) => return Err(DataError::format(file, "is a .npy file of an unknown version")),
        _ => return Err(DataError::format(file, "is not a .npy file")),
    };
    if len > MAX_HEADER {
        return Err(DataError::size(file, format!("declares a .npy header of {len} bytes")));
    }
    let mut text = vec![0; len as usize];
    data.read_exact(&mut text).map_err(|_| DataError::size(file, "ends within its .npy header"))?;
    let text = String::from_utf8(text)
        .map_err(|_| DataError::format(file, "has a .npy header that is not text"))?;
    Ok((text, start + u64::from(len)))
}

fn check_size(file: &Path, shape: &[usize], dtype: DType, actual: u64) -> Result<(), DataError> {
    let count = shape.iter().try_fold(1usize, |product, it| product.checked_mul(*it));
    let Some(expected) = count.and_then(|it| dtype.nbytes(it)) else {
        return Err(DataError::size(file, format!("declares {dtype}{shape:?}, more than memory")));
    };
    if expected as u64 != actual {
        let fact = format!("declares {dtype}{shape:?}, {expected} bytes, but holds {actual}");
        return Err(DataError::size(file, fact));
    }
    Ok(())
}

fn element_type(file: &Path, descr: &str) -> Result<(DType, bool), DataError> {
    let (order, kind) = descr.split_at_checked(1).unwrap_or(("", ""));
    let dtype = match kind {
        "b1" => DType::Bool,
        "f2" => DType::F16,
        "f4" => DType::F32,
        "f8" => DType::F64,
        "i1" => DType::I8,
        "i2" => DType::I16,
        "i4" => DType::I32,
        "i8" => DType::I64,
        "u1" => DType::U8,
        "u2" => DType::U16,
        "u4" => DType::U32,
        "u8" => DType::U64,
        _ if kind.starts_with('O') => {
            return Err(DataError::Pickle { file: file.into() });
        }
        _ => {
            return Err(DataError::format(
                file,
                "holds elements that are neither numbers nor booleans",
            ));
        }
    };
    match order {
        "<" | "|" | "=" => Ok((dtype, false)),
        ">" => Ok((dtype, true)),
        _ => Err(DataError::format(file, "has an unknown byte order")),
    }
}

struct Header {
    descr: String,
    fortran: bool,
    shape: Vec<usize>,
}

/// `{'descr': '<i8', 'fortran_order': False, 'shape': (3, 4), }`: each key once, in any order.
fn parse(text: &str) -> Option<Header> {
    let mut scan = Scan(text);
    let (mut descr, mut fortran, mut shape) = (None, None, None);
    scan.eat("{")?;
    while scan.eat("}").is_none() {
        let key = scan.quoted()?;
        scan.eat(":")?;
        let again = match key {
            "descr" => descr.replace(scan.quoted()?.to_owned()).is_some(),
            "fortran_order" => fortran.replace(scan.boolean()?).is_some(),
            "shape" => shape.replace(scan.tuple()?).is_some(),
            _ => true,
        };
        if again {
            return None;
        }
        if scan.eat(",").is_none() {
            scan.eat("}")?;
            break;
        }
    }
    let rest = scan.0.trim_ascii();
    rest.is_empty().then_some(Header { descr: descr?, fortran: fortran?, shape: shape? })
}

/// What is left of the header.
struct Scan<'a>(&'a str);

impl<'a> Scan<'a> {
    fn eat(&mut self, token: &str) -> Option<()> {
        self.0 = self.0.trim_ascii_start().strip_prefix(token)?;
        Some(())
    }

    fn quoted(&mut self) -> Option<&'a str> {
        let quote = if self.eat("'").is_some() { '\'' } else { self.eat("\"").map(|()| '"')? };
        let (text, rest) = self.0.split_once(quote)?;
        self.0 = rest;
        Some(text)
    }

    fn boolean(&mut self) -> Option<bool> {
        if self.eat("True").is_some() { Some(true) } else { self.eat("False").map(|()| false) }
    }

    fn tuple(&mut self) -> Option<Vec<usize>> {
        let mut list = Vec::new();
        self.eat("(")?;
        while self.eat(")").is_none() {
            list.push(self.number()?);
            if self.eat(",").is_none() {
                // `(3)` is a number, not a tuple.
                self.eat(")")?;
                return (list.len() > 1).then_some(list);
            }
        }
        Some(list)
    }

    fn number(&mut self) -> Option<usize> {
        let text = self.0.trim_ascii_start();
        let end = text.find(|it: char| !it.is_ascii_digit()).unwrap_or(text.len());
        self.0 = &text[end..];
        text[..end].parse().ok()
    }
}

#[cfg(test)]
pub mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;
    use onnxq_ir::diag::{Code, Diagnostic};

    /// A `.npy` file of version 1 with any header, true or not.
    pub fn file(descr: &str, order: &str, shape: &str, data: &[u8]) -> Vec<u8> {
        let mut header =
            format!("{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}");
        header.push_str(&" ".repeat(63 - (header.len() + 10) % 64));
        header.push('\n');
        let mut out = MAGIC.to_vec();
        out.extend([1, 0]);
        out.extend((header.len() as u16).to_le_bytes());
        out.extend(header.as_bytes());
        out.extend(data);
        out
    }

    pub fn ids(rows: usize, columns: usize, values: impl IntoIterator<Item = i64>) -> Vec<u8> {
        let data: Vec<u8> = values.into_iter().flat_map(i64::to_le_bytes).collect();
        file("'<i8'", "False", &format!("({rows}, {columns})"), &data)
    }

    fn open(bytes: Vec<u8>) -> Result<Npy, DataError> {
        Npy::open(Path::new("x.npy"), Cursor::new(bytes))
    }

    fn code(bytes: Vec<u8>) -> Code {
        open(bytes).err().expect("an error").code()
    }

    #[test]
    fn reads_rows_of_either_byte_order() {
        let little = ids(3, 2, 0..6);
        let big: Vec<u8> = (0i64..6).flat_map(i64::to_be_bytes).collect();
        for bytes in [little, file("'>i8'", "False", "(3, 2)", &big)] {
            let rows = open(bytes).unwrap().rows(1..3).unwrap();
            assert_eq!(
                (rows.shape.clone(), rows.to_i64().unwrap()),
                (vec![2, 2], vec![2, 3, 4, 5])
            );
        }
    }

    #[test]
    fn headers_that_lie_are_refused_before_allocation() {
        assert_eq!(code(file("'<f4'", "False", "(1099511627776,)", &[])), Code::E602);
        assert_eq!(code(file("'<f8'", "False", "(4294967296, 4294967296, 16)", &[])), Code::E602);
        assert_eq!(code(file("'<f4'", "False", "(2,)", &[0; 7])), Code::E602);
        assert_eq!(code(file("'<f4'", "False", "(2,)", &[0; 9])), Code::E602);
        let mut long = MAGIC.to_vec();
        long.extend([2, 0]);
        long.extend(u32::MAX.to_le_bytes());
        assert_eq!(code(long), Code::E602);
    }

    #[test]
    fn only_plain_arrays_are_read() {
        assert_eq!(code(b"not an array".to_vec()), Code::E601);
        assert_eq!(code(Vec::new()), Code::E601);
        assert_eq!(code(file("'|O'", "False", "(1,)", &[0; 8])), Code::E601);
        assert_eq!(code(file("'<U4'", "False", "(1,)", &[0; 16])), Code::E601);
        assert_eq!(code(file("[('a', '<f4')]", "False", "(1,)", &[0; 4])), Code::E601);
        assert_eq!(code(file("'<f4'", "True", "(2, 2)", &[0; 16])), Code::E601);
        assert_eq!(code(file("'<f4'", "False", "(-1,)", &[])), Code::E601);
        assert_eq!(code(file("'<f4'", "False", "(2)", &[0; 8])), Code::E601);
        assert_eq!(code(file("'<f4'", "False", "(1,), 'shape': (1,)", &[0; 4])), Code::E601);
        assert_eq!(code(file("'é4'", "False", "(1,)", &[0; 4])), Code::E601);
    }

    #[test]
    fn fortran_order_of_a_vector_is_its_order() {
        assert!(open(file("'<f4'", "True", "(1, 2)", &[0; 8])).is_ok());
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(at in 0usize..170, byte in any::<u8>(), cut in 0usize..180) {
            let mut bytes = ids(3, 2, 0..6);
            bytes[at] = byte;
            bytes.truncate(cut);
            if let Ok(mut npy) = open(bytes) {
                npy.whole().unwrap();
            }
        }
    }
}
