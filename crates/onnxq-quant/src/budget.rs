//! Choices under a budget: where a byte, or a nanosecond, more buys the most.
//!
//! Every weight has a few candidates, each with its price (bytes, or time) and its loss. Losses of
//! small errors add up, so the best mix for a price lies near the lower convex hull of all sums:
//! start with the cheapest candidate for every weight and take, again and again, the step that
//! saves the most loss for its price (the greedy solution of the multiple-choice knapsack; Sinha
//! and Zoltners, 1979).

/// A candidate for a weight.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Choice {
    /// In any unit that adds up.
    pub price: u64,
    /// What it costs in accuracy, in any unit that adds up.
    pub loss: f64,
}

/// A mix: which choice each weight takes, and what that comes to.
#[derive(Clone, PartialEq, Debug)]
pub struct Mix {
    /// For each weight, an index into its choices.
    pub picks: Vec<usize>,
    pub price: u64,
    pub loss: f64,
}

/// Mixes from the smallest to the best, each a step of one weight after the one before.
///
/// Ties are broken by the order of weights: the result depends on nothing else.
pub fn mixes(weights: &[Vec<Choice>]) -> Vec<Mix> {
    let hulls: Vec<Vec<usize>> = weights.iter().map(|it| hull(it)).collect();
    let mut steps: Vec<Step> = Vec::new();
    for (weight, hull) in hulls.iter().enumerate() {
        let choices = &weights[weight];
        steps.extend(hull.windows(2).map(|it| step(weight, it[1], choices[it[0]], choices[it[1]])));
    }
    // Along a hull gains per byte only fall, so each weight's steps keep their order.
    steps.sort_by(|a, b| b.gain.total_cmp(&a.gain).then(a.weight.cmp(&b.weight)));
    let mut picks: Vec<usize> = hulls.iter().map(|it| it[0]).collect();
    let mut list = vec![total(weights, picks.clone())];
    for step in steps {
        picks[step.weight] = step.to;
        list.push(total(weights, picks.clone()));
    }
    list
}

/// The best mix of at most that price; `None` if even the cheapest costs more.
///
/// Steps of large weights do not fit for long, so the greedy order alone may leave much room:
/// the knapsack is solved by dynamic programming, too, and the better of both is taken.
pub fn within(weights: &[Vec<Choice>], price: u64) -> Option<Mix> {
    let list = mixes(weights);
    let at = list.iter().rposition(|it| it.price <= price)?;
    let greedy = filled(weights, list[at].clone(), price);
    let other = filled(weights, knapsack(weights, price - list[0].price), price);
    Some(if other.loss < greedy.loss { other } else { greedy })
}

/// Takes the choice that saves the most as long as one fits into what is left.
fn filled(weights: &[Vec<Choice>], mut mix: Mix, price: u64) -> Mix {
    while let Some((weight, to)) = best_fit(weights, &mix, price - mix.price) {
        mix.picks[weight] = to;
        mix = total(weights, mix.picks);
    }
    mix
}

/// Room is counted in so many units; what a weight takes is rounded up.
const UNITS: u64 = 1 << 15;

/// The best mix that costs at most `room` more than the cheapest: exact if a unit is a
/// price of 1, within a unit per weight otherwise.
fn knapsack(weights: &[Vec<Choice>], room: u64) -> Mix {
    let unit = room.div_ceil(UNITS).max(1);
    let capacity = (room / unit) as usize;
    // The least loss of the weights so far in at most so many units, and what the last one takes.
    let mut losses = vec![0.0; capacity + 1];
    let mut taken: Vec<Vec<u8>> = Vec::with_capacity(weights.len());
    for choices in weights {
        let extra = extra(choices, unit);
        let (mut next, mut picks) = (vec![f64::INFINITY; capacity + 1], vec![0u8; capacity + 1]);
        for (pick, (units, loss)) in extra.iter().enumerate().take(usize::from(u8::MAX)) {
            for at in *units..=capacity {
                let sum = losses[at - units] + loss;
                if sum < next[at] {
                    (next[at], picks[at]) = (sum, pick as u8);
                }
            }
        }
        losses = next;
        taken.push(picks);
    }
    let mut left = capacity;
    let mut picks = vec![0; weights.len()];
    for weight in (0..weights.len()).rev() {
        picks[weight] = usize::from(taken[weight][left]);
        left -= extra(&weights[weight], unit)[picks[weight]].0;
    }
    total(weights, picks)
}

/// Units that each choice takes more than the smallest, and its loss.
fn extra(choices: &[Choice], unit: u64) -> Vec<(usize, f64)> {
    let smallest = choices.iter().map(|it| it.price).min().unwrap_or(0);
    let units = |it: &Choice| (it.price - smallest).div_ceil(unit) as usize;
    choices.iter().map(|it| (units(it), it.loss)).collect()
}

/// The smallest mix whose loss is at most so much; `None` if even the best loses more.
pub fn losing(weights: &[Vec<Choice>], loss: f64) -> Option<Mix> {
    mixes(weights).into_iter().find(|it| it.loss <= loss)
}

struct Step {
    weight: usize,
    to: usize,
    /// Loss saved per byte.
    gain: f64,
}

fn step(weight: usize, to: usize, from: Choice, into: Choice) -> Step {
    Step { weight, to, gain: (from.loss - into.loss) / (into.price - from.price) as f64 }
}

fn total(weights: &[Vec<Choice>], picks: Vec<usize>) -> Mix {
    let picked = || picks.iter().zip(weights).map(|(&pick, choices)| choices[pick]);
    let (price, loss) = (picked().map(|it| it.price).sum(), picked().map(|it| it.loss).sum());
    Mix { price, loss, picks }
}

/// The choice that saves the most loss among those that cost at most `room` more.
fn best_fit(weights: &[Vec<Choice>], mix: &Mix, room: u64) -> Option<(usize, usize)> {
    let mut best: Option<(f64, usize, usize)> = None;
    for (weight, choices) in weights.iter().enumerate() {
        let now = choices[mix.picks[weight]];
        for (to, it) in choices.iter().enumerate() {
            let saved = now.loss - it.loss;
            let fits = it.price <= now.price + room;
            if fits && saved > 0.0 && best.is_none_or(|it| saved > it.0) {
                best = Some((saved, weight, to));
            }
        }
    }
    best.map(|it| (it.1, it.2))
}

/// Indices of the lower convex hull of (price, loss), from the cheapest on: every next one is
/// dearer and better, and each step gains less for its price than the one before.
fn hull(choices: &[Choice]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..choices.len()).collect();
    let key = |it: usize| (choices[it].price, choices[it].loss);
    order.sort_by(|&a, &b| key(a).0.cmp(&key(b).0).then(key(a).1.total_cmp(&key(b).1)));
    let mut hull: Vec<usize> = Vec::new();
    for it in order {
        if hull.last().is_some_and(|last| choices[*last].loss <= choices[it].loss) {
            continue;
        }
        while let [.., a, b] = hull[..]
            && slope(choices[a], choices[b]) <= slope(choices[b], choices[it])
        {
            hull.pop();
        }
        hull.push(it);
    }
    hull
}

fn slope(from: Choice, to: Choice) -> f64 {
    (from.loss - to.loss) / (to.price - from.price) as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn weights() -> impl Strategy<Value = Vec<Vec<Choice>>> {
        let choice = (1u64..1000, 0f64..10.0).prop_map(|(price, loss)| Choice { price, loss });
        prop::collection::vec(prop::collection::vec(choice, 1..5), 1..7)
    }

    /// The best loss of all mixes within `price`, by trying each.
    fn exhaustive(weights: &[Vec<Choice>], price: u64) -> Option<f64> {
        let Some((first, rest)) = weights.split_first() else { return Some(0.0) };
        let with = |it: &Choice| Some(it.loss + exhaustive(rest, price.checked_sub(it.price)?)?);
        first.iter().filter_map(with).min_by(f64::total_cmp)
    }

    proptest! {
        #[test]
        fn a_mix_fits_and_is_the_best(weights in weights(), price in 1u64..7000) {
            let best = exhaustive(&weights, price);
            let Some(mix) = within(&weights, price) else {
                prop_assert_eq!(best, None);
                return Ok(());
            };
            prop_assert!(mix.price <= price);
            prop_assert!(mix.loss <= best.unwrap() + 1e-9);
        }

        #[test]
        fn units_of_many_bytes_lose_little(weights in weights(), price in 1u64..7000) {
            let scaled = |it: &Choice| Choice { price: it.price << 20, ..*it };
            let large: Vec<Vec<Choice>> =
                weights.iter().map(|it| it.iter().map(scaled).collect()).collect();
            // Each of six weights is rounded up by less than 7000 / 2^15.
            let (small, large) = (within(&weights, price), within(&large, (price + 2) << 20));
            if let Some(small) = small {
                prop_assert!(large.unwrap().loss <= small.loss + 1e-9);
            }
        }

        #[test]
        fn more_bytes_never_lose_more(weights in weights()) {
            for pair in mixes(&weights).windows(2) {
                prop_assert!(pair[0].price < pair[1].price);
                prop_assert!(pair[0].loss > pair[1].loss);
            }
        }

        #[test]
        fn a_loss_is_kept_by_the_smallest_mix_that_can(weights in weights(), loss in 0f64..30.0) {
            let list = mixes(&weights);
            match losing(&weights, loss) {
                Some(mix) => {
                    prop_assert!(mix.loss <= loss);
                    prop_assert!(list.iter().all(|it| it.price >= mix.price || it.loss > loss));
                }
                None => prop_assert!(list.last().unwrap().loss > loss),
            }
        }
    }

    #[test]
    fn the_hull_leaves_out_what_a_mixture_beats() {
        let choices = [(10, 9.0), (20, 8.0), (30, 1.0), (40, 2.0), (50, 0.5)];
        let choices = choices.map(|(price, loss)| Choice { price, loss });
        assert_eq!(hull(&choices), [0, 2, 4]);
    }
}
