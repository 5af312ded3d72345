//! What models there are, and what is loaded of them.

use serde_json::{Value, json};

use crate::{
    config::{KeepAlive, ModelConfig},
    http::App,
    metrics::STATES,
    problem::{Kind, Problem},
    registry::Listed,
};

pub(crate) fn models(app: &App) -> Value {
    let listed = app.registry.list();
    let models = app.registry.models.iter().zip(&listed);
    json!({"object": "list", "data": models.map(|(it, now)| one(app, it, now)).collect::<Value>()})
}

pub(crate) fn model(app: &App, name: &str) -> Result<Value, Problem> {
    let listed = app.registry.list();
    let mut models = app.registry.models.iter().zip(&listed);
    let found = models.find(|(it, _)| it.name == name);
    found.map(|(it, now)| one(app, it, now)).ok_or_else(|| {
        Problem::new(404, Kind::Missing, "model_not_found", "there is no such model")
    })
}

/// No paths: a name is all that clients need.
fn one(app: &App, model: &ModelConfig, now: &Listed) -> Value {
    let known = now.facts.as_ref();
    json!({
        "id": model.name,
        "object": "model",
        "created": app.created,
        "owned_by": "onnxq",
        "preset": model.preset.name(),
        "task": known.map(|it| it.task).or(model.preset.task()),
        "context": known.map(|it| it.context).or(model.context),
    })
}

/// Models with processes, and what these keep in memory.
pub(crate) fn ps(app: &App) -> Value {
    let listed = app.registry.list();
    let models = app.registry.models.iter().zip(&listed);
    let rows = models.map(|(it, now)| {
        let mut slots = json!({"configured": it.slots});
        for (state, count) in STATES.iter().zip(now.phases) {
            slots[*state] = count.into();
        }
        json!({
            "model": it.name,
            "slots": slots,
            "queue": {"waiting": now.waiting, "capacity": it.queue},
            "resident_bytes": now.resident,
            "reserved_bytes": now.reserved,
            "expires_in": now.expires,
            "keep_alive": match it.keep_alive {
                KeepAlive::For(time) => json!(time.as_secs_f64()),
                KeepAlive::Forever => json!(-1),
            },
            "failed": now.failed,
        })
    });
    json!({"object": "list", "memory_bytes": app.registry.budget(), "data": rows.collect::<Value>()})
}
