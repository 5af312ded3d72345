//! Laws of SignRound.

use super::*;
use crate::{
    scheme::{Granularity, Range},
    solve::{
        Gptq, Mse, Rtn,
        gptq::tests::{Noise, inputs, losses, stats},
    },
};
use onnxq_ir::tensor::{DType, ZeroPoints};

#[test]
fn compare() {
    let (n, k) = (64, 256);
    let mut noise = Noise(1);
    let (seen, held_out) = inputs(k, 1024, &mut noise);
    let w = noise.array(n, k) * 0.05;
    let stats = stats(&seen);
    for bits in [2, 4] {
        for zero_points in [ZeroPoints::Symmetric, ZeroPoints::Asymmetric] {
            let granularity = Granularity::Block(32);
            let scheme = Scheme { bits, zero_points, granularity, range: Range::Full };
            let shape = scheme.shape(n, k, DType::F32);
            let sum = |it: &dyn Solver, x: &Array2<f32>| {
                let prepared = it.prepare(&stats).unwrap();
                losses(&w, &it.solve(w.view(), &scheme, shape, Some(&prepared)), x).iter().sum::<f64>()
            };
            let rtn = [&seen, &held_out].map(|x| sum(&Rtn, x));
            let show = |name: &str, it: &dyn Solver| {
                println!("{bits} {zero_points:?} {name}: seen {:.3} held out {:.3}", sum(it, &seen) / rtn[0], sum(it, &held_out) / rtn[1]);
            };
            show("mse", &Mse::default());
            show("gptq plain", &Gptq { polish: false, ..Gptq::default() });
            show("gptq", &Gptq::default());
            for (iterations, rate) in [(50, None), (200, None), (200, Some(0.01)), (200, Some(0.02)), (200, Some(0.05)), (1000, None), (1000, Some(0.005))] {
                let it = Signround { iterations, learning_rate: rate, ..Signround::default() };
                show(&format!("signround {iterations} {rate:?}"), &it);
            }
        }
    }
}
