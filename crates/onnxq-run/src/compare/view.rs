//! Both outputs of a batch as rows, and what one row says.

use pulp::Arch;

use super::{
    accumulate::Context,
    metrics::{Errors, Token, count_non_finite},
    tokens::CONTEXT,
};
use onnxq_report::figures::{Role, TokenError};

/// Both outputs of a batch as rows: the last axis, or single elements below rank 2.
pub(super) struct View<'a> {
    arch: Arch,
    pub count: usize,
    width: usize,
    reference: &'a [f32],
    candidate: &'a [f32],
    context: &'a Context,
    /// `[batch, sequence, …]` like `input_ids`.
    pub is_tokens: bool,
    role: Role,
}

pub(super) struct Row {
    pub kind: Kind,
    /// In the outputs of the reference and of the candidate.
    pub non_finite: (usize, usize),
    pub errors: Errors,
    pub token: Option<Token>,
}

#[derive(Clone, Copy)]
pub(super) enum Kind {
    Good,
    Bad,
    Padding,
}

impl<'a> View<'a> {
    pub(super) fn new(
        shape: &[usize],
        reference: &'a [f32],
        candidate: &'a [f32],
        context: &'a Context,
        role: Role,
    ) -> View<'a> {
        let width = if shape.len() < 2 { 1 } else { shape[shape.len() - 1] };
        let ids = context.ids.as_ref().map(|(_, shape)| shape);
        let is_tokens = shape.len() == 3 && ids.is_some_and(|it| it[..] == shape[..2]);
        let (arch, count) = (Arch::new(), reference.len() / width);
        View { arch, count, width, reference, candidate, context, is_tokens, role }
    }

    pub(super) fn row(&self, at: usize) -> Row {
        let (reference, candidate) = self.slices(at);
        let kind = self.row_kind(at);
        let empty = Row { kind, non_finite: (0, 0), errors: Errors::default(), token: None };
        match kind {
            Kind::Padding => empty,
            Kind::Bad => {
                let non_finite = (count_non_finite(reference), count_non_finite(candidate));
                Row { non_finite, ..empty }
            }
            Kind::Good => {
                let errors = Errors::of(self.arch, reference, candidate);
                Row { errors, token: self.distributions(at), ..empty }
            }
        }
    }

    /// What a row says as a distribution, if it is one.
    fn distributions(&self, at: usize) -> Option<Token> {
        let (reference, candidate) = self.slices(at);
        match self.role {
            Role::Logits | Role::Classes => {
                Some(Token::of(self.arch, reference, candidate, self.next(at)))
            }
            Role::Probabilities => {
                // A probability of nothing would make the divergence infinite.
                let logs = |row: &[f32]| row.iter().map(|it| it.max(1e-12).ln()).collect();
                let (reference, candidate): (Vec<f32>, Vec<f32>) =
                    (logs(reference), logs(candidate));
                Some(Token::of(self.arch, &reference, &candidate, None))
            }
            _ => None,
        }
    }

    pub(super) fn row_kind(&self, at: usize) -> Kind {
        let (reference, candidate) = self.slices(at);
        if !self.is_real(at) {
            Kind::Padding
        } else if is_finite(reference) && is_finite(candidate) {
            Kind::Good
        } else {
            Kind::Bad
        }
    }

    pub(super) fn slices(&self, at: usize) -> (&'a [f32], &'a [f32]) {
        let range = at * self.width..(at + 1) * self.width;
        (&self.reference[range.clone()], &self.candidate[range])
    }

    fn is_real(&self, at: usize) -> bool {
        !self.is_tokens || self.context.mask.as_ref().is_none_or(|it| it[at])
    }

    /// The token that follows row `at` in its sample.
    fn next(&self, at: usize) -> Option<usize> {
        let (ids, [_, sequence]) = self.context.ids.as_ref().filter(|_| self.is_tokens)?;
        let next = at + 1;
        (!next.is_multiple_of(*sequence) && self.is_real(next))
            .then(|| usize::try_from(ids[next]).ok())?
    }

    /// A row that is among the worst, with what came before it.
    pub(super) fn token(
        &self,
        at: usize,
        sample: usize,
        position: usize,
        token: &Token,
    ) -> TokenError {
        let ids = self.context.ids.as_ref().filter(|_| self.is_tokens);
        let before = ids.map(|(ids, _)| &ids[at - position.min(CONTEXT - 1)..=at]);
        TokenError {
            sample,
            position,
            kl: token.kl,
            reference: token.top.0 as i64,
            reference_probability: token.log_top.0.exp(),
            candidate: token.top.1 as i64,
            candidate_probability: token.log_top.1.exp(),
            next: self.next(at).map(|it| it as i64),
            context_ids: before.unwrap_or_default().to_vec(),
            ..TokenError::default()
        }
    }

    /// The means of rows of both models; `None` of no rows.
    pub(super) fn mean(&self, rows: impl Iterator<Item = usize>) -> Option<(Vec<f64>, Vec<f64>)> {
        let mut sums = (vec![0.0f64; self.width], vec![0.0f64; self.width]);
        let mut count = 0.0;
        for row in rows {
            let (reference, candidate) = self.slices(row);
            sums.0.iter_mut().zip(reference).for_each(|(sum, it)| *sum += f64::from(*it));
            sums.1.iter_mut().zip(candidate).for_each(|(sum, it)| *sum += f64::from(*it));
            count += 1.0;
        }
        sums.0.iter_mut().chain(&mut sums.1).for_each(|it| *it /= count);
        (count > 0.0).then_some(sums)
    }
}

/// A sum of zeros is zero, and of anything that is not finite it is not: no branch per element.
fn is_finite(row: &[f32]) -> bool {
    let mut lanes = [0.0f32; 16];
    let mut chunks = row.chunks_exact(16);
    for chunk in &mut chunks {
        lanes.iter_mut().zip(chunk).for_each(|(lane, it)| *lane += it * 0.0);
    }
    lanes.iter().chain(chunks.remainder()).map(|it| it * 0.0).sum::<f32>() == 0.0
}
