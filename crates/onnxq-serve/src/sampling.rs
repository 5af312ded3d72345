//! Which settings of sampling mean something, and whose count.

use onnxq_run::answer::Sampling;

/// The first setting that is out of its range, and what it must be.
pub(crate) fn wrong(given: &Sampling) -> Option<(&'static str, &'static str)> {
    let outside = |value: Option<f32>, low: f32, high: f32| {
        value.is_some_and(|it| !(low..=high).contains(&it))
    };
    let zero = |value: Option<f32>| value == Some(0.0);
    if outside(given.temperature, 0.0, 100.0) {
        Some(("temperature", "must be a number from 0 to 100"))
    } else if outside(given.top_p, 0.0, 1.0) || zero(given.top_p) {
        Some(("top_p", "must be a number above 0 and at most 1"))
    } else if outside(given.min_p, 0.0, 1.0) {
        Some(("min_p", "must be a number from 0 to 1"))
    } else if outside(given.repetition_penalty, 0.0, 10.0) || zero(given.repetition_penalty) {
        Some(("repetition_penalty", "must be a number above 0 and at most 10"))
    } else {
        None
    }
}

/// What the request says, and what the model's configuration says where that is silent.
pub(crate) fn over(request: Sampling, default: &Sampling) -> Sampling {
    Sampling {
        temperature: request.temperature.or(default.temperature),
        top_k: request.top_k.or(default.top_k),
        top_p: request.top_p.or(default.top_p),
        min_p: request.min_p.or(default.min_p),
        repetition_penalty: request.repetition_penalty.or(default.repetition_penalty),
        seed: request.seed.or(default.seed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_number_is_out_of_every_range() {
        let of = |temperature, top_p| {
            wrong(&Sampling { temperature, top_p, ..Sampling::default() }).map(|it| it.0)
        };
        assert_eq!(of(Some(0.0), Some(1.0)), None);
        assert_eq!(of(Some(f32::NAN), None), Some("temperature"));
        assert_eq!(of(Some(-0.1), None), Some("temperature"));
        assert_eq!(of(None, Some(0.0)), Some("top_p"));
    }
}
