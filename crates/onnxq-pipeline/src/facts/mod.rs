//! Facts for a report: what the models are, and what they were compared with and on.

mod decisions;
mod precision;
mod stored;
mod training;
mod weights;

use std::{collections::BTreeMap, path::Path};

pub(crate) use self::decisions::Told;
pub use self::{
    decisions::decisions,
    precision::{kept, precision},
    training::training,
};
pub use super::origin::recipe_facts;
use super::{Census, Error, origin};
use onnxq_ir::{
    diag::Code,
    onnx::{self, FileDigest, Loaded},
};
use onnxq_report::document::{Environment, FileFacts, ModelFacts, Overlap, Samples, Warning};
use onnxq_run::{
    data::{Batches, Sketch},
    engine::{Located, Runtime},
};

/// The machine, and the library at work; its int8 kernels are probed.
pub fn environment(library: &Located, threads: usize, runtime: &Runtime) -> Environment {
    let doctor = runtime.examine(false);
    let features = doctor.cpu.features.iter();
    Environment {
        onnxq: env!("CARGO_PKG_VERSION").to_owned(),
        // Builds for a release set it; others need no repository to build.
        onnxq_commit: option_env!("ONNXQ_COMMIT").map(str::to_owned),
        onnxruntime: library.version.clone(),
        onnxruntime_path: library.path.display().to_string(),
        onnxruntime_sha256: onnx::sha256(&library.path).ok().map(|it| it.1),
        os: std::env::consts::OS.to_owned(),
        arch: doctor.cpu.arch.to_owned(),
        cpu_features: features.map(|(name, has)| ((*name).to_owned(), *has)).collect(),
        cpu: doctor.cpu.model,
        threads,
        int8_sums: doctor.probe.map(|_| doctor.verdict.to_string()),
    }
}

/// What a model is. Reads its files once more, for their digests.
pub fn model_facts(path: &Path, loaded: &Loaded) -> Result<ModelFacts, Error> {
    let (m, files) = (&loaded.model, &loaded.files);
    let census = Census::of(m, files.size());
    let (weights, bits_per_weight) = weights::kinds(m);
    Ok(ModelFacts {
        path: path.display().to_string(),
        files: onnx::digests(files)?.into_iter().map(file_facts).collect(),
        bytes: census.bytes,
        opset: m.opset(""),
        nodes: census.nodes,
        ops: census.ops,
        weights,
        bits_per_weight,
        metadata: m.metadata.iter().filter(|it| it.0.starts_with("onnxq.")).cloned().collect(),
    })
}

fn file_facts(it: FileDigest) -> FileFacts {
    FileFacts { name: it.name, bytes: it.bytes, sha256: it.sha256 }
}

/// Data as it was given, with all its files.
pub fn samples(path: &Path, batches: &Batches) -> Result<Samples, Error> {
    let named = batches.files().iter().map(|it| {
        let name = it.file_name().unwrap_or_default().to_string_lossy();
        (name.into_owned(), it.clone())
    });
    let files = onnx::digest_all(&named.collect::<Vec<_>>())?;
    Ok(Samples {
        path: Some(path.display().to_string()),
        samples: Some(batches.samples()),
        sha256: batches.sha256().to_owned(),
        files: files.into_iter().map(file_facts).collect(),
    })
}

/// What a model says it was calibrated on. The digest is that of [`Batches::contents`], which
/// neither the format of a file nor the order of its samples changes.
pub fn calibrated_on(metadata: &BTreeMap<String, String>) -> Option<Samples> {
    let sha256 = metadata.get(origin::CALIBRATION_SHA256)?.clone();
    let samples = metadata.get(origin::CALIBRATION_COUNT).and_then(|it| it.parse().ok());
    Some(Samples { path: None, samples, sha256, files: Vec::new() })
}

/// How many of these samples the model says it was calibrated on; `None` if it says nothing that
/// can be read.
pub fn overlap(
    metadata: &BTreeMap<String, String>,
    batches: &Batches,
) -> Result<Option<Overlap>, Error> {
    let count = metadata.get(origin::CALIBRATION_COUNT).and_then(|it| it.parse().ok());
    let sketch = metadata.get(origin::CALIBRATION_SAMPLES);
    let sketch = count.zip(sketch).and_then(|(count, it)| Sketch::parse(count, it));
    let Some(sketch) = sketch else { return Ok(None) };
    let (checked, shared) = sketch.overlap(&batches.digests()?);
    Ok(Some(Overlap { checked, shared }))
}

/// What to say of samples that both were calibrated and are compared on.
pub fn overlap_warning(overlap: &Overlap, path: &Path) -> Option<Warning> {
    let Overlap { checked, shared } = *overlap;
    let message = format!(
        "{shared} of {checked} evaluation samples were calibrated on: on new data the figures would be worse"
    );
    (shared > 0).then(|| Warning::new(Code::W201, path, message))
}
