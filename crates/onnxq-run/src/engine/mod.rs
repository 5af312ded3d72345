//! Running a model on a batch. Nothing outside this folder knows ONNX Runtime.

mod ahead;
mod decoder;
mod doctor;
mod error;
pub mod eval;
#[cfg(feature = "install")]
mod fetch;
mod install;
mod locate;
#[cfg(feature = "runtime")]
mod ort;
#[cfg(not(feature = "runtime"))]
#[path = "no_ort.rs"]
mod ort;
pub mod package;
mod probe;
pub(crate) mod roles;
mod runtime;
mod sampler;
mod stop;
#[cfg(all(test, feature = "runtime"))]
pub(crate) mod testing;
#[cfg(feature = "install")]
mod wheel;

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

pub use self::{
    ahead::{RunBatch, ahead},
    decoder::{Decoder, Logits, NoCache, Pair, Pairs, Rows, shares_buffer},
    doctor::{Cpu, Doctor, Examined, Verdict},
    error::EngineError,
    install::{InstallError, pinned_version},
    locate::{How, Located, NotFound, Reject, Tried},
    probe::Probe,
    runtime::{Host, PackageIndex, Places, Runtime, RuntimeOptions, Source},
    sampler::{KernelRun, KernelSamples, kernels},
    stop::Stop,
};
use onnxq_ir::tensor::{Dim, Tensor, TensorType};

/// An input or output of a loaded model.
#[derive(Clone, Debug, PartialEq)]
pub struct IoInfo {
    pub name: String,
    pub ty: TensorType,
}

/// An output that is a sequence, a map or optional.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LeftOut {
    pub name: String,
    /// As ONNX Runtime says it.
    pub ty: String,
}

/// A loaded model.
pub trait Session: Send {
    fn inputs(&self) -> &[IoInfo];
    /// Those that are tensors.
    fn outputs(&self) -> &[IoInfo];
    /// The other outputs.
    fn left_out(&self) -> &[LeftOut] {
        &[]
    }
    /// Runs once; `inputs` names each input of the model. Outputs that are tensors come in the model's
    /// order.
    fn run(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Vec<(String, Tensor)>, EngineError>;
    /// How long a run takes, and nothing but the run: outputs are not brought here.
    fn time(&mut self, inputs: &[(&str, &Tensor)]) -> Result<Duration, EngineError> {
        let start = Instant::now();
        self.run(inputs)?;
        Ok(start.elapsed())
    }
    /// From now on, looks which instructions runs execute; `false` if it cannot.
    fn sample(&mut self) -> bool {
        false
    }
    /// What was seen since [`Session::sample`], which goes on; `None` if it was not asked for.
    fn sampled(&mut self) -> Option<KernelSamples> {
        None
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SessionOptions {
    /// Threads within an operator; 0 lets the engine choose.
    pub threads: usize,
    /// Off: run the graph as it is written.
    pub optimize: bool,
    /// Where to write the graph that will really execute.
    ///
    /// Its large weights go to a file beside it, named after it with `.data` appended.
    pub optimized_model: Option<PathBuf>,
    /// The file of weights of `optimized_model` also holds them as this machine's kernels pack them.
    pub prepack: bool,
    /// Weights stay in the files they lie in, and memory is given back after each run: slower,
    /// but a model larger than memory runs.
    pub lean: bool,
    /// Products of int8 do not saturate, as on CPUs with VNNI, whatever this CPU is.
    pub exact: bool,
}

impl Default for SessionOptions {
    fn default() -> SessionOptions {
        SessionOptions {
            threads: 1,
            optimize: true,
            optimized_model: None,
            prepack: false,
            lean: false,
            exact: false,
        }
    }
}

/// So many threads as are wanted; 0: one per core.
pub fn threads(wanted: usize) -> usize {
    let cores = || std::thread::available_parallelism().map_or(1, usize::from);
    if wanted == 0 { cores() } else { wanted }
}

/// Puts the given tensors into the order of the model's inputs.
///
/// The engine itself would notice a missing input only inside the first operator that reads it.
pub(crate) fn match_inputs<'a>(
    expected: &[IoInfo],
    given: &[(&str, &'a Tensor)],
) -> Result<Vec<&'a Tensor>, EngineError> {
    let known = |name: &str| expected.iter().any(|it| it.name == name);
    if let Some((name, _)) = given.iter().find(|(name, _)| !known(name)) {
        return Err(EngineError::UnknownInput {
            name: (*name).to_owned(),
            expected: expected.iter().map(|it| it.name.clone()).collect(),
        });
    }
    expected.iter().map(|input| match_input(input, given)).collect()
}

fn match_input<'a>(
    input: &IoInfo,
    given: &[(&str, &'a Tensor)],
) -> Result<&'a Tensor, EngineError> {
    let Some((_, tensor)) = given.iter().find(|(name, _)| *name == input.name) else {
        return Err(EngineError::MissingInput {
            name: input.name.clone(),
            given: given.iter().map(|(name, _)| (*name).to_owned()).collect(),
        });
    };
    let name = || input.name.clone();
    let expected = || input.ty.clone();
    if tensor.dtype != input.ty.dtype {
        return Err(EngineError::InputType {
            name: name(),
            expected: expected(),
            actual: tensor.dtype,
        });
    }
    if !fits(tensor, &input.ty) {
        let actual = tensor.shape.clone();
        return Err(EngineError::InputShape { name: name(), expected: expected(), actual });
    }
    Ok(tensor)
}

fn fits(tensor: &Tensor, ty: &TensorType) -> bool {
    let Some(dims) = &ty.shape else { return true };
    let fits = |(dim, &size): (&Dim, &usize)| dim.fixed().is_none_or(|it| it == size);
    dims.len() == tensor.shape.len() && dims.iter().zip(&tensor.shape).all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::{
        diag::{Code, Diagnostic},
        tensor::DType,
    };

    fn ids() -> IoInfo {
        let ty = TensorType::new(DType::I64, [Dim::Symbol("batch".into()), Dim::Fixed(3)]);
        IoInfo { name: "ids".to_owned(), ty }
    }

    fn complaint(given: &[(&str, &Tensor)]) -> (String, Code) {
        let error = match_inputs(&[ids()], given).unwrap_err();
        (error.to_string(), error.code())
    }

    #[test]
    fn inputs_are_checked_by_name_type_and_shape() {
        let good = Tensor::from_i64(&[1, 3], [1, 2, 3]);
        let float = Tensor::from_f32(&[1, 3], [1., 2., 3.]);
        let narrow = Tensor::from_i64(&[1, 2], [1, 2]);
        assert!(match_inputs(&[ids()], &[("ids", &good)]).is_ok());
        let text = "no data for input `ids`: given are none";
        assert_eq!(complaint(&[]), (text.to_owned(), Code::E607));
        let text = "the model has no input `x`: its inputs are `ids`";
        assert_eq!(complaint(&[("ids", &good), ("x", &good)]), (text.to_owned(), Code::E607));
        let text = "input `ids` takes int64[batch,3], not float";
        assert_eq!(complaint(&[("ids", &float)]), (text.to_owned(), Code::E604));
        let text = "input `ids` takes int64[batch,3], not shape [1, 2]";
        assert_eq!(complaint(&[("ids", &narrow)]), (text.to_owned(), Code::E603));
    }
}
