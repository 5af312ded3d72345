//! One source for each weight and way of storing it, however many nodes use it.

use std::sync::Arc;

use super::{
    as_stored,
    ops::{Site, Weight, rows},
    plan::SitePlan,
    weight::{Errors, FloatWeight, Input, Measure, Store, StoreError, WeightError},
};
use onnxq_ir::{
    Model, NodeId, ValueId,
    tensor::{DType, Identity, QShape, QSource, Tensor},
};
use onnxq_numerics::{
    scheme::{Scales, Scheme},
    solve::SolverSpec,
};

/// The quantized weights of a plan.
#[derive(Default)]
pub struct Sources {
    list: Vec<(Key, Entry)>,
    store: Option<Store>,
}

/// Which weight, and all that makes its bytes.
type Key = (Rows, Scheme, Scales, SolverSpec, DType);

/// What tells one weight from another: where its bytes lie if they exist, so that a table and a
/// transposed view of it, the rows of a tied head, are the same.
#[derive(PartialEq)]
enum Rows {
    Known(Identity),
    Of(ValueId, Weight),
}

impl Rows {
    fn new(site: &Site, rows: &Tensor) -> Rows {
        match rows.identity() {
            Some(identity) => Rows::Known(identity),
            None => Rows::Of(site.weight, site.kind),
        }
    }
}

struct Entry {
    source: Arc<dyn QSource>,
    weight_error: MeasuredError,
}

/// The errors of a weight's output, and what they are measured with.
#[derive(Clone)]
pub struct MeasuredError {
    errors: Arc<Errors>,
    measure: Measure,
}

impl MeasuredError {
    /// `None` if nothing was solved, or by round-to-nearest itself.
    pub fn error(&self) -> Option<WeightError> {
        self.errors.total(self.measure)
    }
}

impl Sources {
    /// The source for a site: made on first use, to be solved when its bytes are needed.
    pub fn get(&mut self, m: &Model, site: &SitePlan) -> Arc<dyn QSource> {
        if let Some(entry) = self.find(m, site) {
            return entry.source.clone();
        }
        self.add(m, site, Vec::new())
    }

    pub fn contains(&self, m: &Model, site: &SitePlan) -> bool {
        self.find(m, site).is_some()
    }

    /// Whether two sites share one quantized weight.
    pub fn are_one(m: &Model, a: &SitePlan, b: &SitePlan) -> bool {
        key(m, a) == key(m, b)
    }

    /// Whether two sites use one weight, however they store it.
    pub fn share_weight(m: &Model, a: &SitePlan, b: &SitePlan) -> bool {
        key(m, a).0 == key(m, b).0
    }

    /// The extent of a site's weight once it is quantized.
    pub fn shape(m: &Model, site: &SitePlan) -> QShape {
        float_weight(m, site, Vec::new()).shape()
    }

    /// A source that knows its inputs, to be solved when its bytes are needed.
    pub fn add(&mut self, m: &Model, site: &SitePlan, inputs: Vec<Arc<Input>>) -> Arc<dyn QSource> {
        if let Some(source) = as_stored::source(m, site) {
            return self.keep(m, site, source);
        }
        let weight = float_weight(m, site, inputs);
        let weight_error = weight_error(&weight);
        let source: Arc<dyn QSource> = Arc::new(weight);
        self.list.push((key(m, site), Entry { source: source.clone(), weight_error }));
        source
    }

    /// Takes the integers of a file as they are.
    fn keep(&mut self, m: &Model, site: &SitePlan, source: Arc<dyn QSource>) -> Arc<dyn QSource> {
        let weight_error = MeasuredError { errors: Arc::default(), measure: Measure::Weight };
        self.list.push((key(m, site), Entry { source: source.clone(), weight_error }));
        source
    }

    /// Solves a weight now, while the statistics of its inputs are in memory.
    pub fn solve(
        &mut self,
        m: &Model,
        site: &SitePlan,
        inputs: Vec<Arc<Input>>,
    ) -> Result<Arc<dyn QSource>, StoreError> {
        if let Some(source) = as_stored::source(m, site) {
            return Ok(self.keep(m, site, source));
        }
        let weight = float_weight(m, site, inputs);
        let store = match &mut self.store {
            Some(store) => store,
            none => none.insert(Store::new().map_err(StoreError::Io)?),
        };
        let source: Arc<dyn QSource> = Arc::new(store.solve(&weight)?);
        self.list.push((
            key(m, site),
            Entry { source: source.clone(), weight_error: weight_error(&weight) },
        ));
        Ok(source)
    }

    /// Solves a weight now, by what is known without data, unless that was done before.
    pub fn solve_once(&mut self, m: &Model, site: &SitePlan) -> Result<bool, StoreError> {
        let new = !self.contains(m, site);
        if new {
            self.solve(m, site, Vec::new())?;
        }
        Ok(new)
    }

    /// Where the errors of each site's weight will be found once it is solved.
    pub fn errors(&self, m: &Model, sites: &[SitePlan]) -> Vec<(NodeId, MeasuredError)> {
        let weight_error =
            |it: &SitePlan| Some((it.site.node, self.find(m, it)?.weight_error.clone()));
        sites.iter().filter_map(weight_error).collect()
    }

    fn find(&self, m: &Model, site: &SitePlan) -> Option<&Entry> {
        let key = key(m, site);
        self.list.iter().find(|it| it.0 == key).map(|it| &it.1)
    }
}

fn key(m: &Model, it: &SitePlan) -> Key {
    let tensor = m.constant(it.site.weight).expect("planned weights are constant");
    let which = Rows::new(&it.site, &rows(&it.site, tensor));
    (which, it.scheme, it.scales, it.solver, scale(m, it))
}

/// MatMulInteger's product is scaled in f32; other operators scale in the weight's type.
pub fn scale(m: &Model, it: &SitePlan) -> DType {
    match (it.activation, it.scales) {
        (Some(_), _) => DType::F32,
        (None, Scales::Float16) => DType::F16,
        (None, Scales::Float) => {
            m.constant(it.site.weight).map_or(DType::F32, |tensor| tensor.dtype)
        }
    }
}

fn float_weight(m: &Model, it: &SitePlan, inputs: Vec<Arc<Input>>) -> FloatWeight {
    let tensor = m.constant(it.site.weight).expect("planned weights are constant");
    FloatWeight {
        name: m.value(it.site.weight).name.to_string(),
        rows: rows(&it.site, tensor),
        transposed: it.site.kind == Weight::MatMul,
        scheme: it.scheme,
        solver: it.solver,
        scale: scale(m, it),
        inputs,
        errors: Arc::default(),
    }
}

fn weight_error(weight: &FloatWeight) -> MeasuredError {
    let measure = match weight.inputs.first() {
        None => Measure::Weight,
        Some(it) if it.stats.hessian.is_some() => Measure::Hessian,
        Some(_) => Measure::Diagonal,
    };
    MeasuredError { errors: weight.errors.clone(), measure }
}
