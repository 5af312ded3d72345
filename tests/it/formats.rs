//! What every format computes: the models of `tests/filetests/formats`, quantized as their first
//! lines say, stay close to the original in the reference evaluator.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use crate::common::{inputs, onnx_recipes, quantized, relative_error};
use onnxq_ir::{Model, eval, tensor::Tensor, text};
use onnxq_quant::recipe;

/// A file's model, the words of its command, and what its first lines allow.
struct Case {
    name: String,
    model: Model,
    words: Vec<String>,
    /// Relative L2 error: int8 0.03, 4 bits 0.25, 8-bit weights alone 0.01.
    tolerance: f64,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/filetests/formats")
}

fn cases() -> Vec<Case> {
    let mut paths: Vec<_> = fs::read_dir(folder()).unwrap().map(|it| it.unwrap().path()).collect();
    paths.retain(|it| it.extension().is_some_and(|it| it == "onnxtxt"));
    paths.sort();
    paths.iter().filter_map(|it| case(it)).collect()
}

/// `None`: nothing is quantized, so there is nothing to compare.
fn case(path: &Path) -> Option<Case> {
    let text = fs::read_to_string(path).unwrap();
    let of = |key| text.lines().find_map(|it| it.strip_prefix(key));
    let words = of("# RUN:")?.split_whitespace().map(str::to_owned).collect();
    let tolerance = of("# TOLERANCE:")?.trim().parse().unwrap();
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let (model, _) = text.split_once("# ----").unwrap();
    Some(Case { name, model: text::parse(model).unwrap(), words, tolerance })
}

/// The values of an option: `--set a --set b`.
fn options<'a>(words: &'a [String], key: &str) -> Vec<&'a str> {
    words.windows(2).filter(|it| it[0] == key).map(|it| it[1].as_str()).collect()
}

impl Case {
    fn quantized(&self) -> Model {
        let name = options(&self.words, "-r")[0];
        let beside = folder().join(name);
        let name = if beside.exists() { beside.to_str().unwrap() } else { name };
        let mut recipe = onnxq_quant::recipe::load(name).unwrap();
        for set in options(&self.words, "--set") {
            recipe = onnxq_quant::recipe::apply_set(&recipe, set).unwrap();
        }
        options(&self.words, "--exclude").iter().for_each(|it| recipe.exclude(it));
        quantized(&self.model, &recipe)
    }

    fn errors(&self) -> BTreeMap<String, f64> {
        let lowered = self.quantized();
        let inputs = inputs(&self.model, 2);
        let run = |it: &Model| -> BTreeMap<String, Tensor> {
            eval::run(it, &inputs).unwrap_or_else(|error| panic!("{}: {error}", self.name))
        };
        let (expected, actual) = (run(&self.model), run(&lowered));
        let error = |(name, expected): (&String, &Tensor)| {
            assert_eq!(expected.dtype, actual[name].dtype, "{}: `{name}`", self.name);
            assert_eq!(expected.shape, actual[name].shape, "{}: `{name}`", self.name);
            (name.clone(), relative_error(expected, &actual[name]))
        };
        expected.iter().map(error).collect()
    }
}

#[test]
fn every_format_computes_nearly_the_same() {
    let cases = cases();
    assert!(cases.len() > 20, "{} cases", cases.len());
    for case in cases {
        let errors = case.errors();
        let worst = errors.values().copied().fold(0.0, f64::max);
        assert!(worst < case.tolerance, "{}: {errors:?}", case.name);
        // Of what is quantized, something must have been rounded.
        assert!(worst > 1e-6, "{}: exact", case.name);
    }
}

#[test]
fn rows_of_their_own_range_are_many_times_closer() {
    let all = cases();
    let mut case = all.into_iter().find(|it| it.name == "row_outlier").unwrap();
    let by_row = case.errors()["y"];
    let at = case.words.iter().position(|it| it.ends_with("=row")).unwrap();
    case.words[at] = "quantize.0.activation.granularity=tensor".to_owned();
    let by_tensor = case.errors()["y"];
    assert!(by_row * 10.0 < by_tensor, "{by_row} {by_tensor}");
}

#[test]
fn what_is_written_is_what_is_printed() {
    for case in cases() {
        let lowered = case.quantized();
        let bytes = onnxq_ir::onnx::to_bytes(&lowered).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.onnx");
        fs::write(&path, bytes).unwrap();
        let read = onnxq_ir::onnx::open(&path, &Default::default()).unwrap().model;
        assert_eq!(nameless(&read), nameless(&lowered), "{}", case.name);
    }
}

/// The text of a model without the names of its nodes, which writing completes.
fn nameless(model: &Model) -> String {
    let text = text::print(model);
    let line = |it: &str| match it.trim_start().strip_prefix('[') {
        Some(rest) => rest.split_once("] ").unwrap().1.to_owned(),
        None => it.trim_start().to_owned(),
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

/// A recipe that extends another must fit the entries that it inherits.
#[test]
fn every_recipe_takes_products_of_few_columns() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        main (float[2,32] x) => (float[2,3] y) <float[32,128] v, float[128,3] w> {
            a = MatMul (x, v)
            b = Relu (a)
            y = MatMul (b, w)
        }"#;
    let model = text::parse(text).unwrap();
    for name in onnx_recipes() {
        let recipe = recipe::load(name).unwrap();
        assert_ne!(quantized(&model, &recipe).constants().count(), 0, "{name}");
    }
}
