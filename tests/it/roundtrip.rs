//! What is read is written again: checked with an independent protobuf library.

mod everything;
use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    os::unix::fs::{FileExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
};

use onnxq_ir::{
    Def, Model,
    ctx::Ctx,
    diag::{Code, Diagnostic},
    onnx::{self, ExternalData, Loaded, OpenOptions, SaveError, SaveOptions},
    tensor::DType,
};

use self::everything::{assert_same, everything, normalized};
use crate::common::models::*;

fn open(path: &Path) -> Loaded {
    onnx::open(path, &OpenOptions::default()).unwrap()
}

fn save(loaded: &Loaded, path: &Path, external: ExternalData) -> Result<(), SaveError> {
    let options = SaveOptions { external, force: false, ..Default::default() };
    onnx::save(&loaded.model, path, &options, Some(&loaded.files), &Ctx::silent()).map(|_| ())
}

fn force(loaded: &Loaded, path: &Path, external: ExternalData) -> Result<(), SaveError> {
    let options = SaveOptions { external, force: true, ..Default::default() };
    onnx::save(&loaded.model, path, &options, Some(&loaded.files), &Ctx::silent()).map(|_| ())
}

#[test]
fn everything_survives() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.onnx");
    let original = everything();
    let bytes = [encode(&original), field(99, b"of tomorrow")].concat();
    fs::write(&input, &bytes).unwrap();
    let original = ModelProto::parse_from_bytes(&bytes).unwrap();
    let loaded = open(&input);
    loaded.model.verify().unwrap();
    for (name, external) in [("a", ExternalData::Never), ("b", ExternalData::Always)] {
        let output = folder.path().join(format!("{name}.onnx"));
        save(&loaded, &output, external).unwrap();
        assert_eq!(output.with_extension("onnx.data").exists(), name == "b");
        let written = fs::read(&output).unwrap();
        assert!(written.ends_with(&field(99, b"of tomorrow")), "the unknown field is gone");
        assert_same(
            &normalized(&original, folder.path()),
            &normalized(&read(&output), folder.path()),
        );
        // And once more: what was written is read as the same.
        let again = folder.path().join(format!("{name}2.onnx"));
        save(&open(&output), &again, ExternalData::Never).unwrap();
        assert_same(
            &normalized(&original, folder.path()),
            &normalized(&read(&again), folder.path()),
        );
    }
}

#[test]
fn ir_3_becomes_ir_4_with_fewer_inputs() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    let mut model = with_weight(weight("W"));
    model.ir_version = 3;
    model.graph.as_mut().unwrap().input.push(info("W", FLOAT, &[64, 64]));
    write(&input, &model);
    save(&open(&input), &output, ExternalData::Never).unwrap();
    let written = read(&output);
    assert_eq!(written.ir_version, 4);
    let inputs: Vec<&str> = written.graph.input.iter().map(|it| &*it.name).collect();
    assert_eq!(inputs, ["X"]);
    assert_eq!(written.graph.initializer, model.graph.initializer);
}

/// Every element type, stored in each way, with no, odd and even numbers of elements.
#[test]
fn every_type_in_every_storage_reads_equal() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    let (mut tensors, mut expected, mut file) = (Vec::new(), BTreeMap::new(), Vec::new());
    for &dtype in DType::ALL.iter().filter(|it| **it != DType::String) {
        for count in [0usize, 3, 4, 7] {
            let raw = pattern(dtype, count);
            let kind = dtype.number();
            let bare = |storage: &str| {
                tensor(&format!("{dtype}_{count}_{storage}"), kind, &[count as i64], vec![])
            };
            let place = (file.len().to_string(), raw.len().to_string());
            let outside = TensorProto {
                data_location: DataLocation::EXTERNAL.into(),
                external_data: vec![
                    entry("location", "w.bin"),
                    entry("offset", &place.0),
                    entry("length", &place.1),
                ],
                ..bare("external")
            };
            file.extend_from_slice(&raw);
            let inside = TensorProto { raw_data: raw.clone(), ..bare("raw") };
            for it in [inside, typed(bare("typed"), dtype, &raw), outside] {
                expected.insert(it.name.clone(), raw.clone());
                tensors.push(it);
            }
        }
    }
    fs::write(folder.path().join("w.bin"), &file).unwrap();
    let names: Vec<&str> = tensors.iter().map(|it| &*it.name).collect();
    let user = of_domain("com.acme", node("Use", &names, &["Y"]));
    write(&input, &base(vec![user], tensors.clone()));
    let loaded = open(&input);
    assert_eq!(loaded.warnings, []);
    let mut seen = 0;
    for (name, tensor) in constants(&loaded.model) {
        assert_eq!(tensor.bytes().unwrap(), expected[&name], "{name}");
        seen += 1;
    }
    assert_eq!(seen, 27 * 4 * 3);
    save(&loaded, &output, ExternalData::Never).unwrap();
    for it in &read(&output).graph.initializer {
        assert_eq!(it.raw_data, expected[&it.name], "{}", it.name);
    }
}

fn constants(model: &Model) -> Vec<(String, &onnxq_ir::tensor::Tensor)> {
    let constants = model.values().filter_map(|(_, it)| match &it.def {
        Def::Const(tensor) => Some((it.name.to_string(), tensor)),
        _ => None,
    });
    constants.collect()
}

/// Bytes that use every bit, but no padding, no NaN, and of booleans only one.
fn pattern(dtype: DType, count: usize) -> Vec<u8> {
    let len = dtype.nbytes(count).unwrap();
    let mask = match dtype {
        DType::Bool => 1,
        DType::F32 | DType::F64 | DType::C64 | DType::C128 => 0x3f,
        _ => 0xff,
    };
    let mut bytes: Vec<u8> = (0..len).map(|it| (it * 37 + 139) as u8 & mask).collect();
    let used = count * dtype.bits() % 8;
    if used > 0 {
        *bytes.last_mut().unwrap() &= (1 << used) - 1;
    }
    bytes
}

/// The same data in the typed field that the format has for it.
fn typed(out: TensorProto, dtype: DType, raw: &[u8]) -> TensorProto {
    fn each<const N: usize, T>(raw: &[u8], from: fn([u8; N]) -> T) -> Vec<T> {
        raw.chunks_exact(N).map(|it| from(it.try_into().unwrap())).collect()
    }
    use DType::*;
    match dtype {
        F32 | C64 => TensorProto { float_data: each(raw, f32::from_le_bytes), ..out },
        F64 | C128 => TensorProto { double_data: each(raw, f64::from_le_bytes), ..out },
        I64 => TensorProto { int64_data: each(raw, i64::from_le_bytes), ..out },
        U64 => TensorProto { uint64_data: each(raw, u64::from_le_bytes), ..out },
        U32 => TensorProto { uint64_data: each(raw, |it| u32::from_le_bytes(it).into()), ..out },
        I32 => TensorProto { int32_data: each(raw, i32::from_le_bytes), ..out },
        I16 => TensorProto { int32_data: each(raw, |it| i16::from_le_bytes(it).into()), ..out },
        U16 | F16 | BF16 => {
            TensorProto { int32_data: each(raw, |it| u16::from_le_bytes(it).into()), ..out }
        }
        I8 => TensorProto { int32_data: each(raw, |it| i8::from_le_bytes(it).into()), ..out },
        _ => TensorProto { int32_data: each(raw, |[it]: [u8; 1]| it.into()), ..out },
    }
}

#[test]
fn a_model_is_saved_over_itself() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m.onnx");
    let original = with_weight(external(&[("location", "w.bin")]));
    write(&path, &original);
    fs::write(folder.path().join("w.bin"), bytes_of(&noise(4096))).unwrap();
    let before = normalized(&original, folder.path());
    for external in [ExternalData::Always, ExternalData::Never] {
        force(&open(&path), &path, external).unwrap();
        assert_same(&before, &normalized(&read(&path), folder.path()));
    }
}

#[test]
fn the_inputs_data_is_never_overwritten() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    let (data, bytes) = (folder.path().join("out.onnx.data"), bytes_of(&noise(65536)));
    let weight = external(&[("location", "out.onnx.data")]);
    write(&input, &with_weight(TensorProto { dims: vec![256, 256], ..weight }));
    fs::write(&data, &bytes).unwrap();
    for path in [&output, &data] {
        let refused = force(&open(&input), path, ExternalData::Always).unwrap_err();
        assert_eq!(refused.code(), Code::E904, "{refused}");
    }
    // By another name, too.
    let link = folder.path().join("link.onnx.data");
    fs::hard_link(&data, &link).unwrap();
    let refused = force(&open(&input), &folder.path().join("link.onnx"), ExternalData::Always);
    assert_eq!(refused.unwrap_err().code(), Code::E904);
    assert_eq!(fs::read(&data).unwrap(), bytes);
    assert!(!output.exists());
}

#[test]
fn what_exists_is_replaced_only_by_force() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    write(&input, &with_weight(floats("W", &[256, 256], &noise(65536))));
    let loaded = open(&input);
    for taken in [&output, &folder.path().join("out.onnx.data")] {
        fs::write(taken, "old").unwrap();
        let refused = save(&loaded, &output, ExternalData::Always).unwrap_err();
        assert_eq!(refused.code(), Code::E903, "{refused}");
        assert_eq!(fs::read(taken).unwrap(), b"old");
        fs::remove_file(taken).unwrap();
    }
    std::os::unix::fs::symlink("nowhere", &output).unwrap();
    assert_eq!(save(&loaded, &output, ExternalData::Never).unwrap_err().code(), Code::E903);
    force(&loaded, &output, ExternalData::Never).unwrap();
    assert!(output.symlink_metadata().unwrap().is_file());
}

#[test]
fn a_missing_folder_stays_missing() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in.onnx");
    write(&input, &with_weight(weight("W")));
    for external in [ExternalData::Always, ExternalData::Never] {
        let refused = save(&open(&input), &folder.path().join("no/out.onnx"), external);
        assert_eq!(refused.unwrap_err().code(), Code::E905);
    }
    assert_eq!(names(folder.path()), ["in.onnx"]);
    // A folder in the place of the output.
    fs::create_dir(folder.path().join("out.onnx")).unwrap();
    let refused = force(&open(&input), &folder.path().join("out.onnx"), ExternalData::Never);
    assert_eq!(refused.unwrap_err().code(), Code::E905);
    assert_eq!(names(folder.path()), ["in.onnx", "out.onnx"]);
}

fn names(folder: &Path) -> Vec<String> {
    let name = |it: std::io::Result<fs::DirEntry>| it.unwrap().file_name().into_string().unwrap();
    let mut list: Vec<String> = fs::read_dir(folder).unwrap().map(name).collect();
    list.sort();
    list
}

#[test]
fn external_tensors_are_aligned_and_do_not_touch() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    let list = (0..5).map(|at| {
        // One of them is larger than 1 MiB.
        let rows = if at == 2 { 900 } else { 64 + at };
        floats(&format!("W{at}"), &[rows, 301], &noise(rows as usize * 301))
    });
    let tensors: Vec<TensorProto> = list.collect();
    let names: Vec<&str> = tensors.iter().map(|it| &*it.name).collect();
    let user = of_domain("com.acme", node("Use", &names, &["Y"]));
    write(&input, &base(vec![user], tensors.clone()));
    save(&open(&input), &output, ExternalData::Always).unwrap();
    let data = fs::read(folder.path().join("out.onnx.data")).unwrap();
    let mut end = 0usize;
    for (old, new) in tensors.iter().zip(&read(&output).graph.initializer) {
        assert_eq!((&old.name, &old.dims), (&new.name, &new.dims));
        let place: BTreeMap<&str, &str> =
            new.external_data.iter().map(|it| (&*it.key, &*it.value)).collect();
        assert_eq!(place["location"], "out.onnx.data");
        let offset: usize = place["offset"].parse().unwrap();
        let length: usize = place["length"].parse().unwrap();
        let alignment = if length < 1 << 20 { 64 } else { 64 << 10 };
        assert_eq!(offset, end.next_multiple_of(alignment));
        end = offset + length;
        assert_eq!(data[offset..end], old.raw_data);
    }
}

#[test]
fn shards_hold_at_most_what_they_may() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    let tensors: Vec<TensorProto> = (0..5)
        .map(|at| floats(&format!("W{at}"), &[64 + at, 301], &noise((64 + at as usize) * 301)))
        .collect();
    let names: Vec<&str> = tensors.iter().map(|it| &*it.name).collect();
    let user = of_domain("com.acme", node("Use", &names, &["Y"]));
    write(&input, &base(vec![user], tensors.clone()));
    // Two of these fit, with what aligns the second.
    save(&open(&input), &output, ExternalData::Shards(220_000)).unwrap();
    let sizes = ["out.onnx.data", "out.onnx.data_1", "out.onnx.data_2"]
        .map(|it| fs::metadata(folder.path().join(it)).unwrap().len());
    assert!(sizes.iter().all(|it| (70_000..=220_000).contains(it)), "{sizes:?}");
    let loaded = open(&output);
    assert_eq!(loaded.files.paths().count(), 4);
    let merged = folder.path().join("merged.onnx");
    save(&loaded, &merged, ExternalData::Never).unwrap();
    assert_eq!(read(&merged).graph.initializer, tensors);
    // A weight that is larger than a shard has one to itself.
    let single = folder.path().join("single.onnx");
    save(&loaded, &single, ExternalData::Shards(1)).unwrap();
    assert_eq!(open(&single).files.paths().count(), 6);
}

#[test]
fn unknown_fields_within_are_refused_or_dropped() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("in.onnx"), folder.path().join("out.onnx"));
    let whole = encode(&with_weight(weight("W")));
    // Of the graph, and of a node: a second `graph` field is merged into the first.
    for deeper in [field(7, &field(99, b"z")), field(7, &field(1, &field(99, b"z")))] {
        let model = [whole.clone(), deeper].concat();
        fs::write(&input, model).unwrap();
        let refused = onnx::open(&input, &OpenOptions::default()).err().unwrap();
        assert_eq!(refused.code(), Code::E107, "{refused}");
    }
    fs::write(&input, [whole, field(7, &field(99, b"z"))].concat()).unwrap();
    let options = OpenOptions { drop_unknown: true, ..OpenOptions::default() };
    let loaded = onnx::open(&input, &options).unwrap();
    assert!(loaded.warnings.iter().any(|it| it.code == Some(Code::W107)), "{:?}", loaded.warnings);
    save(&loaded, &output, ExternalData::Never).unwrap();
    assert_same(&with_weight(weight("W")), &read(&output));
}

/// A file beyond the size that protobuf allows, almost all of it a hole.
#[test]
fn more_than_2_gib_in_one_file_are_read_without_memory() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("large.onnx");
    let rows: u64 = (1 << 29) + 64;
    let size = rows * 4;
    let head = |number: u64, len: u64| {
        let mut out = Vec::new();
        varint(number << 3 | 2, &mut out);
        varint(len, &mut out);
        out
    };
    let bare = tensor("W", FLOAT, &[rows as i64], vec![]).write_to_bytes().unwrap();
    let raw = [bare, head(9, size)].concat();
    let initializer = [head(5, raw.len() as u64 + size), raw].concat();
    let mut whole = base(vec![node("MatMul", &["X", "W"], &["Y"])], vec![]);
    let graph = whole.graph.take().unwrap().write_to_bytes().unwrap();
    let graph = [graph, initializer].concat();
    let start = [encode(&whole), head(7, graph.len() as u64 + size), graph].concat();
    let mut file = File::create(&path).unwrap();
    file.write_all(&start).unwrap();
    file.set_len(start.len() as u64 + size).unwrap();
    file.write_all_at(&1.5f32.to_le_bytes(), start.len() as u64 + size - 4).unwrap();

    let before = anonymous_kib();
    let loaded = open(&path);
    let (_, tensor) = constants(&loaded.model).remove(0);
    let bytes = tensor.bytes().unwrap();
    assert_eq!(bytes.len() as u64, size);
    assert_eq!(bytes[bytes.len() - 4..], 1.5f32.to_le_bytes());
    let grown = anonymous_kib().saturating_sub(before);
    assert!(grown < 1 << 20, "{grown} KiB");
    let refused = save(&loaded, &folder.path().join("out.onnx"), ExternalData::Never);
    assert_eq!(refused.unwrap_err().code(), Code::E407);
    assert_eq!(names(folder.path()), ["large.onnx"]);
}

fn anonymous_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|it| it.strip_prefix("RssAnon:"));
    line.map_or(0, |it| it.trim().trim_end_matches(" kB").parse().unwrap())
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/slm-fixture").join(name)
}

/// Runs the program through a shell line before it.
fn quantize(line: &str, model: &Path, output: &Path, flags: &[&str]) {
    let run = Command::new("sh")
        .args(["-c", &format!("{line}; exec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_onnxq")])
        .arg("quantize")
        .arg(model)
        .arg("-o")
        .arg(output)
        .args(flags)
        .output()
        .unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
}

#[test]
fn what_quantize_writes_parses_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["model.onnx", "model_dynamo.onnx", "model_with_past.onnx"] {
        for recipe in ["avx512_vnni", "int4", "int8_weights"] {
            let output = folder.path().join(format!("{recipe}-{name}"));
            quantize(":", &fixture(name), &output, &["-r", recipe]);
            let (old, new) = (read(&fixture(name)), read(&output));
            let signature = |it: &ModelProto| {
                let names = |list: &[ValueInfoProto]| -> Vec<String> {
                    list.iter().map(|it| it.name.clone()).collect()
                };
                (names(&it.graph.input), names(&it.graph.output))
            };
            assert_eq!(signature(&old), signature(&new), "{recipe} {name}");
            let custom = new.graph.node.iter().any(|it| it.op_type == "MatMulNBits");
            assert_eq!(custom, recipe != "avx512_vnni", "{recipe} {name}");
        }
    }
}

#[test]
fn threads_do_not_change_a_byte_and_files_obey_the_umask() {
    let folder = tempfile::tempdir().unwrap();
    let runs = [("1", "umask 027; RAYON_NUM_THREADS=1"), ("2", "umask 027; RAYON_NUM_THREADS=2")];
    let mut written = Vec::new();
    for (threads, line) in runs {
        let place = folder.path().join(threads);
        fs::create_dir(&place).unwrap();
        let flags = ["-r", "int4", "--external-data", "always", "--threads", threads];
        let line = format!("{line}; export RAYON_NUM_THREADS");
        quantize(&line, &fixture("model.onnx"), &place.join("out.onnx"), &flags);
        assert_eq!(names(&place), ["out.onnx", "out.onnx.data"]);
        let files = ["out.onnx", "out.onnx.data"].map(|it| place.join(it));
        for it in &files {
            assert_eq!(fs::metadata(it).unwrap().permissions().mode() & 0o777, 0o640);
        }
        written.push(files.map(|it| fs::read(it).unwrap()));
    }
    assert!(written[0] == written[1], "the bytes differ");
}
