//! Stage 4: what data and measurements change in a plan, decision by decision.

use std::sync::{Mutex, PoisonError};

use super::{
    Adapted, Error, Job, Mixed, Planned, gguf, origin,
    ranges::{self, MeasuredRanges, Ranged},
    search::{activations, bits, saturation},
    solve, transform,
};
use onnxq_quant::{sources::Sources, tied};

/// A plan in which every scheme is final, and the weights whose solver needed data.
pub struct Decided {
    pub planned: Planned,
    pub adapted: Option<Adapted>,
    pub mixed: Option<Mixed>,
    pub(super) sources: Sources,
    /// Nothing is to be run on data: what the recipe trains stays as it is.
    pub(super) outlined: bool,
}

/// A plan on its way, and what was learnt for it so far.
pub struct Deciding {
    pub planned: Planned,
    /// What calibration data says of static activations.
    pub(super) measured: MeasuredRanges,
    /// Weights that were solved on the way.
    pub(super) solved: Mutex<Sources>,
    pub adapted: Option<Adapted>,
    pub mixed: Option<Mixed>,
}

/// One decision: it takes the plan and gives it back.
pub struct Decision {
    pub name: &'static str,
    /// One line for a list of decisions.
    pub help: &'static str,
    pub run: fn(Deciding, &Job) -> Result<Deciding, Error>,
}

/// Every decision, in the order in which each builds on those before.
pub const DECISIONS: &[Decision] = &[
    Decision {
        name: "origin",
        help: "digest the samples, if any will decide something",
        run: origin::record,
    },
    Decision {
        name: "transforms",
        help: "move difficulty between activations and weights, and plan again",
        run: transform::transform,
    },
    Decision {
        name: "ranges",
        help: "observe the fixed ranges of the plan's activations",
        run: ranges::observe,
    },
    Decision {
        name: "activations",
        help: "choose how each activation is quantized (`adapt`)",
        run: activations::choose,
    },
    Decision {
        name: "static",
        help: "leave in float what has no known range",
        run: ranges::finalize,
    },
    Decision {
        name: "bits",
        help: "choose bits and block of each weight under a goal (`mixed`)",
        run: bits::choose,
    },
    Decision {
        name: "saturation",
        help: "keep the 8th bit of weights where data allows",
        run: saturation::choose,
    },
    Decision {
        name: "biases",
        help: "take from biases what quantization adds on average",
        run: activations::correct,
    },
];

impl Planned {
    /// Whether there is nothing to do, and that is not allowed.
    pub fn is_noop(&self, job: &Job) -> bool {
        self.plan.sites.is_empty() && !job.inputs.allow_noop
    }

    /// Takes all decisions, and solves the weights that need data. Stops when nothing is left to
    /// quantize; see [`Planned::is_noop`].
    pub fn decide(mut self, job: &Job) -> Result<Decided, Error> {
        self.origin.start_digest(&self.files);
        let mut deciding = Deciding::new(self);
        for decision in DECISIONS {
            tracing::debug!("decision {}", decision.name);
            deciding = (decision.run)(deciding, job)?;
            if deciding.planned.is_noop(job) {
                return Ok(deciding.done(Sources::default()));
            }
        }
        // A decision may have changed a head without its table.
        let planned = &mut deciding.planned;
        tied::unify(&planned.model, &mut planned.plan.sites);
        if let Some(target) = &planned.gguf {
            gguf::unify(target, &planned.model, &mut planned.plan);
        }
        let solved = std::mem::take(&mut deciding.solved).into_inner();
        let solved = solved.unwrap_or_else(PoisonError::into_inner);
        let (sources, _) = solve::solve(&mut deciding.planned, solved, Vec::new(), job)?;
        Ok(deciding.done(sources))
    }

    /// What can be said without running anything on data: for a prediction.
    pub fn outline(self, job: &Job) -> Result<Decided, Error> {
        let deciding = origin::record(Deciding::new(self), job)?;
        let planned = transform::outline(deciding.planned, job)?;
        let deciding = ranges::assume(Deciding::new(planned), job)?;
        Ok(Decided { outlined: true, ..deciding.done(Sources::default()) })
    }
}

impl Deciding {
    fn new(planned: Planned) -> Deciding {
        let (measured, solved) = (MeasuredRanges::default(), Mutex::default());
        Deciding { planned, measured, solved, adapted: None, mixed: None }
    }

    pub(super) fn ranged(&self) -> Ranged<'_> {
        Ranged { planned: &self.planned, measured: &self.measured, solved: &self.solved }
    }

    fn done(self, sources: Sources) -> Decided {
        let Deciding { planned, adapted, mixed, .. } = self;
        Decided { planned, adapted, mixed, sources, outlined: false }
    }
}
