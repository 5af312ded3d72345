//! Pictures as SVG. Colours are classes, which the page's style fills in for light and dark.

mod axes;
mod histogram;
mod latency;
mod layers;
mod positions;
mod precision;
mod sizes;
mod spread;
mod svg;

pub(super) use self::{
    histogram::plot as histogram,
    latency::plot as latency,
    layers::plot as layers,
    positions::plot as positions,
    precision::{class as precision_class, plot as precision},
    sizes::plot as sizes,
    spread::plot as spread,
};

/// Units across each picture; the page scales them.
const WIDTH: f64 = 1000.0;

#[cfg(test)]
mod tests {
    use quick_xml::{Reader, events::Event};

    use super::*;
    use crate::{
        Histogram, Interval, Latency, PositionBin,
        document::{LayerError, ModelFacts, Models, PrecisionRow, Spread, WeightKind},
    };

    const HOSTILE: &str = "</svg><script>alert(1)</script>\"'&\u{0}\u{202e}";

    /// Well formed, with no element that we did not draw, and every coordinate a number.
    fn check(svg: &str) {
        let mut reader = Reader::from_str(svg);
        loop {
            match reader.read_event().unwrap() {
                Event::Start(it) | Event::Empty(it) => {
                    let name = it.name();
                    let known =
                        ["svg", "title", "g", "line", "rect", "path", "circle", "text", "pattern"];
                    assert!(known.contains(&name.as_ref()), "{name:?}");
                    it.attributes().for_each(|it| drop(it.unwrap()));
                }
                Event::Eof => break,
                _ => {}
            }
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    fn layer(at: usize) -> LayerError {
        LayerError {
            node: format!("{HOSTILE}{at}"),
            local_sqnr_db: (!at.is_multiple_of(7)).then_some(at as f64),
            accumulated_sqnr_db: Some(f64::from(40 - (at % 30) as i32)),
            rank: at + 1,
            ..LayerError::default()
        }
    }

    #[test]
    fn every_picture_is_well_formed_whatever_names_and_sizes() {
        for count in [1, 2, 5000] {
            let layers: Vec<_> = (0..count).map(layer).collect();
            check(&super::layers(&layers).unwrap());
            let rows = layers.iter().enumerate().map(|(at, it)| PrecisionRow {
                node: it.node.clone(),
                precision: ["int4", "float", HOSTILE][at % 3].into(),
                computes: at.is_multiple_of(2).then(|| "float".into()),
                bytes: at as u64,
                ..PrecisionRow::default()
            });
            let map = precision(&rows.collect::<Vec<_>>()).unwrap();
            assert!(map.len() < 200_000, "{count} nodes: {} bytes", map.len());
            check(&map);
            let edges = (0..=count).map(|it| it as f64 / 3.0).collect();
            let counts = (1..=count as u64).collect();
            check(&histogram(&Histogram { edges, counts }).unwrap());
            let edges = (0..=count.min(60)).map(|it| it as f64 / 3.0).collect();
            let counts = (1..=count.min(60) as u64).collect();
            let holds = Some(Interval { low: -1e300, high: 3.0 });
            let histogram = Histogram { edges, counts };
            let name = HOSTILE.to_owned();
            check(&spread(&Spread { name, histogram, holds, ..Spread::default() }).unwrap());
            let bin =
                |at| PositionBin { from: at, to: at + 1, kl: Some(0.1), ..Default::default() };
            check(&positions(&(0..count).map(bin).collect::<Vec<_>>(), "step").unwrap());
            let runs: Vec<f64> = (0..count).map(|it| it as f64).collect();
            let it = Latency {
                reference_runs_ms: runs.clone(),
                candidate_runs_ms: runs,
                ..Latency::default()
            };
            check(&latency(&it).unwrap());
        }
        let weights = [("float", 10), (HOSTILE, 0), ("int4", 3)];
        let weights =
            weights.map(|(kind, bytes)| WeightKind { kind: kind.into(), tensors: 1, bytes });
        let facts = ModelFacts { weights: weights.to_vec(), bytes: 20, ..ModelFacts::default() };
        check(&sizes(&Models { reference: facts.clone(), candidate: facts }).unwrap());
    }

    #[test]
    fn nothing_is_drawn_of_nothing() {
        assert_eq!(layers(&[]), None);
        assert_eq!(precision(&[]), None);
        assert_eq!(positions(&[], "step"), None);
        assert_eq!(latency(&Latency::default()), None);
        assert_eq!(sizes(&Models::default()), None);
        // Reports may have been edited.
        let short = Histogram { edges: vec![0.0], counts: vec![1, 2] };
        assert_eq!(histogram(&short), None);
        let odd = Histogram { edges: vec![0.0, 1.0], counts: vec![0] };
        assert_eq!(histogram(&odd), None);
        for histogram in [short, odd, Histogram::default()] {
            assert_eq!(spread(&Spread { histogram, ..Spread::default() }), None);
        }
    }
}
