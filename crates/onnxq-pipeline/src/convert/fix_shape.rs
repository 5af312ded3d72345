//! `--fix-shape`, `--fix-dim`: numbers for named and unknown dimensions of inputs.

use std::collections::{BTreeMap, BTreeSet};

use super::Step;
use onnxq_ir::{
    Def, Model, Name, ValueId,
    diag::{Code, Diagnostic},
    infer::{self, bind},
    suggest::suggest,
    tensor::{Dim, TensorType},
    untrusted::Untrusted,
};

/// What dimensions are to be.
#[derive(Clone, Debug, Default)]
pub struct Shapes {
    /// Inputs with their dimensions; `None` leaves one as it is.
    pub inputs: Vec<(String, Vec<Option<usize>>)>,
    /// Names of dimensions.
    pub dims: Vec<(String, usize)>,
}

impl Shapes {
    pub fn is_empty(&self) -> bool {
        self.inputs.is_empty() && self.dims.is_empty()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ShapeError {
    #[error("the model has no input `{}`", Untrusted(name))]
    Input { name: String, hint: Option<String> },
    #[error("no input has a dimension `{}`", Untrusted(name))]
    Dim { name: String, hint: Option<String> },
    #[error("the input `{}` has no shape in the file, so its rank is not known", Untrusted(input))]
    NoShape { input: String },
    #[error("the input `{}` is {ty}: {asked} sizes are given, {rank} are needed", Untrusted(input))]
    Rank { input: String, ty: String, asked: usize, rank: usize },
    #[error("dimension {at} of the input `{}` is {is}, not {asked}", Untrusted(input))]
    Fixed { input: String, at: usize, is: String, asked: usize },
    #[error("the dimension `{}` cannot be both {one} and {other}", Untrusted(name))]
    Conflict { name: String, one: usize, other: usize },
    #[error("the output `{}` is declared {declared}, but would be {inferred}", Untrusted(output))]
    Output { output: String, declared: String, inferred: String },
}

impl Diagnostic for ShapeError {
    fn code(&self) -> Code {
        Code::E710
    }

    fn hint(&self) -> Option<String> {
        match self {
            ShapeError::Input { hint, .. } | ShapeError::Dim { hint, .. } => hint.clone(),
            _ => Some("`onnxq inspect --io MODEL` shows the inputs".into()),
        }
    }
}

/// Fixes dimensions wherever the model names them, and infers the types that follow.
pub(super) fn run(m: &mut Model, shapes: &Shapes) -> Result<Step, ShapeError> {
    let mut step = Step::new("fix-shape");
    let mut sizes: BTreeMap<Name, usize> = BTreeMap::new();
    for (name, size) in &shapes.dims {
        let known = dimensions(m);
        if !known.contains(&**name) {
            return Err(ShapeError::Dim { hint: hint(name, &known), name: name.clone() });
        }
        insert(&mut sizes, name, *size)?;
    }
    for (name, dims) in &shapes.inputs {
        let input = input(m, name)?;
        let ty = declared(m, input, dims)?;
        collect(&ty, dims, &mut sizes)?;
    }
    step.changed += apply(m, &sizes);
    for (name, dims) in &shapes.inputs {
        step.changed += set_input(m, name, dims)?;
    }
    step.changed += reinfer(m)?;
    step.lines = inputs(m);
    Ok(step)
}

/// Names of dimensions of inputs.
fn dimensions(m: &Model) -> BTreeSet<Name> {
    let types = m.graph(m.main).inputs.iter().filter_map(|it| m.value(*it).ty.as_ref());
    types.flat_map(|it| it.shape.iter().flatten()).flat_map(bind::names).collect()
}

fn hint(word: &str, known: &BTreeSet<Name>) -> Option<String> {
    if let Some(it) = suggest(word, known.iter().map(|it| &**it)) {
        return Some(format!("did you mean `{}`?", Untrusted(it)));
    }
    let list: Vec<String> = known.iter().map(|it| format!("`{}`", Untrusted(it))).collect();
    (!list.is_empty() && list.len() <= 32).then(|| format!("there are {}", list.join(", ")))
}

fn input(m: &Model, name: &str) -> Result<ValueId, ShapeError> {
    let inputs = &m.graph(m.main).inputs;
    inputs.iter().copied().find(|it| *m.value(*it).name == *name).ok_or_else(|| {
        let known = inputs.iter().map(|it| m.value(*it).name.clone()).collect();
        ShapeError::Input { name: name.to_owned(), hint: hint(name, &known) }
    })
}

fn declared(m: &Model, input: ValueId, dims: &[Option<usize>]) -> Result<TensorType, ShapeError> {
    let it = m.value(input);
    let input = it.name.to_string();
    let ty = it.ty.clone().filter(|it| it.shape.is_some());
    let ty = ty.ok_or_else(|| ShapeError::NoShape { input: input.clone() })?;
    let rank = ty.rank().unwrap_or(0);
    if rank != dims.len() {
        return Err(ShapeError::Rank { input, ty: ty.to_string(), asked: dims.len(), rank });
    }
    Ok(ty)
}

/// A size for a dimension that is just a name holds wherever the name stands.
fn collect(
    ty: &TensorType,
    dims: &[Option<usize>],
    sizes: &mut BTreeMap<Name, usize>,
) -> Result<(), ShapeError> {
    for (dim, size) in ty.shape.iter().flatten().zip(dims) {
        if let (Dim::Symbol(symbol), Some(size)) = (dim, size)
            && bind::names(dim).iter().eq([symbol])
        {
            insert(sizes, symbol, *size)?;
        }
    }
    Ok(())
}

fn insert(sizes: &mut BTreeMap<Name, usize>, name: &str, size: usize) -> Result<(), ShapeError> {
    match sizes.insert(name.into(), size) {
        Some(one) if one != size => {
            Err(ShapeError::Conflict { name: name.to_owned(), one, other: size })
        }
        _ => Ok(()),
    }
}

/// Binds names in the types of all values outside of functions; returns how many types changed.
fn apply(m: &mut Model, sizes: &BTreeMap<Name, usize>) -> usize {
    if sizes.is_empty() {
        return 0;
    }
    let values: Vec<ValueId> = m.values().map(|it| it.0).filter(|it| in_main(m, *it)).collect();
    let mut changed = 0;
    for value in values {
        let Some(ty) = &m.value(value).ty else { continue };
        let shape = ty.shape.as_ref();
        let shape = shape.map(|it| it.iter().map(|it| bind::bind(it, sizes)).collect());
        changed += usize::from(set_type(m, value, TensorType { dtype: ty.dtype, shape }));
    }
    changed
}

fn in_main(m: &Model, value: ValueId) -> bool {
    match m.value(value).def {
        Def::Input(graph, _) => m.in_main(graph),
        Def::Node(node) => m.is_live(node) && m.in_main(m.node(node).graph),
        Def::Const(_) | Def::Sparse(_) => false,
    }
}

/// Sets a type, and drops the encoded one that would be written in its place.
fn set_type(m: &mut Model, value: ValueId, ty: TensorType) -> bool {
    if m.value(value).ty.as_ref() == Some(&ty) {
        return false;
    }
    m.set_type(value, ty);
    if let Some(kept) = &mut m.value_mut(value).kept {
        kept.info = None;
    }
    true
}

fn set_input(m: &mut Model, name: &str, dims: &[Option<usize>]) -> Result<usize, ShapeError> {
    let input = input(m, name)?;
    let mut ty = declared(m, input, dims)?;
    for (at, (dim, size)) in ty.shape.iter_mut().flatten().zip(dims).enumerate() {
        match (&*dim, size) {
            (_, None) => {}
            (Dim::Fixed(is), Some(asked)) if is == asked => {}
            (Dim::Fixed(is), Some(asked)) => {
                let (input, is, asked) = (name.to_owned(), is.to_string(), *asked);
                return Err(ShapeError::Fixed { input, at, is, asked });
            }
            (_, Some(size)) => *dim = Dim::Fixed(*size),
        }
    }
    Ok(usize::from(set_type(m, input, ty)))
}

/// Infers all types anew, those of the outputs too, which must not contradict the file.
fn reinfer(m: &mut Model) -> Result<usize, ShapeError> {
    let outputs = m.graph(m.main).outputs.clone();
    let declared: Vec<(ValueId, TensorType)> =
        outputs.iter().filter_map(|it| Some((*it, m.value(*it).ty.clone()?))).collect();
    for (value, _) in &declared {
        if matches!(m.value(*value).def, Def::Node(_)) {
            m.value_mut(*value).ty = None;
        }
    }
    infer::run(m);
    let mut changed = 0;
    for (value, was) in declared {
        let ty = match &m.value(value).ty {
            Some(now) => merged(m, value, &was, now)?,
            None => was.clone(),
        };
        m.set_type(value, was);
        changed += usize::from(set_type(m, value, ty));
    }
    Ok(changed)
}

/// The declared type with the numbers that inference found.
fn merged(
    m: &Model,
    value: ValueId,
    was: &TensorType,
    now: &TensorType,
) -> Result<TensorType, ShapeError> {
    let (Some(old), Some(new)) = (&was.shape, &now.shape) else {
        let shape = was.shape.clone().or_else(|| now.shape.clone());
        return Ok(TensorType { dtype: was.dtype, shape });
    };
    let differs = |(a, b): (&Dim, &Dim)| matches!((a, b), (Dim::Fixed(a), Dim::Fixed(b)) if a != b);
    if old.len() != new.len() || old.iter().zip(new).any(differs) {
        let output = m.value(value).name.to_string();
        let (declared, inferred) = (was.to_string(), now.to_string());
        return Err(ShapeError::Output { output, declared, inferred });
    }
    let dims = old.iter().zip(new).map(|(a, b)| match (a, b) {
        (Dim::Fixed(_), _) => a.clone(),
        (_, Dim::Fixed(_)) | (Dim::Unknown, _) => b.clone(),
        _ => a.clone(),
    });
    Ok(TensorType { dtype: was.dtype, shape: Some(dims.collect()) })
}

fn inputs(m: &Model) -> Vec<String> {
    let line = |it: &ValueId| {
        let it = m.value(*it);
        let ty = it.ty.as_ref().map_or("?".to_owned(), TensorType::to_string);
        format!("`{}` {ty}", Untrusted(&it.name))
    };
    m.graph(m.main).inputs.iter().map(line).collect()
}
