//! A plan as a GGUF file: which tensor gets which type of ggml, and where its blocks come from.

mod convert;
mod proof;
mod rows;
mod write;

use std::{collections::BTreeMap, sync::Arc};

pub use self::convert::to_gguf;
pub(crate) use self::proof::prove;

use bytes::Bytes;

use crate::Error;
use onnxq_formats::{
    Blocks, Checkpoint, Export, ExportTensor,
    gguf::{GgmlType, Value, WriteError, Writer, vocab},
};
use onnxq_ir::{
    Model, no_match,
    tensor::{DType, QSource},
    untrusted::Untrusted,
};
use onnxq_quant::{
    format::ggml,
    plan::{Plan, SitePlan},
    sources::Sources,
};

/// A checkpoint, and what it is in a file whatever its tensors become.
pub(crate) struct Target {
    pub(crate) checkpoint: Checkpoint,
    export: Export,
    /// Keys of the tokenizer.
    words: Vec<(String, Value)>,
}

impl Target {
    /// # Errors
    /// E121 and E122 of what GGUF or llama.cpp cannot say.
    pub(crate) fn new(checkpoint: Checkpoint) -> Result<Target, Error> {
        let (mut export, words) = (checkpoint.export()?, words(&checkpoint)?);
        export.notes.extend(words.notes);
        Ok(Target { checkpoint, export, words: words.keys })
    }
}

/// A file to be.
pub(crate) struct Gguf {
    target: Arc<Target>,
    /// Of each tensor.
    made: Vec<Made>,
}

/// What a tensor becomes.
struct Made {
    kind: GgmlType,
    values: Values,
}

/// Where the blocks of a tensor come from.
enum Values {
    /// Floats are rounded.
    Rounded,
    /// The checkpoint, a GGUF file, has them.
    Stored(Bytes),
    /// They are solved, part by part.
    Solved(Vec<Arc<dyn QSource>>),
}

impl Made {
    fn rounded(kind: GgmlType) -> Made {
        Made { kind, values: Values::Rounded }
    }

    /// What the checkpoint has, if GGUF has it so.
    fn kept(tensor: &ExportTensor) -> Made {
        match tensor.stored.clone() {
            Some(Blocks { kind, bytes }) => Made { kind, values: Values::Stored(bytes) },
            None => Made::rounded(float(tensor.dtype)),
        }
    }
}

/// The types that values can be rounded to one by one, or in blocks of 32.
pub const ROUNDED: [GgmlType; 8] = [
    GgmlType::F32,
    GgmlType::F16,
    GgmlType::BF16,
    GgmlType::Q4_0,
    GgmlType::Q4_1,
    GgmlType::Q5_0,
    GgmlType::Q5_1,
    GgmlType::Q8_0,
];

/// A file whose matrices are rounded to a type, or stay as the checkpoint has them.
pub(crate) fn rounded(target: Arc<Target>, kind: Option<GgmlType>) -> Gguf {
    let fits = |it: &ExportTensor| {
        kind.filter(|kind| it.is_rounded && kind.row_bytes(it.shape[1]).is_some())
    };
    let made = |it: &ExportTensor| match fits(it) {
        // What has the type is not rounded again.
        Some(kind) if it.stored.as_ref().is_none_or(|own| own.kind != kind) => Made::rounded(kind),
        _ => Made::kept(it),
    };
    let made = target.export.tensors.iter().map(made).collect();
    Gguf { target, made }
}

/// What a file says of its words: that of the GGUF file that the checkpoint is, or of its tokenizer.
fn words(checkpoint: &Checkpoint) -> Result<vocab::Written, Error> {
    let only = |keys| vocab::Written { keys, notes: Vec::new() };
    if !checkpoint.words.is_empty() {
        return Ok(only(checkpoint.words.clone()));
    }
    let has = |name: &str| checkpoint.folder.join(name).is_file();
    if !has("tokenizer.json") && !has("tokenizer.model") {
        // llama.cpp then takes and gives numbers of tokens only.
        return Ok(only(vec![("tokenizer.ggml.model".to_owned(), "none".into())]));
    }
    Ok(vocab::keys(&checkpoint.folder, checkpoint.architecture.vocabulary)?)
}

/// The type of floats, as the checkpoint has them.
fn float(dtype: DType) -> GgmlType {
    match dtype {
        DType::F16 => GgmlType::F16,
        DType::BF16 => GgmlType::BF16,
        _ => GgmlType::F32,
    }
}

impl Gguf {
    /// The tensors of a plan for the checkpoint's graph. Weights that `sources` lacks are added to it.
    pub(crate) fn of(
        target: Arc<Target>,
        m: &Model,
        sites: &[SitePlan],
        sources: &mut Sources,
    ) -> Gguf {
        let mut gguf = rounded(target, None);
        for (tensor, made) in gguf.target.export.tensors.iter().zip(&mut gguf.made) {
            let own = own_sites(m, sites, tensor);
            let Some(first) = own.first().copied().flatten() else { continue };
            let scheme = ggml(&first.scheme).expect("the format has no other schemes");
            let name = scheme.name.to_uppercase();
            let kind = GgmlType::from_name(&name).expect("types of ggml");
            let all = own.into_iter().map(|it| sources.get(m, it.expect("parts are alike")));
            *made = Made { kind, values: Values::Solved(all.collect()) };
        }
        gguf
    }

    /// How many tensors have which type.
    pub(crate) fn types(&self) -> BTreeMap<&'static str, usize> {
        let mut types = BTreeMap::new();
        for it in &self.made {
            *types.entry(it.kind.name()).or_default() += 1;
        }
        types
    }

    /// Matrices whose rows are no whole blocks of a type.
    pub(crate) fn unfit(&self, kind: GgmlType) -> impl Iterator<Item = &ExportTensor> {
        let all = self.target.export.tensors.iter().zip(&self.made);
        all.filter(move |it| it.0.is_rounded && it.1.kind != kind).map(|it| it.0)
    }

    /// What the format cannot say.
    pub(crate) fn notes(&self) -> &[String] {
        &self.target.export.notes
    }

    /// The file with these entries beside those that say what the model is.
    fn writer<'a>(&'a self, entries: &[(String, String)]) -> Result<Writer<'a>, WriteError> {
        let mut writer = Writer::new();
        for (key, value) in self.general().into_iter().chain(self.target.export.metadata.clone()) {
            writer.value(&key, value);
        }
        for (key, value) in &self.target.words {
            writer.value(key, value.clone());
        }
        for (key, value) in entries {
            writer.value(key, &**value);
        }
        for (tensor, made) in self.target.export.tensors.iter().zip(&self.made) {
            rows::append(&mut writer, tensor, made)?;
        }
        Ok(writer)
    }

    /// Keys of every file.
    fn general(&self) -> Vec<(String, Value)> {
        let architecture = self.target.export.architecture;
        let name = self.target.checkpoint.folder.file_stem().unwrap_or_default().to_string_lossy();
        let pairs: [(&str, Value); 5] = [
            ("general.architecture", architecture.into()),
            ("general.type", "model".into()),
            ("general.name", (&*name).into()),
            ("general.file_type", self.file_type().into()),
            ("general.quantization_version", 2u32.into()),
        ];
        pairs.map(|(key, value)| (key.to_owned(), value)).into()
    }

    /// llama.cpp's number of the type that most of the weights have.
    fn file_type(&self) -> u32 {
        let mut bytes: BTreeMap<GgmlType, u64> = BTreeMap::new();
        for (tensor, made) in self.target.export.tensors.iter().zip(&self.made) {
            *bytes.entry(made.kind).or_default() += tensor.shape.iter().product::<usize>() as u64;
        }
        let most = bytes.into_iter().max_by_key(|it| it.1).map(|it| it.0);
        FILE_TYPES.iter().find(|it| Some(it.0) == most).map_or(0, |it| it.1)
    }
}

/// `general.file_type`; of the K types the number of the smallest mix.
const FILE_TYPES: [(GgmlType, u32); 13] = [
    (GgmlType::F32, 0),
    (GgmlType::F16, 1),
    (GgmlType::Q4_0, 2),
    (GgmlType::Q4_1, 3),
    (GgmlType::Q8_0, 7),
    (GgmlType::Q5_0, 8),
    (GgmlType::Q5_1, 9),
    (GgmlType::Q2K, 10),
    (GgmlType::Q3K, 11),
    (GgmlType::Q4K, 14),
    (GgmlType::Q5K, 16),
    (GgmlType::Q6K, 18),
    (GgmlType::BF16, 32),
];

/// The sites of the parts of a tensor.
fn own_sites<'a>(
    m: &Model,
    sites: &'a [SitePlan],
    tensor: &ExportTensor,
) -> Vec<Option<&'a SitePlan>> {
    let site = |names: &[String]| {
        let named =
            |it: &&SitePlan| names.iter().any(|name| *m.value(it.site.weight).name == **name);
        sites.iter().find(named)
    };
    tensor.parts.iter().map(|it| site(&it.names)).collect()
}

/// Parts of one tensor get one type, that with the most bits; where one stays in float, all do.
pub(crate) fn unify(target: &Target, m: &Model, plan: &mut Plan) {
    for tensor in target.export.tensors.iter().filter(|it| it.parts.len() > 1) {
        let own = own_sites(m, &plan.sites, tensor);
        let found: Vec<SitePlan> = own.iter().copied().flatten().cloned().collect();
        let Some(best) = found.iter().max_by_key(|it| it.scheme.bits) else { continue };
        let nodes: Vec<_> = found.iter().map(|it| it.site.node).collect();
        let name = Untrusted(&tensor.name);
        if found.len() < own.len() {
            let why = || no_match!("GGUF has it in one tensor, `{name}`, with what stays in float");
            nodes.into_iter().for_each(|it| plan.keep(m, it, why()));
            continue;
        }
        let (scheme, solver) = (best.scheme, best.solver);
        for site in plan.sites.iter_mut().filter(|it| nodes.contains(&it.site.node)) {
            if site.scheme != scheme {
                site.note = Some(no_match!("GGUF has it in one tensor, `{name}`"));
            }
            (site.scheme, site.solver) = (scheme, solver);
        }
    }
}
