//! Layers and hidden channels taken out of transformers, as three exporters write them, as rewrites
//! leave them, and of each family of checkpoints.

use std::{collections::BTreeMap, fs, path::Path};

use crate::common::{FIXTURES, checkpoints, fixture};
use onnxq_formats::{self as formats, Checkpoint, Form};
use onnxq_ir::{
    Def, Feed, Model, Name, NodeId, ValueId,
    ctx::Ctx,
    diag::Diagnostic,
    eval, extract,
    onnx::{self, ExternalPolicy, OpenOptions},
    ops::Traits,
    tensor::Tensor,
    text,
};
use onnxq_rewrite::{
    self as rewrite,
    prune::{self, PruneError},
};

type Values = BTreeMap<String, Tensor>;

/// A model, and how many layers its configuration states.
struct Case {
    name: String,
    model: Model,
    layers: usize,
}

fn standard(mut model: Model) -> Model {
    rewrite::run(&mut model, rewrite::STANDARD, &Ctx::silent()).unwrap();
    model
}

fn stated(folder: &Path) -> usize {
    let text = fs::read_to_string(folder.join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&text).unwrap();
    let names = ["num_hidden_layers", "n_layer", "n_layers"];
    names.iter().find_map(|it| config[*it].as_u64()).unwrap() as usize
}

/// Every model here: as it is in its file or folder, and as it is prepared.
fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for name in FIXTURES {
        let model = onnx::open(&fixture(name), &OpenOptions::default()).unwrap().model;
        let layers = stated(fixture(name).parent().unwrap());
        cases.push(Case { name: format!("{name} raw"), model, layers });
    }
    let mut folders: Vec<_> =
        fs::read_dir(checkpoints()).unwrap().map(|it| it.unwrap().path()).collect();
    folders.retain(|it| it.is_dir());
    folders.sort();
    assert!(folders.len() >= 23);
    for folder in folders {
        let model = formats::open(&folder, &OpenOptions::default()).unwrap().model;
        let name = folder.file_name().unwrap().to_string_lossy().into_owned();
        cases.push(Case { name, model, layers: stated(&folder) });
    }
    let prepared: Vec<Case> = cases
        .iter()
        .map(|it| Case {
            name: format!("{} standard", it.name),
            model: standard(it.model.clone()),
            layers: it.layers,
        })
        .collect();
    cases.into_iter().chain(prepared).collect()
}

/// Three tokens after two that are remembered, if the model remembers any.
fn given(model: &Model) -> Values {
    let graph = model.graph(model.main);
    let has_past =
        graph.inputs.iter().any(|it| model.value(*it).name.starts_with("past_key_values"));
    let (tokens, past) = (3, if has_past { 2 } else { 0 });
    let mut values = Values::new();
    for &input in &graph.inputs {
        let value = model.value(input);
        let name = value.name.to_string();
        let tensor = match &*name {
            "attention_mask" => Tensor::from_i64(&[1, tokens + past], vec![1; tokens + past]),
            "position_ids" => Tensor::from_i64(&[1, tokens], (past as i64..).take(tokens)),
            "input_ids" => Tensor::from_i64(&[1, tokens], [5, 3, 7]),
            "token_type_ids" => Tensor::from_i64(&[1, tokens], [0, 0, 1]),
            _ => {
                let shape = model.shape(input).unwrap();
                let [heads, size] = [1, 3].map(|it| shape[it].fixed().unwrap());
                let count = heads * past * size;
                let values = (0..count).map(|it| ((it * 37 % 19) as f32 - 9.0) / 9.0);
                Tensor::from_f32(&[1, heads, past, size], values)
            }
        };
        values.insert(name, tensor);
    }
    values
}

fn evaluated(case: &str, model: &Model, given: &Values) -> Values {
    eval::run(model, given).unwrap_or_else(|it| panic!("{case}: {it}"))
}

#[track_caller]
fn close(case: &str, expected: &Tensor, actual: &Tensor, tolerance: f32) {
    assert_eq!(expected.shape, actual.shape, "{case}");
    let (expected, actual) = (expected.to_f32().unwrap(), actual.to_f32().unwrap());
    for (a, b) in expected.iter().zip(&actual) {
        assert!((a - b).abs() <= tolerance * a.abs().max(1.0), "{case}: {a} and {b}");
    }
}

fn names(model: &Model, list: &[ValueId]) -> Vec<Name> {
    list.iter().map(|it| model.value(*it).name.clone()).collect()
}

#[test]
fn layers_are_as_many_as_the_configuration_says() {
    for Case { name, model, layers } in cases() {
        let found = prune::layers(&model).unwrap_or_else(|it| panic!("{name}: {it}"));
        assert_eq!(found.len(), layers, "{name}");
        let pairs = found.windows(2).all(|it| it[0].output == it[1].input);
        assert!(pairs && found.iter().all(|it| it.terms().count() == 2), "{name}");
        let caches = model.graph(model.main).inputs.iter();
        let caches =
            caches.filter(|it| model.value(**it).name.starts_with("past_key_values")).count();
        let owned: usize = found.iter().map(|it| it.inputs.len()).sum();
        assert_eq!(owned, caches, "{name}");
        assert!(found.iter().all(|it| it.inputs.len() == it.outputs.len()), "{name}");
    }
}

/// `import` makes such models for clients that bind one buffer for past and present.
#[test]
fn layers_of_a_shared_buffer_are_found_until_norms_are_fused() {
    let folder = checkpoints().join("llama");
    let checkpoint = Checkpoint::open(&folder, ExternalPolicy::Contained).unwrap();
    let mut model = formats::build(&checkpoint, Form::GroupQuery).unwrap().model;
    let found = prune::layers(&model).unwrap();
    assert_eq!(found.len(), stated(&folder));
    assert!(found.iter().all(|it| it.inputs.len() == 2 && it.outputs.len() == 2));
    let mut smaller = model.clone();
    let removed = prune::remove_layers(&mut smaller, &[0]).unwrap();
    smaller.verify().unwrap();
    assert_eq!(removed.inputs.len(), 2);
    rewrite::run(&mut model, &["infer-types", "fuse-skip-rmsnorm"], &Ctx::silent()).unwrap();
    let error = prune::layers(&model).unwrap_err();
    assert!(error.to_string().contains("a residual sum fused into it"), "{error}");
    assert!(error.hint().unwrap().contains("prune the float model"));
}

/// What the whole model computes from the value that goes into a layer, if that came out of it.
fn past_the_layer(case: &str, model: &Model, layer: &prune::Layer, given: &Values) -> Values {
    let mut whole = model.clone();
    whole.value_mut(layer.input).name = "stream".into();
    if !whole.is_output(layer.input) {
        whole.add_output(whole.main, layer.input);
    }
    let stream = evaluated(case, &whole, given)["stream"].clone();
    let outputs = model.graph(model.main).outputs.clone();
    let outputs: Vec<ValueId> =
        outputs.into_iter().filter(|it| !layer.outputs.contains(it)).collect();
    let part = extract(model, &[layer.output], &outputs);
    let mut fed = Values::new();
    let inputs = part.model.graph(part.model.main).inputs.clone();
    for (feed, input) in part.feeds.iter().zip(inputs) {
        let name = part.model.value(input).name.to_string();
        let value = match feed {
            Feed::Input(name) => given[&**name].clone(),
            Feed::Value(_) => stream.clone(),
        };
        fed.insert(name, value);
    }
    evaluated(case, &part.model, &fed)
}

#[test]
fn without_a_layer_its_input_goes_on() {
    for Case { name, model, layers } in cases() {
        let given_whole = given(&model);
        let found = prune::layers(&model).unwrap();
        for layer in 0..layers {
            let case = format!("{name} without {layer}");
            let mut smaller = model.clone();
            let removed = prune::remove_layers(&mut smaller, &[layer])
                .unwrap_or_else(|it| panic!("{case}: {it}"));
            smaller.verify().unwrap();
            let again = prune::layers(&smaller).unwrap_or_else(|it| panic!("{case}: {it}"));
            assert_eq!(again.len(), layers - 1, "{case}");
            assert_eq!(removed.outputs.len(), found[layer].outputs.len());
            let was: BTreeMap<Name, Name> =
                removed.renamed.iter().map(|(was, is)| (is.clone(), was.clone())).collect();
            let was = |it: &str| was.get(it).map_or(it, |it| &**it).to_owned();
            let inputs = names(&smaller, &smaller.graph(smaller.main).inputs.clone());
            let fed: Values =
                inputs.iter().map(|it| (it.to_string(), given_whole[&was(it)].clone())).collect();
            let actual = evaluated(&case, &smaller, &fed);
            // The output that a post-norm encoder ends in is the value that goes in, then.
            if model.is_output(found[layer].output) {
                let mut whole = model.clone();
                whole.value_mut(found[layer].input).name = "stream".into();
                whole.add_output(whole.main, found[layer].input);
                let stream = &evaluated(&case, &whole, &given_whole)["stream"];
                close(&case, stream, &actual[&*model.value(found[layer].output).name], 1e-5);
                continue;
            }
            let expected = past_the_layer(&case, &model, &found[layer], &given_whole);
            assert_eq!(actual.len(), expected.len(), "{case}");
            for (name, value) in &actual {
                close(&case, &expected[&was(name)], value, 1e-5);
            }
        }
    }
}

/// The layer with zeros for the weights whose products are added to the stream.
fn silenced(model: &Model, layer: &prune::Layer) -> Model {
    let mut m = model.clone();
    for term in layer.terms() {
        let product = product(&m, term);
        let weight = m.node(product).inputs[1].unwrap();
        let shape = m.constant(weight).unwrap().shape.clone();
        let zeros = vec![0.0; shape.iter().product()];
        let main = m.main;
        let new = m.add_constant(main, "zeros", Tensor::from_f32(&shape, zeros));
        m.set_input(product, 1, Some(new));
    }
    m
}

/// The last product of a term: the term itself, or what its norm norms.
fn product(m: &Model, term: ValueId) -> NodeId {
    let mut value = term;
    loop {
        let Def::Node(node) = m.value(value).def else { panic!("{}", m.value(term).name) };
        if m.node(node).op.has(Traits::CONTRACTION) {
            return node;
        }
        let computed = m.node(node).inputs.iter().flatten().find(|it| m.constant(**it).is_err());
        value = *computed.unwrap();
    }
}

/// The families that norm before a block and add no bias after it.
#[test]
fn without_a_layer_is_with_a_layer_that_adds_nothing() {
    let mut checked = 0;
    for Case { name, model, .. } in cases() {
        let pre_norm = ["llama", "mistral", "qwen", "phi", "gemma", "model"];
        if !pre_norm.iter().any(|it| name.starts_with(it)) || name.starts_with("llama-bias") {
            continue;
        }
        let values = given(&model);
        let found = prune::layers(&model).unwrap();
        for (layer, own) in found.iter().enumerate() {
            let case = format!("{name} without {layer}");
            let expected = evaluated(&case, &silenced(&model, own), &values);
            let mut smaller = model.clone();
            let removed = prune::remove_layers(&mut smaller, &[layer]).unwrap();
            let was: BTreeMap<&str, &str> =
                removed.renamed.iter().map(|(was, is)| (&**is, &**was)).collect();
            let inputs = names(&smaller, &smaller.graph(smaller.main).inputs.clone());
            let fed: Values = inputs
                .iter()
                .map(|it| (it.to_string(), values[*was.get(&**it).unwrap_or(&&**it)].clone()))
                .collect();
            let actual = evaluated(&case, &smaller, &fed);
            close(&case, &expected["logits"], &actual["logits"], 1e-5);
            checked += 1;
        }
    }
    assert!(checked >= 50, "{checked}");
}

#[test]
fn caches_are_renumbered() {
    let model =
        onnx::open(&fixture("model_with_past.onnx"), &OpenOptions::default()).unwrap().model;
    let before = model.graph(model.main).clone();
    for which in [vec![0], vec![1, 2], vec![3], vec![2, 0, 1, 0]] {
        let mut smaller = model.clone();
        let removed = prune::remove_layers(&mut smaller, &which).unwrap();
        let gone = removed.layers.len();
        let graph = smaller.graph(smaller.main).clone();
        let expected = |list: &[ValueId]| {
            let mut names = names(&model, list);
            names.retain(|it| (4 - gone..4).all(|at| !it.contains(&format!(".{at}."))));
            names
        };
        assert_eq!(names(&smaller, &graph.inputs), expected(&before.inputs), "{which:?}");
        assert_eq!(names(&smaller, &graph.outputs), expected(&before.outputs), "{which:?}");
        for (old, new) in before.inputs.iter().zip(&graph.inputs).take(2) {
            assert_eq!(model.value(*old).ty, smaller.value(*new).ty);
        }
        assert_eq!((removed.inputs.len(), removed.outputs.len()), (2 * gone, 2 * gone));
        let again = text::parse(&text::print(&smaller)).unwrap();
        assert_eq!(prune::layers(&again).unwrap().len(), 4 - gone);
    }
    let mut smaller = model.clone();
    let renamed = prune::remove_layers(&mut smaller, &[1]).unwrap().renamed;
    let shown: Vec<String> = renamed.iter().map(|(was, is)| format!("{was} {is}")).collect();
    assert!(shown.contains(&"past_key_values.3.key past_key_values.2.key".to_owned()), "{shown:?}");
    assert!(shown.contains(&"present.2.value present.1.value".to_owned()), "{shown:?}");
}

#[test]
fn removing_nothing_changes_nothing_and_errors_change_nothing() {
    for name in FIXTURES {
        let model = onnx::open(&fixture(name), &OpenOptions::default()).unwrap().model;
        let same = |it: &Model| text::print(it) == text::print(&model);
        let mut other = model.clone();
        assert_eq!(prune::remove_layers(&mut other, &[]).unwrap(), Default::default());
        assert!(same(&other));
        let error = prune::remove_layers(&mut other, &[0, 4]).unwrap_err();
        assert_eq!(error, PruneError::NoLayer { layer: 4, count: 4 });
        let error = prune::remove_layers(&mut other, &[0, 1, 2, 3]).unwrap_err();
        assert_eq!(error, PruneError::All { count: 4 });
        for keep in [vec![], vec![352], vec![1, 1], vec![2, 1]] {
            prune::narrow_feed_forward(&mut other, 0, &keep).unwrap_err();
        }
        let all: Vec<usize> = (0..352).collect();
        prune::narrow_feed_forward(&mut other, 0, &all).unwrap();
        assert!(same(&other));
    }
}

/// The weight rows of hidden channels that go, as zeros.
fn deaf(model: &Model, layer: usize, keep: &[usize]) -> Model {
    let mut m = model.clone();
    let block = prune::feed_forward(&m, layer).unwrap();
    let (weight, axis) = block.weight;
    let tensor = m.constant(weight).unwrap().clone();
    let columns = tensor.shape[1];
    let mut values = tensor.to_f32().unwrap();
    for (at, value) in values.iter_mut().enumerate() {
        let channel = if axis == 0 { at / columns } else { at % columns };
        if !keep.contains(&channel) {
            *value = 0.0;
        }
    }
    let main = m.main;
    let new = m.add_constant(main, "deaf", Tensor::from_f32(&tensor.shape, values));
    m.set_input(block.down, 1, Some(new));
    m
}

#[test]
fn a_narrower_block_is_one_that_does_not_read_some_channels() {
    let mut narrowed = 0;
    for Case { name, model, layers } in cases() {
        let values = given(&model);
        for layer in [0, layers - 1] {
            let case = format!("{name} layer {layer}");
            let block = prune::feed_forward(&model, layer);
            let block = block.unwrap_or_else(|it| panic!("{case}: {it}"));
            let keep: Vec<usize> = (0..block.width).filter(|it| it % 3 != 1).collect();
            let mut smaller = model.clone();
            prune::narrow_feed_forward(&mut smaller, layer, &keep).unwrap();
            smaller.verify().unwrap();
            assert_eq!(prune::feed_forward(&smaller, layer).unwrap().width, keep.len(), "{case}");
            let expected = evaluated(&case, &deaf(&model, layer, &keep), &values);
            for (name, value) in evaluated(&case, &smaller, &values) {
                close(&case, &expected[&name], &value, 1e-5);
            }
            assert!(!onnx::to_bytes(&smaller).unwrap().is_empty());
            narrowed += 1;
        }
    }
    assert!(narrowed >= 100, "{narrowed}");
}
