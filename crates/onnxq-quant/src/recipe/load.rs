//! Recipes by name or file: parents merged, `--set` applied, values checked.

use std::{
    fs,
    io::{self, Read},
    path::{MAIN_SEPARATOR, Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    ActivationSpec, Entry, Place, Position, Recipe, RecipeError, VERSION, WeightSpec, gguf,
    renamed, select, yaml,
};
use crate::target::{TARGETS, target};
use onnxq_numerics::specs::Settings;

macro_rules! shipped {
    ($($name:literal)*) => {
        /// Name and text of each recipe in the program, in alphabetical order.
        pub const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../recipes/", $name, ".yaml"))),)*];
    };
}
shipped! {
    "arm64" "arm64_static" "as_stored" "avx2" "avx2_static"
    "avx512_vnni" "avx512_vnni_row" "avx512_vnni_static"
    "gguf_q4_0" "gguf_q4_k" "gguf_q8_0" "gguf_quality"
    "int2_recovered" "int4" "int4_quality" "int4_recovered" "int4_size" "int8_recovered" "int8_weights"
}

/// No recipe is this long.
pub const MAX_BYTES: u64 = 1 << 20;

/// Loads a shipped recipe by its name, or a file by its path.
pub fn load(name_or_path: &str) -> Result<Recipe, RecipeError> {
    with_parents(Origin::find(name_or_path, None)?)
}

/// Loads a recipe from its text; `name` is for messages. Its parent is a shipped recipe, or a
/// path from the current folder.
pub fn load_text(text: &str, name: &str) -> Result<Recipe, RecipeError> {
    with_parents(Origin::Text { name: name.to_owned(), text: text.to_owned() })
}

fn with_parents(mut origin: Origin) -> Result<Recipe, RecipeError> {
    let mut lineage = Vec::new();
    let mut seen = vec![origin.identity()];
    loop {
        let recipe = origin.parse()?;
        let extends = recipe.extends.clone();
        let at = recipe.place.at("extends");
        lineage.push(recipe);
        let Some(name) = extends else { break };
        origin = Origin::find(&name, origin.folder()).map_err(|error| match error {
            RecipeError::Unknown(name) => {
                let known = SHIPPED.iter().map(|it| it.0).collect();
                RecipeError::Word { at: at.clone(), what: "recipe".to_owned(), word: name, known }
            }
            other => other,
        })?;
        if seen.contains(&origin.identity()) {
            return Err(RecipeError::Cycle { at, name });
        }
        seen.push(origin.identity());
    }
    let merged =
        lineage.into_iter().rev().reduce(extend).expect("the lineage holds the recipe itself");
    check(&merged)?;
    Ok(merged)
}

/// The text of a recipe as it was written.
pub fn source(name_or_path: &str) -> Result<String, RecipeError> {
    Origin::find(name_or_path, None)?.text()
}

/// Changes one value: `quantize.0.weight.solver=hqq`.
///
/// Entries are numbered as `onnxq recipe show --resolved` lists them, the parent's first. The
/// value is YAML.
pub fn apply_set(recipe: &Recipe, assignment: &str) -> Result<Recipe, RecipeError> {
    let argument = Position::argument(&format!("--set {assignment}"));
    let Some((key, text)) = assignment.split_once('=') else {
        let what = "this is not of the form key=value".to_owned();
        return Err(RecipeError::Value { at: argument, what });
    };
    let moved = |error: RecipeError| error.moved_to(argument.clone());
    let key = &*renamed::current(key);
    let (value, _) = yaml::parse::<Value>(text, "--set").map_err(moved)?;
    let mut tree = serde_json::to_value(recipe).expect("a recipe is plain data");
    insert(&mut tree, key, value).map_err(|what| RecipeError::value(argument.clone(), what))?;
    // JSON is YAML, so the same reader finds the same errors.
    let (mut changed, _) = yaml::parse::<Recipe>(&tree.to_string(), "--set").map_err(moved)?;
    changed.place = recipe.place.clone();
    changed.warnings = recipe.warnings.clone();
    changed.place.set(key, argument);
    inherit_places(&mut changed);
    check(&changed)?;
    Ok(changed)
}

/// A shipped recipe, a file, or a text in memory.
enum Origin {
    Shipped(&'static str, &'static str),
    Text { name: String, text: String },
    File(PathBuf),
}

impl Origin {
    /// `folder` is where relative paths start, if it is not the current folder.
    fn find(name: &str, folder: Option<&Path>) -> Result<Origin, RecipeError> {
        if let Some(&(name, text)) = SHIPPED.iter().find(|it| it.0 == name) {
            return Ok(Origin::Shipped(name, text));
        }
        let path = folder.map_or_else(|| PathBuf::from(name), |it| it.join(name));
        let separated = name.contains(['/', MAIN_SEPARATOR]);
        if separated || name.ends_with(".yaml") || name.ends_with(".yml") || path.exists() {
            return Ok(Origin::File(path));
        }
        Err(RecipeError::Unknown(name.to_owned()))
    }

    fn folder(&self) -> Option<&Path> {
        match self {
            Origin::Shipped(..) | Origin::Text { .. } => None,
            Origin::File(path) => path.parent(),
        }
    }

    /// Equal for the same recipe, however it is spelt.
    fn identity(&self) -> PathBuf {
        match self {
            Origin::Shipped(name, _) => PathBuf::from(name),
            // No path is empty, so nothing leads back to it.
            Origin::Text { .. } => PathBuf::new(),
            Origin::File(path) => fs::canonicalize(path).unwrap_or_else(|_| path.clone()),
        }
    }

    fn text(&self) -> Result<String, RecipeError> {
        match self {
            Origin::Shipped(_, text) => Ok((*text).to_owned()),
            Origin::Text { text, .. } => Ok(text.clone()),
            Origin::File(path) => read(path),
        }
    }

    fn parse(&self) -> Result<Recipe, RecipeError> {
        let file = match self {
            Origin::Shipped(name, _) => (*name).to_owned(),
            Origin::Text { name, .. } => name.clone(),
            Origin::File(path) => path.display().to_string(),
        };
        let (mut recipe, place) = yaml::parse::<Recipe>(&self.text()?, &file)?;
        recipe.place = place;
        recipe.warnings = renamed::update(&mut recipe.place);
        inherit_places(&mut recipe);
        if recipe.onnxq != VERSION {
            let what = format!("format {} is unknown, this program reads {VERSION}", recipe.onnxq);
            return Err(RecipeError::value(recipe.place.at("onnxq"), what));
        }
        Ok(recipe)
    }
}

fn read(path: &Path) -> Result<String, RecipeError> {
    let file = path.display().to_string();
    let mut text = Vec::new();
    onnxq_ir::fs::open_file(path)
        .and_then(|it| it.take(MAX_BYTES + 1).read_to_end(&mut text))
        .map_err(|source| RecipeError::Read { file: file.clone(), source })?;
    if text.len() as u64 > MAX_BYTES {
        return Err(RecipeError::TooLarge(file));
    }
    String::from_utf8(text).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidData, error.utf8_error());
        RecipeError::Read { file, source }
    })
}

/// Entries can outlive their recipe's file, so each carries its own places.
fn inherit_places(recipe: &mut Recipe) {
    let Some(places) = recipe.place.inner.get("quantize") else { return };
    for (i, entry) in recipe.quantize.iter_mut().enumerate() {
        entry.place = places.inner.get(&i.to_string()).unwrap_or(places).clone();
    }
}

/// The parent with the child's changes.
fn extend(parent: Recipe, child: Recipe) -> Recipe {
    let warnings = [parent.warnings, child.warnings].concat();
    let mut place = child.place;
    for (key, inner) in parent.place.inner {
        place.inner.entry(key).or_insert(inner);
    }
    let quantize: Vec<Entry> = parent.quantize.into_iter().chain(child.quantize).collect();
    let mut entries = Place::from(place.position.clone());
    for (i, entry) in quantize.iter().enumerate() {
        entries.inner.insert(i.to_string(), entry.place.clone());
    }
    place.inner.insert("quantize".to_owned(), entries);
    Recipe {
        onnxq: child.onnxq,
        name: child.name,
        description: if child.description.is_empty() {
            parent.description
        } else {
            child.description
        },
        extends: None,
        target: child.target.or(parent.target),
        prepare: child.prepare.or(parent.prepare),
        calibration: child.calibration.or(parent.calibration),
        transforms: child.transforms.or(parent.transforms),
        adapt: child.adapt.or(parent.adapt),
        mixed: child.mixed.or(parent.mixed),
        distil: child.distil.or(parent.distil),
        quantize,
        gates: child.gates.or(parent.gates),
        place,
        warnings,
    }
}

/// What types cannot say.
fn check(recipe: &Recipe) -> Result<(), RecipeError> {
    if let Some(name) = &recipe.target
        && target(name).is_none()
    {
        let known = TARGETS.iter().map(|it| it.name).collect();
        let at = recipe.place.at("target");
        return Err(RecipeError::Word { at, what: "target".to_owned(), word: name.clone(), known });
    }
    for Part { place, key, settings } in parts(recipe) {
        settings.check().map_err(|it| {
            let at = place.at(format!("{key}.{}", it.key).trim_end_matches('.'));
            RecipeError::value(at, it.to_string())
        })?;
    }
    if recipe.is_gguf() {
        gguf::check(recipe)?;
    }
    recipe.quantize.iter().try_for_each(|it| select::compile(it).map(drop))
}

/// Settings that stand at `key` of `place`.
struct Part<'a> {
    place: &'a Place,
    key: String,
    settings: &'a dyn Settings,
}

/// Everything in a recipe that has settings.
fn parts(recipe: &Recipe) -> Vec<Part<'_>> {
    let mut parts = Vec::new();
    for Entry { weight, activation, place, .. } in &recipe.quantize {
        parts.extend(weight.iter().flat_map(|it| of_weight(it, place, "weight")));
        let observer = activation.as_ref().and_then(ActivationSpec::observer);
        parts.extend(observer.map(|settings| {
            let key = "activation.observer".to_owned();
            Part { place, key, settings }
        }));
    }
    let place = &recipe.place;
    let mut add = |key: String, settings| parts.push(Part { place, key, settings });
    for (i, it) in recipe.transforms.iter().flatten().enumerate() {
        add(format!("transforms.{i}"), it);
    }
    if let Some(it) = &recipe.adapt {
        add("adapt".into(), it);
    }
    for (i, it) in recipe.gates.iter().flatten().enumerate() {
        add(format!("gates.{i}"), it);
    }
    if let Some(it) = &recipe.distil {
        add("distil".into(), it);
    }
    if let Some(it) = &recipe.mixed {
        add("mixed".into(), it);
        for (i, it) in it.candidates.iter().enumerate() {
            parts.extend(of_weight(it, place, &format!("mixed.candidates.{i}")));
        }
    }
    parts
}

fn of_weight<'a>(it: &'a WeightSpec, place: &'a Place, key: &str) -> Vec<Part<'a>> {
    let part = |inner, settings| Part { place, key: format!("{key}.{inner}"), settings };
    let granularity = it.granularity.iter().map(|it| part("granularity", it as &dyn Settings));
    let solver = it.solver.iter().map(|it| part("solver", it as &dyn Settings));
    granularity.chain(solver).collect()
}

/// Puts a value at a path; says what is wrong with the path otherwise.
fn insert(tree: &mut Value, path: &str, value: Value) -> Result<(), String> {
    let mut at = tree;
    for step in path.split('.') {
        if step == "0" && at.is_null() {
            *at = Value::Array(Vec::new());
        }
        at = match at {
            Value::Array(items) => {
                let count = items.len();
                let index = step.parse().ok().filter(|it| *it <= count);
                let index: usize = index.ok_or_else(|| {
                    format!("there is no item `{step}` in a list of {count}, counted from 0")
                })?;
                if index == count {
                    items.push(Value::Null);
                }
                &mut items[index]
            }
            Value::Object(fields) => fields.entry(step).or_insert(Value::Null),
            // Where an entry says nothing yet, or something shorter as `channel` or `none`.
            other => {
                *other = Value::Object(Map::new());
                let Value::Object(fields) = other else { unreachable!() };
                fields.entry(step).or_insert(Value::Null)
            }
        };
    }
    *at = value;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        recipe::{ActivationGranularity, WeightRange, to_yaml},
        transform::{Awq, SmoothQuant, TransformSpec},
    };
    use onnxq_ir::diag::{Code, Diagnostic};
    use onnxq_numerics::scheme::Granularity;

    #[test]
    fn every_shipped_recipe_loads_and_survives_printing() {
        assert!(SHIPPED.is_sorted_by(|a, b| a.0 < b.0));
        for &(name, _) in SHIPPED {
            let recipe = load(name).unwrap();
            assert_eq!(recipe.name, name);
            assert!(!recipe.description.is_empty(), "`{name}` has no description");
            let printed = to_yaml(&recipe);
            let (again, _) = yaml::parse::<Recipe>(&printed, name).unwrap();
            assert_eq!(to_yaml(&again), printed);
        }
    }

    /// An entry that a recipe gains moves those behind it, and what a comment tells to change with them.
    #[test]
    fn what_comments_tell_to_set_is_there() {
        let mut count = 0;
        for &(name, text) in SHIPPED {
            let recipe = serde_json::to_value(load(name).unwrap()).unwrap();
            for set in text.split("--set ").skip(1) {
                let path = set.split('=').next().unwrap();
                let pointer = format!("/{}", path.replace('.', "/"));
                let now = recipe.pointer(&pointer);
                assert!(now.is_some_and(|it| !it.is_null()), "{name}: nothing is at `{path}`");
                count += 1;
            }
        }
        assert!(count > 0);
    }

    #[test]
    fn every_shipped_recipe_differs_from_the_others() {
        let settings = |name: &str| {
            let mut recipe = load(name).unwrap();
            (recipe.name, recipe.description) = Default::default();
            to_yaml(&recipe)
        };
        for (i, (a, _)) in SHIPPED.iter().enumerate() {
            for (b, _) in &SHIPPED[i + 1..] {
                assert_ne!(settings(a), settings(b), "`{a}` and `{b}` emit the same");
            }
        }
    }

    #[test]
    fn a_child_overrides_fields_and_appends_entries() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.yaml");
        let text = "onnxq: 1\nname: mine\nextends: avx512_vnni_row\ngates:\n  - {metric: kl, max: 0.1}\n\
                    quantize:\n  - names: ['*/lm_head/*']\n    skip: true\n";
        fs::write(&path, text).unwrap();
        let recipe = load(path.to_str().unwrap()).unwrap();
        let parent = load("avx512_vnni_row").unwrap();
        assert_eq!(recipe.name, "mine");
        assert_eq!(recipe.target().name, "avx512_vnni");
        assert_eq!(recipe.quantize.len(), parent.quantize.len() + 1);
        let own = recipe.quantize.last().unwrap();
        assert_eq!(own.place.at("names.0").to_string(), format!("{}:7:13", path.display()));
        let inherited = recipe.quantize[0].place.position.to_string();
        assert!(inherited.starts_with("avx512_vnni:"), "{inherited}");
    }

    #[test]
    fn parents_are_found_beside_the_file_and_cycles_are_errors() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).display().to_string();
        let write = |name: &str, parent: &str| {
            fs::write(path(name), format!("onnxq: 1\nname: x\nextends: {parent}\n")).unwrap();
        };
        write("a.yaml", "b.yaml");
        write("b.yaml", "./a.yaml");
        let error = load(&path("a.yaml")).unwrap_err();
        let b = path("b.yaml");
        assert_eq!(error.to_string(), format!("{b}:3:10: `extends` leads back to `./a.yaml`"));
        write("c.yaml", "avx3");
        let error = load(&path("c.yaml")).unwrap_err();
        assert!(error.to_string().ends_with("c.yaml:3:10: unknown recipe `avx3`"), "{error}");
        assert_eq!(error.hint().unwrap(), "did you mean `avx2`?");
        write("d.yaml", "none.yaml");
        assert_eq!(load(&path("d.yaml")).unwrap_err().code(), Code::E705);
    }

    #[test]
    fn set_changes_one_value() {
        let recipe = load("avx512_vnni").unwrap();
        let set = |text: &str| apply_set(&recipe, text).unwrap();
        let range = |it: &Recipe| it.quantize[0].weight.unwrap().range;
        assert_eq!(range(&recipe), Some(WeightRange::Narrow));
        assert_eq!(range(&set("quantize.0.weight.range=reduced")), Some(WeightRange::Reduced));
        let blocked = set("quantize.0.weight.granularity={block: 64}").quantize[0].weight;
        assert_eq!(blocked.unwrap().granularity, Some(Granularity::Block(64)));
        let blocked = set("quantize.0.weight.granularity.block=32").quantize[0].weight;
        assert_eq!(blocked.unwrap().granularity, Some(Granularity::Block(32)));
        let row = set("quantize.0.activation.granularity=row").quantize[0].activation.unwrap();
        assert_eq!(row.complete().unwrap().granularity, ActivationGranularity::Row);
        let count = recipe.quantize.len();
        let longer = set(&format!("quantize.{count}={{ops: [Add], skip: true}}"));
        assert_eq!(longer.quantize[count].skip, Some(true));
        assert_eq!(longer.quantize[0].place.at("ops"), recipe.quantize[0].place.at("ops"));
    }

    #[test]
    fn transforms_are_words_or_words_with_settings() {
        let recipe = load("int4").unwrap();
        let set = |text: &str| apply_set(&recipe, text);
        let word = set("transforms.0=awq").unwrap();
        assert_eq!(word.transforms.as_deref(), Some(&[TransformSpec::Awq(Awq::default())][..]));
        let settings = set("transforms=[{smooth_quant: {alpha: 0.75}}]").unwrap();
        let expected = TransformSpec::SmoothQuant(SmoothQuant { alpha: 0.75, mul: false });
        assert_eq!(settings.transforms.as_deref(), Some(&[expected][..]));
        let printed = to_yaml(&settings);
        let (again, _) = yaml::parse::<Recipe>(&printed, "x").unwrap();
        assert_eq!(again.transforms, settings.transforms);
        for (text, what) in [
            ("transforms.0=awk", "unknown transform `awk`"),
            ("transforms=[{awq: {steps: 0}}]", "`steps` of awq is 0, not from 1 to 1000"),
            (
                "transforms=[{smooth_quant: {alpha: 2}}]",
                "`alpha` of smooth_quant is 2, not from 0 to 1",
            ),
        ] {
            let error = set(text).unwrap_err().to_string();
            assert!(error.contains(what), "{error}");
        }
        let parent = set("transforms.0=awq").unwrap();
        assert_eq!(extend(parent.clone(), recipe.clone()).transforms, parent.transforms);
        assert_eq!(extend(parent, settings.clone()).transforms, settings.transforms);
    }

    #[test]
    fn errors_of_set_name_the_argument() {
        let recipe = load("avx512_vnni").unwrap();
        let check = |text: &str| {
            let error = apply_set(&recipe, text).unwrap_err();
            format!("{} {error}", error.code())
        };
        let cases = [
            ("quantize", "E703 --set quantize: this is not of the form key=value"),
            (
                "quantize.0.weight.solver=rntt",
                "E703 --set quantize.0.weight.solver=rntt: unknown solver `rntt`",
            ),
            ("quantize.0.wait=1", "E701 --set quantize.0.wait=1: unknown key `wait`"),
            (
                "quantize.11.skip=true",
                "E703 --set quantize.11.skip=true: there is no item `11` in a list of 10, counted from 0",
            ),
            ("target=sparc", "E703 --set target=sparc: unknown target `sparc`"),
            (
                "quantize.0.weight.granularity.block=33",
                "E703 --set quantize.0.weight.granularity.block=33: \
                 block 33 is not a power of two from 16 to 512",
            ),
            ("name=&a x", "E701 --set name=&a x: anchors are not allowed"),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text), expected);
        }
    }

    #[test]
    fn values_are_checked_where_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.yaml");
        let check = |text: &str| {
            fs::write(&path, format!("onnxq: 1\nname: x\n{text}\n")).unwrap();
            let error = load(path.to_str().unwrap()).unwrap_err().to_string();
            error.replace(path.to_str().unwrap(), "x.yaml")
        };
        assert_eq!(check("target: avx22"), "x.yaml:3:9: unknown target `avx22`");
        assert_eq!(
            check("gates: [{metric: kl}]"),
            "x.yaml:3:9: gate on `kl` needs one limit, `min` or `max`"
        );
        assert_eq!(
            check("mixed: {candidates: []}"),
            "x.yaml:3:21: there is nothing to choose from"
        );
        assert_eq!(
            check("mixed: {candidates: [{dtype: uint4}, {granularity: {block: 33}}]}"),
            "x.yaml:3:60: block 33 is not a power of two from 16 to 512"
        );
        let cases = [
            (
                "quantize:\n  - weight: {solver: {hqq: {p: 7}}}",
                "4:32: `p` of hqq is 7, not from 0.1 to 1",
            ),
            (
                "quantize: [{weight: {solver: {hqq: {iterations: 1001}}}}]",
                "3:49: `iterations` of hqq is 1001, not from 0 to 1000",
            ),
            (
                "quantize: [{weight: {solver: {hqq: {kappa: .nan}}}}]",
                "3:44: `kappa` of hqq is NaN, not from 1 to 100",
            ),
            (
                "quantize: [{weight: {solver: {gptq: {damping: 2}}}}]",
                "3:47: `damping` of gptq is 2, not from 0 to 1",
            ),
            (
                "quantize: [{weight: {solver: {gptq: {groups: 2}}}}]",
                "3:46: `groups` of gptq is 2, and only `hessian: guided` knows groups",
            ),
            (
                "quantize: [{weight: {solver: {signround: {hessian: guided, groups: 5}}}}]",
                "3:68: `groups` of signround is 5, not from 1 to 4",
            ),
            (
                "quantize: [{weight: {solver: {signround: {iterations: 0}}}}]",
                "3:55: `iterations` of signround is 0, not from 1 to 10000",
            ),
            (
                "mixed: {candidates: [{solver: {imatrix: {floor: -1}}}]}",
                "3:49: `floor` of imatrix is -1, not from 0 to 1",
            ),
            (
                "quantize: [{activation: {observer: {mse: {norm: 9}}}}]",
                "3:49: `norm` of mse is 9, not from 0.5 to 8",
            ),
            (
                "transforms: [equalize, {awq: {steps: 0}}]",
                "3:38: `steps` of awq is 0, not from 1 to 1000",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text), format!("x.yaml:{expected}"));
        }
        let regex = check("quantize: [{names: [a, 're:(']}]");
        assert!(regex.starts_with("x.yaml:3:24: `re:(` is not a regular expression"), "{regex}");
        fs::write(&path, "onnxq: 2\nname: x\n").unwrap();
        let error = load(path.to_str().unwrap()).unwrap_err().to_string();
        assert!(error.ends_with(":1:8: format 2 is unknown, this program reads 1"), "{error}");
        fs::write(&path, vec![b'#'; MAX_BYTES as usize + 1]).unwrap();
        assert_eq!(load(path.to_str().unwrap()).unwrap_err().code(), Code::E701);
        fs::write(&path, [0xff]).unwrap();
        assert_eq!(load(path.to_str().unwrap()).unwrap_err().code(), Code::E705);
        let hint = "`int3` is what recipe `int4_size` does: -r int4_size (needs --calibration)";
        assert_eq!(load("int3").unwrap_err().hint().unwrap(), hint);
    }
}
