//! Mixed precision: bits and block of each weight by what they cost, as measured, under a goal.
//!
//! Each weight alone is replaced by its coarsest candidate of four bits or more, and by that of fewer,
//! and the model's outputs say what that loses. Losses of small errors are quadratic, so the other
//! candidates of either kind lose in proportion to the squared error of the weight's own output.
//! [`budget`] then chooses.

mod allowed;
mod layer;
mod probe;

use std::collections::BTreeSet;

use serde::Serialize;

use self::{allowed::Allowed, layer::Layer};
use crate::{
    Error, Job, NeedsData, OutputFile, Planned,
    decide::Deciding,
    search::evaluator::{Evaluator, Measure},
    solve::replacement,
};
use onnxq_ir::{
    diag::{Code, Diagnostic},
    human::bytes,
    onnx,
};
use onnxq_quant::{
    budget::{self, Choice, Mix},
    plan::SitePlan,
    tied,
};

/// What the mix must satisfy.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// Bytes of all files that are written, at most.
    MaxSize(u64),
    /// Mean KL divergence from the float model on the calibration data in nats, at most.
    MaxKl(f64),
    /// Stored bits of the weights that take part (quantized values, scales, zero points) per
    /// element, at most.
    TargetBpw(f64),
}

/// How the mix came about.
#[derive(Clone, Debug, Serialize)]
pub struct Mixed {
    pub goal: Goal,
    /// What losses are.
    pub measure: Measure,
    /// Samples that losses were measured on.
    pub samples: usize,
    /// All samples of the data, of which those are some.
    pub data_samples: usize,
    pub weights: Vec<Sensitivity>,
    /// Mixes from the smallest to the most accurate, the chosen one among them.
    pub table: Vec<Point>,
    /// The loss of the chosen mix, measured with all its weights at once.
    pub loss: f64,
}

/// What a weight costs, and what it got.
#[derive(Clone, Debug, Serialize)]
pub struct Sensitivity {
    /// The nodes that use it.
    pub nodes: Vec<String>,
    pub elements: u64,
    /// The candidate that stood for the weight when its loss was measured.
    pub probe: String,
    pub probe_loss: f64,
    pub choice: String,
    /// Predicted from the probe's loss.
    pub loss: f64,
    pub bytes: u64,
}

/// A mix that was possible.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Point {
    /// Of all files.
    pub bytes: u64,
    /// Stored bits per element of the weights that take part.
    pub bpw: f64,
    /// The sum of the weights' losses.
    pub loss: f64,
    pub chosen: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum Unmet {
    #[error("no weight of the plan has two candidates to choose from")]
    NoChoice,
    #[error("no output of the model is logits, so there is no KL divergence to limit")]
    NoLogits,
    #[error(
        "no mix is as small as {}: the smallest is {} ({smallest} bytes)",
        bytes(*asked),
        bytes(*smallest)
    )]
    Size { asked: u64, smallest: u64 },
    #[error("no mix has {asked} bits per weight: the smallest has {smallest:.3}")]
    Bpw { asked: f64, smallest: f64 },
    #[error("no mix has a KL divergence of at most {asked}: the best measured is {best:.3e}")]
    Kl { asked: f64, best: f64 },
}

impl Diagnostic for Unmet {
    fn code(&self) -> Code {
        Code::E615
    }

    fn hint(&self) -> Option<String> {
        let text = match self {
            Unmet::NoChoice => {
                "use a recipe of weight-only formats, as int4, or add candidates under `mixed`"
            }
            Unmet::NoLogits => "use --max-size or --target-bpw",
            Unmet::Size { .. } | Unmet::Bpw { .. } => {
                "ask for more, or add coarser candidates under `mixed` in the recipe"
            }
            Unmet::Kl { .. } => "ask for less, or add finer candidates under `mixed` in the recipe",
        };
        Some(text.into())
    }
}

/// Replaces the schemes of the plan by those that meet the goal best, if there is one.
pub(crate) fn choose(mut deciding: Deciding, job: &Job) -> Result<Deciding, Error> {
    let Some(goal) = job.inputs.goal else { return Ok(deciding) };
    let (sites, mixed) = choose_sites(&deciding.planned, job, goal)?;
    let planned = &mut deciding.planned;
    planned.plan.sites = sites;
    let apart = tied::apart(&planned.model, &planned.plan);
    apart.iter().for_each(|it| job.ctx.progress.warn(it));
    planned.warnings.extend(apart);
    deciding.mixed = Some(mixed);
    Ok(deciding)
}

fn choose_sites(planned: &Planned, job: &Job, goal: Goal) -> Result<(Vec<SitePlan>, Mixed), Error> {
    let (inputs, ctx) = (job.inputs, job.ctx);
    if inputs.data.is_none() {
        return Err(NeedsData { who: "choosing bits by measurement".to_owned() }.into());
    }
    let target = &inputs.output;
    let external = onnx::is_external(&planned.model, &target.save, Some(&planned.files));
    let mut layers = layer::find(planned, job.recipe, external);
    if layers.iter().all(|it| it.candidates.len() < 2) {
        return Err(Unmet::NoChoice.into());
    }
    layer::solve(planned, &mut layers, inputs, ctx)?;
    let evaluator = Evaluator::new(planned, inputs)?;
    evaluator.tell(ctx);
    if matches!(goal, Goal::MaxKl(_)) && evaluator.measure() != Measure::Kl {
        return Err(Unmet::NoLogits.into());
    }
    let probes = probe::probe(&evaluator, &planned.model, &layers, ctx)?;
    let mixer = Mixer::new(planned, target, &evaluator, &layers, &probes)?;
    let (mix, loss) = mixer.meet(goal)?;
    let mixed = mixer.report(goal, &mix, loss)?;
    Ok((mixer.sites(&mix.picks), mixed))
}

struct Mixer<'a> {
    planned: &'a Planned,
    target: &'a OutputFile,
    evaluator: &'a Evaluator<'a>,
    layers: &'a [Layer],
    probes: &'a [Vec<(usize, f64)>],
    choices: Vec<Vec<Choice>>,
    mixes: Vec<Mix>,
    /// Bytes of everything else.
    overhead: u64,
}

/// Measured mixes on the way to a KL divergence.
const TRIES: usize = 5;
/// A prediction is tightened by a little more than it was wrong.
const MARGIN: f64 = 0.97;
/// Rows of the table.
const POINTS: usize = 16;

impl<'a> Mixer<'a> {
    fn new(
        planned: &'a Planned,
        target: &'a OutputFile,
        evaluator: &'a Evaluator<'a>,
        layers: &'a [Layer],
        probes: &'a [Vec<(usize, f64)>],
    ) -> Result<Mixer<'a>, Error> {
        let choices: Vec<Vec<Choice>> =
            layers.iter().zip(probes).map(|(layer, probes)| layer.choices(probes)).collect();
        let mixes = budget::mixes(&choices);
        let overhead = 0;
        let mut it = Mixer { planned, target, evaluator, layers, probes, choices, mixes, overhead };
        let smallest = &it.mixes[0];
        it.overhead = it.size(smallest)?.saturating_sub(smallest.price);
        Ok(it)
    }

    /// The best mix that meets the goal, and its measured loss.
    fn meet(&self, goal: Goal) -> Result<(Mix, f64), Error> {
        match goal {
            Goal::MaxSize(asked) => {
                let smallest = self.overhead + self.mixes[0].price;
                let best = self.best(|it| self.of_size(it, asked))?;
                Ok(best.ok_or(Unmet::Size { asked, smallest })?)
            }
            Goal::TargetBpw(asked) => {
                let budget = (asked * self.elements() as f64 / 8.0) as u64;
                let smallest = self.bpw(&self.mixes[0]);
                let best = self.best(|it| Ok(it.within(budget)))?;
                Ok(best.ok_or(Unmet::Bpw { asked, smallest })?)
            }
            Goal::MaxKl(asked) => self.of_loss(asked),
        }
    }

    /// The better of the mixes of all candidates and of those that have bits enough, as measured:
    /// losses of few bits are predicted worse, so having them to choose from could do harm.
    fn best(
        &self,
        mix_of: impl Fn(&Allowed) -> Result<Option<Mix>, Error>,
    ) -> Result<Option<(Mix, f64)>, Error> {
        let all = self.choices.iter().map(|it| (0..it.len()).collect()).collect();
        let fine = self.layers.iter().map(Layer::fine).collect();
        let mut best: Option<(Mix, f64)> = None;
        for allowed in [all, fine] {
            let Some(mix) = mix_of(&Allowed::new(&self.choices, allowed))? else { continue };
            if best.as_ref().is_some_and(|it| it.0.picks == mix.picks) {
                continue;
            }
            let loss = self.loss(&mix)?;
            tracing::info!("{} bytes: predicted {:.3e}, measured {loss:.3e}", mix.price, mix.loss);
            if best.as_ref().is_none_or(|it| loss < it.1) {
                best = Some((mix, loss));
            }
        }
        Ok(best)
    }

    /// The size of a mix is known to the byte once it is laid out, so that has the last word.
    fn of_size(&self, allowed: &Allowed, asked: u64) -> Result<Option<Mix>, Error> {
        let smallest = allowed.smallest();
        if self.overhead + smallest.price > asked {
            return Ok(None);
        }
        let mut budget = asked - self.overhead;
        while let Some(mix) = allowed.within(budget) {
            let size = self.size(&mix)?;
            if size <= asked {
                return Ok(Some(mix));
            }
            budget = mix.price.saturating_sub(size - asked);
        }
        Ok(Some(smallest))
    }

    /// The smallest mix whose measured loss is at most so much: predictions are corrected by
    /// the ratio that they were wrong by, in both directions.
    fn of_loss(&self, asked: f64) -> Result<(Mix, f64), Error> {
        let best = self.mixes.last().expect("there is a mix");
        let (mut met, mut wanted): (Option<(Mix, f64)>, f64) = (None, asked);
        let mut tried: BTreeSet<u64> = BTreeSet::new();
        for _ in 0..TRIES {
            let mix = budget::losing(&self.choices, wanted).unwrap_or_else(|| best.clone());
            if !tried.insert(mix.price) {
                break;
            }
            let loss = self.loss(&mix)?;
            tracing::info!("{} bytes: predicted {:.3e}, measured {loss:.3e}", mix.price, mix.loss);
            wanted = mix.loss * MARGIN * asked / loss.max(f64::MIN_POSITIVE);
            if loss <= asked && met.as_ref().is_none_or(|it| mix.price < it.0.price) {
                met = Some((mix, loss));
            }
        }
        if let Some(met) = met {
            return Ok(met);
        }
        let loss = self.loss(best)?;
        if loss <= asked {
            Ok((best.clone(), loss))
        } else {
            Err(Unmet::Kl { asked, best: loss }.into())
        }
    }

    fn elements(&self) -> u64 {
        self.layers.iter().map(|it| it.elements).sum()
    }

    fn bpw(&self, mix: &Mix) -> f64 {
        mix.price as f64 * 8.0 / self.elements() as f64
    }

    /// The plan's sites with what the mix chooses.
    fn sites(&self, picks: &[usize]) -> Vec<SitePlan> {
        let mut sites = self.planned.plan.sites.clone();
        for (layer, pick) in self.layers.iter().zip(picks) {
            for (at, plan) in layer.sites.iter().zip(&layer.candidates[*pick].plans) {
                sites[*at] = plan.clone();
            }
        }
        sites
    }

    /// Bytes of all files.
    fn size(&self, mix: &Mix) -> Result<u64, Error> {
        self.planned.size_with(self.sites(&mix.picks), self.target)
    }

    /// Measured with all weights replaced at once.
    fn loss(&self, mix: &Mix) -> Result<f64, Error> {
        let m = &self.planned.model;
        let candidates =
            self.layers.iter().zip(&mix.picks).map(|(layer, pick)| &layer.candidates[*pick]);
        let all = candidates.flat_map(|candidate| {
            let sources = candidate.sources.iter().cloned();
            candidate.plans.iter().zip(sources).map(|(plan, source)| replacement(m, plan, source))
        });
        self.evaluator.loss(&all.collect::<Vec<_>>())
    }

    fn report(&self, goal: Goal, mix: &Mix, loss: f64) -> Result<Mixed, Error> {
        let chosen = Point { bytes: self.size(mix)?, chosen: true, ..self.point(mix) };
        let weights = self.layers.iter().zip(self.probes).zip(&self.choices).zip(&mix.picks);
        let weights = weights.map(|(((layer, probes), choices), pick)| Sensitivity {
            nodes: layer.nodes.clone(),
            elements: layer.elements,
            probe: layer.candidates[layer.probe_of(probes, *pick).0].name.clone(),
            probe_loss: layer.probe_of(probes, *pick).1,
            choice: layer.candidates[*pick].name.clone(),
            loss: choices[*pick].loss,
            bytes: choices[*pick].price,
        });
        Ok(Mixed {
            goal,
            measure: self.evaluator.measure(),
            samples: self.evaluator.samples(),
            data_samples: self.evaluator.data_samples(),
            weights: weights.collect(),
            table: self.table(mix, chosen),
            loss,
        })
    }

    fn point(&self, mix: &Mix) -> Point {
        let bytes = self.overhead + mix.price;
        Point { bytes, bpw: self.bpw(mix), loss: mix.loss, chosen: false }
    }

    /// Evenly along all mixes, with the chosen one where it belongs.
    fn table(&self, mix: &Mix, chosen: Point) -> Vec<Point> {
        let (last, rows) = (self.mixes.len() - 1, (POINTS - 1).min(self.mixes.len()));
        let at = |row: usize| if rows < 2 { 0 } else { row * last / (rows - 1) };
        let others = (0..rows).map(|row| &self.mixes[at(row)]).filter(|it| it.price != mix.price);
        let mut list: Vec<Point> = others.map(|it| self.point(it)).collect();
        list.push(chosen);
        list.sort_by_key(|it| it.bytes);
        list
    }
}
