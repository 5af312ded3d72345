//! Some of the candidates of each weight, as if there were no others.

use onnxq_quant::budget::{self, Choice, Mix};

/// Some of the choices of each weight, and which ones they are.
pub(super) struct Allowed {
    choices: Vec<Vec<Choice>>,
    of: Vec<Vec<usize>>,
}

impl Allowed {
    pub(super) fn new(all: &[Vec<Choice>], of: Vec<Vec<usize>>) -> Allowed {
        let own = |(all, of): (&Vec<Choice>, &Vec<usize>)| of.iter().map(|it| all[*it]).collect();
        Allowed { choices: all.iter().zip(&of).map(own).collect(), of }
    }

    /// The best mix of at most that price; `None` if even the cheapest costs more.
    pub(super) fn within(&self, price: u64) -> Option<Mix> {
        budget::within(&self.choices, price).map(|it| self.among_all(it))
    }

    pub(super) fn smallest(&self) -> Mix {
        self.among_all(budget::mixes(&self.choices).swap_remove(0))
    }

    fn among_all(&self, mut mix: Mix) -> Mix {
        mix.picks.iter_mut().zip(&self.of).for_each(|(pick, of)| *pick = of[*pick]);
        mix
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picks_are_those_of_all_choices() {
        let choice = |price, loss| Choice { price, loss };
        let all = vec![vec![choice(1, 9.0), choice(2, 3.0), choice(4, 1.0)]; 2];
        let allowed = Allowed::new(&all, vec![vec![1, 2], vec![0, 1]]);
        assert_eq!(allowed.smallest().picks, [1, 0]);
        assert_eq!(allowed.within(2), None);
        assert_eq!(allowed.within(4).unwrap().picks, [1, 1]);
        assert_eq!(allowed.within(6).unwrap().picks, [2, 1]);
    }
}
