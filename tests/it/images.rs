//! Folders of images as data, from outside: they run, and what cannot is refused with its name.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use image::{Rgb, RgbImage};
use onnxq_ir::{onnx, text};
use serde_json::Value;
use tempfile::TempDir;

const MODEL: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,3,16,16] pixels) => (float[n,32] y) <
   float[4,3,3,3] kernel, float[784,32] weight
> {
   c = Conv <kernel_shape = [3, 3]> (pixels, kernel)
   r = Relu (c)
   f = Flatten (r)
   y = MatMul (f, weight)
}"#;

/// A folder with `model.onnx` and `photos/`, images of three sizes at two depths.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let model = onnx::to_bytes(&text::parse(MODEL).unwrap()).unwrap();
    fs::write(folder.path().join("model.onnx"), model).unwrap();
    let photos = folder.path().join("photos");
    fs::create_dir_all(photos.join("more")).unwrap();
    for (i, (name, w, h)) in
        [("b.png", 40, 30), ("a.bmp", 16, 16), ("more/c.jpg", 20, 50)].into_iter().enumerate()
    {
        let image = RgbImage::from_fn(w, h, |x, y| {
            Rgb([(x * 5) as u8, (y * 3) as u8, (x * y + 60 * i as u32) as u8])
        });
        image.save(photos.join(name)).unwrap();
    }
    fs::write(photos.join("labels.txt"), "a 0\n").unwrap();
    folder
}

fn onnxq(folder: &Path, args: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_onnxq"));
    command.current_dir(folder).env("NO_COLOR", "1").env_remove("RUST_BACKTRACE");
    command.args(args.split(' ')).output().unwrap()
}

fn json(folder: &Path, args: &str) -> Value {
    let output = onnxq(folder, args);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn error(folder: &Path, args: &str, exit: i32) -> String {
    let output = onnxq(folder, args);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(exit), "{text}");
    text
}

#[test]
fn images_calibrate_and_validate() {
    let folder = folder();
    let data = "--data photos --preprocess imagenet --json";
    let rows = json(folder.path(), &format!("calibrate model.onnx -o s.safetensors {data}"));
    // Three samples of 784 features before the MatMul.
    assert_eq!((&rows[0]["rows"], &rows[0]["k"]), (&3.into(), &784.into()), "{rows}");
    let quantize = format!("quantize model.onnx -r int8_weights -o q.onnx --validate {data}");
    assert_eq!(json(folder.path(), &quantize)["validate"]["verdict"], "not_judged");
    let validation = json(folder.path(), &format!("validate model.onnx q.onnx {data}"));
    assert_eq!(validation["samples"], 3, "{validation}");
    // The digest is of the images and of how they are read.
    let other = data.replace("imagenet", "zero_one");
    let other = json(folder.path(), &format!("validate model.onnx q.onnx {other}"));
    assert_ne!(
        validation["provenance"]["evaluation"]["sha256"],
        other["provenance"]["evaluation"]["sha256"]
    );
}

/// A probability map at half the size of its input, as text detectors give, and its channels-last twin.
const MAP: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
main (float[n,3,48,48] pixels) => (float[n,1,24,24] maps, float[n,24,24,1] last) <
   float[16,3,3,3] k1, float[1,16,3,3] k2
> {
   c = Conv <kernel_shape = [3, 3], strides = [2, 2], pads = [1, 1, 1, 1]> (pixels, k1)
   r = Relu (c)
   d = Conv <kernel_shape = [3, 3], pads = [1, 1, 1, 1]> (r, k2)
   maps = Sigmoid (d)
   last = Transpose <perm = [0, 2, 3, 1]> (maps)
}"#;

#[test]
fn an_image_is_shown_beside_its_original() {
    let folder = folder();
    let model = onnx::to_bytes(&text::parse(MAP).unwrap()).unwrap();
    fs::write(folder.path().join("model.onnx"), model).unwrap();
    let data = "--data photos --preprocess zero_one";
    json(
        folder.path(),
        "quantize model.onnx -r avx2_static --calibration photos -o q.onnx \
         --preprocess zero_one --json",
    );
    let validate = format!("validate model.onnx q.onnx {data} --report out --json");
    let found = json(folder.path(), &validate);
    let (maps, last) = (&found["outputs"]["maps"], &found["outputs"]["last"]);
    let pictures = &maps["pictures"];
    assert_eq!(pictures["sample"], maps["worst_samples"][0]["sample"], "{maps}");
    assert_eq!((&pictures["channel"], &pictures["channels"]), (&Value::Null, &1.into()));
    for side in ["reference", "candidate", "difference"] {
        assert_eq!(pictures[side]["height"], 24);
        // The order of the axes changes no pixel.
        assert_eq!(pictures[side], last["pictures"][side]);
    }
    for end in ["low", "high"] {
        assert_eq!(pictures["reference"][end], pictures["candidate"][end]);
    }
    let high = pictures["difference"]["high"].as_f64().unwrap();
    assert!(high > 0.0 && high <= maps["max_abs"].as_f64().unwrap(), "{maps}");
    assert_eq!(pictures["input"]["name"], "pixels");
    let input = &pictures["input"]["picture"];
    assert_eq!((&input["height"], &input["channels"]), (&48.into(), &3.into()));
    let page = fs::read_to_string(folder.path().join("out/index.html")).unwrap();
    assert_eq!(page.matches("<img src=\"data:image/png;base64,").count(), 8);
    // Where nothing differs there is no worst sample.
    let same = json(folder.path(), &format!("validate model.onnx model.onnx {data} --json"));
    assert_eq!(same["outputs"]["maps"]["pictures"], Value::Null);
}

#[test]
fn images_need_a_description() {
    let folder = folder();
    let text = error(folder.path(), "validate model.onnx model.onnx --data photos", 2);
    insta::assert_snapshot!(text, @r"
    error[E616]: `photos` is or holds images, and nothing says how they become inputs

    hint: pass --preprocess with clip, imagenet, minus_one_one, paddle_ocr_det, pixels, zero_one or a file
    ");
    let misspelt = "validate model.onnx model.onnx --data photos --preprocess imagnet";
    let text = error(folder.path(), misspelt, 2);
    insta::assert_snapshot!(text, @r"
    error[E705]: there is no description of images `imagnet`

    hint: did you mean `imagenet`?
    ");
}

#[test]
fn a_key_that_does_not_exist_is_named_with_its_place() {
    let folder = folder();
    let text = "onnxq: 1\nresize: {strech: true}\n";
    fs::write(folder.path().join("mine.yaml"), text).unwrap();
    let args = "validate model.onnx model.onnx --data photos --preprocess mine.yaml";
    insta::assert_snapshot!(error(folder.path(), args, 2), @r"
    error[E701]: mine.yaml:2:10: unknown key `strech`

    hint: did you mean `stretch`?
    ");
}

#[test]
fn what_does_not_become_an_input_is_named() {
    let folder = folder();
    fs::write(folder.path().join("mine.yaml"), "onnxq: 1\nscale: 1/255\n").unwrap();
    let args = "validate model.onnx model.onnx --data photos --preprocess";
    let text = error(folder.path(), &format!("{args} mine.yaml"), 3);
    insta::assert_snapshot!(text, @r"
    error[E603]: `photos/b.png` becomes 30 x 40 (height x width), and the model takes 16 x 16

    hint: choose or write a description that makes images the size that the model takes
    ");
    fs::write(folder.path().join("photos/broken.png"), b"\x89PNG\r\n\x1a\nno more").unwrap();
    let text = error(folder.path(), &format!("{args} zero_one"), 3);
    let expected = "error[E601]: `photos/broken.png` is not an image that can be read: ";
    assert!(text.starts_with(expected), "{text}");
    let calibrate = "calibrate model.onnx -o s.safetensors --data photos --preprocess zero_one";
    assert!(error(folder.path(), calibrate, 3).contains("error[E601]"));
    assert!(!folder.path().join("s.safetensors").exists());
}
