//! Static int8: the models of `tests/static`, with ranges from the reference evaluator.
//!
//! `# RECIPE: avx512_vnni_static --set …` says how; after `# ----` follow the plan and the model as
//! it comes out. `BLESS=1` writes that into the files instead of comparing. Each model is also
//! written in operators of quantized values, and both forms are run.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
};

use crate::common::{inputs, relative_error, runtime};
use onnxq_ir::{Model, ctx::Ctx, eval, onnx, tensor::Tensor, text};
use onnxq_numerics::affine::Interval;
use onnxq_pipeline as pipeline;
use onnxq_quant::{
    format, insert,
    plan::Plan,
    recipe::{
        self, Recipe,
        resolve::{Known, resolve},
    },
    region::Layout,
    sources::Sources,
};
use onnxq_rewrite as rewrite;
use onnxq_run::engine::{SessionOptions, Verdict};

const SEPARATOR: &str = "# ----\n";

struct Case {
    name: String,
    path: PathBuf,
    input: String,
    expected: String,
}

fn cases() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/static");
    let mut paths: Vec<PathBuf> =
        fs::read_dir(folder).unwrap().map(|it| it.unwrap().path()).collect();
    paths.sort();
    let case = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap().replace("\r\n", "\n");
        let (input, expected) = text.split_once(SEPARATOR).unwrap_or((&text, ""));
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        Case { name, input: input.to_owned(), expected: expected.to_owned(), path }
    };
    paths.into_iter().map(case).collect()
}

/// The models are too small for int8 to be worth anything.
const ANY_SIZE: [&str; 2] = ["quantize.2.min_elements=0", "quantize.4.min_intensity=0"];

impl Case {
    fn line(&self, key: &str) -> Option<&str> {
        self.input.lines().find_map(|it| it.strip_prefix(key)).map(str::trim)
    }

    fn recipe(&self, more: &[&str]) -> Recipe {
        let mut words = self.line("# RECIPE:").expect("a recipe").split_whitespace();
        let mut recipe = recipe::load(words.next().unwrap()).unwrap();
        let own = words.filter(|it| *it != "--set");
        for set in ANY_SIZE.iter().copied().chain(own).chain(more.iter().copied()) {
            recipe = recipe::apply_set(&recipe, set).unwrap();
        }
        recipe
    }

    fn model(&self) -> Model {
        text::parse(&self.input).unwrap()
    }

    /// The plan's table and the quantized model.
    fn quantized(&self, more: &[&str]) -> (String, Model) {
        let recipe = self.recipe(more);
        let mut m = self.model();
        rewrite::run(&mut m, &recipe.prepare(rewrite::STANDARD), &Ctx::silent()).unwrap();
        let known = Known { rotated: &BTreeSet::new(), calibrated: true };
        let mut plan = resolve(&recipe, &m, known, &|_, _| Ok(())).unwrap();
        plan.ranges = ranges(&m, &plan);
        let mut lines = String::new();
        for (node, reason) in Layout::new(&m, &plan).left {
            lines.push_str(&format!("# {}: {reason}\n", m.node_label(node)));
        }
        for it in &plan.kept {
            lines.push_str(&format!("# {}: {}\n", m.node_label(it.node), it.reason));
        }
        insert::quantize(&mut m, &plan, &mut Sources::default());
        let formats: Vec<_> = plan.sites.iter().map(|it| it.format).collect();
        format::lower(&mut m, &formats).unwrap();
        let clean_up = ["dedupe-constants", "dedupe-nodes", "remove-dead"];
        rewrite::run(&mut m, &clean_up, &Ctx::silent()).unwrap();
        m.verify().unwrap();
        (lines, m)
    }
}

/// What the evaluator computes for the observed values.
fn ranges(m: &Model, plan: &Plan) -> BTreeMap<onnxq_ir::ValueId, Interval> {
    let mut probe = m.clone();
    let observed: Vec<_> = plan.observed(m).into_iter().map(|it| it.0).collect();
    let given = |it: &onnxq_ir::ValueId| m.graph(m.main).inputs.contains(it);
    for value in observed.iter().filter(|it| !given(it) && !m.is_output(**it)) {
        let main = probe.main;
        probe.add_output(main, *value);
    }
    let inputs = inputs(m, 2);
    let mut values = eval::run(&probe, &inputs).unwrap();
    values.extend(inputs);
    let range = |it: &onnxq_ir::ValueId| {
        let values = values[&*m.value(*it).name].to_f32().unwrap();
        values.iter().fold(Interval::default(), |range, it| range.union(Interval::new(*it, *it)))
    };
    observed.iter().map(|it| (*it, range(it))).collect()
}

#[test]
fn what_is_emitted() {
    let mut stale = Vec::new();
    for case in cases() {
        let (lines, m) = case.quantized(&[]);
        let actual = lines + &text::print(&m);
        if env::var_os("BLESS").is_some_and(|it| it == "1") {
            let input = case.input.trim_end();
            fs::write(&case.path, format!("{input}\n{SEPARATOR}{actual}")).unwrap();
        } else if actual != case.expected {
            stale.push(format!("{}\n{actual}", case.name));
        }
    }
    assert!(stale.is_empty(), "BLESS=1 accepts these:\n{}", stale.join("\n"));
}

type Outputs = BTreeMap<String, Tensor>;

fn run(m: &Model, inputs: &BTreeMap<String, Tensor>) -> Outputs {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, onnx::to_bytes(m).unwrap()).unwrap();
    let mut session = runtime().open(&path, &SessionOptions::default()).unwrap();
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, it)| (&**name, it)).collect();
    session.run(&inputs).unwrap().into_iter().collect()
}

/// What ONNX Runtime runs otherwise than declared.
fn differing(m: &Model) -> Vec<String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    fs::write(&path, onnx::to_bytes(m).unwrap()).unwrap();
    let read = onnx::open(&path, &Default::default()).unwrap();
    let execution = pipeline::execution(&read.model, &read.files, &runtime());
    let rows = execution.differing().into_iter();
    rows.map(|it| format!("{}: {} {:?}", it.node, it.executed, it.differs)).collect()
}

fn worst(expected: &Outputs, actual: &Outputs) -> f64 {
    let error = |(name, it): (&String, &Tensor)| {
        assert_eq!(it.shape, actual[name].shape, "`{name}`");
        relative_error(it, &actual[name])
    };
    expected.iter().map(error).fold(0.0, f64::max)
}

/// Weights for CPUs whose kernels saturate.
const REDUCED: [&str; 2] = ["quantize.1.weight.range=reduced", "quantize.2.weight.range=reduced"];

#[test]
fn both_forms_compute_what_the_model_does() {
    let verdict = runtime().examine(false).verdict;
    let saturates = matches!(verdict, Verdict::Saturates | Verdict::SaturatesDespiteVnni);
    let reduced: &[&str] = if saturates { &REDUCED } else { &[] };
    for case in cases() {
        let m = case.model();
        let inputs = inputs(&m, 2);
        let expected = eval::run(&m, &inputs).unwrap();
        let (_, qdq) = case.quantized(reduced);
        let by_us = eval::run(&qdq, &inputs).unwrap();
        let tolerance: f64 = case.line("# TOLERANCE:").map_or(0.03, |it| it.parse().unwrap());
        let error = worst(&expected, &by_us);
        assert!(error < tolerance, "{}: evaluated {error}", case.name);
        let is_arm = case.line("# RECIPE:").is_some_and(|it| it.contains("arm64"));
        // On x86, int8 values of constants are not taken.
        let slow = if is_arm { Vec::new() } else { differing(&qdq) };
        assert!(slow.is_empty(), "{}: {slow:?}", case.name);
        let error = worst(&expected, &run(&qdq, &inputs));
        assert!(error < tolerance, "{}: in ONNX Runtime {error}", case.name);
        if is_arm {
            continue;
        }
        let form = ["quantize.1.format=[qoperator]", "quantize.4.format=[qoperator]"];
        let (_, qoperator) = case.quantized(&[reduced, &form].concat());
        let error = worst(&run(&qdq, &inputs), &run(&qoperator, &inputs));
        assert!(error < 0.01, "{}: the forms differ by {error}", case.name);
    }
}
