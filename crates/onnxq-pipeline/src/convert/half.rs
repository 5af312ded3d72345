//! `--to float16` and `--to bfloat16`: narrow floats wherever nothing speaks against them.

use super::{
    Left, Step,
    cache::{Calibration, session},
};
use crate::Error;
use onnxq_ir::{Model, ValueId, ctx::Ctx, human::grouped, onnx::Files, tensor::DType};
use onnxq_rewrite::half::{HalfReport, Largest, prepare, to_half};
use onnxq_run::{calibrate::model_inputs, data::Batch};

/// The types that `--to` takes, and its help for each.
pub const HALVES: &[(DType, &str)] = &[
    (
        DType::BF16,
        "Weights and activations in bfloat16, but for nodes that would overflow or do not take it",
    ),
    (
        DType::F16,
        "Weights and activations in float16, but for nodes that would overflow or do not take it",
    ),
];
/// So many values are looked at in one run: all of a large model do not fit into memory.
const AT_A_TIME: usize = 64;

/// Makes what is float32 narrow; nodes that stay in float32 are named. Values are measured on the
/// data, if there is any.
pub(super) fn run(
    (m, files): (&mut Model, &Files),
    (dtype, keep_io): (DType, bool),
    data: Option<&Calibration>,
    ctx: &Ctx,
) -> Result<Step, Error> {
    let mut largest = Largest::new();
    let mut samples = 0;
    if let Some(data) = data {
        prepare(m, ctx)?;
        (largest, samples) = measure(m, files, data, ctx)?;
    }
    let report = to_half(m, dtype, keep_io, &largest, ctx)?;
    let mut step = Step::new(dtype.name());
    step.changed = report.converted;
    step.lines = lines(&report);
    if dtype == DType::F16 {
        step.lines.push(match samples {
            0 => "activations were not looked at: with --calibration DATA, nodes whose values \
                  overflow stay in float32"
                .to_owned(),
            count => format!("activations were looked at on {count} samples"),
        });
    }
    let left = |it: onnxq_rewrite::half::KeptNode| Left {
        node: it.node,
        op: it.op,
        reason: format!("stays in float32: {}", it.reason),
    };
    step.left = report.kept.into_iter().map(left).collect();
    Ok(step)
}

/// The largest magnitude of every float32 value of the main graph, and the number of samples.
fn measure(
    m: &Model,
    files: &Files,
    data: &Calibration,
    ctx: &Ctx,
) -> Result<(Largest, usize), Error> {
    let computed = |it: &ValueId| m.dtype(*it) == Some(DType::F32);
    let nodes = m.nodes_of(m.main);
    let values: Vec<ValueId> =
        nodes.flat_map(|it| m.node(it).outputs.clone()).filter(computed).collect();
    let mut largest = Largest::new();
    // Read once, for every part of the values.
    let batches: Vec<Batch> = data.samples(&model_inputs(m))?.collect::<Result<_, _>>()?;
    ctx.progress.start("calibrate", values.len() as u64);
    for part in values.chunks(AT_A_TIME) {
        observe((m, files), part, (data, &batches), &mut largest, ctx)?;
        ctx.progress.step(part.len() as u64);
    }
    ctx.progress.done(&format!("{} samples", batches.len()));
    Ok((largest, batches.len()))
}

fn observe(
    (m, files): (&Model, &Files),
    values: &[ValueId],
    (data, batches): (&Calibration, &[Batch]),
    largest: &mut Largest,
    ctx: &Ctx,
) -> Result<(), Error> {
    let mut probe = m.clone();
    let main = probe.main;
    while !probe.graph(main).outputs.is_empty() {
        probe.take_graph_output(main, 0);
    }
    values.iter().for_each(|it| probe.add_output(main, *it));
    let mut session = session(&probe, files, data, ctx)?;
    for batch in batches {
        let inputs: Vec<_> = batch.iter().map(|(name, it)| (&**name, it)).collect();
        for (value, (_, tensor)) in values.iter().zip(session.run(&inputs)?) {
            let most = tensor.to_f32()?.iter().fold(0f32, |most, it| most.max(it.abs()));
            let known = largest.entry(*value).or_default();
            *known = known.max(most);
        }
    }
    Ok(())
}

fn lines(report: &HalfReport) -> Vec<String> {
    let count = |it: usize| grouped(it as u64);
    let mut lines = vec![format!(
        "{} nodes, {} weights, {} casts added",
        count(report.converted),
        count(report.weights),
        count(report.casts)
    )];
    lines.extend(report.clamped.iter().map(|it| {
        let name = onnxq_ir::untrusted::Untrusted(&it.value);
        format!("`{name}` holds {}, which stands for infinity: it becomes {}", it.from, it.to)
    }));
    lines
}
