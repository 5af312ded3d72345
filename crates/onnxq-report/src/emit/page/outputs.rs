//! How far the outputs are apart: every figure of each, the worst tokens, decoding, isolation.

use super::{
    super::{
        number::{count, interval, number, percent, plural},
        plot,
    },
    Cell, Limits, Section, Table, excerpt, name,
};
use crate::{
    CacheKl, Decode, OutputMetrics, Perplexity, PositionBin, Report, Role, TokenError,
    lookup::other_figures,
    summary::{Summary, finite},
};
use onnxq_ir::human::of_samples;

/// Outputs that are compared side by side; more become rows.
const SIDE_BY_SIDE: usize = 3;

const ROLES: [(Role, &str); 9] = [
    (Role::Logits, "Logits of the next token"),
    (Role::Classes, "Logits of classes"),
    (Role::Probabilities, "Probabilities of classes"),
    (Role::Embedding, "Embeddings: a vector for each sample"),
    (Role::Hidden, "Hidden states: a vector for each token"),
    (Role::Image, "Images"),
    (Role::Values, "Values"),
    (Role::Discrete, "Discrete values"),
    (Role::Cache, "Cache of keys and values"),
];

pub(super) fn outputs(report: &Report, limits: Limits) -> Option<Section> {
    let outputs = &report.figures.outputs;
    let samples = plural(report.figures.samples, "sample");
    let mut intro = format!("The quantized model against the original on {samples}.");
    if outputs.values().any(|it| it.kl.is_some()) {
        // The space must not break.
        intro += " KL is in nats; intervals hold 95\u{a0}%.";
    }
    let mut section = Section::new("outputs", "Outputs").brief().intro(intro);
    for (role, title) in ROLES {
        let is_whole = |it: &Output| it.1.role == role && it.1.part.is_none();
        let of_role: Vec<Output> = outputs.iter().filter(is_whole).collect();
        if of_role.len() > SIDE_BY_SIDE {
            section = section.table(tall(title, &of_role, limits));
        } else if !of_role.is_empty() {
            section = section.table(wide(title, &of_role));
        }
    }
    let parts: Vec<Output> = outputs.iter().filter(|it| it.1.part.is_some()).collect();
    if !parts.is_empty() {
        section = section.table(parts_of(&parts, limits));
    }
    // A page has room for the pictures of a few.
    let detailed = |it: &OutputMetrics| {
        it.role != Role::Cache && (it.kl_histogram.is_some() || !it.worst_samples.is_empty())
    };
    for (output, it) in outputs.iter().filter(|it| detailed(it.1)).take(SIDE_BY_SIDE) {
        let output = name(output);
        section = section
            .plot(
                format!("{output}: how many tokens (samples) have which KL"),
                it.kl_histogram.as_ref().and_then(plot::histogram),
            )
            .plot(
                format!("{output}: KL along the sequence"),
                plot::positions(&it.by_position, "position"),
            )
            .table(samples_of(&output, it, limits));
    }
    section.filled()
}

type Output<'a> = (&'a String, &'a OutputMetrics);

/// Every figure that applies, with its name.
fn figures(it: &OutputMetrics) -> Vec<(String, Cell)> {
    let mut list: Vec<(String, Cell)> = Vec::new();
    let mut add = |label: &str, cell: Cell| list.push((label.to_owned(), cell));
    let summaries = [("KL", &it.kl), ("cosine", &it.cosine), ("pooled cosine", &it.pooled_cosine)];
    for (label, summary) in summaries {
        of_summary(label, summary.as_ref(), &mut add);
        if let ("KL", Some(range)) = (label, it.kl_interval) {
            add("KL mean, interval", Cell::shown(Some(range.low), |_| interval(range)));
        }
    }
    add("same top 1", Cell::percent(it.top1));
    add("top 1 among 5", Cell::percent(it.top5));
    of_perplexity(it.perplexity.as_ref(), &mut add);
    add("equal", Cell::percent(it.equal));
    add("rank correlation", Cell::number(it.rank_correlation));
    add("SQNR", exact_or(it, it.sqnr_db));
    add("PSNR", Cell::decibel(it.psnr_db));
    add("IoU above 0.3", Cell::number(it.iou));
    add("largest error", Cell::number(it.max_abs));
    add("mean error", Cell::number(it.mean_abs));
    for (label, value) in other_figures(it) {
        add(&label, Cell::number(finite(value)));
    }
    list.retain(|it| it.1.sort.is_some());
    let bad = it.nonfinite;
    let text = format!("{} | {}", count(bad.reference), count(bad.candidate));
    list.push(("NaN and Inf, original | quantized".into(), Cell::name(&text)));
    if bad.rows > 0 {
        list.push(("rows left out".into(), Cell::count(bad.rows)));
        list.push(("of them only broken by quantization".into(), Cell::count(bad.broken_rows)));
    }
    list.push(("samples".into(), Cell::count(it.samples)));
    list.push(("elements".into(), Cell::count(it.elements)));
    list
}

fn exact_or(it: &OutputMetrics, value: Option<f64>) -> Cell {
    let exact = Cell { text: "exact".into(), sort: Some(f64::MAX), ..Cell::default() };
    if it.exact { exact } else { Cell::decibel(value) }
}

fn of_summary(label: &str, it: Option<&Summary>, add: &mut impl FnMut(&str, Cell)) {
    let Some(it) = it else { return };
    let low = [("min", it.min), ("p1", it.p1)];
    let high = [("p90", it.p90), ("p95", it.p95), ("p99", it.p99), ("p99.9", it.p999)];
    let middle = [("mean", it.mean), ("median", it.median)];
    // Of a divergence the high end is the bad one, of a similarity the low.
    let (kl, show): (bool, fn(f64) -> String) =
        if label == "KL" { (true, number) } else { (false, |it| format!("{it:.6}")) };
    let mut list = middle.to_vec();
    list.extend_from_slice(if kl { &high } else { &low });
    list.extend(kl.then_some(("max", it.max)));
    for (statistic, value) in list {
        add(&format!("{label} {statistic}"), Cell::shown(value, show));
    }
}

fn of_perplexity(it: Option<&Perplexity>, add: &mut impl FnMut(&str, Cell)) {
    let Some(it) = it else { return };
    add("perplexity, original", Cell::number(it.reference));
    add("perplexity, quantized", Cell::number(it.candidate));
    add("perplexity ratio", Cell::number(it.ratio));
    if let Some(range) = it.ratio_interval {
        add("perplexity ratio, interval", Cell::shown(Some(range.low), |_| interval(range)));
    }
    add("perplexity difference", Cell::number(it.difference));
    if let Some(range) = it.difference_interval {
        add("perplexity difference, interval", Cell::shown(Some(range.low), |_| interval(range)));
    }
}

/// The figures of all of them, in the order of the first that has each.
fn labels(lists: &[Vec<(String, Cell)>]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    for (label, _) in lists.iter().flatten() {
        if !all.contains(label) {
            all.push(label.clone());
        }
    }
    all
}

fn look_up(list: &[(String, Cell)], label: &str) -> Cell {
    list.iter().find(|it| it.0 == label).map_or_else(Cell::none, |it| it.1.clone())
}

/// A column for each output.
fn wide(title: &str, outputs: &[Output]) -> Table {
    let lists: Vec<_> = outputs.iter().map(|it| figures(it.1)).collect();
    let names: Vec<&str> = outputs.iter().map(|it| it.0.as_str()).collect();
    let mut table = Table::new("output", title).words(&["figure"]).numbers(&names);
    for label in labels(&lists) {
        let mut row = vec![Cell::name(&label)];
        row.extend(lists.iter().map(|it| look_up(it, &label)));
        table.row(row);
    }
    table
}

/// A row for each output.
fn tall(title: &str, outputs: &[Output], limits: Limits) -> Table {
    let lists: Vec<_> = outputs.iter().take(limits.rows).map(|it| figures(it.1)).collect();
    let labels = labels(&lists);
    let heads: Vec<&str> = labels.iter().map(|it| &**it).collect();
    let table = Table::new("output", title).words(&["output"]).numbers(&heads);
    table.fill(outputs.iter().enumerate(), limits, |(at, it)| {
        let mut row = vec![Cell::name(it.0)];
        row.extend(labels.iter().map(|label| look_up(&lists[at], label)));
        row
    })
}

/// What outputs are joined of: a gate on an output judges the worst of these.
fn parts_of(parts: &[Output], limits: Limits) -> Table {
    let title =
        "Parts of outputs that join several quantities; the worst counts for gates and goals";
    let heads = ["axis", "from", "to", "SQNR", "largest error", "mean error"];
    let table = Table::new("part", title).words(&["part"]).numbers(&heads);
    table.fill(parts.iter(), limits, |(name, it)| {
        let place = it.part.as_ref().map_or([0; 3], |it| [it.axis, it.from, it.to]);
        let mut row = vec![Cell::name(name)];
        row.extend(place.map(Cell::count));
        row.push(exact_or(it, it.sqnr_db));
        row.extend([it.max_abs, it.mean_abs].map(Cell::number));
        row
    })
}

fn samples_of(output: &str, it: &OutputMetrics, limits: Limits) -> Table {
    let worst = &it.worst_samples;
    let (files, texts) =
        (worst.iter().any(|it| it.file.is_some()), worst.iter().any(|it| it.text.is_some()));
    let optional = [files.then_some("file"), texts.then_some("begins with")];
    let optional: Vec<&str> = optional.into_iter().flatten().collect();
    let title = format!("{output}: the samples with the largest error (rows of the data, from 0)");
    Table::new("sample", title).numbers(&["row", "cosine", "SQNR"]).words(&optional).fill(
        worst.iter(),
        limits,
        |it| {
            let cosine = Cell::shown(it.cosine, |it| format!("{it:.6}"));
            let mut row = vec![Cell::count(it.sample), cosine, Cell::decibel(it.sqnr_db)];
            row.extend(files.then(|| Cell::maybe(it.file.as_deref())));
            let text = it.text.as_deref().map(head);
            row.extend(texts.then(|| Cell::maybe(text.as_deref())));
            row
        },
    )
}

pub(super) fn worst(report: &Report, limits: Limits) -> Option<Section> {
    let mut section = Section::new("worst", "Worst tokens")
        .intro("After these the models differ most. A number alone is a token without its text.");
    let outputs = report.figures.outputs.iter().filter(|it| !it.1.worst_tokens.is_empty());
    for (output, it) in outputs.take(SIDE_BY_SIDE) {
        let table = Table::new("token", format!("{}: the largest KL first", name(output)))
            .numbers(&["KL"])
            .words(&["after the text", "original says", "quantized says", "true token"])
            .numbers(&["sample", "position"])
            .fill(it.worst_tokens.iter(), limits, token_row);
        section = section.table(table);
    }
    section.filled()
}

fn token_row(it: &TokenError) -> Vec<Cell> {
    let says = |id: i64, text: &Option<String>, probability: f64| {
        let token = token(id, text.as_deref());
        Cell::sentence(&format!("{token} ({})", percent(probability)))
    };
    let truth = it.next.map(|next| token(next, it.next_text.as_deref()));
    vec![
        Cell::number(Some(it.kl)),
        it.context.as_deref().map_or_else(Cell::none, |text| Cell::sentence(&tail(text))),
        says(it.reference, &it.reference_text, it.reference_probability),
        says(it.candidate, &it.candidate_text, it.candidate_probability),
        Cell::maybe(truth.as_deref()),
        Cell::count(it.sample),
        Cell::count(it.position),
    ]
}

fn token(id: i64, text: Option<&str>) -> String {
    text.map_or_else(|| id.to_string(), |it| format!("“{}”", excerpt(it)))
}

/// The beginning of a text.
fn head(text: &str) -> String {
    const MAX: usize = 80;
    let start: String = text.chars().take(MAX).collect();
    if start.len() < text.len() { format!("{}…", excerpt(&start)) } else { excerpt(&start) }
}

/// The end of a text, which is what the next token depends on most.
fn tail(text: &str) -> String {
    const MAX: usize = 60;
    let skip = text.chars().count().saturating_sub(MAX);
    let end: String = text.chars().skip(skip).collect();
    if skip > 0 { format!("…{}", excerpt(&end)) } else { excerpt(&end) }
}

pub(super) fn decode(report: &Report, limits: Limits) -> Option<Section> {
    let it = report.figures.decode.as_ref()?;
    let intro = format!(
        "On {} both models continue the text token by token with their own caches: {} at once, then {}.",
        of_samples(it.samples, report.figures.samples),
        plural(it.prompt, "token"),
        plural(it.steps, "step"),
    );
    let by_step = it.by_step.iter();
    Section::new("decode", "Decoding with a cache")
        .brief()
        .intro(intro)
        .table(decode_figures(it))
        .plot("KL along the steps: a cache gathers errors", plot::positions(&it.by_step, "step"))
        .table(bins("Along the steps").fill(by_step, limits, bin_row))
        .filled()
}

fn decode_figures(it: &Decode) -> Table {
    let mut table = Table::new("decoding", "All steps").words(&["figure"]).numbers(&["value"]);
    let mut add = |label: &str, cell: Cell| {
        if cell.sort.is_some() {
            table.row(vec![Cell::name(label), cell]);
        }
    };
    of_summary("KL", it.kl.as_ref(), &mut add);
    add("same top 1", Cell::percent(it.top1));
    of_perplexity(it.perplexity.as_ref(), &mut add);
    if let Some(prefix) = &it.common_prefix {
        add("tokens said alike before the first difference, median", Cell::number(prefix.median));
        add("the same, least", Cell::number(prefix.min));
    }
    let CacheKl { reference, candidate } = it.cache_kl.unwrap_or_default();
    add("KL of the cache itself, original", Cell::number(reference));
    add("KL of the cache itself, quantized", Cell::number(candidate));
    table
}

fn bins(caption: &str) -> Table {
    Table::new("step", caption).words(&["from … to"]).numbers(&[
        "tokens",
        "KL",
        "same top 1",
        "SQNR",
    ])
}

fn bin_row(it: &PositionBin) -> Vec<Cell> {
    let range = format!("{} … {}", count(it.from), count(it.to));
    vec![
        Cell { sort: Some(it.from as f64), ..Cell::name(&range) },
        Cell::count(it.tokens),
        Cell::number(it.kl),
        Cell::percent(it.top1),
        Cell::decibel(it.sqnr_db),
    ]
}

pub(super) fn isolation(report: &Report, _: Limits) -> Option<Section> {
    let it = report.figures.isolation.as_ref()?;
    let (label, show) = super::layers::measure(&it.measure);
    let mut table = Table::new("form", format!("The same loss of three forms: {label}"))
        .words(&["form"])
        .numbers(&["loss"]);
    let forms = [
        ("weights alone: quantized weights, float activations", it.weights_only),
        ("as deployed: all optimizations of ONNX Runtime", it.deployed),
        ("without optimizations of ONNX Runtime", it.unoptimized),
    ];
    for (form, loss) in forms {
        table.row(vec![Cell::name(form), Cell::shown(loss, show)]);
    }
    let samples = of_samples(it.samples, report.figures.samples);
    Section::new("isolation", "Weights or deployment")
        .brief()
        .intro(format!("How much of the error is the weights', on {samples}."))
        .table(table)
        .note(it.note.clone())
        .filled()
}
