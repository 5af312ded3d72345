//! Rows of blocks as weights of a model that is written.

use onnxq_ir::{
    ctx::Ctx,
    ir::{Def, Model},
    onnx::{self, ExternalData, OpenOptions, SaveOptions},
    tensor::{DType, Tensor},
    text,
};

use super::parse;
use crate::gguf::{GgmlType, Writer};

/// More than what is written at a time.
const SHAPE: [usize; 2] = [1280, 1024];

fn weight() -> Tensor {
    let values = (0..SHAPE[0] * SHAPE[1]).map(|i| (i * 7919 % 1009) as f32 / 100.0 - 5.0);
    let values = Tensor::from_f32(&SHAPE, values);
    let mut writer = Writer::new();
    writer.rounded("w", GgmlType::Q8_0, &values).unwrap();
    let mut bytes = Vec::new();
    writer.write(&mut bytes).unwrap();
    parse(bytes).unwrap().tensor("w").unwrap()
}

fn constants(model: &Model) -> Vec<&Tensor> {
    let constants = model.graph(model.main).constants.iter();
    let tensor = |it| match &model.value(it).def {
        Def::Const(tensor) => Some(tensor),
        _ => None,
    };
    constants.filter_map(|it| tensor(*it)).collect()
}

#[test]
fn views_of_blocks_are_written_as_their_values() {
    let mut m = text::parse(
        "<ir_version: 8, opset_import: [\"\" : 17]>
        main (float[n,1024] x) => (float[n,1024] y) <float[1024,1280] a, float[1280,1024] b> {
            h = MatMul (x, a)
            y = MatMul (h, b)
        }",
    )
    .unwrap();
    let weight = weight();
    let order: Vec<usize> = (0..SHAPE[0]).map(|i| i / 2 + i % 2 * SHAPE[0] / 2).collect();
    let views = [weight.transposed(), weight.picked(order)];
    for (node, view) in m.nodes().into_iter().zip(&views) {
        let value = m.add_constant(m.main, "w", view.clone());
        m.set_input(node, 1, Some(value));
    }
    m.remove_all_dead();
    let folder = tempfile::tempdir().unwrap();
    for external in [ExternalData::Always, ExternalData::Never] {
        let path = folder.path().join(format!("{external:?}.onnx"));
        let options = SaveOptions { external, ..SaveOptions::default() };
        onnx::save(&m, &path, &options, None, &Ctx::silent()).unwrap();
        let saved = onnx::open(&path, &OpenOptions::default()).unwrap();
        let constants = constants(&saved.model);
        assert_eq!(constants.len(), 2);
        for (own, expected) in constants.iter().zip(&views) {
            assert_eq!((own.dtype, &own.shape), (DType::F32, &expected.shape));
            assert!(own.bytes().unwrap() == expected.bytes().unwrap(), "{external:?}");
        }
    }
}
