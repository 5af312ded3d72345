//! Descriptions of images: the YAML, its values checked, and the shipped ones.

use std::{
    fs::File,
    io::{ErrorKind, Read},
    path::{MAIN_SEPARATOR, Path},
};

use serde::Deserialize;

use super::super::DataError;
use onnxq_quant::recipe::{MAX_BYTES, Place, Position, RecipeError, VERSION, parse_yaml};

macro_rules! shipped {
    ($($name:literal)*) => {
        /// Name and text of each description in the program, in alphabetical order.
        pub const SHIPPED: &[(&str, &str)] =
            &[$(($name, include_str!(concat!("../../../calibration/", $name, ".yaml"))),)*];
    };
}
shipped! { "clip" "imagenet" "minus_one_one" "paddle_ocr_det" "pixels" "zero_one" }

/// No model takes images with a longer side.
const MAX_SIDE: u32 = 1 << 14;

/// What the file says; `calibration/README.md` is its manual.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    onnxq: u32,
    #[serde(default, rename = "description")]
    _description: String,
    input: Option<String>,
    size: Option<[u32; 2]>,
    resize: Option<ResizeKeys>,
    #[serde(default)]
    filter: Filter,
    crop: Option<Crop>,
    pad: Option<PadKeys>,
    #[serde(default)]
    channels: Channels,
    scale: Option<String>,
    mean: Option<Vec<f64>>,
    std: Option<Vec<f64>>,
    layout: Option<Layout>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ResizeKeys {
    shorter: Option<u32>,
    cover: Option<f64>,
    limit_longer: Option<u32>,
    #[serde(default)]
    stretch: bool,
    multiple_of: Option<u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PadKeys {
    multiple_of: u32,
    #[serde(default)]
    value: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Crop {
    Center,
}

/// How an image is resized; lengths are in pixels.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Resize {
    No,
    /// Proportions stay; the shorter side becomes this.
    Shorter(u32),
    /// Proportions stay; the result is the smallest of which `size` is this part.
    Cover(f64),
    /// Proportions stay; only images whose longer side is above this change.
    LimitLonger(u32),
    /// To `size`, whatever the proportions.
    Stretch,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Filter {
    /// Triangle, widened when it shrinks: bilinear of PIL and of torchvision with antialiasing.
    #[default]
    Bilinear,
    /// Catmull-Rom (a = -0.5), widened when it shrinks: bicubic of PIL.
    Bicubic,
    Nearest,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Channels {
    #[default]
    Rgb,
    Bgr,
    /// Luma of ITU-R BT.601.
    Gray,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Layout {
    Nchw,
    Nhwc,
}

/// How images become an input of a model.
#[derive(Clone, Debug)]
pub(crate) struct Description {
    /// The text that it was read from.
    pub text: String,
    /// The name of the model's input, and where it stands.
    pub input: Option<(String, Position)>,
    /// Height and width, where the model leaves them open.
    pub size: Option<[u32; 2]>,
    pub resize: Resize,
    /// Both sides are rounded to a multiple, at least one.
    pub multiple_of: u32,
    pub filter: Filter,
    /// The center, of `size`.
    pub crop: bool,
    /// Rows below and columns right of the image, up to a multiple, and their value.
    pub pad: Option<(u32, u8)>,
    pub channels: Channels,
    /// `value · scale`, then minus `mean`, then by `std`; one number per channel.
    pub scale: f64,
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
    pub layout: Option<Layout>,
    place: Place,
}

impl Channels {
    pub(crate) fn count(self) -> usize {
        if self == Channels::Gray { 1 } else { 3 }
    }
}

/// A shipped description by its name, or a file by its path.
pub(crate) fn load(name_or_path: &str) -> Result<Description, DataError> {
    if let Some((name, text)) = SHIPPED.iter().find(|it| it.0 == name_or_path) {
        return Description::parse(text, name);
    }
    let path = Path::new(name_or_path);
    let named = !name_or_path.contains(['/', MAIN_SEPARATOR, '.']);
    let mut text = String::new();
    let read = |file: File| file.take(MAX_BYTES + 1).read_to_string(&mut text);
    match onnxq_ir::fs::open_file(path).and_then(read) {
        Ok(_) => {}
        Err(error) if named && error.kind() == ErrorKind::NotFound => {
            return Err(DataError::NoDescription { name: name_or_path.into() });
        }
        Err(error) if error.kind() == ErrorKind::InvalidData => {
            return Err(DataError::format(path, "is not UTF-8"));
        }
        Err(error) => return Err(DataError::io(path)(error)),
    }
    if text.len() as u64 > MAX_BYTES {
        return Err(RecipeError::TooLarge(name_or_path.into()).into());
    }
    Description::parse(&text, name_or_path)
}

impl Description {
    pub(crate) fn parse(text: &str, file: &str) -> Result<Description, DataError> {
        let (document, place) = parse_yaml::<Document>(text, file)?;
        let scale = match &document.scale {
            None => 1.0,
            Some(it) => number(it).ok_or_else(|| {
                let what = "`scale` is neither a number nor a fraction as 1/255";
                RecipeError::value(place.at("scale"), what)
            })?,
        };
        let count = document.channels.count();
        let numbers = |list: Option<Vec<f64>>, default: f64| match list.as_deref() {
            Some([all]) => vec![*all; count],
            Some(list) => list.to_vec(),
            None => vec![default; count],
        };
        let resize = document.resize.as_ref();
        let it = Description {
            text: text.to_owned(),
            input: document.input.map(|it| (it, place.at("input"))),
            size: document.size,
            resize: resize.map_or(Ok(Resize::No), |it| it.kind(&place))?,
            multiple_of: resize.and_then(|it| it.multiple_of).unwrap_or(1),
            filter: document.filter,
            crop: document.crop.is_some(),
            pad: document.pad.map(|it| (it.multiple_of, it.value)),
            channels: document.channels,
            scale,
            mean: numbers(document.mean, 0.0),
            std: numbers(document.std, 1.0),
            layout: document.layout,
            place,
        };
        if document.onnxq != VERSION {
            let what = format!("format {} is unknown, this program reads 1", document.onnxq);
            return Err(it.refuse("onnxq", &what));
        }
        it.check()?;
        Ok(it)
    }

    /// What the types cannot say.
    fn check(&self) -> Result<(), DataError> {
        let side = |it: u32| (1..=MAX_SIDE).contains(&it);
        let outside = format!("not from 1 to {MAX_SIDE}");
        if self.size.is_some_and(|it| !it.into_iter().all(side)) {
            return Err(self.refuse("size", &format!("a side of `size` is {outside}")));
        }
        match self.resize {
            Resize::Shorter(it) if !side(it) => {
                return Err(self.refuse("resize.shorter", &format!("`shorter` is {outside}")));
            }
            Resize::LimitLonger(it) if !side(it) => {
                let what = format!("`limit_longer` is {outside}");
                return Err(self.refuse("resize.limit_longer", &what));
            }
            Resize::Cover(it) if !(0.1..=1.0).contains(&it) => {
                return Err(self.refuse("resize.cover", "`cover` is not from 0.1 to 1"));
            }
            _ => {}
        }
        for (key, it) in [
            ("resize.multiple_of", self.multiple_of),
            ("pad.multiple_of", self.pad.map_or(1, |it| it.0)),
        ] {
            if !side(it) {
                return Err(self.refuse(key, &format!("`multiple_of` is {outside}")));
            }
        }
        if self.size.is_some() && !self.needs_size() {
            let what =
                "`size` is for `crop`, `resize.cover` and `resize.stretch`, of which there is none";
            return Err(self.refuse("size", what));
        }
        if self.multiple_of > 1 && self.resize == Resize::Stretch {
            let what = "`stretch` goes to `size`, so there is nothing to round";
            return Err(self.refuse("resize.multiple_of", what));
        }
        self.check_numbers()
    }

    fn check_numbers(&self) -> Result<(), DataError> {
        let count = self.channels.count();
        for (key, list) in [("mean", &self.mean), ("std", &self.std)] {
            if list.len() != count {
                let what = format!("`{key}` has {} numbers for {count} channels", list.len());
                return Err(self.refuse(key, &what));
            }
            if list.iter().any(|it| !it.is_finite()) {
                return Err(self.refuse(key, &format!("`{key}` is not finite")));
            }
        }
        if self.std.iter().any(|it| *it <= 0.0) {
            return Err(self.refuse("std", "`std` is not above 0"));
        }
        if !self.scale.is_finite() || self.scale == 0.0 {
            return Err(self.refuse("scale", "`scale` is 0 or not finite"));
        }
        Ok(())
    }

    /// Whether something depends on the height and width that the model takes.
    pub(crate) fn needs_size(&self) -> bool {
        self.crop || matches!(self.resize, Resize::Cover(_) | Resize::Stretch)
    }

    /// Whether the file has this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.place.inner.contains_key(key)
    }

    /// Whether values are other than the numbers in the file.
    pub(crate) fn normalizes(&self) -> bool {
        let is = |list: &[f64], number: f64| list.iter().all(|it| *it == number);
        self.scale != 1.0 || !is(&self.mean, 0.0) || !is(&self.std, 1.0)
    }

    /// An error at a key, or at what encloses it.
    pub(crate) fn refuse(&self, key: &str, what: &str) -> DataError {
        self.value(&self.place.at(key), what)
    }

    pub(crate) fn value(&self, at: &Position, what: &str) -> DataError {
        RecipeError::value(at.clone(), what).into()
    }
}

impl ResizeKeys {
    fn kind(&self, place: &Place) -> Result<Resize, RecipeError> {
        let kinds = [
            self.shorter.map(Resize::Shorter),
            self.cover.map(Resize::Cover),
            self.limit_longer.map(Resize::LimitLonger),
            self.stretch.then_some(Resize::Stretch),
        ];
        let mut kinds = kinds.into_iter().flatten();
        let first = kinds.next();
        if kinds.next().is_some() {
            let what = "`shorter`, `cover`, `limit_longer` and `stretch` exclude each other";
            return Err(RecipeError::value(place.at("resize"), what));
        }
        Ok(first.unwrap_or(Resize::No))
    }
}

/// `0.5`, `1/255`.
fn number(text: &str) -> Option<f64> {
    match text.split_once('/') {
        None => text.trim().parse().ok(),
        Some((a, b)) => Some(a.trim().parse::<f64>().ok()? / b.trim().parse::<f64>().ok()?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::diag::{Code, Diagnostic};

    fn check(text: &str) -> String {
        match Description::parse(&format!("onnxq: 1\n{text}\n"), "x.yaml") {
            Ok(_) => "ok".into(),
            Err(error) => {
                let hint = error.hint().map_or(String::new(), |it| format!(" ({it})"));
                format!("{} {error}{hint}", error.code())
            }
        }
    }

    #[test]
    fn every_shipped_description_loads_and_is_documented() {
        assert!(SHIPPED.is_sorted_by(|a, b| a.0 < b.0));
        let manual = include_str!("../../../calibration/README.md");
        for (name, _) in SHIPPED {
            load(name).unwrap();
            assert!(manual.contains(&format!("`{name}`")), "{name} is not in the manual");
        }
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("calibration");
        let files = std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().path());
        let yaml = files.filter(|it| it.extension().is_some_and(|it| it == "yaml"));
        assert_eq!(yaml.count(), SHIPPED.len());
    }

    #[test]
    fn numbers_are_fractions_too_and_one_is_for_all_channels() {
        let it = load("minus_one_one").unwrap();
        assert_eq!((it.scale, it.mean.as_slice()), (1.0 / 127.5, &[1.0; 3][..]));
        let text = "onnxq: 1\nscale: 0.5\nchannels: gray\nstd: [2]";
        let it = Description::parse(text, "x").unwrap();
        assert_eq!((it.scale, it.mean, it.std), (0.5, vec![0.0], vec![2.0]));
    }

    #[test]
    fn errors_say_where() {
        let cases = [
            ("men: [0]", "E701 x.yaml:2:1: unknown key `men` (did you mean `mean`?)"),
            (
                "resize: {shortest: 3}",
                "E701 x.yaml:2:10: unknown key `shortest` (did you mean `shorter`?)",
            ),
            ("channels: brg", "E703 x.yaml:2:11: unknown channels `brg` (did you mean `bgr`?)"),
            ("crop: left", "E703 x.yaml:2:7: unknown crop `left` (known here: center)"),
            ("mean: [1, 2]", "E703 x.yaml:2:7: `mean` has 2 numbers for 3 channels"),
            ("std: [0]", "E703 x.yaml:2:6: `std` is not above 0"),
            ("scale: 1/x", "E703 x.yaml:2:8: `scale` is neither a number nor a fraction as 1/255"),
            ("scale: 1/0", "E703 x.yaml:2:8: `scale` is 0 or not finite"),
            (
                "size: [0, 1]\ncrop: center",
                "E703 x.yaml:2:7: a side of `size` is not from 1 to 16384",
            ),
            (
                "size: [8, 8]",
                "E703 x.yaml:2:7: `size` is for `crop`, `resize.cover` and `resize.stretch`, \
                 of which there is none",
            ),
            (
                "resize: {shorter: 3, cover: 1}",
                "E703 x.yaml:2:9: `shorter`, `cover`, `limit_longer` and `stretch` exclude each other",
            ),
            ("resize: {cover: 3}", "E703 x.yaml:2:17: `cover` is not from 0.1 to 1"),
            ("pad: {multiple_of: 0}", "E703 x.yaml:2:20: `multiple_of` is not from 1 to 16384"),
            ("onnxq: 1", "E701 x.yaml:2:1: key `onnxq` appears twice"),
        ];
        for (text, expected) in cases {
            assert_eq!(check(text), expected, "{text}");
        }
        let unknown = load("imagnet").unwrap_err();
        assert_eq!(unknown.code(), Code::E705);
        assert_eq!(unknown.hint().unwrap(), "did you mean `imagenet`?");
        assert_eq!(load("./none.yaml").unwrap_err().code(), Code::E905);
        let newer = Description::parse("onnxq: 2", "x.yaml").unwrap_err();
        assert_eq!(newer.to_string(), "x.yaml:1:8: format 2 is unknown, this program reads 1");
    }
}
