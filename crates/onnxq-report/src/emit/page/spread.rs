//! Pictures of a layer: how its weight and its input are spread, and what the quantized numbers
//! can hold.

use super::{
    super::{
        number::{number, percent},
        plot,
    },
    Plot, sentence,
};
use crate::document::{LayerError, Spread};

pub(super) fn plots(layer: &LayerError) -> Vec<Plot> {
    let both = [("weight", &layer.weight_spread), ("input", &layer.input_spread)];
    let spreads = both.into_iter().filter_map(|(what, it)| Some((what, it.as_ref()?)));
    let plot = |(what, it)| Some(Plot { caption: caption(what, it), svg: plot::spread(it)? });
    spreads.filter_map(plot).collect()
}

fn caption(what: &str, spread: &Spread) -> String {
    let whose = match spread.stored {
        true => {
            "as it is stored: the original has no such weight, because numbers were moved or nodes \
             fused before they were rounded"
        }
        false => "in the original",
    };
    let lines = "Lines: between them the quantized numbers lie";
    let ends = match (spread.holds, spread.unit.as_str()) {
        (Some(_), "grid") => {
            let per = spread.scale_per.as_deref().unwrap_or("part");
            format!(
                "Each {per} is measured by its own scale, so that its grid goes from -1 to 1; the \
                 outermost bars hold all that is beyond. {lines}."
            )
        }
        (Some(held), _) => format!("{lines}, {} to {}.", number(held.low), number(held.high)),
        (None, _) if spread.dynamic => "Each run has a range of its own, so none is drawn.".into(),
        (None, _) => "It is not quantized, so no range is drawn.".into(),
    };
    let clipped =
        spread.outside.map_or(String::new(), |it| format!(" {} are clipped.", percent(it)));
    let heights = "Heights grow with the logarithm of how many there are.";
    sentence(&format!("{} `{}` {whose}. {ends}{clipped} {heights}", capital(what), spread.name))
}

fn capital(word: &str) -> String {
    let (first, rest) = word.split_at(1);
    first.to_uppercase() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Histogram, Interval};

    fn spread(unit: &str, holds: Option<Interval>, dynamic: bool) -> Spread {
        let histogram = Histogram { edges: vec![0.0, 1.0], counts: vec![3] };
        let outside = holds.map(|_| 0.25);
        Spread {
            name: "w".into(),
            unit: unit.into(),
            histogram,
            holds,
            outside,
            dynamic,
            ..Spread::default()
        }
    }

    #[test]
    fn captions_say_what_the_lines_are_or_why_there_are_none() {
        let holds = Some(Interval { low: -1.0, high: 0.5 });
        let said = |it: Spread| caption("input", &it);
        let fixed = said(spread("value", holds, false));
        assert!(fixed.starts_with("Input `w`") && fixed.contains("lie, -1"), "{fixed}");
        assert!(fixed.contains("are clipped"), "{fixed}");
        assert!(said(spread("value", None, true)).contains("a range of its own"));
        assert!(said(spread("value", None, false)).contains("not quantized"));
        let stored = Spread { stored: true, ..spread("grid", holds, false) };
        assert!(said(stored).contains("as it is stored"));
        let block =
            Spread { scale_per: Some("block of 32".into()), ..spread("grid", holds, false) };
        assert!(said(block).contains("Each block of 32 is measured by its own scale"));
    }

    #[test]
    fn a_layer_has_a_picture_for_each_that_is_known() {
        let weight_spread = Some(spread("grid", None, false));
        let layer = LayerError { weight_spread, ..LayerError::default() };
        assert_eq!(plots(&layer).len(), 1);
        assert!(plots(&LayerError::default()).is_empty());
    }
}
