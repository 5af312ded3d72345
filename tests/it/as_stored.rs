//! Integers and scales of GGUF files and quantized folders are those of the model that is made of them, and
//! ONNX Runtime computes with them what the dequantized weights say.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::common::{computed, inputs, quantize_file, relative_error};
use onnxq_formats::gguf::{File, GgmlType, Info};
use onnxq_ir::{
    Attr, Def, Model, NodeId, ValueId, onnx,
    tensor::{DType, Tensor},
};

/// Written by `fixtures/gguf/llama.py`.
fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/gguf/llama.gguf")
}

fn file() -> File {
    File::parse(&fs::read(source()).unwrap().into(), "llama.gguf").unwrap()
}

fn made(recipe: &str) -> Model {
    made_of(&source(), recipe)
}

fn made_of(source: &Path, recipe: &str) -> Model {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.onnx");
    quantize_file(source, recipe, &path);
    onnx::open(&path, &Default::default()).unwrap().model
}

/// A constant, through what ONNX Runtime removes or computes when it loads the model.
fn constant(m: &Model, value: ValueId) -> &Tensor {
    match m.value(value).def {
        Def::Node(node) => constant(m, m.operand(node, 0).unwrap()),
        _ => m.constant(value).unwrap(),
    }
}

/// Rows of a tensor as the file has them: where row `row` of the model lies among those of heads, which
/// are pairs of neighbours there and halves here.
fn place(name: &str, rows: usize, row: usize) -> usize {
    let size = 16;
    match name.contains("attn_q") || name.contains("attn_k") {
        true => row / size * size + row % size % (size / 2) * 2 + row % size / (size / 2),
        false => row.min(rows),
    }
}

/// The integers of a row, as ggml's headers define blocks, and its scales as they are stored.
fn row(info: &Info, row: usize) -> (Vec<u8>, Vec<u8>) {
    let columns = info.shape[1];
    let width = columns / 32 * info.kind.bytes();
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for block in info.bytes[row * width..][..width].chunks(info.kind.bytes()) {
        scales.extend(&block[..2]);
        match info.kind {
            GgmlType::Q4_0 => {
                codes.extend(block[2..].iter().map(|it| it & 15));
                codes.extend(block[2..].iter().map(|it| it >> 4));
            }
            GgmlType::Q8_0 => codes.extend(block[2..].iter().map(|it| it.wrapping_add(128))),
            kind => panic!("{kind}"),
        }
    }
    (codes, scales)
}

/// All rows as MatMulNBits has them: of four bits, the first of two elements in the low half.
fn expected(name: &str, info: &Info) -> (Vec<u8>, Vec<u8>) {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for at in 0..info.shape[0] {
        let (own, steps) = row(info, place(name, info.shape[0], at));
        scales.extend(steps);
        match info.kind {
            GgmlType::Q4_0 => codes.extend(own.chunks(2).map(|it| it[0] | it[1] << 4)),
            _ => codes.extend(own),
        }
    }
    (codes, scales)
}

fn theirs(name: &str) -> String {
    let table = [
        ("model.embed_tokens", "token_embd"),
        ("lm_head", "output"),
        ("model.layers", "blk"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    let stem = table.iter().fold(name.to_owned(), |name, it| name.replace(it.0, it.1));
    format!("{stem}.weight")
}

fn nodes(m: &Model, op: &str) -> Vec<NodeId> {
    m.nodes().into_iter().filter(|it| m.node(*it).op.to_string() == op).collect()
}

#[test]
fn integers_and_scales_are_those_of_the_file() {
    let (m, file) = (made("as_stored"), file());
    let mut count = 0;
    for op in ["com.microsoft.MatMulNBits", "com.microsoft.GatherBlockQuantized"] {
        for node in nodes(&m, op) {
            let name = theirs(&m.node(node).name);
            let info = file.info(&name).unwrap_or_else(|| panic!("{name}"));
            if !matches!(info.kind, GgmlType::Q4_0 | GgmlType::Q8_0) {
                continue;
            }
            assert_eq!(m.int_attr(node, "block_size", 0), 32, "{name}");
            let at = if op.contains("Gather") { 0 } else { 1 };
            let operand = |index| constant(&m, m.operand(node, index).unwrap());
            let (codes, scales) = expected(&name, info);
            assert_eq!(operand(at).bytes().unwrap(), codes, "{name}");
            assert_eq!(operand(2).dtype, DType::F16);
            assert_eq!(operand(2).bytes().unwrap(), scales, "{name}");
            // Zero is in the middle, which tables state.
            let zeros = if at == 0 { Some(operand(3).bytes().unwrap()) } else { None };
            assert!(zeros.is_none_or(|it| it.iter().all(|it| *it == 128)));
            assert!(at == 0 || m.node(node).inputs.len() == 3, "{name}");
            count += 1;
        }
    }
    assert_eq!(count, 14);
}

/// Kernels of float activations compute the same, and those of accuracy_level 4 lose what 8 bits of
/// activations lose; scales in the file have both signs.
#[test]
fn onnx_runtime_computes_what_the_file_says() {
    let float = onnxq_formats::open(&source(), &Default::default()).unwrap().model;
    let scales = file().info("blk.0.attn_q.weight").unwrap().bytes.clone();
    assert!(scales.chunks(18).any(|it| it[1] & 0x80 != 0));
    let inputs = of_a_text(&float);
    let logits = |m: &Model| computed(m, &inputs).unwrap().remove(0).1;
    let expected = logits(&float);
    let mut kept = made("as_stored");
    // Of Q4_1, whose minimums are weights of sums: two digits of 4 bits.
    assert_eq!(nodes(&kept, "ReduceSum").len(), 1);
    let error = |m: &Model| relative_error(&expected, &logits(m));
    assert!(error(&kept) < 0.04, "{}", error(&kept));
    float_activations(&mut kept);
    assert!(error(&kept) < 3e-4, "{}", error(&kept));
}

/// Inputs of a decoder with some past.
fn of_a_text(m: &Model) -> BTreeMap<String, Tensor> {
    let mut inputs = inputs(m, 1);
    let [batch, length] = inputs["input_ids"].shape[..] else { panic!("ids of a batch") };
    let past = inputs["past_key_values.0.key"].shape[2];
    let mask = Tensor::from_i64(&[batch, past + length], vec![1; batch * (past + length)]);
    inputs.insert("attention_mask".to_owned(), mask);
    inputs
}

fn float_activations(m: &mut Model) {
    for node in nodes(m, "com.microsoft.MatMulNBits") {
        m.set_attr(node, "accuracy_level", Attr::Int(1));
    }
}

/// Folders of `fixtures/generate/quantized.py`: what the float graph of a folder computes, the model with
/// the integers of the folder does, too. Where groups are in another order than the inputs, these are
/// gathered.
#[test]
fn folders_keep_their_integers() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/quantized");
    let mut names: Vec<PathBuf> =
        fs::read_dir(root).unwrap().map(|it| it.unwrap().path()).collect();
    names.sort();
    assert_eq!(names.len(), 7);
    for folder in names {
        let float = onnxq_formats::open(&folder, &Default::default()).unwrap().model;
        let inputs = of_a_text(&float);
        let logits = |m: &Model| computed(m, &inputs).unwrap().remove(0).1;
        let mut made = made_of(&folder, "as_stored");
        assert_eq!(nodes(&made, "com.microsoft.MatMulNBits").len(), 7, "{folder:?}");
        let expected = logits(&float);
        let rounded = relative_error(&expected, &logits(&made));
        assert!(rounded < 0.06, "{folder:?}: {rounded}");
        let ordered = nodes(&made, "Gather").len() - nodes(&float, "Gather").len();
        assert_eq!(ordered > 0, folder.ends_with("gptq-order"), "{folder:?}");
        float_activations(&mut made);
        let error = relative_error(&expected, &logits(&made));
        assert!(error < 1e-5, "{folder:?}: {error}");
    }
}

/// Where grids of a recipe hold them, without being asked: with zero points and in 8 bits.
#[test]
fn recipes_keep_what_their_grids_hold() {
    let (recipe, ctx) = (onnxq_quant::recipe::load("int4").unwrap(), onnxq_ir::ctx::Ctx::silent());
    let inputs = onnxq_pipeline::Inputs::default();
    let job = onnxq_pipeline::Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
    let opened = onnxq_pipeline::Opened::read(&source(), &Default::default(), &ctx).unwrap();
    let planned = opened.prepare(&job).unwrap().plan(&job).unwrap();
    let rows = planned.plan.rows(&planned.model);
    let kept = |kind: &str| {
        let own = rows.iter().filter(|it| it.stored.as_deref() == Some(kind));
        let kept = own.clone().filter(|it| it.solver == Some("as_stored"));
        [kept.count(), own.count()]
    };
    // Values of attention have 8 bits there, and so have the table and the head.
    assert_eq!(kept("Q4_0"), [11, 11]);
    assert_eq!(kept("Q8_0"), [3, 3]);
    assert_eq!((kept("Q5_0"), kept("Q4_1")), ([0, 1], [0, 1]));
}
