//! The proof for `onnxq doctor --kernels`: models of one operator, sampled while they run.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::{
    super::{
        EngineError, Located, SessionOptions, Source, ort,
        probe::{self, constant, field, value, varint},
    },
    KernelSamples, Sampler,
};
use onnxq_ir::tensor::{DType, Tensor};

/// Large enough that the product takes the time, small enough for every cache.
const K: usize = 512;
const N: usize = 512;
const ROWS: usize = 32;
const BLOCK: usize = 32;
/// As long as it takes for so many samples: a second, or more if others use the processor.
const SAMPLES: usize = 200;
const AT_MOST: Duration = Duration::from_secs(10);

/// What ran for one operator.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelRun {
    pub operator: String,
    /// `None`: nothing can be sampled here.
    pub samples: Option<KernelSamples>,
    pub verdict: String,
}

/// Runs the products of 8-bit and of 4-bit weights, about a second each.
pub fn kernels(located: &Located) -> Result<Vec<KernelRun>, EngineError> {
    let codes = Tensor::new(DType::U8, vec![ROWS, K], vec![255u8; ROWS * K]);
    let floats = Tensor::from_f32(&[ROWS, K], (0..ROWS * K).map(|it| (it % 17) as f32 - 8.0));
    Ok(vec![
        sample("MatMulInteger", &probe::model(K, N), &codes, located)?,
        sample("MatMulNBits", &blocks(), &floats, located)?,
    ])
}

fn sample(
    operator: &'static str,
    model: &[u8],
    a: &Tensor,
    located: &Located,
) -> Result<KernelRun, EngineError> {
    let source = Source::Bytes { model, folder: None };
    let mut session = ort::open(located, source, &SessionOptions::default(), &[])?;
    let operator = operator.to_owned();
    let Some(sampler) = Sampler::start() else {
        let verdict = "not available here".to_owned();
        return Ok(KernelRun { operator, samples: None, verdict });
    };
    let start = Instant::now();
    sampler.resume();
    while sampler.taken() < SAMPLES && start.elapsed() < AT_MOST {
        session.run(&[("a", a)])?;
    }
    sampler.pause();
    let samples = sampler.seen(located);
    Ok(KernelRun { operator, samples: Some(samples), verdict: samples.verdict() })
}

/// `y = MatMulNBits(a, b, scales)` with `a` f32\[m, K\] and 4-bit weights, whose activations may be
/// turned into 8-bit codes.
fn blocks() -> Vec<u8> {
    let per_row = K / BLOCK;
    let codes: Vec<u8> = (0..N * K / 2).map(|it| (it * 37 % 251) as u8).collect();
    let scales = [0.125f32.to_le_bytes(); N].concat().repeat(per_row);
    let attribute = |name: &str, it: usize| {
        field(5, &[field(1, name.as_bytes()), varint(3, it as u64), varint(20, 2)].concat())
    };
    let node = [
        ["a", "b", "scales"].map(|it| field(1, it.as_bytes())).concat(),
        [field(2, b"y"), field(4, b"MatMulNBits"), field(7, b"com.microsoft")].concat(),
        [("K", K), ("N", N), ("bits", 4), ("block_size", BLOCK), ("accuracy_level", 4)]
            .map(|(name, it)| attribute(name, it))
            .concat(),
    ];
    let graph = [
        field(1, &node.concat()),
        field(2, b"blocks"),
        field(5, &constant("b", DType::U8, &[N, per_row, BLOCK / 2], &codes)),
        field(5, &constant("scales", DType::F32, &[N, per_row], &scales)),
        field(11, &value("a", DType::F32, K)),
        field(12, &value("y", DType::F32, N)),
    ];
    let opsets = [varint(2, 17), [field(1, b"com.microsoft"), varint(2, 1)].concat()];
    let opsets = opsets.map(|it| field(8, &it)).concat();
    [varint(1, 8), opsets, field(7, &graph.concat())].concat()
}
