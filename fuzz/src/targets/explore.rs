//! What is done with every model that was read, and what must hold on the way.

use std::path::Path;

use onnxq_ir::{
    Model,
    ctx::Ctx,
    infer, onnx,
    text::{self, PrintOptions},
};
use onnxq_rewrite as rewrite;

/// Larger constants are not written, since text can claim any number of filler values.
const MAX_BYTES: usize = 1 << 20;
/// Nothing is done with more: no input of a few hundred bytes shows what so many values cost.
const MOST_BYTES: usize = 1 << 26;
const PRINT: PrintOptions = PrintOptions { max_elements: 256, value_info: true };
/// Types between nodes are written only if the file that was read states them.
const UNTYPED: PrintOptions = PrintOptions { value_info: false, ..PRINT };

/// Verifies, prints, reads back, infers, lints and rewrites.
pub(super) fn explore(mut model: Model) -> String {
    verify(&model, "reading");
    if bytes_of_constants(&model) > MOST_BYTES {
        return "large".to_owned();
    }
    read_back_text(&model);
    read_back_bytes(&model);
    let report = infer::run(&mut model);
    verify(&model, "inference");
    let findings = rewrite::lint::run(&model).len();
    let rewritten = match rewrite::run(&mut model, rewrite::STANDARD, &Ctx::silent()) {
        Ok(steps) => steps.iter().filter(|it| it.1 > 0).count(),
        Err(_) => 0,
    };
    verify(&model, "rewriting");
    let _ = text::print(&model);
    let unknown = report.unknown_ops.len().min(2);
    format!("{} {} {unknown} {findings} {rewritten}", report.known.min(8), report.total.min(8))
}

fn verify(model: &Model, step: &str) {
    if let Err(broken) = model.verify() {
        panic!("after {step}: {broken}");
    }
}

fn bytes_of_constants(model: &Model) -> usize {
    let constants = model.values().filter_map(|(id, _)| model.constant(id).ok());
    constants.fold(0, |sum, it| sum.saturating_add(it.nbytes()))
}

/// What is printed is read, and printed again in the same way.
fn read_back_text(model: &Model) {
    let printed = text::print_with(model, &PRINT);
    match text::parse(&printed) {
        Ok(again) => {
            verify(&again, "reading back text");
            assert_same(&printed, &text::print_with(&again, &PRINT), "text");
        }
        Err(error) => panic!("printed text is refused: {error}\n{printed}"),
    }
}

/// What is written is read, and means the same.
fn read_back_bytes(model: &Model) {
    if bytes_of_constants(model) > MAX_BYTES {
        return;
    }
    let Ok(bytes) = onnx::to_bytes(model) else { return };
    match onnx::open_bytes(bytes.into(), Path::new("again.onnx"), &Default::default()) {
        Ok(onnx::Loaded { model: again, .. }) => {
            // FunctionProto has no initializers: they come back as nodes.
            let mut bodies = model.functions.iter().map(|it| model.graph(it.body));
            if bodies.any(|it| !it.constants.is_empty()) {
                return verify(&again, "reading back bytes");
            }
            let mut model = model.clone();
            // The writer's lowest: initializers that are no inputs came with it.
            model.ir_version = model.ir_version.max(4);
            forget_types_of_functions(&mut model);
            let [before, after] = [&model, &again].map(|it| text::print_with(it, &UNTYPED));
            assert_same(&before, &after, "bytes");
        }
        Err(error) => panic!("written bytes are refused: {error}"),
    }
}

/// ONNX has no types for inputs and outputs of functions; our text may have.
fn forget_types_of_functions(model: &mut Model) {
    let bodies: Vec<_> = model.functions.iter().map(|it| it.body).collect();
    for body in bodies {
        let graph = model.graph(body);
        let values: Vec<_> = graph.inputs.iter().chain(&graph.outputs).copied().collect();
        values.into_iter().for_each(|it| {
            let value = model.value_mut(it);
            value.ty = None;
            value.kept = None;
        });
    }
}

fn assert_same(before: &str, after: &str, form: &str) {
    if before == after {
        return;
    }
    let (a, b) = before.lines().zip(after.lines()).find(|(a, b)| a != b).unwrap_or_default();
    panic!("{form} changes a model:\n- {a}\n+ {b}");
}
