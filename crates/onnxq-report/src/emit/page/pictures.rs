//! What both models made of the worst sample, for outputs that are images.

use super::{
    super::{
        number::{count, number, plural},
        png::data_url,
    },
    Image, Limits, Part, Section, name,
};
use crate::{
    OutputMetrics, Report,
    pictures::{MAX_OUTPUTS, MAX_SIDE, Picture, Pictures},
};

const INTRO: &str = "Both models on the sample with the largest error, for outputs that are images. \
     Each pixel is the mean of the elements under it; black is the low end of a scale, white the \
     high end, and original and quantized have the same scale.";

pub(super) fn section(report: &Report, _: Limits) -> Option<Section> {
    let outputs = report.figures.outputs.iter();
    let shown = outputs.filter_map(|(name, it)| Some((name, it, it.pictures.as_ref()?)));
    let mut section = Section::new("pictures", "Pictures").brief().intro(INTRO);
    for (output, it, pictures) in shown.take(MAX_OUTPUTS) {
        section.parts.push(part(&name(output), it, pictures));
    }
    let is_full = section.parts.len() == MAX_OUTPUTS;
    let note = format!("{MAX_OUTPUTS} outputs at most have pictures: those with the lowest SQNR");
    section.note(is_full.then_some(note)).filled()
}

fn part(output: &str, metrics: &OutputMetrics, pictures: &Pictures) -> Part {
    let caption = caption(output, metrics, pictures);
    let input = pictures.input.as_ref();
    let input = input.map(|it| (format!("input {}", name(&it.name)), &it.picture));
    let named = [
        ("original".to_owned(), &pictures.reference),
        ("quantized".to_owned(), &pictures.candidate),
        ("absolute difference".to_owned(), &pictures.difference),
    ];
    let all: Option<Vec<Image>> =
        input.into_iter().chain(named).map(|(label, it)| image(output, &label, it)).collect();
    match all {
        Some(images) => Part::Pictures { caption, images },
        None => Part::Note { text: format!("{output}: report.json holds no pictures that fit it") },
    }
}

fn image(output: &str, label: &str, picture: &Picture) -> Option<Image> {
    let (low, high) = (number(picture.low), number(picture.high));
    Some(Image {
        src: data_url(picture)?,
        alt: format!("{label}, worst sample of {output}: black is {low}, white is {high}"),
        label: format!("{label}: {low} … {high}"),
        height: picture.height,
        width: picture.width,
    })
}

/// Which sample, which channel, and what a pixel stands for.
fn caption(output: &str, metrics: &OutputMetrics, pictures: &Pictures) -> String {
    let Pictures { sample, height, width, channels, .. } = pictures;
    let file = metrics.worst_samples.iter().find(|it| it.sample == *sample);
    let file = file.and_then(|it| it.file.as_deref());
    let file = file.map_or(String::new(), |it| format!(" ({})", name(it)));
    let mut out = format!("{output}: sample {sample}{file}");
    match pictures.channel {
        Some(it) => out += &format!(", channel {it} of {channels}, which differs most"),
        None if *channels == 3 => out += ", channels 0, 1 and 2 as red, green and blue",
        None => {}
    }
    out += &format!("; {} × {} (height × width)", count(*height), count(*width));
    let side = height.max(width).div_ceil(MAX_SIDE);
    if side > 1 {
        out += &format!(", each pixel the mean of up to {0} × {0}", count(side));
    }
    let bad = pictures.reference.non_finite.saturating_add(pictures.candidate.non_finite);
    if bad > 0 {
        out += &format!("; {} left out: NaN or Inf", plural(bad, "element"));
    }
    out
}
