//! What `quantization_config` says: by which method, in how many bits, how many weights share a scale.

use crate::{CheckpointError, Config};

/// How the integers of a checkpoint are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Method {
    /// Words along the inputs, zero points along the outputs; less one in the first version.
    Gptq { bits: u32, group: Option<usize>, less_one: bool, name: &'static str },
    /// Words along the outputs, in an order of their own.
    Awq { group: Option<usize>, name: &'static str },
    /// compressed-tensors: words along the inputs, rows by outputs.
    Packed { bits: u32 },
    /// compressed-tensors: a byte for each weight.
    Bytes,
}

/// `quant_method` of those that are read.
const METHODS: [&str; 4] = ["auto-round", "awq", "compressed-tensors", "gptq"];
/// `format` of compressed-tensors.
const FORMATS: [&str; 3] = ["int-quantized", "naive-quantized", "pack-quantized"];

impl Method {
    /// The end of the name of a weight's integers.
    pub(super) fn values_end(self) -> &'static str {
        match self {
            Method::Gptq { .. } | Method::Awq { .. } => "qweight",
            Method::Packed { .. } => "weight_packed",
            Method::Bytes => "weight",
        }
    }
}

/// The method of a configuration; `None` if its weights are floats.
pub(super) fn method(config: &Config) -> Result<Option<Method>, CheckpointError> {
    let Some(own) = config.inner("quantization_config")? else { return Ok(None) };
    match &*own.text_or("quant_method", "")? {
        "gptq" => gptq(&own).map(Some),
        "awq" => awq(&own).map(Some),
        "auto-round" | "intel/auto-round" => auto_round(&own).map(Some),
        "compressed-tensors" => compressed(&own).map(Some),
        other => Err(own.unread("quant_method", other, &METHODS)),
    }
}

/// `group_size`: -1 is one group for all inputs.
fn group(config: &Config) -> Result<Option<usize>, CheckpointError> {
    match config.number_if("group_size")? {
        None | Some(-1.0) => Ok(None),
        Some(it) if it >= 1.0 && it.fract() == 0.0 && it <= f64::from(1 << 24) => {
            Ok(Some(it as usize))
        }
        Some(_) => Err(config.wrong("group_size", "must be -1 or a positive whole number")),
    }
}

fn bits(config: &Config, name: &str, known: &[usize]) -> Result<u32, CheckpointError> {
    match config.size(name)? {
        it if known.contains(&it) => Ok(it as u32),
        _ => Err(config.refuse(name)),
    }
}

/// Layers with settings of their own are refused: nothing here reads which they are.
fn uniform(config: &Config, names: &[&str]) -> Result<(), CheckpointError> {
    for name in names {
        if config.entries_if(name)?.is_some_and(|it| it > 0) {
            return Err(
                config.wrong(name, "gives layers settings of their own, which is not implemented")
            );
        }
    }
    Ok(())
}

fn gptq(config: &Config) -> Result<Method, CheckpointError> {
    uniform(config, &["dynamic"])?;
    let less_one = match &*config.text_or("checkpoint_format", "gptq")? {
        "gptq" => true,
        "gptq_v2" => false,
        _ => return Err(config.refuse("checkpoint_format")),
    };
    let bits = bits(config, "bits", &[2, 3, 4, 8])?;
    Ok(Method::Gptq { bits, group: group(config)?, less_one, name: "GPTQ" })
}

fn awq(config: &Config) -> Result<Method, CheckpointError> {
    if !config.text_or("version", "gemm")?.eq_ignore_ascii_case("gemm") {
        return Err(config.refuse("version"));
    }
    let name = if config.has("bits") { "bits" } else { "w_bit" };
    bits(config, name, &[4])?;
    Ok(Method::Awq { group: group(config)?, name: "AWQ" })
}

/// `packing_format` says whose tensors they are. Its own are those of GPTQ without the 1.
fn auto_round(config: &Config) -> Result<Method, CheckpointError> {
    uniform(config, &["extra_config"])?;
    if config.text_or("data_type", "int")? != "int" {
        return Err(config.refuse("data_type"));
    }
    let packing = config.text_or("packing_format", "auto_round:auto_gptq")?;
    let (group, name) = (group(config)?, "AutoRound");
    if packing.contains("awq") {
        bits(config, "bits", &[4])?;
        return Ok(Method::Awq { group, name });
    }
    let bits = bits(config, "bits", &[2, 3, 4, 8])?;
    let less_one = packing.contains("gptq") && !packing.contains("gptqmodel");
    Ok(Method::Gptq { bits, group, less_one, name })
}

/// Bits and groups follow from the shapes of the tensors; what the activations are to be is left to
/// recipes.
fn compressed(config: &Config) -> Result<Method, CheckpointError> {
    let format = config.text_or("format", "")?;
    if !FORMATS.contains(&&*format) {
        return Err(config.unread("format", &format, &FORMATS));
    }
    let groups = config.inner("config_groups")?;
    let groups = groups.ok_or_else(|| config.wrong("config_groups", "is missing"))?;
    let mut found = None;
    for name in groups.keys() {
        let Some(weights) = groups.inner(&name)?.and_then(|it| it.inner("weights").transpose())
        else {
            continue;
        };
        let weights = weights?;
        if weights.text_or("type", "int")? != "int" {
            return Err(weights.refuse("type"));
        }
        let bits = bits(&weights, "num_bits", &[4, 8])?;
        match found {
            Some(other) if other != bits => return Err(weights.refuse("num_bits")),
            _ => found = Some(bits),
        }
    }
    let bits = found.ok_or_else(|| config.wrong("config_groups", "quantizes no weights"))?;
    match &*format {
        "pack-quantized" => Ok(Method::Packed { bits }),
        _ if bits == 8 => Ok(Method::Bytes),
        _ => Err(config
            .wrong("config_groups", "has weights of 4 bits in bytes, which is not implemented")),
    }
}
