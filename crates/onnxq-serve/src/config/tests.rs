//! What a description means, and where it is wrong.

use std::{path::Path, time::Duration};

use onnxq_ir::diag::Diagnostic;

use super::{Config, ConfigError, KeepAlive, TokenSource, check, file};
use crate::presets::Preset;

fn read(text: &str) -> Result<Config, ConfigError> {
    check::config(&file::parse(text, "serve.yaml")?, Path::new("some/serve.yaml"))
}

fn wrong(text: &str) -> String {
    let error = read(text).unwrap_err();
    let hint = error.hint().map_or(String::new(), |it| format!(" ({it})"));
    format!("{} {error}{hint}", error.code())
}

#[test]
fn a_line_for_each_model_is_enough() {
    let config = read("models:\n  b: {path: b.onnx}\n  a: {path: /a}\n").unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    let names: Vec<_> = config.models.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(config.models[0].path, Path::new("/a"));
    let b = &config.models[1];
    assert_eq!(b.path, Path::new("some/b.onnx"));
    assert_eq!((b.slots, b.queue, b.preload), (1, 8, false));
    assert_eq!(b.keep_alive, KeepAlive::For(Duration::from_secs(300)));
    assert_eq!(b.deadline, Duration::from_secs(30));
}

#[test]
fn everything_can_be_said() {
    let config = read(
        "listen: 0.0.0.0:80\nmemory: 2GiB\ntoken_env: SECRET\nhosts: [Edge.lan]\n\
         cors: ['https://a.example']\nlimits: {body: 2MiB, connections: 5, deadline: 1h}\n\
         models:\n  org/m.v2:\n    path: m\n    preset: summarize\n    tokenizer: t.json\n    \
         context: 512\n    threads: 1\n    slots: 2\n    queue: 0\n    keep_alive: -1\n    \
         preload: true\n    deadline: 5s\n    system: Be kind.\n    max_tokens: 9\n    \
         temperature: 0.5\n    top_k: 3\n    seed: 7\n",
    )
    .unwrap();
    assert_eq!((config.listen.port(), config.memory), (80, Some(2 << 30)));
    assert_eq!(config.token, TokenSource::Variable("SECRET".into()));
    assert_eq!(config.hosts, ["edge.lan"]);
    assert_eq!((config.limits.body_bytes, config.limits.connections), (2 << 20, 5));
    let model = &config.models[0];
    assert_eq!((model.preset, model.queue, model.slots), (Preset::Summarize, 0, 2));
    assert_eq!(model.keep_alive, KeepAlive::Forever);
    assert_eq!(model.sampling.temperature, Some(0.5));
    assert!(config.check(Some("0123456789abcdef")).is_err(), "nothing is there");
    assert!(matches!(config.check(None), Err(ConfigError::NoToken(_))));
    assert!(matches!(config.check(Some("short")), Err(ConfigError::BadToken(_))));
}

#[test]
fn what_is_wrong_is_pointed_at() {
    let of = |line: &str| wrong(&format!("models:\n  m.v2:\n    path: x\n    {line}\n"));
    let cases = [
        (of("pth: y"), "E713 serve.yaml:4:5: unknown key `pth` (did you mean `path`?)"),
        (of("keep_alive: soon"), "E714 serve.yaml:4:17: `keep_alive` is no time"),
        (of("slots: 0"), "E714 serve.yaml:4:12: `slots` must be from 1 to 64"),
        (of("slots: many"), "E714 serve.yaml:4:12: `slots` is not a whole number"),
        (
            of("temperature: -1"),
            "E714 serve.yaml:4:18: `temperature` must be a number from 0 to 100",
        ),
        (of("temperature: .nan"), "E714 serve.yaml:4:18: `temperature` must be a number"),
        (of("preset: talk"), "E714 serve.yaml:4:13: unknown preset `talk`"),
        (of("deadline: 1x"), "E714 serve.yaml:4:15: `deadline` is no time"),
        (wrong("models: {}"), "E714 serve.yaml:1:9: `models` is empty"),
        (wrong("listen: 8080\nmodels: {m: {path: x}}"), "E714 serve.yaml:1:9: `listen`"),
        (wrong("listen: localhost\nmodels: {m: {path: x}}"), "E714 serve.yaml:1:9: `listen` is no"),
        (wrong("memory: lots\nmodels: {m: {path: x}}"), "E714 serve.yaml:1:9: `memory` is no size"),
        (wrong("cors: ['*']\nmodels: {m: {path: x}}"), "E714 serve.yaml:1:7: `cors` has something"),
        (wrong("models: {'a b': {path: x}}"), "E714 serve.yaml:1:17: model name `a b`"),
        (wrong("models: [&a x]"), "E713 serve.yaml:1:13: anchors are not allowed"),
        (wrong("modles: {}"), "E713 serve.yaml:1:1: unknown key `modles` (did you mean `models`?)"),
        (
            wrong("token_file: x\ntoken_env: y\nmodels: {m: {path: x}}"),
            "E714 serve.yaml:2:12: `token_env` and `token_file` are both given",
        ),
    ];
    for (found, expected) in cases {
        assert!(found.starts_with(expected), "{found}\n{expected}");
    }
    let absent = read("models: {m: {path: nothing.onnx}}").unwrap().check(None).unwrap_err();
    assert!(absent.to_string().starts_with("model `m`: there is nothing at some/nothing.onnx"));
}

#[test]
fn models_without_a_description_are_called_like_their_files() {
    let paths = ["a/edge.int4.onnx", "smol/model.onnx", "b/"].map(Into::into);
    let config = Config::of_models(&paths).unwrap();
    let names: Vec<_> = config.models.iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["b", "edge.int4", "smol"]);
    let twice = Config::of_models(&["a/m.onnx", "b/m.onnx"].map(Into::into)).unwrap_err();
    assert_eq!(twice.to_string(), "two models are called `m`");
    assert!(Config::of_models(&[]).is_err());
}
