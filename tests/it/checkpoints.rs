//! Checkpoints of Hugging Face compute what transformers computes: in one pass, with padding, in
//! pieces with a cache, and token by token for as long as the references go on.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::common::{checkpoints, computes, runtime};
use onnxq_formats::{
    self as formats, ARCHITECTURES, Checkpoint, Form,
    gguf::{GgmlType, Writer},
};
use onnxq_ir::{
    onnx::{self, Attached, ExternalPolicy, Loaded, OpenOptions},
    tensor::{DType, Tensor},
    text,
};
use onnxq_run::engine::{Session, SessionOptions};
use safetensors::{Dtype, SafeTensors};

type Values = BTreeMap<String, Tensor>;

/// Largest difference of a logit or a vector. Those of float32 sums in another order are 1e-5.
const TOLERANCE: f32 = 5e-5;

pub(crate) fn folders() -> Vec<PathBuf> {
    let entries = fs::read_dir(checkpoints()).unwrap();
    let mut list: Vec<PathBuf> = entries.map(|it| it.unwrap().path()).collect();
    list.retain(|it| it.is_dir());
    list.sort();
    assert!(list.len() >= 23, "{list:?}");
    list
}

fn reference(folder: &Path) -> Values {
    let bytes = fs::read(folder.join("reference.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = file.iter().map(|(name, it)| {
        let dtype = match it.dtype() {
            Dtype::F32 => DType::F32,
            Dtype::I64 => DType::I64,
            other => panic!("{other:?}"),
        };
        let tensor = Tensor::new(dtype, it.shape().to_vec(), it.data().to_vec());
        (name.to_owned(), tensor)
    });
    tensors.collect()
}

fn loaded(folder: &Path, form: Form) -> Loaded {
    let checkpoint = Checkpoint::open(folder, ExternalPolicy::Contained).unwrap();
    formats::build(&checkpoint, form).unwrap()
}

fn session(folder: &Path, form: Form) -> Box<dyn Session> {
    let loaded = loaded(folder, form);
    let attached = onnx::attach(&loaded.model, &loaded.files).unwrap();
    let options = SessionOptions::default();
    runtime().open_bytes(&attached.graph, Some(Attached::folder()), &options).unwrap()
}

fn run(session: &mut dyn Session, given: &Values) -> Values {
    let names: Vec<String> = session.inputs().iter().map(|it| it.name.clone()).collect();
    let inputs: Vec<(&str, &Tensor)> = names.iter().map(|it| (&**it, &given[it])).collect();
    session.run(&inputs).unwrap().into_iter().collect()
}

fn ids(values: &[i64]) -> Tensor {
    Tensor::from_i64(&[1, values.len()], values.iter().copied())
}

/// Columns `from..to` of integers `[rows, columns]`.
fn columns(ids: &Tensor, from: usize, to: usize) -> Tensor {
    let (rows, width) = (ids.shape[0], ids.shape[1]);
    let all = ids.to_i64().unwrap();
    let part = (0..rows).flat_map(|row| all[row * width + from..row * width + to].to_vec());
    Tensor::from_i64(&[rows, to - from], part.collect::<Vec<i64>>())
}

/// A decoder and what it has seen.
struct Decoder {
    session: Box<dyn Session>,
    past: Values,
    seen: usize,
}

impl Decoder {
    fn new(folder: &Path, batch: usize, form: Form) -> Decoder {
        let session = session(folder, form);
        let caches = session.inputs().iter().filter(|it| it.name.starts_with("past"));
        let empty = caches.map(|it| {
            let dims = it.ty.shape.as_ref().unwrap();
            let [heads, size] = [&dims[1], &dims[3]].map(|it| it.to_string().parse().unwrap());
            let shape = [batch, heads, 0, size];
            (it.name.clone(), Tensor::from_f32(&shape, []))
        });
        let past = empty.collect();
        Decoder { session, past, seen: 0 }
    }

    /// Logits of more tokens; `mask` is of all that were seen.
    fn step(&mut self, ids: Tensor, mask: Tensor, places: Tensor) -> Vec<f32> {
        let count = ids.shape[1];
        let mut given = self.past.clone();
        given.insert("input_ids".into(), ids);
        given.insert("attention_mask".into(), mask);
        given.insert("position_ids".into(), places);
        let outputs = run(&mut *self.session, &given);
        for (name, value) in outputs.iter().filter(|it| it.0.starts_with("present")) {
            let name = name.replace("present", "past_key_values");
            self.past.insert(name, value.clone());
        }
        self.seen += count;
        outputs["logits"].to_f32().unwrap()
    }

    /// The same for one text without padding: the logits of its last token.
    fn next(&mut self, tokens: &[i64]) -> Vec<f32> {
        let total = self.seen + tokens.len();
        let places: Vec<i64> = (self.seen as i64..total as i64).collect();
        let logits = self.step(ids(tokens), ids(&vec![1; total]), ids(&places));
        let width = logits.len() / tokens.len();
        logits[logits.len() - width..].to_vec()
    }
}

/// The largest difference at tokens that are no padding.
fn worst(actual: &[f32], expected: &[f32], mask: &[i64]) -> f32 {
    assert_eq!(actual.len(), expected.len());
    let width = actual.len() / mask.len();
    let rows = actual.chunks(width).zip(expected.chunks(width)).zip(mask);
    let real = rows.filter(|it| *it.1 == 1);
    let differences = real.flat_map(|((a, b), _)| a.iter().zip(b).map(|(a, b)| (a - b).abs()));
    differences.fold(0.0, |worst, it| if it.is_nan() { f32::INFINITY } else { worst.max(it) })
}

#[test]
fn every_checkpoint_computes_what_transformers_does() {
    for folder in folders() {
        let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
        let expected = reference(&folder);
        match expected.contains_key("greedy") {
            true => check_decoder(&name, &folder, &expected),
            false => check_encoder(&name, &folder, &expected),
        }
    }
}

fn check_encoder(name: &str, folder: &Path, expected: &Values) {
    let outputs = run(&mut *session(folder, Form::Standard), expected);
    let mask = expected["attention_mask"].to_i64().unwrap();
    for (output, actual) in &outputs {
        // sentence-transformers calls them so.
        let known = if output == "token_embeddings" { "last_hidden_state" } else { output };
        let expected = expected[known].to_f32().unwrap();
        let texts = vec![1; actual.shape[0]];
        let mask = if actual.shape.len() == 3 { &mask } else { &texts };
        let off = worst(&actual.to_f32().unwrap(), &expected, mask);
        assert!(off <= TOLERANCE, "{name}: {output} differs by {off:e}");
    }
}

/// Whether the release under test computes this form: those that do not are refused by what the model
/// says that it needs.
fn is_computed(name: &str, folder: &Path, form: Form) -> bool {
    let is_computed = computes(&loaded(folder, form).model);
    let windows = ["gemma", "mistral", "phi"];
    let lacks = match form {
        Form::Standard => name == "gemma2",
        Form::GroupQuery => windows.iter().any(|it| name.starts_with(it)),
    };
    assert!(is_computed || lacks, "{name}, {form:?}");
    is_computed
}

fn check_decoder(name: &str, folder: &Path, expected: &Values) {
    // Rotary embeddings are inside of that kernel, which takes multiples of 16 elements.
    let fits = !matches!(name, "gpt2" | "gpt2-prefix" | "phi4-mini");
    if fits && is_computed(name, folder, Form::GroupQuery) {
        check_greedy(name, folder, expected, Form::GroupQuery);
    }
    if is_computed(name, folder, Form::Standard) {
        check_standard(name, folder, expected);
    }
}

fn check_standard(name: &str, folder: &Path, expected: &Values) {
    check_logits(name, folder, expected);
    check_greedy(name, folder, expected, Form::Standard);
    if let (Some(short), Some(logits)) = (expected.get("short_ids"), expected.get("short_logits")) {
        let tokens = short.to_i64().unwrap();
        let places: Vec<i64> = (0..tokens.len() as i64).collect();
        let ones = vec![1; tokens.len()];
        let got =
            Decoder::new(folder, 1, Form::Standard).step(ids(&tokens), ids(&ones), ids(&places));
        let off = worst(&got, &logits.to_f32().unwrap(), &ones);
        assert!(off <= TOLERANCE, "{name}: of a short text, logits differ by {off:e}");
    }
}

/// In one pass, and in pieces with a cache.
fn check_logits(name: &str, folder: &Path, expected: &Values) {
    let part = |it: &str, from, to| columns(&expected[it], from, to);
    let (batch, length) = (expected["input_ids"].shape[0], expected["input_ids"].shape[1]);
    let mask = expected["attention_mask"].to_i64().unwrap();
    let logits = expected["logits"].to_f32().unwrap();
    for cuts in [vec![length], [vec![17, 1, 1, 5], vec![1; length - 24]].concat()] {
        let (mut decoder, mut got, mut at) =
            (Decoder::new(folder, batch, Form::Standard), vec![], 0);
        for count in &cuts {
            let end = at + count;
            let (ids, places) = (part("input_ids", at, end), part("position_ids", at, end));
            got.push(decoder.step(ids, part("attention_mask", 0, end), places));
            at = end;
        }
        let off = worst(&joined(&got, &cuts, batch), &logits, &mask);
        assert!(off <= TOLERANCE, "{name}: in {} pieces, logits differ by {off:e}", cuts.len());
    }
}

/// Pieces of a batch, row by row.
fn joined(pieces: &[Vec<f32>], cuts: &[usize], batch: usize) -> Vec<f32> {
    let row = |row: usize| {
        pieces.iter().zip(cuts).flat_map(move |(it, _)| {
            let size = it.len() / batch;
            it[row * size..(row + 1) * size].to_vec()
        })
    };
    (0..batch).flat_map(row).collect()
}

fn check_greedy(name: &str, folder: &Path, expected: &Values, form: Form) {
    let (mut decoder, greedy) =
        (Decoder::new(folder, 1, form), expected["greedy"].to_i64().unwrap());
    let mut tokens = expected["prompt"].to_i64().unwrap();
    let mut said = Vec::new();
    for _ in &greedy {
        let logits = decoder.next(&tokens);
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b])).unwrap();
        tokens = vec![best as i64];
        said.push(best as i64);
    }
    assert_eq!(said, greedy, "{name}, {form:?}");
}

/// A checkpoint as a GGUF file of its own types, if llama.cpp can compute all of it.
fn as_gguf(folder: &Path, to: &Path) -> bool {
    let checkpoint = Checkpoint::open(folder, ExternalPolicy::Contained).unwrap();
    let Ok(export) = checkpoint.export() else { return false };
    let mut writer = Writer::default();
    writer.value("general.architecture", export.architecture);
    export.metadata.iter().for_each(|(key, value)| writer.value(key, value.clone()));
    for tensor in &export.tensors {
        writer.rounded(&tensor.name, GgmlType::F32, &tensor.floats()).unwrap();
    }
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    fs::write(to, bytes).unwrap();
    export.notes.is_empty()
}

#[test]
fn decoders_compute_the_same_from_a_gguf_file() {
    let mut names = Vec::new();
    for folder in folders() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("model.gguf");
        if as_gguf(&folder, &file) {
            let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
            if is_computed(&name, &file, Form::Standard) {
                check_logits(&name, &file, &reference(&folder));
            }
            names.push(name);
        }
    }
    for name in ["gpt2", "gpt2-prefix", "llama", "llama3", "phi3", "qwen3"] {
        assert!(names.iter().any(|written| written == name), "{names:?}");
    }
}

#[test]
fn configurations_of_both_generations_mean_the_same() {
    let print = |folder: &Path| {
        let loaded = formats::open(folder, &OpenOptions::default()).unwrap();
        text::print(&loaded.model)
    };
    let mut both = 0;
    for folder in folders().iter().filter(|it| it.join("config_v5.json").exists()) {
        let copy = tempfile::tempdir().unwrap();
        fs::copy(folder.join("config_v5.json"), copy.path().join("config.json")).unwrap();
        let weights = "model.safetensors";
        fs::copy(folder.join(weights), copy.path().join(weights)).unwrap();
        assert_eq!(print(copy.path()), print(folder), "{}", folder.display());
        both += 1;
    }
    assert!(both >= 3);
}

#[test]
fn every_architecture_has_a_checkpoint() {
    let types = folders().into_iter().map(|it| {
        let config = fs::read(it.join("config.json")).unwrap();
        let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
        config["model_type"].as_str().unwrap().to_owned()
    });
    let types: Vec<String> = types.collect();
    for family in ARCHITECTURES {
        assert!(types.iter().any(|it| it == family.model_type), "{}", family.model_type);
    }
}
