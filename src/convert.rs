//! A model in another form.

use onnxq_ir::{
    ctx::Ctx,
    diag::{Code, Diagnostic},
    onnx::Loaded,
};
use onnxq_pipeline::convert as inner;
use onnxq_quant::lower::FORMS;

use super::{Error, Model};

/// What to convert to. Steps run in this order, whatever is asked for.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ConvertOptions {
    /// The standard operator set; only upwards.
    pub opset: Option<i64>,
    /// Fuse norms, attention and activations, as `quantize` does first.
    pub fuse: bool,
    /// The form of quantized nodes, whoever quantized them: `float`, `matmul_nbits`, `portable`,
    /// `qdq`, `qoperator`.
    pub form: Option<String>,
    /// Take out doc strings, metadata, and types that can be inferred.
    pub strip: bool,
}

/// A converted model, and what each step did.
#[derive(Debug)]
#[non_exhaustive]
pub struct Converted {
    /// The model.
    pub model: Model,
    /// A line or more for each step that was asked for.
    pub steps: Vec<String>,
    /// Nodes that a step should have changed and could not, with the reason.
    pub left: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
#[error("there is no form `{0}`")]
struct NoForm(String);

impl Diagnostic for NoForm {
    fn code(&self) -> Code {
        Code::E703
    }

    fn hint(&self) -> Option<String> {
        let names: Vec<&str> = FORMS.iter().map(|it| it.name).collect();
        Some(format!("the forms are {}", names.join(", ")))
    }
}

/// Converts a model in memory.
///
/// ```
/// use onnxq::{ConvertOptions, Model, convert};
///
/// # fn main() -> Result<(), onnxq::Error> {
/// let model = Model::open("fixtures/slm-fixture/model.onnx")?;
/// let mut options = ConvertOptions::default();
/// options.fuse = true;
/// let before = model.node_count();
/// let converted = convert(model, &options)?;
/// assert!(converted.model.node_count() < before / 4);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// E410 if the operator set cannot be reached, E703 if there is no such form.
pub fn convert(model: Model, options: &ConvertOptions) -> Result<Converted, Error> {
    let form = |name: &String| {
        let found = FORMS.iter().copied().find(|it| it.name == name);
        found.ok_or_else(|| Error::of(NoForm(name.clone())))
    };
    let job = inner::Convert {
        opset: options.opset,
        fuse: options.fuse,
        to: options.form.as_ref().map(form).transpose()?,
        strip: options.strip,
        ..inner::Convert::default()
    };
    let ctx = Ctx::silent();
    let done = inner::apply(model.opened(&ctx), &job, &ctx).map_err(Error::of)?;
    let steps = done.steps.iter();
    let line = |it: &inner::Step| format!("{}: {}", it.step, it.lines.join("; "));
    let left = steps.clone().flat_map(|it| &it.left);
    let left = left.map(|it| format!("{} ({}): {}", it.node, it.op, it.reason)).collect();
    let steps = steps.map(line).collect();
    let inner::Done { model, files, .. } = done;
    let model = Model::made(Loaded { model, warnings: Vec::new(), files });
    Ok(Converted { model, steps, left })
}
