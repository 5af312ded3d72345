//! What people mistype, or know from other tools: each slip has an exit code, an error that names it
//! and a hint that works when it is followed.
#![cfg(unix)]

use std::{env, fmt::Write, fs, path::Path, process::Command};

use crate::common::fixture;

/// What is typed in a folder with the fixture's files, and what its hint leads to.
type Slip = (&'static str, &'static str);

/// A folder in which the slips happen.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["model.onnx", "eval.txt", "calibration.txt", "tokenizer.json"] {
        fs::copy(fixture(name), at(name)).unwrap();
    }
    let image = "<ir_version: 8, opset_import: [\"\" : 17]> main (float[1,4] x) => (float[1,4] y)
         <float[4,4] w> { y = MatMul (x, w) }";
    fs::write(at("image.onnxtxt"), image).unwrap();
    fs::write(at("swapped.onnx"), image).unwrap();
    let text = fs::read_to_string(at("eval.txt")).unwrap();
    let line = serde_json::json!({"text": &text[..4000]}).to_string();
    fs::write(at("lines.jsonl"), format!("{line}\n{line}\n")).unwrap();
    fs::write(at("list.json"), format!("[{line}]")).unwrap();
    let cell = text[..4000].replace('"', "\"\"");
    fs::write(at("table.csv"), format!("id,text\n1,\"{cell}\"\n")).unwrap();
    fs::write(at("labels.csv"), "id,label\n1,2\n").unwrap();
    fs::write(at("data.parquet"), "PAR1").unwrap();
    fs::write(at("other.json"), OTHER_TOKENIZER).unwrap();
    foreign(folder.path());
    folder
}

/// It makes a token that the fixture's model has no row for.
const OTHER_TOKENIZER: &str = r#"{"version": "1.0", "added_tokens": [], "model": {"type": "WordLevel",
    "vocab": {"?": 5000}, "unk_token": "?"}, "pre_tokenizer": {"type": "Whitespace"}}"#;

/// Files that are no ONNX models.
fn foreign(folder: &Path) {
    let write = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).unwrap();
    write("lfs.onnx", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 4599114\n");
    write("page.onnx", b"<!DOCTYPE html>\n<html><body>Not found</body></html>");
    write("model.pt", b"PK\x03\x04\0\0\0\0\0\0archive/data.pkl\x80\x02");
    write("old.pt", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.");
    write("lone.safetensors", b"\x40\0\0\0\0\0\0\0{\"w\":{\"dtype\":\"F32\"}}");
    write("model.gguf", b"GGUF\x03\0\0\0\0\0\0\0");
    write("model.tflite", b"\x1c\0\0\0TFL3\x14\0\x20\0");
    write("model.ort", b"\x1c\0\0\0ORTM\x14\0\x20\0");
    write("model.h5", b"\x89HDF\r\n\x1a\n\0");
    write("model.zip", b"PK\x03\x04\0\0\0\0\0\0model.onnx");
    write("model.onnx.gz", b"\x1f\x8b\x08\0\0\0\0\0");
    write("model.textproto", b"ir_version: 8\ngraph {\n  name: \"main\"\n}\n");
    write("saved_model.pb", b"\x08\x01\x12\x05\x0a\x03abc");
    write("openvino.xml", b"<?xml version=\"1.0\"?>\n<net name=\"m\" version=\"11\"></net>");
    write("config.json", b"{\"model_type\": \"llama\"}");
    write("ids.npy", b"\x93NUMPY\x01\0v\0{'descr': '<i8'}");
    write("arrays.npz", b"PK\x03\x04\0\0\0\0\0\0input_ids.npy");
    fs::create_dir(folder.join("checkpoint")).unwrap();
    let fixture = fixture("model.onnx");
    let checkpoint = fixture.parent().unwrap().with_file_name("checkpoints/llama");
    for entry in fs::read_dir(checkpoint).unwrap().map(|it| it.unwrap()) {
        fs::copy(entry.path(), folder.join("checkpoint").join(entry.file_name())).unwrap();
    }
}

/// The exit code, and what is said: the error and its hint.
fn typed(line: &str, folder: &Path) -> (i32, String) {
    let program = Path::new(env!("CARGO_BIN_EXE_onnxq")).parent().unwrap();
    let path = format!("{}:{}", program.display(), env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.args(["-c", line]).current_dir(folder).env("PATH", path).env("NO_COLOR", "1");
    let output = command.env_remove("RUST_BACKTRACE").output().unwrap();
    let error = String::from_utf8(output.stderr).unwrap();
    let mut said = String::new();
    for line in error.lines() {
        let line = line.trim_start();
        if ["error", "note", "hint:"].iter().any(|it| line.starts_with(it)) {
            writeln!(said, "  {line}").unwrap();
        }
    }
    (output.status.code().unwrap(), said)
}

/// What each slip says; what its hint leads to must work, or the snapshot says that it does not.
fn said(slips: &[Slip]) -> String {
    let folder = folder();
    let mut all = String::new();
    for (line, follow) in slips {
        let (code, said) = typed(line, folder.path());
        writeln!(all, "$ {line} → {code}\n{}", said.trim_end()).unwrap();
        if follow.is_empty() {
            continue;
        }
        let (code, said) = typed(follow, folder.path());
        if code != 0 {
            writeln!(all, "FAILS: {follow} → {code}\n{}", said.trim_end()).unwrap();
        }
    }
    all
}

#[test]
fn names_of_recipes_lead_to_recipes() {
    let slips = &[
        ("onnxq plan model.onnx -r int8", "onnxq plan model.onnx -r avx512_vnni"),
        ("onnxq plan model.onnx -r avx512", "onnxq plan model.onnx -r avx512_vnni"),
        ("onnxq plan model.onnx -r int4_q", "onnxq plan model.onnx -r int4"),
        ("onnxq recipe show static", "onnxq recipe show avx512_vnni_static"),
        ("onnxq recipe show gptq", "onnxq recipe show int4_quality"),
        ("onnxq recipe show gtpq", ""),
        ("onnxq recipe show Q4_K_M", ""),
        ("onnxq recipe show w8a16", "onnxq recipe show int8_weights"),
        ("onnxq recipe show neon", "onnxq recipe show arm64"),
        ("onnxq recipe show fp16", "onnxq convert model.onnx --to float16 -o fp16.onnx"),
        ("onnxq recipe show best", "onnxq plan model.onnx -r auto"),
        ("onnxq plan model.onnx -r mine.yaml", ""),
    ];
    insta::assert_snapshot!(said(slips), @r#"
    $ onnxq plan model.onnx -r int8 → 2
      error[E705]: there is no recipe `int8`
      hint: `int8` is what recipe `avx512_vnni` does: -r avx512_vnni
    $ onnxq plan model.onnx -r avx512 → 2
      error[E705]: there is no recipe `avx512`
      hint: `avx512` is what recipe `avx512_vnni` does: -r avx512_vnni
    $ onnxq plan model.onnx -r int4_q → 2
      error[E705]: there is no recipe `int4_q`
      hint: did you mean `int4_quality`?
    $ onnxq recipe show static → 2
      error[E705]: there is no recipe `static`
      hint: `static` is what recipe `avx512_vnni_static` does: -r avx512_vnni_static (needs --calibration)
    $ onnxq recipe show gptq → 2
      error[E705]: there is no recipe `gptq`
      hint: `gptq` is what recipe `int4_quality` does: -r int4_quality (needs --calibration)
    $ onnxq recipe show gtpq → 2
      error[E705]: there is no recipe `gtpq`
      hint: `gptq` is what recipe `int4_quality` does: -r int4_quality (needs --calibration)
    $ onnxq recipe show Q4_K_M → 2
      error[E705]: there is no recipe `Q4_K_M`
      hint: `Q4_K_M` is what recipe `int4_quality` does: -r int4_quality (needs --calibration)
    $ onnxq recipe show w8a16 → 2
      error[E705]: there is no recipe `w8a16`
      hint: `w8a16` is what recipe `int8_weights` does: -r int8_weights
    $ onnxq recipe show neon → 2
      error[E705]: there is no recipe `neon`
      hint: `neon` is what recipe `arm64` does: -r arm64
    $ onnxq recipe show fp16 → 2
      error[E705]: there is no recipe `fp16`
      hint: no recipe narrows floats: onnxq convert MODEL --to float16 -o OUT.onnx
    $ onnxq recipe show best → 2
      error[E705]: there is no recipe `best`
      hint: -r auto takes the one for this CPU; `onnxq recipe list` lists all; a recipe of your own is given by its path
    $ onnxq plan model.onnx -r mine.yaml → 2
      error[E705]: recipe `mine.yaml` cannot be read
      hint: `.` holds no .yaml file
    "#);
}

#[test]
fn files_of_other_kinds_are_named() {
    let slips = &[
        ("onnxq inspect lfs.onnx", ""),
        ("onnxq inspect page.onnx", ""),
        ("onnxq inspect model.pt", ""),
        ("onnxq inspect old.pt", ""),
        ("onnxq inspect lone.safetensors", ""),
        ("onnxq inspect checkpoint/model.safetensors", "onnxq inspect checkpoint"),
        ("onnxq inspect model.gguf", ""),
        ("onnxq inspect model.tflite", ""),
        ("onnxq inspect model.ort", ""),
        ("onnxq inspect model.h5", ""),
        ("onnxq inspect model.zip", ""),
        ("onnxq inspect model.onnx.gz", ""),
        ("onnxq inspect model.textproto", ""),
        ("onnxq inspect saved_model.pb", ""),
        ("onnxq inspect openvino.xml", ""),
        ("onnxq inspect tokenizer.json", ""),
        ("onnxq inspect ids.npy", ""),
        ("onnxq inspect arrays.npz", ""),
        (
            "onnxq inspect swapped.onnx",
            "mv swapped.onnx swapped.onnxtxt && onnxq inspect swapped.onnxtxt",
        ),
    ];
    insta::assert_snapshot!(said(slips), @r#"
    $ onnxq inspect lfs.onnx → 3
      error[E101]: not an ONNX model but a pointer of Git LFS to a file that was not fetched, of 4.6 MB
      hint: fetch the file itself: git lfs pull
    $ onnxq inspect page.onnx → 3
      error[E101]: not an ONNX model but an HTML page
      hint: the download failed; get it again from the address of the file itself, with `curl -fLO ADDRESS`
    $ onnxq inspect model.pt → 3
      error[E101]: not an ONNX model but a PyTorch file
      hint: export it first: torch.onnx.export(model, inputs, "model.onnx", dynamo=True), which needs pip install onnxscript; or save a Hugging Face model by model.save_pretrained(FOLDER, safe_serialization=True) and give the folder
    $ onnxq inspect old.pt → 3
      error[E101]: not an ONNX model but a PyTorch file or another pickle
      hint: export it first: torch.onnx.export(model, inputs, "model.onnx", dynamo=True), which needs pip install onnxscript; or save a Hugging Face model by model.save_pretrained(FOLDER, safe_serialization=True) and give the folder
    $ onnxq inspect lone.safetensors → 3
      error[E101]: not an ONNX model but weights of a checkpoint without a graph (safetensors)
      hint: give its folder instead, which holds the config.json: .
    $ onnxq inspect checkpoint/model.safetensors → 3
      error[E101]: not an ONNX model but weights of a checkpoint without a graph (safetensors)
      hint: give its folder instead, which holds the config.json: checkpoint
    $ onnxq inspect model.gguf → 3
      error[E123]: model.gguf: the header needs 8 bytes, but 4 are left in the file
    $ onnxq inspect model.tflite → 3
      error[E101]: not an ONNX model but a TensorFlow Lite model
      hint: convert it first: python -m tf2onnx.convert --tflite model.tflite --output model.onnx
    $ onnxq inspect model.ort → 3
      error[E101]: not an ONNX model but a model in the ORT format of ONNX Runtime
      hint: it cannot become ONNX again: start from the .onnx file it was made of
    $ onnxq inspect model.h5 → 3
      error[E101]: not an ONNX model but a Keras model (HDF5)
      hint: export it from Keras: model.export("model.onnx", format="onnx")
    $ onnxq inspect model.zip → 3
      error[E101]: not an ONNX model but a zip archive
      hint: unpack it first: unzip model.zip
    $ onnxq inspect model.onnx.gz → 3
      error[E101]: not an ONNX model but a gzip archive
      hint: unpack it first: gunzip -k model.onnx.gz
    $ onnxq inspect model.textproto → 3
      error[E101]: not an ONNX model but protobuf in its text form
      hint: make it binary: python -c "import onnx; onnx.save(onnx.load('model.textproto', format='textproto'), 'model.onnx')"
    $ onnxq inspect saved_model.pb → 3
      error[E101]: not an ONNX model but a SavedModel of TensorFlow
      hint: convert it first: python -m tf2onnx.convert --saved-model . --output model.onnx
    $ onnxq inspect openvino.xml → 3
      error[E101]: not an ONNX model but an OpenVINO model
      hint: OpenVINO files cannot become ONNX again: start from the original model
    $ onnxq inspect tokenizer.json → 3
      error[E101]: not an ONNX model but a JSON file
      hint: a checkpoint is given as its folder: .
    $ onnxq inspect ids.npy → 3
      error[E101]: not an ONNX model but an array of numpy
      hint: that is data: pass it as --data or --calibration, and the model first
    $ onnxq inspect arrays.npz → 3
      error[E101]: not an ONNX model but an archive of numpy arrays (.npz)
      hint: that is data: pass it as --data or --calibration, and the model first
    $ onnxq inspect swapped.onnx → 3
      error[E101]: not an ONNX model but ONNX text
      hint: give it a name that ends in .onnxtxt: swapped.onnxtxt
    "#);
}

#[test]
fn flags_of_other_tools_are_answered() {
    let slips = &[
        (
            "onnxq quantize model.onnx --dtype int8",
            "onnxq plan model.onnx -r int4 --set quantize.0.weight.dtype=uint4",
        ),
        ("onnxq quantize model.onnx --weight_type QInt8", "onnxq plan model.onnx -r int8_weights"),
        ("onnxq quantize model.onnx --per-channel", "onnxq plan model.onnx -r avx2"),
        ("onnxq quantize model.onnx --bits 4", "onnxq plan model.onnx -r int4"),
        (
            "onnxq quantize model.onnx --group-size 64",
            "onnxq plan model.onnx -r int4 --set quantize.0.weight.granularity='{block: 64}'",
        ),
        (
            "onnxq quantize model.onnx --reduce-range",
            "onnxq plan model.onnx --set quantize.0.weight.range=reduced",
        ),
        (
            "onnxq quantize model.onnx --quant-format QDQ",
            "onnxq quantize model.onnx q.onnx -r int4 && onnxq convert q.onnx --to qdq -o qdq.onnx",
        ),
        (
            "onnxq quantize model.onnx --symmetric",
            "onnxq plan model.onnx -r int4 --set quantize.0.weight.symmetric=true",
        ),
        (
            "onnxq quantize model.onnx --nodes_to_exclude lm_head",
            "onnxq plan model.onnx -r int4 --exclude '*lm_head*'",
        ),
        ("onnxq quantize model.onnx --avx512", "onnxq plan model.onnx -r avx512_vnni"),
        (
            "onnxq quantize model.onnx --seqlen 64",
            "onnxq plan model.onnx --set calibration.sequence=64",
        ),
        ("onnxq quantize --model_input model.onnx", "onnxq quantize model.onnx"),
        ("onnxq quantize model.onnx --output-dir out", ""),
        ("onnxq quantize model.onnx --overwrite", "onnxq quantize model.onnx -f"),
        ("onnxq quantize model.onnx --fp16", "onnxq convert model.onnx --to float16 -o half.onnx"),
        ("onnxq quantize model.onnx --optimize", "onnxq convert model.onnx --fuse -o fused.onnx"),
        ("onnxq quantize model.onnx --device cuda", ""),
        (
            "onnxq compare model.onnx model.onnx --gate 'kl<1'",
            "onnxq validate model.onnx model.onnx --data eval.txt --tokenizer tokenizer.json --samples 2 --no-latency --gate 'kl.mean<=0.05'",
        ),
        ("onnxq validate model.onnx model.onnx --bisect", ""),
        ("onnxq convert model.onnx --bits 4", "onnxq quantize model.onnx four.onnx -r int4"),
        (
            "onnxq convert model.onnx --to int8 -o x.onnx",
            "onnxq quantize model.onnx eight.onnx -r avx512_vnni",
        ),
        (
            "onnxq calibrate model.onnx --data eval.txt --observer kl",
            "onnxq calibrate model.onnx --data eval.txt --tokenizer tokenizer.json --samples 2 --observer entropy",
        ),
        ("onnxq optimize model.onnx", "onnxq convert model.onnx --fuse -o o.onnx"),
        ("onnxq evaluate model.onnx", ""),
        ("onnxq model.onnx", "onnxq quantize model.onnx e.onnx"),
        ("onnxq quantize model.onnx out.onnx more.onnx", ""),
        ("onnxq explain gtpq", "onnxq explain gptq"),
        ("onnxq explain E999x", ""),
        ("onnxq explain sqnr", "onnxq explain sqnr_db"),
        ("onnxq plan model.onnx --set quantize.0.weight.dtype=unit4", ""),
    ];
    insta::assert_snapshot!(said(slips), @r#"
    $ onnxq quantize model.onnx --dtype int8 → 2
      error[E700]: unexpected argument '--dtype' found
      hint: a recipe says that: -r int4, -r int8_weights, -r avx512_vnni, -r avx512_vnni_static; one value of it is changed by --set quantize.0.weight.dtype=uint4
    $ onnxq quantize model.onnx --weight_type QInt8 → 2
      error[E700]: unexpected argument '--weight_type' found
      hint: a recipe says that: -r int4, -r int8_weights, -r avx512_vnni, -r avx512_vnni_static; one value of it is changed by --set quantize.0.weight.dtype=uint4
    $ onnxq quantize model.onnx --per-channel → 2
      error[E700]: unexpected argument '--per-channel' found
      hint: recipes for 8 bits (-r avx512_vnni, -r avx2) have a scale for each channel, those for 4 bits one for each block
    $ onnxq quantize model.onnx --bits 4 → 2
      error[E700]: unexpected argument '--bits' found
      hint: a recipe says that: -r int4 for 4 bits, -r int8_weights or -r avx512_vnni for 8; `onnxq recipe list` lists all
    $ onnxq quantize model.onnx --group-size 64 → 2
      error[E700]: unexpected argument '--group-size' found
      hint: a recipe says that: --set quantize.0.weight.granularity='{block: 64}'
    $ onnxq quantize model.onnx --reduce-range → 2
      error[E700]: unexpected argument '--reduce-range' found
      hint: for CPUs without VNNI take -r avx2; or --set quantize.0.weight.range=reduced
    $ onnxq quantize model.onnx --quant-format QDQ → 2
      error[E700]: unexpected argument '--quant-format' found
      hint: the recipe chooses the fastest form: -r avx512_vnni_static writes QuantizeLinear and DequantizeLinear; `onnxq convert MODEL --to qdq -o OUT.onnx` makes them of any form
    $ onnxq quantize model.onnx --symmetric → 2
      error[E700]: unexpected argument '--symmetric' found
      hint: a recipe says that: --set quantize.0.weight.symmetric=true
    $ onnxq quantize model.onnx --nodes_to_exclude lm_head → 2
      error[E700]: unexpected argument '--nodes_to_exclude' found
      hint: --exclude PATTERN leaves nodes with matching names in float: --exclude '*lm_head*'
    $ onnxq quantize model.onnx --avx512 → 2
      error[E700]: unexpected argument '--avx512' found
      hint: the recipe says the CPU: -r auto for this one, -r avx512_vnni, -r avx2, -r arm64
    $ onnxq quantize model.onnx --seqlen 64 → 2
      error[E700]: unexpected argument '--seqlen' found
      hint: the recipe says how long rows of text are: --set calibration.sequence=256; of a model with a fixed shape the model says it
    $ onnxq quantize --model_input model.onnx → 2
      error[E700]: unexpected argument '--model_input' found
      hint: the model is given without a flag: onnxq quantize model.onnx
    $ onnxq quantize model.onnx --output-dir out → 2
      error[E700]: unexpected argument '--output-dir' found
      hint: the result goes to -o FILE
    $ onnxq quantize model.onnx --overwrite → 2
      error[E700]: unexpected argument '--overwrite' found
      hint: -f (--force) replaces a file
    $ onnxq quantize model.onnx --fp16 → 2
      error[E700]: unexpected argument '--fp16' found
      hint: that is another command: onnxq convert MODEL --to float16 -o OUT.onnx
    $ onnxq quantize model.onnx --optimize → 2
      error[E700]: unexpected argument '--optimize' found
      hint: quantize fuses first, always; a float model is only fused by onnxq convert MODEL --fuse -o OUT
    $ onnxq quantize model.onnx --device cuda → 2
      error[E700]: unexpected argument '--device' found
      hint: models run on the CPU; for another class of CPU take another recipe: -r avx2, -r arm64
    $ onnxq compare model.onnx model.onnx --gate 'kl<1' → 2
      error[E700]: unexpected argument '--gate' found
      hint: `compare` explores and judges nothing: onnxq validate ORIGINAL QUANTIZED --data D --gate 'kl.mean<=0.05' --report DIR
    $ onnxq validate model.onnx model.onnx --bisect → 2
      error[E700]: unexpected argument '--bisect' found
      hint: onnxq compare ORIGINAL QUANTIZED --data D --bisect finds the node
    $ onnxq convert model.onnx --bits 4 → 2
      error[E700]: unexpected argument '--bits' found
      hint: weights are quantized by another command: onnxq quantize MODEL -r int4
    $ onnxq convert model.onnx --to int8 -o x.onnx → 2
      error[E700]: invalid value 'int8' for '--to <FORM>'
      hint: floats become integers by another command: onnxq quantize MODEL -r avx512_vnni
    $ onnxq calibrate model.onnx --data eval.txt --observer kl → 2
      error[E700]: invalid value 'kl' for '--observer <NAME>': there is no observer `kl`
      hint: did you mean `entropy`?
    $ onnxq optimize model.onnx → 2
      error[E700]: unrecognized subcommand 'optimize'
      hint: onnxq convert MODEL --fuse -o OUT.onnx
    $ onnxq evaluate model.onnx → 2
      error[E700]: unrecognized subcommand 'evaluate'
      hint: onnxq validate ORIGINAL QUANTIZED --data D
    $ onnxq model.onnx → 2
      error[E700]: unrecognized subcommand 'model.onnx'
      hint: name what to do with it: onnxq quantize model.onnx
    $ onnxq quantize model.onnx out.onnx more.onnx → 2
      error[E700]: unexpected argument 'more.onnx' found
      hint: onnxq takes one model at a time, and its output
    $ onnxq explain gtpq → 2
      error[E700]: invalid value 'gtpq' for '[CODE]': nothing is called so
      hint: did you mean gptq?
    $ onnxq explain E999x → 2
      error[E700]: invalid value 'E999x' for '[CODE]': nothing is called so
      hint: did you mean E999?
    $ onnxq explain sqnr → 2
      error[E700]: invalid value 'sqnr' for '[CODE]': nothing is called so
      hint: did you mean sqnr_db?
    $ onnxq plan model.onnx --set quantize.0.weight.dtype=unit4 → 2
      error[E703]: --set quantize.0.weight.dtype=unit4: unknown dtype `unit4`
      hint: did you mean `uint4`?
    "#);
}

#[test]
fn wrong_paths_end_with_2_before_any_work() {
    let slips = &[
        ("onnxq quantize modle.onnx", "onnxq quantize model.onnx"),
        ("onnxq inspect model", "onnxq inspect model.onnx"),
        (
            "onnxq quantize model.onnx -o none/out.onnx",
            "mkdir -p none && onnxq quantize model.onnx -o none/out.onnx",
        ),
        (
            "onnxq quantize model.onnx -o checkpoint",
            "onnxq quantize model.onnx -o checkpoint/model.onnx",
        ),
        ("onnxq quantize - < model.onnx", "onnxq quantize - -o - < model.onnx > piped.onnx"),
        ("onnxq quantize model.onnx -o - --external-data always | cat; exit ${PIPESTATUS[0]}", ""),
        ("onnxq validate - - --data eval.txt --tokenizer tokenizer.json < model.onnx", ""),
        ("onnxq calibrate model.onnx --data eval.txt --tokenizer tokenizer.json -o -", ""),
        (
            "onnxq quantize model.onnx eval.txt",
            "onnxq quantize model.onnx -f --validate --data eval.txt --tokenizer tokenizer.json --samples 2 --no-latency",
        ),
        ("onnxq quantize model.onnx -o a.onnx b.onnx", ""),
        ("onnxq quantize model.onnx -r int4_quality --calibration calibraton.txt", ""),
        ("onnxq quantize model.onnx -r int4_quality", ""),
        (
            "onnxq quantize model.onnx --validate=evla.txt",
            "onnxq quantize model.onnx v.onnx --validate=eval.txt --tokenizer tokenizer.json --samples 2 --no-latency",
        ),
        (
            "onnxq validate model.onnx model.onnx",
            "onnxq validate model.onnx model.onnx --data eval.txt --tokenizer tokenizer.json --samples 2 --no-latency",
        ),
        (
            "onnxq validate model.onnx model.onnx --data eval.txt",
            "onnxq validate model.onnx model.onnx --data eval.txt --tokenizer tokenizer.json --samples 2 --no-latency",
        ),
        ("onnxq validate model.onnx model.onnx --data eval --tokenizer tokenizer.json", ""),
        ("onnxq validate model.onnx model.onnx --data eval.txt --tokenizer tokeniser.json", ""),
        (
            "onnxq validate model.onnx model.onnx --data eval.txt --tokenizer tokenizer.json --baseline last.json",
            "",
        ),
        (
            "onnxq validate model.onnx model.onnx --data eval.txt --tokenizer tokenizer.json --emit html=no/page.html",
            "",
        ),
        ("onnxq calibrate model.onnx --data eval.txt --tokenizer tokenizer.json -o no/stats", ""),
        ("onnxq convert model.onnx --fuse -o no/out.onnx", ""),
        ("onnxq report last.json", ""),
        ("onnxq import chekpoint -o out", ""),
    ];
    insta::assert_snapshot!(said(slips), @r#"
    $ onnxq quantize modle.onnx → 2
      error[E905]: MODEL: there is nothing at modle.onnx
      hint: did you mean `model.onnx`?
    $ onnxq inspect model → 2
      error[E905]: cannot read model
      hint: did you mean `model.onnx`?
    $ onnxq quantize model.onnx -o none/out.onnx → 2
      error[E905]: there is no folder none for the output
      hint: make it first: mkdir -p none
    $ onnxq quantize model.onnx -o checkpoint → 2
      error[E905]: checkpoint is a folder
      hint: name the file in it: checkpoint/model.onnx
    $ onnxq quantize - < model.onnx → 2
      error[E906]: a model from standard input has no name, which the output's name could follow
      hint: name the output: -o FILE, or -o - for standard output
    $ onnxq quantize model.onnx -o - --external-data always | cat; exit ${PIPESTATUS[0]} → 2
      error[E906]: the model needs a data file beside it, and standard output is one file
      hint: write to a file: -o FILE
    $ onnxq validate - - --data eval.txt --tokenizer tokenizer.json < model.onnx → 2
      error[E906]: `-` stands for standard input, which holds one model only
      hint: give the path of one of them
    $ onnxq calibrate model.onnx --data eval.txt --tokenizer tokenizer.json -o - → 2
      error[E906]: only models and reports can be written to standard output, which `-` stands for
      hint: give the path of a file
    $ onnxq quantize model.onnx eval.txt → 2
      error[E905]: eval.txt is no name for a model
      hint: samples to compare on are given as --validate --data eval.txt, samples to learn from as --calibration eval.txt; the output is -o FILE
    $ onnxq quantize model.onnx -o a.onnx b.onnx → 2
      error[E905]: there are two outputs: -o, and b.onnx behind the model
      hint: onnxq takes one model at a time: leave one of the two out
    $ onnxq quantize model.onnx -r int4_quality --calibration calibraton.txt → 2
      error[E905]: --calibration: there is nothing at calibraton.txt
      hint: did you mean `calibration.txt`?
    $ onnxq quantize model.onnx -r int4_quality → 2
      error[E610]: solver `gptq` of `/m/model/layers.0/mlp/down_proj/MatMul` needs calibration data, and there is none
      hint: pass --calibration with data like the model's own: text (and --tokenizer), images (and --preprocess), .npy or .npz; for solvers, --stats of an earlier run is enough; or take a recipe that needs none
    $ onnxq quantize model.onnx --validate=evla.txt → 2
      error[E905]: --validate: there is nothing at evla.txt
      hint: did you mean `eval.txt`?
    $ onnxq validate model.onnx model.onnx → 2
      error[E622]: there is no data to compare on
      hint: pass --data with text and --tokenizer, images and --preprocess, .npy, .npz or test_data_set folders
    $ onnxq validate model.onnx model.onnx --data eval.txt → 2
      error[E608]: `eval.txt` is text, and no tokenizer was given
      hint: pass --tokenizer tokenizer.json
    $ onnxq validate model.onnx model.onnx --data eval --tokenizer tokenizer.json → 2
      error[E905]: --data: there is nothing at eval
      hint: did you mean `eval.txt`?
    $ onnxq validate model.onnx model.onnx --data eval.txt --tokenizer tokeniser.json → 2
      error[E905]: --tokenizer: there is nothing at tokeniser.json
      hint: did you mean `tokenizer.json`?
    $ onnxq validate model.onnx model.onnx --data eval.txt --tokenizer tokenizer.json --baseline last.json → 2
      error[E905]: --baseline: there is nothing at last.json
      hint: did you mean `list.json`?
    $ onnxq validate model.onnx model.onnx --data eval.txt --tokenizer tokenizer.json --emit html=no/page.html → 2
      error[E905]: there is no folder no for the output
      hint: make it first: mkdir -p no
    $ onnxq calibrate model.onnx --data eval.txt --tokenizer tokenizer.json -o no/stats → 2
      error[E905]: there is no folder no for the output
      hint: make it first: mkdir -p no
    $ onnxq convert model.onnx --fuse -o no/out.onnx → 2
      error[E905]: there is no folder no for the output
      hint: make it first: mkdir -p no
    $ onnxq report last.json → 2
      error[E905]: the report `last.json` could not be read
      hint: did you mean `list.json`?
    $ onnxq import chekpoint -o out → 2
      error[E905]: cannot read chekpoint/config.json
      hint: there is no folder `chekpoint`; did you mean `checkpoint`?
    "#);
}

#[test]
fn data_of_other_kinds_is_answered() {
    let slips = &[
        (
            "onnxq validate model.onnx model.onnx --data eval.txt --tokenizer other.json",
            "onnxq validate model.onnx model.onnx --data eval.txt --tokenizer tokenizer.json --samples 2 --no-latency",
        ),
        (
            "onnxq quantize model.onnx -r int4_quality --calibration eval.txt --tokenizer other.json",
            "",
        ),
        ("onnxq compare model.onnx model.onnx --layers --data eval.txt --tokenizer other.json", ""),
        (
            "onnxq convert image.onnxtxt --opset 18 -o image.onnx && onnxq validate image.onnx image.onnx --data eval.txt --tokenizer tokenizer.json",
            "",
        ),
        ("onnxq validate model.onnx model.onnx --data data.parquet", ""),
        (
            "onnxq validate model.onnx model.onnx --data labels.csv --tokenizer tokenizer.json",
            "onnxq validate model.onnx model.onnx --data table.csv --tokenizer tokenizer.json --no-latency",
        ),
        (
            "onnxq validate model.onnx model.onnx --data model.onnx",
            "onnxq validate model.onnx model.onnx --data lines.jsonl --tokenizer tokenizer.json --no-latency",
        ),
        (
            "onnxq validate model.onnx model.onnx --data config.json --tokenizer tokenizer.json",
            "onnxq validate model.onnx model.onnx --data list.json --tokenizer tokenizer.json --no-latency",
        ),
    ];
    insta::assert_snapshot!(said(slips), @r#"
    $ onnxq validate model.onnx model.onnx --data eval.txt --tokenizer other.json → 2
      error[E623]: `other.json` makes token 5000, but the model looks `input_ids` up in a table of 1024 rows
      hint: is it this model's? Pass --tokenizer with the tokenizer.json that came with the model
    $ onnxq quantize model.onnx -r int4_quality --calibration eval.txt --tokenizer other.json → 2
      error[E623]: `other.json` makes token 5000, but the model looks `input_ids` up in a table of 1024 rows
      hint: is it this model's? Pass --tokenizer with the tokenizer.json that came with the model
    $ onnxq compare model.onnx model.onnx --layers --data eval.txt --tokenizer other.json → 2
      error[E623]: `other.json` makes token 5000, but the model looks `input_ids` up in a table of 1024 rows
      hint: is it this model's? Pass --tokenizer with the tokenizer.json that came with the model
    $ onnxq convert image.onnxtxt --opset 18 -o image.onnx && onnxq validate image.onnx image.onnx --data eval.txt --tokenizer tokenizer.json → 3
      error[E607]: `eval.txt` is text, and the model takes no numbers of tokens: its inputs are `x`
      hint: for images give a folder of them and --preprocess, for anything else the inputs as arrays: numpy.savez("data.npz", NAME=array)
    $ onnxq validate model.onnx model.onnx --data data.parquet → 3
      error[E601]: `data.parquet` is none of .npy, .npz, .txt, .text, .md, .jsonl, .ndjson, .json, .csv, an image or a folder
      hint: make lines of JSON of it: python -c "import pandas; pandas.read_parquet('data.parquet').to_json('data.jsonl', orient='records', lines=True)"
    $ onnxq validate model.onnx model.onnx --data labels.csv --tokenizer tokenizer.json → 3
      error[E601]: `labels.csv` has the columns id, label: a column `text` or `content` or `sentence` or `prompt` is read
    $ onnxq validate model.onnx model.onnx --data model.onnx → 3
      error[E601]: `model.onnx` is none of .npy, .npz, .txt, .text, .md, .jsonl, .ndjson, .json, .csv, an image or a folder
      hint: that is a model; samples are wanted here
    $ onnxq validate model.onnx model.onnx --data config.json --tokenizer tokenizer.json → 3
      error[E601]: `config.json` has no text in record 0: a field `text` or `content` or `sentence` or `prompt` is read
    "#);
}
