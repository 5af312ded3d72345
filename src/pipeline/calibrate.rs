//! Solving weights with what calibration knows of their inputs, before the graph is lowered.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{Error, Planned};
use crate::{
    calibrate::{
        self, CollectOptions, Collector, DataOptions, Replacement, StatsFile, Want, can_observe,
    },
    codes::Fault,
    ctx::Ctx,
    engine::RuntimeOptions,
    ir::{Model, ValueId},
    quant::{
        ops::Weight,
        plan::SitePlan,
        solve::SolverSpec,
        sources::Sources,
        stats::{InputStats, Needs},
        weight::{Input, dequantized},
    },
    recipe::Recipe,
    tensor::{DType, QSource},
    untrusted::Untrusted,
};

/// Where statistics come from, and what collecting them may take.
pub struct Calibration<'a> {
    /// Samples to run the model on.
    pub data: Option<PathBuf>,
    pub options: DataOptions,
    /// A file that keeps statistics: read if it is there, written if not.
    pub stats: Option<PathBuf>,
    /// Most memory to take, in bytes.
    pub memory: u64,
    pub threads: usize,
    pub runtime: RuntimeOptions<'a>,
}

impl Calibration<'_> {
    /// No data and no statistics: enough for solvers that need none.
    pub fn none() -> Calibration<'static> {
        Calibration {
            data: None,
            options: DataOptions::default(),
            stats: None,
            memory: 2 << 30,
            threads: 1,
            runtime: RuntimeOptions::default(),
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("solver `{solver}` of `{}` needs calibration data, and there is none", Untrusted(node))]
pub struct NeedsData {
    pub solver: &'static str,
    pub node: String,
}

impl Fault for NeedsData {
    fn code(&self) -> &'static str {
        "E610"
    }

    fn hint(&self) -> Option<String> {
        Some(
            "pass --calibration with text like the model's own (and --tokenizer), .npy or .npz; \
             or --stats; solvers rtn, mse and hqq need none"
                .into(),
        )
    }
}

/// Sources of all weights whose solver needs data. In sequential mode layers see what comes before
/// them quantized.
pub(super) fn solve(
    planned: &mut Planned,
    recipe: &Recipe,
    calibration: &Calibration,
    output: &Path,
    ctx: &Ctx,
) -> Result<Sources, Error> {
    let wants = observable(planned);
    let Some(first) = wants.first() else { return Ok(Sources::default()) };
    let m = &planned.model;
    if calibration.data.is_none() && calibration.stats.is_none() {
        let site = planned.plan.sites.iter().find(|it| reads(m, it, first.value));
        let site = site.expect("a want comes from a site");
        let (solver, node) = (site.solver.name(), m.node_label(site.site.node));
        return Err(NeedsData { solver, node }.into());
    }
    let sequential = recipe.calibration.unwrap_or_default().sequential;
    let options =
        CollectOptions { memory: calibration.memory, threads: calibration.threads, sequential };
    let data = calibration.data.as_deref().unwrap_or(Path::new(""));
    let batches = calibrate::open(data, &calibrate::model_inputs(m), &calibration.options)?;
    let mut collector =
        Collector::new(m, &planned.files, wants, batches, options, &calibration.runtime, None)?;
    let mut solving =
        Solving { m, sites: &planned.plan.sites, sources: Sources::default(), sequential };
    let mut replaced = solving.data_free();
    while let Some(wave) = collector.next(&replaced, ctx)? {
        replaced.clear();
        for (value, stats) in wave {
            replaced.extend(solving.input(value, stats)?);
        }
    }
    Ok(solving.sources)
}

/// The values to observe. Where that is impossible, the user is told.
fn observable(planned: &mut Planned) -> Vec<Want> {
    let m = &planned.model;
    let mut wants: BTreeMap<ValueId, Needs> = BTreeMap::new();
    for site in &planned.plan.sites {
        let Some((value, needs)) = site.wants(m) else { continue };
        match can_observe(m, value) {
            Ok(()) => {
                let it = wants.entry(value).or_default();
                *it = needs.max(*it);
            }
            Err(reason) => {
                let row = planned.rows.iter_mut().find(|it| it.id == site.site.node);
                row.expect("every site has a row").note =
                    Some(format!("nothing is known of its input: {reason}"));
            }
        }
    }
    wants.into_iter().map(|(value, needs)| Want { value, needs }).collect()
}

fn reads(m: &Model, site: &SitePlan, value: ValueId) -> bool {
    site.wants(m).is_some_and(|it| it.0 == value)
}

struct Solving<'a> {
    m: &'a Model,
    sites: &'a [SitePlan],
    sources: Sources,
    sequential: bool,
}

impl Solving<'_> {
    /// Weights that need no data are quantized from the start, if later layers are to see it.
    fn data_free(&mut self) -> Vec<Replacement> {
        if !self.sequential {
            return Vec::new();
        }
        let m = self.m;
        // A table that is one with a head waits for the head's solver, which knows more.
        let waits = |it: &SitePlan| {
            self.sites.iter().any(|head| head.wants(m).is_some() && Sources::are_one(m, head, it))
        };
        let free = self.sites.iter().filter(|it| it.wants(m).is_none() && !waits(it));
        free.map(|site| replacement(m, site, self.sources.get(m, site))).collect()
    }

    /// Solves the weights that read an input, now that its statistics are known.
    fn input(&mut self, value: ValueId, stats: InputStats) -> Result<Vec<Replacement>, Error> {
        let (m, sites) = (self.m, self.sites);
        let mut replaced = Vec::new();
        let mut inputs: Vec<(SolverSpec, Arc<Input>)> = Vec::new();
        for site in sites.iter().filter(|it| reads(m, it, value)) {
            let input = match inputs.iter().find(|it| it.0 == site.solver) {
                Some((_, input)) => input.clone(),
                None => {
                    let prepared = site.solver.solver().prepare(&stats)?;
                    let input = Arc::new(Input { stats: stats.clone(), prepared });
                    inputs.push((site.solver, input.clone()));
                    input
                }
            };
            let source = self.site(site, input)?;
            if self.sequential {
                replaced.push(replacement(m, site, source));
            }
        }
        Ok(replaced)
    }

    /// What keeps a matrix in memory is solved at once; the others wait until they are written.
    fn site(&mut self, site: &SitePlan, input: Arc<Input>) -> Result<Arc<dyn QSource>, Error> {
        if self.sources.contains(self.m, site) {
            return Ok(self.sources.get(self.m, site));
        }
        if site.solver.solver().needs() == Needs::Hessian {
            return Ok(self.sources.solve(self.m, site, Some(input))?);
        }
        Ok(self.sources.add(self.m, site, Some(input)))
    }
}

/// The float form of a quantized weight, as the layers after it will see it.
pub(super) fn replacement(m: &Model, site: &SitePlan, source: Arc<dyn QSource>) -> Replacement {
    let dtype = m.constant(site.site.weight).map_or(DType::F32, |it| it.dtype);
    let rows = dequantized(source, dtype);
    let (index, tensor) = match site.site.kind {
        Weight::MatMul => (1, rows.transposed()),
        _ => (0, rows),
    };
    Replacement { node: site.site.node, index, tensor }
}
