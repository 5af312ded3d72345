//! What a student leaves out is chosen by what the model loses without it, measured.

use crate::common::{fixture, runtime, setup};
use onnxq_ir::{
    ctx::Ctx,
    diag::Code,
    onnx::{self, OpenOptions},
};
use onnxq_pipeline::{
    Inputs,
    student::{self, ChosenLayers},
};
use onnxq_run::data::{DataOptions, Dataset};

/// Some rows of the calibration data.
fn inputs(samples: usize) -> Inputs<'static> {
    let options = DataOptions { samples: Some(samples), ..DataOptions::default() };
    let data = Dataset::of_path(fixture("calibration_input_ids.npy"), options);
    Inputs { data: Some(data), runtime: runtime(), ..Inputs::default() }
}

fn chosen(name: &str, keep: usize, samples: usize) -> ChosenLayers {
    let loaded = onnx::open(&fixture(name), &OpenOptions::default()).unwrap();
    let inputs = inputs(samples);
    student::choose_layers(&loaded.model, &loaded.files, &inputs, keep, &Ctx::silent()).unwrap()
}

#[test]
fn the_cheapest_layers_go_first_and_the_first_one_stays() {
    let chosen = chosen("model.onnx", 2, 4);
    assert_eq!((chosen.rounds.len(), chosen.samples), (2, 4));
    assert_eq!(chosen.rounds.iter().map(|it| it.measured.len()).collect::<Vec<_>>(), [4, 3]);
    for (round, removed) in chosen.rounds.iter().zip(&chosen.removed) {
        assert_eq!(round.measured[0], *removed);
        assert!(round.measured.is_sorted_by(|a, b| a.loss <= b.loss));
        // Without the layer that reads the embeddings nothing is left of the model.
        let last = round.measured.last().unwrap();
        assert!(last.layer == 0 && last.loss > 2.0 && removed.loss < 1.2, "{round:?}");
    }
    assert!(chosen.kept.contains(&0) && chosen.kept.len() == 2, "{chosen:?}");
    assert!(chosen.removed[0].loss < chosen.removed[1].loss);
}

#[test]
fn exporters_and_caches_change_no_choice() {
    let expected = chosen("model.onnx", 3, 2);
    for name in ["model_dynamo.onnx", "model_with_past.onnx"] {
        let other = chosen(name, 3, 2);
        assert_eq!(other.kept, expected.kept, "{name}");
        let pairs = expected.rounds[0].measured.iter().zip(&other.rounds[0].measured);
        for (a, b) in pairs {
            assert!(a.layer == b.layer && (a.loss - b.loss).abs() < 1e-3, "{name}: {a:?} {b:?}");
        }
    }
}

#[test]
fn channels_that_add_most_stay() {
    let setup = setup("model.onnx");
    let (inputs, ctx) = (inputs(4), Ctx::silent());
    let choose = |width: usize| {
        student::choose_width(&setup.model, &setup.files, &inputs, width, &ctx).unwrap()
    };
    let (whole, narrow) = (choose(352), choose(264));
    assert!(whole.loss < 1e-6 && narrow.loss > whole.loss, "{}", narrow.loss);
    assert!(narrow.kept.iter().all(|it| it.len() == 264 && it.is_sorted()));
    for (kept, importance) in narrow.kept.iter().zip(&narrow.importance) {
        let gone = (0..352).filter(|it| !kept.contains(it)).map(|it| importance[it]);
        let least = kept.iter().map(|it| importance[*it]).fold(f64::MAX, f64::min);
        assert!(least >= gone.fold(0.0, f64::max));
    }
    // The file as its exporter wrote it has the same blocks.
    let raw = onnx::open(&fixture("model.onnx"), &OpenOptions::default()).unwrap();
    let raw = student::choose_width(&raw.model, &raw.files, &inputs, 264, &ctx).unwrap();
    assert_eq!(raw.kept, narrow.kept);
    let several = Inputs { threads: 2, ..inputs.clone() };
    let again = student::choose_width(&setup.model, &setup.files, &several, 264, &ctx).unwrap();
    assert_eq!(again.kept, narrow.kept);
    assert_eq!(again.importance, narrow.importance);
}

#[test]
fn what_cannot_be_is_said() {
    let setup = setup("model.onnx");
    let (inputs, ctx) = (inputs(1), Ctx::silent());
    let layers = |keep: usize, inputs: &Inputs| {
        student::choose_layers(&setup.model, &setup.files, inputs, keep, &ctx).map(|it| it.kept)
    };
    assert_eq!(layers(4, &inputs).unwrap(), [0, 1, 2, 3]);
    for keep in [0, 5] {
        let error = layers(keep, &inputs).unwrap_err();
        assert_eq!((error.code(), error.hint().unwrap()), (Code::E412, "keep from 1 to 4".into()));
    }
    assert_eq!(layers(2, &Inputs::default()).unwrap_err().code(), Code::E610);
    let wide = student::choose_width(&setup.model, &setup.files, &inputs, 353, &ctx).unwrap_err();
    assert_eq!(wide.code(), Code::E412);
}
