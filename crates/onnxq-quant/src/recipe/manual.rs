//! Sentences of the manual that list what tables hold.

use crate::{format::FORMATS, target::TARGETS, transform::TransformSpec};
use onnxq_ir::human::listed;
use onnxq_numerics::{observe::ObserverSpec, specs::Spec};

pub(super) fn target() -> String {
    let default = |name: &'static str| match name {
        "generic" => "generic (the default)",
        name => name,
    };
    let names: Vec<&str> = TARGETS.iter().map(|it| default(it.name)).collect();
    format!("The class of CPUs to emit for: {}.", listed(&names, "or"))
}

pub(super) fn transforms() -> String {
    let quoted = |needs_data: &[bool]| -> Vec<String> {
        let all = TransformSpec::all().into_iter();
        all.filter(|it| needs_data.contains(&it.needs_data()))
            .map(|it| format!("`{}`", it.name()))
            .collect()
    };
    format!(
        "Changes of the float model that make it easier to quantize and leave what it computes the \
         same, in order: {}, alone or with their settings. All but {} need `--calibration`. \
         Replaces the parent's list; `[]` means none.",
        listed(&quoted(&[true, false]), "or"),
        listed(&quoted(&[false]), "and"),
    )
}

pub(super) fn formats() -> String {
    let names: Vec<&str> = FORMATS.iter().map(|it| it.name).collect();
    format!(
        "Formats to try in order; the first that can store the weight is used. {}. If none fits, \
         the node stays in float and the plan says why.",
        listed(&names, "or"),
    )
}

pub(super) fn observers() -> String {
    format!(
        "Which of the values seen in calibration the quantized values of a static range must span: {}. \
         Default: {}.",
        listed(ObserverSpec::NAMES, "or"),
        ObserverSpec::default().name(),
    )
}
