//! Checkpoints of the fixtures, written as llama.cpp's converter writes them, are read as the same.

mod gpt2;

use std::{fs, path::PathBuf};

use onnxq_ir::{
    diag::{Code, Diagnostic},
    onnx::{ExternalPolicy, OpenOptions},
    tensor::{DType, Tensor},
};

use super::super::Checkpoint;
use crate::gguf::{File, GgmlType, Value, Writer};

/// A fixture of checkpoints, and how its family is written.
struct Case {
    fixture: &'static str,
    architecture: &'static str,
    /// Rows of queries and keys lie in pairs: heads of both.
    pairs: Option<[usize; 2]>,
    /// Whether 1 is added to norms.
    raised: bool,
    /// What the keys of all families do not say.
    extra: Vec<(&'static str, Value)>,
    /// Factors of frequencies by their tensor.
    factors: Vec<(&'static str, Vec<f32>)>,
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/checkpoints").join(name)
}

fn case(fixture: &'static str, architecture: &'static str) -> Case {
    let (extra, factors) = (Vec::new(), Vec::new());
    Case { fixture, architecture, pairs: None, raised: false, extra, factors }
}

fn cases() -> Vec<Case> {
    let linear = |prefix: &str, factor: f32| -> Vec<(&'static str, Value)> {
        match prefix {
            "llama" => vec![
                ("llama.rope.scaling.type", "linear".into()),
                ("llama.rope.scaling.factor", factor.into()),
            ],
            _ => vec![
                ("gemma3.rope.scaling.type", "linear".into()),
                ("gemma3.rope.scaling.factor", factor.into()),
                ("gemma3.attention.sliding_window", 8u32.into()),
                ("gemma3.attention.sliding_window_pattern", 3u32.into()),
            ],
        }
    };
    let pairs = Some([4, 2]);
    vec![
        Case { pairs, ..case("llama", "llama") },
        Case { pairs, extra: linear("llama", 2.0), ..case("llama-bias", "llama") },
        // The converter takes the width of feed-forward parts from no field.
        Case { extra: vec![("gpt2.feed_forward_length", 192u32.into())], ..case("gpt2", "gpt2") },
        case("gpt2-prefix", "gpt2"),
        case("qwen2", "qwen2"),
        case("qwen3", "qwen3"),
        Case { raised: true, ..case("gemma", "gemma") },
        Case {
            raised: true,
            extra: vec![
                ("gemma2.attention.sliding_window", 8u32.into()),
                ("gemma2.attn_logit_softcapping", 5.0f32.into()),
                ("gemma2.final_logit_softcapping", 8.0f32.into()),
            ],
            ..case("gemma2", "gemma2")
        },
        Case { raised: true, extra: linear("gemma3", 8.0), ..case("gemma3", "gemma3") },
        Case {
            extra: vec![
                ("phi3.attention.sliding_window", 8u32.into()),
                ("phi3.rope.scaling.original_context_length", 128u32.into()),
            ],
            ..case("phi3", "phi3")
        },
        Case {
            extra: vec![
                ("phi3.attention.sliding_window", 262_144u32.into()),
                ("phi3.rope.scaling.original_context_length", 16u32.into()),
            ],
            factors: vec![
                (
                    "rope_factors_long.weight",
                    vec![1.0, 1.378, 2.069, 2.964, 4.0237, 5.2258, 6.5549, 8.0],
                ),
                ("rope_factors_short.weight", vec![1.0, 1.05, 1.1, 1.15, 1.2, 1.25, 1.3, 1.35]),
            ],
            ..case("phi3-longrope", "phi3")
        },
    ]
}

/// What is called otherwise there.
fn theirs(name: &str) -> String {
    if let Some(name) = gpt2::theirs(name) {
        return name;
    }
    if !name.starts_with("model.layers.") || !name.contains("feedforward") {
        return usual(name);
    }
    name.replace("model.layers.", "blk.")
        .replace("pre_feedforward_layernorm", "ffn_norm")
        .replace("post_feedforward_layernorm", "post_ffw_norm")
}

fn usual(name: &str) -> String {
    let table = [
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("model.layers.", "blk."),
        ("post_attention_layernorm", "ffn_norm"),
        ("input_layernorm", "attn_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.qkv_proj", "attn_qkv"),
        ("mlp.gate_up_proj", "ffn_up"),
        ("self_attn.o_proj", "attn_output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ];
    table.iter().fold(name.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Rows as llama.cpp pairs them: `reshape(heads, 2, size / 2).swapaxes(1, 2)`.
fn paired(values: &[f32], rows: usize, heads: usize) -> Vec<f32> {
    let (width, size) = (values.len() / rows, rows / heads);
    let mut out = Vec::new();
    for head in 0..heads {
        for pair in 0..size / 2 {
            for half in 0..2 {
                let row = head * size + half * (size / 2) + pair;
                out.extend_from_slice(&values[row * width..][..width]);
            }
        }
    }
    out
}

fn stored(case: &Case, name: &str, tensor: &Tensor) -> Tensor {
    let mut values = tensor.to_f32().unwrap();
    if case.architecture == "gpt2" && name.contains(".c_") && tensor.shape.len() == 2 {
        let (inputs, outputs) = (tensor.shape[0], tensor.shape[1]);
        let row = |out: usize| values.iter().skip(out).step_by(outputs).copied();
        return Tensor::from_f32(&[outputs, inputs], (0..outputs).flat_map(row));
    }
    let heads = match case.pairs {
        Some([heads, _]) if name.contains("q_proj") => Some(heads),
        Some([_, heads]) if name.contains("k_proj") => Some(heads),
        _ => None,
    };
    if let Some(heads) = heads {
        values = paired(&values, tensor.shape[0], heads);
    }
    if case.raised && name.contains("norm") {
        values.iter_mut().for_each(|it| *it += 1.0);
    }
    Tensor::from_f32(&tensor.shape, values)
}

/// The file that llama.cpp's converter would make.
fn written(case: &Case, checkpoint: &Checkpoint, extra: &[(&str, Value)]) -> Vec<u8> {
    let config = fs::read(fixture(case.fixture).join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_slice(&config).unwrap();
    let mut to = Writer::default();
    to.value("general.architecture", case.architecture);
    let keys = [
        ("block_count", "num_hidden_layers"),
        ("embedding_length", "hidden_size"),
        ("feed_forward_length", "intermediate_size"),
        ("attention.head_count", "num_attention_heads"),
        ("attention.head_count_kv", "num_key_value_heads"),
        ("attention.key_length", "head_dim"),
        ("attention.value_length", "head_dim"),
        ("context_length", "max_position_embeddings"),
        ("block_count", "n_layer"),
        ("embedding_length", "n_embd"),
        ("feed_forward_length", "n_inner"),
        ("attention.head_count", "n_head"),
        ("context_length", "n_ctx"),
    ];
    let own = |key: &str| format!("{}.{key}", case.architecture);
    for (key, field) in keys {
        if let Some(value) = config[field].as_u64() {
            to.value(&own(key), u32::try_from(value).unwrap());
        }
    }
    for (key, field) in [
        ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
        ("attention.layer_norm_epsilon", "layer_norm_epsilon"),
        ("rope.freq_base", "rope_theta"),
    ] {
        if let Some(value) = config[field].as_f64() {
            to.value(&own(key), value as f32);
        }
    }
    for (key, value) in case.extra.iter().chain(extra) {
        to.value(key, value.clone());
    }
    let mut names: Vec<&str> = checkpoint.weights.names().collect();
    names.sort_unstable();
    for name in names {
        let param = checkpoint.architecture.params().into_iter().find(|it| it.name == name);
        let Some(param) = param else { continue };
        let whole = crate::Param { rows: None, ..param.clone() };
        let tensor = stored(case, name, &checkpoint.weights.get(&whole));
        let mut theirs = theirs(name);
        // Gemma 2 and 3 have a norm after attention, and another one before the feed-forward part.
        if case.fixture.starts_with("gemma") && case.fixture != "gemma" {
            let is_after = name.ends_with("post_attention_layernorm.weight");
            theirs =
                if is_after { theirs.replace("ffn_norm", "post_attention_norm") } else { theirs };
        }
        to.rounded(&theirs, GgmlType::F32, &tensor).unwrap();
    }
    for (name, factors) in &case.factors {
        let tensor = Tensor::from_f32(&[factors.len()], factors.iter().copied());
        to.rounded(name, GgmlType::F32, &tensor).unwrap();
    }
    let mut bytes = Vec::new();
    to.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn files_are_read_as_the_checkpoints_that_they_were_made_of() {
    for case in cases() {
        let there = fixture(case.fixture);
        let checkpoint = Checkpoint::open(&there, ExternalPolicy::Contained).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, written(&case, &checkpoint, &[])).unwrap();
        let read = Checkpoint::open_gguf(&path, ExternalPolicy::Contained)
            .unwrap_or_else(|error| panic!("{}: {error}", case.fixture));
        let (ours, theirs) = (checkpoint.architecture.params(), read.architecture.params());
        assert_eq!(ours.len(), theirs.len(), "{}", case.fixture);
        for (a, b) in ours.into_iter().zip(theirs) {
            let values = |of: &Checkpoint, param| -> Vec<f32> {
                let plus = of.weights.plus(param);
                let values = of.weights.get(param).to_f32().unwrap();
                values.into_iter().map(|it| it + plus).collect()
            };
            // Older checkpoints of GPT-2 do not begin names so.
            assert_eq!(
                a.name,
                b.name
                    .strip_prefix("transformer.")
                    .filter(|_| case.fixture == "gpt2")
                    .unwrap_or(&b.name)
            );
            assert_eq!(values(&checkpoint, a), values(&read, b), "{}: {}", case.fixture, a.name);
        }
        let rotaries = |it: &Checkpoint| it.architecture.rotaries.clone();
        assert_eq!(rotaries(&checkpoint), rotaries(&read), "{}", case.fixture);
        let seen = |it: &Checkpoint| -> Vec<(Option<usize>, Option<f32>)> {
            let body = it.architecture.blocks.iter().map(|it| &it.attention.body);
            body.map(|it| (it.window, it.softcap)).collect()
        };
        assert_eq!(seen(&checkpoint), seen(&read), "{}", case.fixture);
        let model = crate::open(&path, &OpenOptions::default()).unwrap().model;
        let other = crate::open(&there, &OpenOptions::default()).unwrap().model;
        assert_eq!(model.nodes().len(), other.nodes().len(), "{}", case.fixture);
    }
}

/// What [`Checkpoint::export`] makes, as a file of floats.
fn exported(checkpoint: &Checkpoint, architecture: &str) -> Vec<u8> {
    let export = checkpoint.export().unwrap();
    let mut to = Writer::default();
    to.value("general.architecture", architecture);
    export.metadata.iter().for_each(|(key, value)| to.value(key, value.clone()));
    for tensor in &export.tensors {
        to.rounded(&tensor.name, GgmlType::F32, &tensor.floats()).unwrap();
    }
    let mut bytes = Vec::new();
    to.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn files_are_written_as_llama_cpp_writes_them() {
    let parse = |bytes: Vec<u8>| File::parse(&bytes.into(), "model.gguf").unwrap();
    let llama3 = Case { pairs: Some([4, 2]), ..case("llama3", "llama") };
    let mistral = Case { pairs: Some([4, 2]), ..case("mistral", "llama") };
    for case in cases().into_iter().chain([llama3, mistral]) {
        let there = fixture(case.fixture);
        let mut checkpoint = Checkpoint::open(&there, ExternalPolicy::Contained).unwrap();
        // llama.cpp scales scores by the size of heads, whatever a configuration says.
        for block in checkpoint.architecture.blocks.iter_mut().map(|it| &mut it.attention.body) {
            let usual = (block.head_size as f32).powf(-0.5);
            let is_usual = (block.scale / usual - 1.0).abs() < 1e-6;
            assert!(is_usual || case.fixture.starts_with("gemma"), "{}", case.fixture);
            block.scale = usual;
        }
        let own = exported(&checkpoint, case.architecture);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        fs::write(&path, &own).unwrap();
        let (own, theirs) = (parse(own), parse(written(&case, &checkpoint, &[])));
        for (name, info) in theirs.tensors() {
            // Of lists of factors the expected ones are rounded.
            let values = |it: &File| it.tensor(name).unwrap().to_f32().unwrap();
            assert_eq!(own.info(name).map(|it| &it.shape), Some(&info.shape), "{name}");
            let near = |(a, b): (&f32, &f32)| match case.factors.is_empty() {
                true => a == b,
                false => (a - b).abs() <= 1e-6 * b.abs(),
            };
            assert!(values(&own).iter().zip(&values(&theirs)).all(near), "{name}");
        }
        // What counts only for stretched contexts is not there without them.
        let counts = |it: &&str| case.fixture != "phi3" || !it.contains("original_context");
        for (key, value) in theirs.metadata().filter(|it| counts(&it.0)) {
            assert_eq!(own.value(key), Some(value), "{}: {key}", case.fixture);
        }
        // It is read as the same architecture.
        let read = Checkpoint::open_gguf(&path, ExternalPolicy::Contained)
            .unwrap_or_else(|error| panic!("{}: {error}", case.fixture));
        for (a, b) in checkpoint.architecture.rotaries.iter().zip(&read.architecture.rotaries) {
            assert_eq!((a.size, a.base, a.magnitude), (b.size, b.base, b.magnitude));
            let pairs = a.frequencies.iter().zip(&b.frequencies);
            assert!(pairs.into_iter().all(|(a, b)| (a / b - 1.0).abs() < 1e-6), "{}", case.fixture);
        }
        let seen = |it: &Checkpoint| -> Vec<(Option<usize>, Option<f32>, f32)> {
            let body = it.architecture.blocks.iter().map(|it| &it.attention.body);
            body.map(|it| (it.window, it.softcap, it.scale)).collect()
        };
        if case.fixture != "mistral" {
            assert_eq!(seen(&checkpoint), seen(&read), "{}", case.fixture);
        }
    }
}

#[test]
fn what_llama_cpp_cannot_compute_is_not_written() {
    let open = |it: &str| Checkpoint::open(&fixture(it), ExternalPolicy::Contained).unwrap();
    let error = open("gemma2").export().err().expect("another scale of scores");
    assert_eq!(error.code(), Code::E121);
    assert!(error.to_string().contains("scales scores by 1 / sqrt(32)"), "{error}");
    let error = open("minilm").export().err().expect("no decoder");
    assert_eq!(error.code(), Code::E122);
    assert_eq!(error.to_string(), "there are no GGUF files of `bert`");
}

#[test]
fn frequencies_are_divided_by_their_factors() {
    let there = Checkpoint::open(&fixture("llama3"), ExternalPolicy::Contained).unwrap();
    let plain = |it: usize| 1.0 / 500_000f32.powf((2 * it) as f32 / 16.0);
    let own = &there.architecture.rotaries[0].frequencies;
    let factors = own.iter().enumerate().map(|(at, it)| plain(at) / it).collect();
    let factors = vec![("rope_freqs.weight", factors)];
    let case = Case { pairs: Some([4, 2]), factors, ..case("llama3", "llama") };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    fs::write(&path, written(&case, &there, &[])).unwrap();
    let read = Checkpoint::open_gguf(&path, ExternalPolicy::Contained).unwrap();
    let pairs = own.iter().zip(&read.architecture.rotaries[0].frequencies);
    assert!(pairs.clone().any(|(a, _)| *a != plain(0)), "they are stretched");
    for (a, b) in pairs {
        assert!((a / b - 1.0).abs() < 1e-6, "{a} {b}");
    }
}

#[test]
fn what_is_not_known_is_said_by_the_names_of_the_file() {
    let case = Case { pairs: Some([4, 2]), ..case("llama", "llama") };
    let checkpoint = Checkpoint::open(&fixture("llama"), ExternalPolicy::Contained).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let refused = |extra: &[(&str, Value)]| {
        fs::write(&path, written(&case, &checkpoint, extra)).unwrap();
        Checkpoint::open_gguf(&path, ExternalPolicy::Contained).err().expect("an error")
    };
    let error = refused(&[("llama.expert_count", Value::from(8u32))]);
    assert_eq!(error.code(), Code::E122);
    assert!(error.to_string().starts_with("model.gguf: `llama.expert_count` is 8"), "{error}");
    let error = refused(&[("llama.rope.scaling.type", Value::from("yarn"))]);
    assert_eq!(error.code(), Code::E122);
    assert!(error.to_string().contains("yarn"), "{error}");
    // llama.cpp takes a factor without a type for linear, which this file then is not read without.
    let factor = [("llama.rope.scaling.factor", Value::from(2.0f32))];
    fs::write(&path, written(&case, &checkpoint, &factor)).unwrap();
    let read = Checkpoint::open_gguf(&path, ExternalPolicy::Contained).unwrap();
    assert_eq!(read.architecture.rotaries[0].frequencies[0], 0.5);
    let unused = ("llama.rope.scaling.attn_factor", Value::from(2.0f32));
    let error = refused(&[factor[0].clone(), unused]);
    assert_eq!(error.code(), Code::E122);
    assert!(error.to_string().contains("llama.rope.scaling.attn_factor"), "{error}");
    // A folder for clients needs its tokenizer, which is not read of such a file.
    let error = Checkpoint::open(&path, ExternalPolicy::Contained).err().expect("an error");
    assert_eq!(error.code(), Code::E122);
    assert_eq!(DType::F32, checkpoint.weights.get(checkpoint.architecture.params()[0]).dtype);
}
