//! `distil`: what is written is what was trained, whatever happens in between.

use std::{
    collections::BTreeMap,
    fs,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use crate::common::{
    arrays::{noise, npy, rows},
    checkpoints, computed, fixture,
    outside::{Place, Run, run},
    runtime,
};
use onnxq_ir::{
    Model, ValueId,
    ctx::Ctx,
    onnx::{self, SaveOptions},
    tensor::Tensor,
};
use onnxq_pipeline::{
    self as pipeline, Destination, Inputs, Job, Opened, OutputFile, Quantized,
    distil::{Cut, Distil, Lessons, distil},
};
use onnxq_quant::recipe::{self, DistilSpec, Group};
use onnxq_run::data::{
    Dataset,
    training::{Example, TrainingData},
};
use serde_json::Value;

const TOKENS: usize = 32;
const TRAIN: usize = 40;
const HELD_OUT: usize = 4;

fn data(name: &str) -> String {
    fixture(name).to_str().unwrap().to_owned()
}

fn load(path: &str) -> Model {
    onnx::open(path.as_ref(), &Default::default()).unwrap().model
}

/// Two bits, a few steps, and more arguments.
fn recovered(output: &str, more: &[&str]) -> Run {
    let (model, samples) = (data("model.onnx"), data("calibration_input_ids.npy"));
    let common = ["quantize", &model, "-r", "int2_recovered", "--calibration", &samples, "-f"];
    let few = ["--calibration-samples", "4", "--set", "distil.every=2", "-o", output];
    run(&[&common[..], &few, more].concat())
}

/// `distil` with a model and more arguments.
fn student(model: &str, output: &str, more: &[&str]) -> Run {
    run(&[&["distil", model, "-f", "-o", output][..], more].concat())
}

/// Samples of the fixture's text; all of their tokens count.
fn examples() -> TrainingData {
    let bytes = fs::read(fixture("calibration_input_ids.npy")).unwrap();
    let example = |at: usize| Example {
        ids: rows(&bytes, &[at], TOKENS).to_i64().unwrap(),
        counts: vec![true; TOKENS],
        label: None,
    };
    TrainingData {
        train: (0..TRAIN).map(example).collect(),
        held_out: (TRAIN..TRAIN + HELD_OUT).map(example).collect(),
        ..TrainingData::default()
    }
}

fn sample(example: &Example) -> BTreeMap<String, Tensor> {
    let row = |values: &mut dyn Iterator<Item = i64>| Tensor::from_i64(&[1, TOKENS], values);
    [
        ("input_ids".to_owned(), row(&mut example.ids.iter().copied())),
        ("attention_mask".to_owned(), row(&mut std::iter::repeat_n(1, TOKENS))),
    ]
    .into()
}

/// The mean KL of held-out samples in ONNX Runtime, where a next token is known.
fn kl(float: &Model, other: &Model, data: &TrainingData) -> f64 {
    let (mut sum, mut count) = (0.0, 0);
    for example in &data.held_out {
        let inputs = sample(example);
        let [p, q] = [float, other].map(|it| {
            let logits = computed(it, &inputs).unwrap().swap_remove(0).1;
            let width = *logits.shape.last().unwrap();
            let values = logits.to_f32().unwrap();
            values.chunks(width).map(log_softmax).collect::<Vec<_>>()
        });
        for (p, q) in p.iter().zip(&q).take(TOKENS - 1) {
            sum += p.iter().zip(q).map(|(p, q)| p.exp() * (p - q)).sum::<f64>();
            count += 1;
        }
    }
    sum / f64::from(count)
}

fn log_softmax(row: &[f32]) -> Vec<f64> {
    let most = row.iter().fold(f64::MIN, |most, it| most.max(f64::from(*it)));
    let sum: f64 = row.iter().map(|it| (f64::from(*it) - most).exp()).sum();
    row.iter().map(|it| f64::from(*it) - most - sum.ln()).collect()
}

fn spec() -> DistilSpec {
    DistilSpec { steps: 6, every: 3, sequence: TOKENS, ..DistilSpec::default() }
}

#[test]
fn the_loss_of_a_recovered_model_in_onnx_runtime_is_the_trainers() {
    let place = Place::new();
    let mut recipe = recipe::load("int2_recovered").unwrap();
    recipe.distil = Some(spec());
    let (data, path) = (Arc::new(examples()), place.path("q.onnx"));
    let few = data.train.iter().take(4).map(sample).collect();
    let save = SaveOptions::default();
    let inputs = Inputs {
        data: Some(Dataset::of_samples(few)),
        training: Some(Lessons::Texts(data.clone())),
        output: OutputFile { path: Some((&path).into()), save },
        runtime: runtime(),
        ..Inputs::default()
    };
    let ctx = Ctx::silent();
    let job = Job { recipe: &recipe, inputs: &inputs, ctx: &ctx };
    let opened = Opened::read(&fixture("model.onnx"), &Default::default(), &ctx).unwrap();
    let outcome = match pipeline::quantize(opened, &job).unwrap() {
        Quantized::Lowered(it) => it.write(path.as_ref(), &save, &job).unwrap(),
        Quantized::Nothing(_) => panic!("nothing to quantize"),
    };
    let learnt = outcome.distil.unwrap();
    let mut written = load(&path);
    // The kernel that rounds activations to int8 is no part of what is trained.
    let nodes: Vec<_> = written.nodes_of(written.main).collect();
    for node in nodes {
        if written.node(node).op.is("com.microsoft.MatMulNBits") {
            written.node_mut(node).attrs.set("accuracy_level", 1i64.into());
        }
    }
    let measured = kl(&load(&self::data("model.onnx")), &written, &data);
    assert!(learnt.after < learnt.before && learnt.held_out == HELD_OUT, "{learnt:?}");
    assert!((measured - learnt.after).abs() < 1e-4, "{measured} {}", learnt.after);
}

#[test]
fn the_loss_of_a_smaller_model_in_onnx_runtime_is_the_trainers() {
    let place = Place::new();
    let (data, path) = (Arc::new(examples()), place.path("s.onnx"));
    let few = data.train.iter().take(4).map(sample).collect();
    let inputs =
        Inputs { data: Some(Dataset::of_samples(few)), runtime: runtime(), ..Inputs::default() };
    let spec = DistilSpec { train: vec![Group::Norms, Group::Weights], ..spec() };
    let ctx = Ctx::silent();
    let done = distil(
        Distil {
            student: Opened::read(&fixture("model.onnx"), &Default::default(), &ctx).unwrap(),
            teacher: None,
            cut: Some(Cut::Layers(3)),
            spec: &spec,
            lessons: Lessons::Texts(data.clone()),
            inputs: &inputs,
            place: Destination {
                path: path.as_ref(),
                save: SaveOptions::default(),
                allow_refused: false,
                runtime: runtime(),
            },
        },
        &ctx,
    )
    .unwrap();
    let measured = kl(&load(&self::data("model.onnx")), &load(&path), &data);
    assert!((measured - done.learnt.after).abs() < 1e-4, "{measured} {}", done.learnt.after);
}

#[test]
fn only_scales_and_norms_change_and_threads_change_nothing() {
    let place = Place::new();
    let [plain, one, two] = ["plain.onnx", "one.onnx", "two.onnx"].map(|it| place.path(it));
    assert_eq!(recovered(&plain, &["--set", "distil=null"]).code, 0);
    let steps = ["--set", "distil.steps=4"];
    let ran = [("1", &one), ("2", &two)].map(|(threads, output)| {
        recovered(output, &[&steps[..], &["--threads", threads, "--json"]].concat()).json()
    });
    assert_eq!(ran[0]["quantize"]["distil"], ran[1]["quantize"]["distil"]);
    assert!(fs::read(&one).unwrap() == fs::read(&two).unwrap(), "threads change the result");

    let [plain, trained] = [load(&plain), load(&one)];
    let ops = |m: &Model| -> Vec<String> {
        m.nodes_of(m.main).map(|it| m.node(it).op.to_string()).collect()
    };
    assert_eq!(ops(&plain), ops(&trained));
    let constants = |m: &Model| -> BTreeMap<String, Tensor> {
        m.constants().map(|(id, it)| (m.value(id).name.to_string(), it.clone())).collect()
    };
    let (plain, trained) = (constants(&plain), constants(&trained));
    assert!(plain.keys().eq(trained.keys()));
    let mut changed = 0;
    for (name, tensor) in &plain {
        let same = tensor.bytes().unwrap() == trained[name].bytes().unwrap();
        assert!(same || tensor.dtype.is_float(), "{name} has other codes");
        changed += usize::from(!same);
    }
    // 29 weights and a table have scales; nine norms.
    assert!((30..=39).contains(&changed), "{changed} of {}", plain.len());
}

#[test]
fn a_training_that_is_killed_goes_on_to_the_same_bytes() {
    let place = Place::new();
    let (whole, killed) = (place.path("whole.onnx"), place.path("killed.onnx"));
    let steps = ["--set", "distil.steps=12"];
    assert_eq!(recovered(&whole, &steps).code, 0);
    let mut child = Command::new(env!("CARGO_BIN_EXE_onnxq"))
        .args(["quantize", &data("model.onnx"), "-r", "int2_recovered", "--calibration"])
        .args([&data("calibration_input_ids.npy"), "--calibration-samples", "4", "-f"])
        .args(["--set", "distil.every=2", "-o", &killed])
        .args(steps)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let (state, start) = (place.path("killed.onnx.train"), Instant::now());
    while fs::metadata(&state).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "it ended before it could be killed");
        assert!(start.elapsed() < Duration::from_secs(60), "no state is written");
        thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(fs::metadata(&killed).is_err() && fs::metadata(&state).is_ok());

    // Of another training, then damaged.
    for damage in [false, true] {
        let other = if damage { "distil.seed=0" } else { "distil.seed=1" };
        let before = fs::read(&state).unwrap();
        if damage {
            fs::write(&state, &before[..before.len() / 2]).unwrap();
        }
        let refused = recovered(&killed, &[&steps[..], &["--set", other]].concat());
        assert!(refused.code == 2 && refused.error.contains("error[E643]"), "{}", refused.error);
        let hint = format!("hint: delete `{state}` to begin anew");
        assert!(refused.error.contains(&hint), "{}", refused.error);
        fs::write(&state, before).unwrap();
    }

    let resumed = recovered(&killed, &steps);
    assert_eq!(resumed.code, 0, "{}", resumed.error);
    assert!(fs::read(&killed).unwrap() == fs::read(&whole).unwrap(), "resuming changes the result");
    assert_eq!(place.files(), ["killed.onnx", "whole.onnx"]);
}

#[test]
fn nothing_is_written_if_nothing_is_gained() {
    let place = Place::new();
    let rates = ["--set", "distil.learning_rate.scales=1.0", "--set", "distil.steps=2"];
    let ran = recovered(&place.path("q.onnx"), &rates);
    assert!(ran.code == 6 && ran.error.contains("[N003]"), "{}", ran.error);
    assert!(place.files().is_empty(), "{:?}", place.files());
}

#[test]
fn a_student_of_fewer_layers_has_the_same_inputs_and_outputs() {
    let place = Place::new();
    let samples = data("calibration_input_ids.npy");
    let few = ["--data", &samples, "--calibration-samples", "2", "--steps", "4", "--json"];
    for (model, caches) in [("model.onnx", 0), ("model_with_past.onnx", 4)] {
        let path = place.path("s.onnx");
        let ran = student(&data(model), &path, &[&["--student", "layers=2"], &few[..]].concat());
        let ran = ran.json();
        assert_eq!(
            (&ran["schema"], ran["layers"]["removed"].as_array().unwrap().len()),
            (&"onnxq.distil/1".into(), 2)
        );
        falls(&ran["learnt"]);
        let (teacher, own) = (load(&data(model)), load(&path));
        let ports = |m: &Model, ids: &[ValueId]| -> Vec<String> {
            let shown = |it: &ValueId| {
                let value = m.value(*it);
                format!("{} {:?}", value.name, value.ty)
            };
            ids.iter().map(shown).collect()
        };
        let of = |m: &Model| {
            let graph = m.graph(m.main);
            [ports(m, &graph.inputs), ports(m, &graph.outputs)]
        };
        for (all, left) in of(&teacher).iter().zip(of(&own)) {
            // Caches of the layers that are left are numbered from 0.
            assert_eq!(left.len(), all.len() - caches, "{left:?}");
            assert_eq!(left, all[..left.len()], "{model}");
        }
        let attentions = own.nodes_of(own.main).filter(|it| own.node(*it).op.is("Attention"));
        assert_eq!(attentions.count(), 2);
        let metadata: Value =
            serde_json::from_str(&own.metadata.iter().find(|it| it.0 == "onnxq.distil").unwrap().1)
                .unwrap();
        assert_eq!(metadata["after"], ran["learnt"]["after"]);
    }
}

#[test]
fn a_size_holds_with_what_training_says_of_itself() {
    let place = Place::new();
    let (model, samples, path) =
        (data("model.onnx"), data("calibration_input_ids.npy"), place.path("q.onnx"));
    let most = 640_000;
    let from = ["quantize", &model, "-r", "int4_recovered", "--calibration", &samples];
    let few = ["--calibration-samples", "8", "--set", "calibration.sequential=false"];
    let train =
        ["--set", "distil.steps=2", "--set", "distil.every=1", "--set", "distil.held_out=2"];
    let rate = ["--set", "distil.learning_rate.scales=0.0001"];
    let size = most.to_string();
    let to = ["--max-size", &size, "-f", "-o", &path];
    let ran = run(&[&from[..], &few, &train, &rate, &to].concat());
    assert_eq!(ran.code, 0, "{}", ran.error);
    let written = load(&path);
    assert!(written.metadata.iter().any(|it| it.0 == "onnxq.distil" && it.1.contains("after")));
    let bytes = fs::metadata(&path).unwrap().len();
    assert!(bytes <= most && bytes > most * 9 / 10, "{bytes}");
}

#[test]
fn weights_of_some_names_stay() {
    let place = Place::new();
    let (model, samples, path) =
        (data("model.onnx"), data("calibration_input_ids.npy"), place.path("s.onnx"));
    let few = ["--student", "layers=3", "--data", &samples, "--calibration-samples", "2"];
    let steps = ["--steps", "4", "--freeze", "*embed_tokens*", "--json"];
    let frozen = student(&model, &path, &[&few[..], &steps].concat());
    let count = frozen.json()["learnt"]["trained_numbers"].as_u64().unwrap();
    let table = |path: &str| {
        let m = load(path);
        let found = m.constants().find(|it| m.value(it.0).name.contains("embed_tokens")).unwrap();
        found.1.bytes().unwrap()
    };
    assert!(table(&model) == table(&path));
    let all = student(&model, &path, &[&few[..], &steps[..2], &steps[4..]].concat());
    let whole = all.json()["learnt"]["trained_numbers"].as_u64().unwrap();
    assert_eq!(whole - count, table(&model).len() as u64 / 4);
    assert!(table(&model) != table(&path));
    let ran = student(&model, &path, &[&few[..], &["--freeze", "nothing*"]].concat());
    assert!(ran.code == 2 && ran.error.contains("error[E641]: `distil.freeze`"), "{}", ran.error);
    assert!(ran.error.contains("hint: names of weights are `"), "{}", ran.error);
}

#[test]
fn hidden_states_count_in_training_and_not_in_a_look() {
    let place = Place::new();
    let (model, samples) = (data("model.onnx"), data("calibration_input_ids.npy"));
    let few = ["--data", &samples, "--calibration-samples", "2", "--steps", "4", "--json"];
    for cut in ["layers=2", "width=64"] {
        let [with, without] = [&["--hidden", "1"][..], &[]].map(|more| {
            let path = place.path("s.onnx");
            let ran = student(&model, &path, &[&["--student", cut], &few[..], more].concat());
            (ran.json()["learnt"].clone(), load(&path))
        });
        falls(&with.0);
        let [a, b] = [&with, &without].map(|it| (it.0["before"].as_f64(), it.0["after"].as_f64()));
        assert_eq!(a.0, b.0, "the outputs alone are looked at");
        assert_ne!(a.1, b.1, "{cut}");
        // No state is left as an output.
        let count = |m: &Model| m.graph(m.main).outputs.len();
        assert_eq!(count(&with.1), count(&without.1));
        let told = |m: &Model| {
            m.metadata
                .iter()
                .find(|it| it.0 == "onnxq.recipe_yaml")
                .unwrap()
                .1
                .contains("hidden: 1")
        };
        assert!(told(&with.1) && !told(&without.1));
    }
    let ran = recovered(&place.path("q.onnx"), &["--set", "distil.hidden=1"]);
    assert!(ran.code == 2 && ran.error.contains("error[E641]: `distil.hidden`"), "{}", ran.error);
}

fn falls(learnt: &Value) {
    let [before, after] = ["before", "after"].map(|it| learnt[it].as_f64().unwrap());
    assert!(after < before, "{learnt}");
    let curve = learnt["curve"].as_array().unwrap();
    assert!(curve.len() >= 2 && curve[0]["held_out"] == learnt["before"], "{learnt}");
}

#[test]
fn a_narrower_student_learns_from_its_model() {
    let place = Place::new();
    let samples = data("calibration_input_ids.npy");
    let few = ["--data", &samples, "--calibration-samples", "2", "--steps", "4", "--json"];
    let width = [&["--student", "width=176"], &few[..]].concat();
    let ran = student(&data("model.onnx"), &place.path("w.onnx"), &width).json();
    falls(&ran["learnt"]);
    assert!(ran["after"]["bytes"].as_u64() < ran["before"]["bytes"].as_u64(), "{ran}");
}

/// A classifier with a tokenizer of a few words, and lines that it learns from.
fn classifier(place: &Place) -> (String, String) {
    let (checkpoint, folder) = (checkpoints().join("bert-classifier"), place.path("classifier"));
    let ran = run(&["import", checkpoint.to_str().unwrap(), "-o", &folder]);
    assert_eq!(ran.code, 0, "{}", ran.error);
    let tokenizer = r#"{"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "unk_token": "?",
        "vocab": {"?": 0, "good": 1, "bad": 2, "fine": 3, "the": 4, "day": 5, "was": 6}}}"#;
    place.write("classifier/tokenizer.json", tokenizer);
    let words = [("positive", "good"), ("negative", "bad"), ("neutral", "fine")];
    let line = |at: usize| {
        let (label, word) = words[at % 3];
        let text = "the day was ".repeat(1 + at / 12) + &[word].repeat(1 + at % 4).join(" ");
        format!("{{\"text\": \"{text}\", \"label\": \"{label}\"}}\n")
    };
    let lines: String = (0..60).map(line).collect();
    (folder, place.write("labels.jsonl", lines))
}

#[test]
fn classifiers_learn_from_labels() {
    let place = Place::new();
    let (folder, lines) = classifier(&place);
    let how = ["--loss", "ce", "--steps", "30", "--learning-rate", "0.003", "--json"];
    let more = [&["--student", "given", "--data", &lines][..], &how].concat();
    let ran = student(&folder, &place.path("c.onnx"), &more).json();
    let [before, after] = ["before", "after"].map(|at| ran["learnt"][at].as_f64().unwrap());
    assert!(after < 0.2 * before, "{before} {after}");
}

#[test]
fn another_vocabulary_is_refused_and_answers_are_the_way_out() {
    let place = Place::new();
    let (folder, lines) = classifier(&place);
    let other = format!("{folder}/model.onnx");
    let samples = data("calibration_input_ids.npy");
    let (teacher, path) = (data("model.onnx"), place.path("s.onnx"));
    let ran = student(&folder, &path, &["--student", &teacher, "--data", &lines]);
    assert!(ran.code != 0, "{}", ran.error);
    let short = rows(&fs::read(samples).unwrap(), &[0; 20].map(|_| 0), 8);
    let ids = short.to_i64().unwrap().into_iter().enumerate().map(|(at, it)| (it + at as i64) % 99);
    let samples = place.write("ids.npy", npy(&Tensor::from_i64(&[20, 8], ids)));
    let ran = student(&teacher, &path, &["--student", &other, "--data", &samples]);
    assert!(ran.code != 0 && ran.error.contains("error[E644]"), "{}", ran.error);
    assert!(ran.error.contains("train the student on the answers with --loss ce"), "{}", ran.error);
}

#[test]
fn without_a_teacher_the_data_must_say_what_is_right() {
    let place = Place::new();
    let (text, tokenizer, path) =
        (data("calibration.txt"), data("tokenizer.json"), place.path("s.onnx"));
    let from = ["--student", "given", "--data", &text, "--tokenizer", &tokenizer, "--window", "32"];
    let few = ["--steps", "12", "--learning-rate", "0.00003"];
    let args = [&from[..], &few].concat();
    let ran = student(&data("model.onnx"), &path, &args);
    assert!(ran.code == 2 && ran.error.contains("error[E641]"), "{}", ran.error);
    assert!(ran.error.contains("hint: add --loss ce"), "{}", ran.error);
    let ran = student(&data("model.onnx"), &path, &[&args[..], &["--loss", "ce"]].concat());
    assert_eq!(ran.code, 0, "{}", ran.error);
    assert!(ran.out.contains("step") && ran.out.contains("written"), "{}", ran.out);
}

#[test]
fn chats_and_answers_are_learnt_where_the_assistant_speaks() {
    let place = Place::new();
    let folder = place.path("chat");
    fs::create_dir(&folder).unwrap();
    for name in ["model.onnx", "tokenizer.json", "config.json"] {
        fs::copy(fixture(name), format!("{folder}/{name}")).unwrap();
    }
    place.write(
        "chat/tokenizer_config.json",
        r#"{"eos_token": "</s>", "chat_template":
            "{% for m in messages %}<s>{{ m.role }}: {{ m.content }}</s>{% endfor %}"}"#,
    );
    let ask = |at: usize| (format!("What is {at}?"), format!("It is the number {at}."));
    let chat = |at: usize| {
        let (prompt, answer) = ask(at);
        format!(
            r#"{{"messages": [{{"role": "user", "content": "{prompt}"}}, {{"role": "assistant", "content": "{answer}"}}]}}"#
        )
    };
    let pair = |at: usize| {
        let (prompt, response) = ask(at);
        format!(r#"{{"prompt": "{prompt}", "response": "{response}"}}"#)
    };
    let lines =
        |line: &dyn Fn(usize) -> String| -> String { (0..40).map(|at| line(at) + "\n").collect() };
    for (name, text) in [("chats.jsonl", lines(&chat)), ("answers.jsonl", lines(&pair))] {
        let file = place.write(name, text);
        let how = ["--loss", "ce", "--steps", "8", "--learning-rate", "0.0001", "--json"];
        let args = [&["--student", "given", "--data", &file][..], &how].concat();
        let ran = student(&folder, &place.path("c.onnx"), &args);
        falls(&ran.json()["learnt"]);
        let counted = ran.error.lines().find(|it| it.contains("of them count")).unwrap();
        assert!(counted.starts_with("40 documents · 38 examples, and 2 held out · "), "{counted}");
    }
    let short = ["--student", "given", "--loss", "ce", "--window", "4"];
    let file = place.path("answers.jsonl");
    let args = [&short[..], &["--data", &file]].concat();
    let ran = student(&folder, &place.path("d.onnx"), &args);
    assert!(ran.error.contains("error[E606]"), "{}", ran.error);
    assert!(ran.error.contains("hint: take more tokens of each: --window 16"), "{}", ran.error);
}

#[test]
fn a_node_without_a_gradient_is_named() {
    let place = Place::new();
    let of = |op: &str| {
        format!(
            "<ir_version: 8, opset_import: [\"\" : 17]>\nmain (float[b,2] x) => (float[b,2] y) <\n   \
             float[2,2] v = {{1, 2, 3, 4}}, float[2,2] w = {{1, 2, 3, 5}}\n> {{\n   \
             a = MatMul (x, v)\n   c = {op} (a)\n   y = MatMul (c, w)\n}}\n"
        )
    };
    let teacher = place.write("teacher.onnxtxt", of("Relu"));
    let own = place.write("student.onnxtxt", of("Ceil"));
    let samples = place.write("x.npy", npy(&noise(&[40, 2], 1)));
    let path = place.path("s.onnx");
    let ran = student(&teacher, &path, &["--student", &own, "--data", &samples]);
    assert!(ran.code == 4 && ran.error.contains("error[E640]"), "{}", ran.error);
    assert!(ran.error.contains("Ceil"), "{}", ran.error);
    // The hint, followed literally.
    let ran = run(&["explain", "E640"]);
    assert!(ran.out.contains("LayerNormalization") && !ran.out.contains("Ceil"), "{}", ran.out);
    assert!(fs::metadata(path).is_err());
}

#[test]
fn flags_without_effect_are_errors() {
    let place = Place::new();
    let (model, text, arrays) =
        (data("model.onnx"), data("calibration.txt"), data("calibration_input_ids.npy"));
    let tokenizer = data("tokenizer.json");
    let layers = ["--student", "layers=2", "--data", &arrays];
    let given = ["--student", "given", "--loss", "ce", "--data", &text];
    let cases: &[(&[&str], &[&str], &str)] = &[
        (&layers, &["-r", "int4"], "--recipe"),
        (&layers, &["--set", "distil.steps=1"], "--set"),
        (&layers, &["--exclude", "*"], "--exclude"),
        (&layers, &["--include", "*"], "--include"),
        (&layers, &["--pack"], "--pack"),
        (&layers, &["--window", "8"], "--window"),
        (&layers, &["--tokenizer", &tokenizer], "--tokenizer"),
        (&layers, &["--data", &text], "a second --data"),
        (&layers, &["--loss", "ce", "--labels", "0.5"], "--labels"),
        (&given, &["--labels", "0.5"], "--labels"),
        (&given, &["--cache-teacher", "answers"], "--cache-teacher"),
        (&given, &["--hidden", "1"], "--hidden"),
        (&["--student", &model, "--data", &text], &["--hidden", "1"], "--hidden"),
        (&given, &["--calibration-samples", "8"], "--calibration-samples"),
        (&["--data", &arrays], &["--loss", "square", "--labels", "0.5"], "--labels"),
        (&["--student", &model, "--data", &text], &["--loss", "ce"], "MODEL"),
    ];
    for (base, more, name) in cases {
        let ran = student(&model, &place.path("s.onnx"), &[*base, *more].concat());
        let expected = format!("error[E712]: {name} has no effect: ");
        assert!(ran.code == 2 && ran.error.contains(&expected), "{name}: {}", ran.error);
    }
    assert!(place.files().is_empty());
}

#[test]
fn answers_of_a_teacher_are_kept_and_change_no_byte() {
    let place = Place::new();
    let (model, samples) = (data("model.onnx"), data("calibration_input_ids.npy"));
    let kept = place.path("answers");
    let trained = |output: &str, more: &[&str]| {
        let path = place.path(output);
        let from = ["-r", "int2_recovered", "--data", &samples, "--calibration-samples", "4"];
        let few = ["--steps", "4", "--set", "distil.every=2"];
        let ran = student(&model, &path, &[&from[..], &few, more].concat());
        (ran, fs::read(path).unwrap_or_default())
    };
    let (ran, first) = trained("a.onnx", &["--cache-teacher", &kept]);
    assert_eq!(ran.code, 0, "{}", ran.error);
    let len = fs::metadata(&kept).unwrap().len();
    // So many tokens of 16 samples and 7 held out, 64 likeliest of each, and a header.
    assert!(len > 20 * 128 * 64 * 6 && len < 24 * 128 * 64 * 6, "{len}");
    let (ran, second) = trained("b.onnx", &["--cache-teacher", &kept, "--threads", "1"]);
    assert_eq!((ran.code, fs::metadata(&kept).unwrap().len()), (0, len), "{}", ran.error);
    assert!(first == second, "answers of a file are those of the teacher");
    let (_, third) = trained("c.onnx", &["--set", "distil.top=64"]);
    assert!(first == third, "kept or not");
    // Of other samples.
    let other =
        place.write("other.npy", npy(&Tensor::from_i64(&[40, 16], (0..640).map(|it| it % 99))));
    let again = ["--data", &other, "--cache-teacher", &kept, "-r", "int2_recovered"];
    let ran = student(&model, &place.path("d.onnx"), &again);
    assert!(ran.code == 2 && ran.error.contains("error[E643]"), "{}", ran.error);
    assert!(ran.error.contains("hint: delete"), "{}", ran.error);
}

#[test]
fn the_curve_is_in_the_model_and_in_every_report() {
    let place = Place::new();
    let path = place.path("q.onnx");
    let ran = recovered(&path, &["--set", "distil.steps=4"]);
    assert_eq!(ran.code, 0, "{}", ran.error);
    let first = "trained scales, norms (21,120 numbers) by kl on 57 samples, 7 held out";
    assert!(ran.out.contains(first), "{}", ran.out);
    let (model, samples) = (data("model.onnx"), data("eval_ids.npy"));
    let args = ["validate", &model, &path, "--data", &samples, "--samples", "2", "--no-latency"];
    let folder = place.path("report");
    let ran = run(&[&args[..], &["--report", &folder]].concat());
    assert_eq!(ran.code, 0, "{}", ran.error);
    for name in ["report.json", "report.md", "index.html"] {
        let text = fs::read_to_string(format!("{folder}/{name}")).unwrap();
        assert!(text.contains("21,120 numbers") && text.contains("held out"), "{name}");
    }
}
