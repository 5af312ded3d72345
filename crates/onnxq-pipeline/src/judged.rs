//! What a comparison looks at where sizes depend on numbers: both models, going on from the same
//! decisions.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use super::{Error, open, validate::Validate};
use onnxq_ir::{Model, diag::Code, onnx::Loaded, suggest::suggest, untrusted::Untrusted};
use onnxq_quant::recipe::{Gate, gate::GateError};
use onnxq_report::{document::Warning, lookup};
use onnxq_run::{
    compare::{self, Sizes, Split},
    engine::{IoInfo, Session, SessionOptions},
};

/// Both models as outputs are compared, where sizes depend on numbers.
pub(super) struct Judged {
    pub sizes: Arc<Sizes>,
    pub sessions: [Box<dyn Session>; 2],
    pub splits: BTreeMap<String, Vec<Split>>,
}

/// `None` if no size depends on numbers: then outputs are compared as they are.
pub(super) fn judged(
    loaded: &[Loaded; 2],
    job: &Validate,
    options: &SessionOptions,
    notes: &mut Vec<Warning>,
) -> Result<Option<Judged>, Error> {
    let [reference, candidate] = loaded;
    let Some(sizes) = Sizes::of(&reference.model) else { return Ok(None) };
    let note = sizes.warning();
    notes.extend(note.code.map(|code| Warning::new(code, job.reference, note.message)));
    let (telling, pinned) = (sizes.telling(), sizes.pinned(&candidate.model));
    if let Some(text) = unmatched(&pinned.unmatched) {
        notes.push(Warning::new(Code::W213, job.named(), text));
    }
    let open = |model: &Model, files, path: &Path| {
        open::session(model, files, &format!("`{}`", path.display()), options, &job.runtime)
    };
    let splits = compare::splits(&telling);
    let sessions = [
        open(&telling, &reference.files, job.reference)?,
        open(&pinned.model, &candidate.files, job.candidate)?,
    ];
    Ok(Some(Judged { sizes: Arc::new(sizes), sessions, splits }))
}

fn unmatched(names: &[String]) -> Option<String> {
    let list: Vec<String> = names.iter().map(|it| format!("`{}`", Untrusted(it))).collect();
    let text =
        format!("has no values like {} of the reference: they are not judged", list.join(", "));
    (!list.is_empty()).then_some(text)
}

/// Refuses a gate on an output that the model does not have, before anything runs.
pub(super) fn names_outputs(
    gates: &[Gate],
    outputs: &[IoInfo],
    judged: Option<&Judged>,
) -> Result<(), GateError> {
    let sizes = judged.map(|it| &*it.sizes);
    let told = judged.map_or(&[][..], |it| it.sessions[0].outputs()).iter();
    let beside = told.filter(|it| sizes.is_some_and(|sizes| sizes.is_judged(&it.name)));
    let own = outputs.iter().filter(|it| !sizes.is_some_and(|sizes| sizes.is_settled(&it.name)));
    let known: Vec<&str> = own.chain(beside).map(|output| &*output.name).collect();
    // Times are measured for shapes of inputs, which only the data shows.
    for gate in gates.iter().filter(|gate| !lookup::is_of_runs(&gate.metric)) {
        let Some(name) = gate.output.as_deref() else { continue };
        // Only the data shows the parts of an output.
        let of_part = |it: &&str| name.strip_prefix(*it).is_some_and(|it| it.starts_with('['));
        let is_known = known.contains(&name) || known.iter().any(of_part);
        if lookup::is_of_outputs(&gate.metric) && !is_known {
            let is_settled = sizes.is_some_and(|it| it.is_settled(name));
            let why = match is_settled {
                true => "names an output that follows from what decides sizes, and is not judged",
                false => "names an output that the model does not have",
            };
            let why = why.to_owned();
            let hint = match suggest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("its outputs are {}", known.join(", ")),
            };
            return Err(GateError::Senseless { gate: gate.to_string(), why, hint });
        }
    }
    Ok(())
}
