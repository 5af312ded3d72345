//! What answers look like, in every form.

use std::time::{Duration, Instant};

use serde_json::json;

use super::server::{Setup, model};
use crate::{config::ModelConfig, presets::Preset};

fn with(name: &str, preset: Preset) -> ModelConfig {
    ModelConfig { preset, ..model(name) }
}

#[test]
fn a_chat_is_answered_whole() {
    let server = Setup::default().start();
    let more =
        json!({"logprobs": true, "top_logprobs": 2, "seed": 3, "colour": "red", "user": "x"});
    let reply = server.chat_with("m", "n=2", &more);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let body = reply.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["message"], json!({"role": "assistant", "content": "t1 t2 "}));
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    let logprob = &body["choices"][0]["logprobs"]["content"][1];
    assert_eq!((&logprob["token"], &logprob["logprob"]), (&json!("t2 "), &json!(-0.5)));
    assert_eq!(logprob["bytes"], json!([116, 50, 32]));
    assert_eq!(body["usage"]["total_tokens"], 5);
    assert_eq!(body["warnings"], json!(["`colour` is unknown and ignored"]));
    // The only model need not be named.
    let body =
        json!({"messages": [{"role": "user", "content": [{"type": "text", "text": "n=1"}]}]});
    assert_eq!(server.post("/v1/chat/completions", &body).said(), "t1 ");
}

#[test]
fn a_chat_is_answered_in_pieces() {
    let server = Setup::default().start();
    let more = json!({"stream": true, "stream_options": {"include_usage": true}, "colour": "red"});
    let reply = server.chat_with("m", "n=2", &more);
    assert_eq!(reply.status, 200);
    assert!(reply.head.contains("content-type: text/event-stream"));
    assert!(reply.body.ends_with("data: [DONE]\n\n"), "{}", reply.body);
    let pieces = reply.pieces();
    let deltas: Vec<_> = pieces.iter().map(|it| &it["choices"][0]["delta"]).collect();
    assert_eq!(*deltas[0], json!({"role": "assistant", "content": ""}));
    assert_eq!(pieces[0]["warnings"], json!(["`colour` is unknown and ignored"]));
    assert_eq!([deltas[1], deltas[2]], [&json!({"content": "t1 "}), &json!({"content": "t2 "})]);
    assert_eq!(pieces[3]["choices"][0]["finish_reason"], "length");
    assert_eq!(pieces[4]["choices"], json!([]));
    assert_eq!(pieces[4]["usage"]["completion_tokens"], 2);
    assert!(pieces.iter().all(|it| it["object"] == "chat.completion.chunk"));
    assert!(pieces.iter().all(|it| it["id"] == pieces[0]["id"]));
}

#[test]
fn texts_are_continued_as_harnesses_of_evaluation_ask() {
    let server = Setup::default().start();
    let body = json!({
        "model": "m", "prompt": [[5, 6, 7], [8]], "max_tokens": 1, "logprobs": 1, "echo": true,
        "temperature": 0.0, "seed": 1234, "n": 1, "best_of": 1, "tools": [], "logit_bias": {},
    });
    let reply = server.post("/v1/completions", &body);
    assert_eq!(reply.status, 200, "{}", reply.body);
    let body = reply.json();
    assert_eq!(body["choices"].as_array().unwrap().len(), 2);
    assert_eq!(body["choices"][1]["index"], 1);
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"], json!(["t1 "]));
    assert_eq!(logprobs["top_logprobs"], json!([{"t1 ": -0.5}]));
    assert_eq!(logprobs["text_offset"], json!([0]));
    assert_eq!(body["usage"]["completion_tokens"], 2);
    // Sixteen tokens, if nobody says.
    let body = json!({"model": "m", "prompt": "n=50", "stream": true, "logprobs": 0});
    let reply = server.post("/v1/completions", &body);
    let pieces = reply.pieces();
    assert_eq!(pieces.len(), 17);
    assert_eq!(pieces[1]["choices"][0]["logprobs"]["text_offset"], json!([3]));
    assert_eq!(pieces[16]["choices"][0]["finish_reason"], "length");
}

#[test]
fn texts_become_vectors_and_labels() {
    let models = [with("e", Preset::Embed), with("c", Preset::Classify)];
    let server = Setup::of(models).start();
    let body = json!({"model": "e", "input": ["ab", "c"]});
    let reply = server.post("/v1/embeddings", &body).json();
    assert_eq!(reply["data"][0]["embedding"], json!([2.0, 0.5]));
    assert_eq!(reply["data"][1]["index"], 1);
    let body = json!({"model": "e", "input": "ab", "encoding_format": "base64"});
    let reply = server.post("/v1/embeddings", &body).json();
    assert_eq!(reply["data"][0]["embedding"], "AAAAQAAAAD8=");
    let reply = server.post("/v1/classify", &json!({"model": "c", "input": ["x", "y"]})).json();
    assert_eq!(reply["data"][1]["label"], "good");
    assert_eq!(reply["data"][1]["labels"][1], json!({"label": "bad", "score": 0.25}));
    assert_eq!(reply["usage"]["total_tokens"], 4);
    for (path, body) in [
        ("/v1/classify", json!({"model": "e", "input": "x"})),
        ("/v1/chat/completions", json!({"model": "c", "messages": []})),
    ] {
        let reply = server.post(path, &body);
        assert_eq!((reply.status, &*reply.code()), (400, "wrong_endpoint"));
    }
}

#[test]
fn what_a_model_is_for_says_what_it_is_told() {
    let summary = ModelConfig { preset: Preset::Summarize, ..model("s") };
    let polite = ModelConfig { system: Some("n=3".into()), ..model("p") };
    let short = ModelConfig { max_tokens: Some(2), ..model("x") };
    let server = Setup::of([polite, summary, short]).start();
    // The scripted model reads its script from the system message.
    assert_eq!(server.chat_with("p", "hello", &json!({})).said(), "t1 t2 t3 ");
    assert_eq!(server.chat_with("s", "n=1", &json!({})).said(), "t1 ");
    assert_eq!(server.chat_with("x", "n=9", &json!({})).said(), "t1 t2 ");
    assert_eq!(server.chat_with("x", "n=9", &json!({"max_tokens": 4})).said(), "t1 t2 t3 t4 ");
    let newer = json!({"max_completion_tokens": 1, "max_tokens": 4});
    assert_eq!(server.chat_with("x", "n=9", &newer).said(), "t1 ");
}

#[test]
fn models_are_listed_before_and_after_they_are_loaded() {
    let server = Setup::of([model("a/b"), model("m")]).start();
    let list = server.get("/v1/models").json();
    assert_eq!(list["data"][0]["id"], "a/b");
    assert_eq!(server.get("/v1/models/a%2Fb").json()["id"], "a/b");
    assert_eq!(server.get("/v1/models/a/b").json()["object"], "model");
    assert_eq!(server.get("/v1/models/c").status, 404);
    assert!(!server.get("/v1/models").body.contains("Cargo.toml"));
    assert_eq!(server.get("/v1/ps").json()["data"][1]["slots"]["idle"], 0);
    server.assert_answers();
    let ps = server.get("/v1/ps").json();
    assert_eq!(ps["data"][1]["slots"]["idle"], 1);
    assert_eq!(ps["data"][1]["resident_bytes"], 100);
    let expires = ps["data"][1]["expires_in"].as_f64().unwrap();
    assert!(expires > 290.0 && expires <= 300.0);
    for path in ["/health", "/health/live", "/health/ready"] {
        assert_eq!(server.get(path).status, 200);
    }
    let metrics = server.get("/metrics").body;
    assert!(metrics.contains("onnxq_tokens_total{model=\"m\",kind=\"completion\"} 2\n"));
    assert!(metrics.contains("onnxq_slots{model=\"m\",state=\"idle\"} 1\n"), "{metrics}");
    assert!(metrics.contains("onnxq_resident_bytes{model=\"m\"} 100\n"));
    assert!(metrics.contains("path=\"/v1/chat/completions\",model=\"m\",status=\"200\"} 1\n"));
}

#[test]
fn what_is_not_there_is_not_found() {
    let server = Setup::default().start();
    for (method, path, status) in [
        ("GET", "/nothing", 404),
        ("GET", "/v1/models/", 404),
        ("GET", "/v1/chat/completions", 405),
        ("DELETE", "/v1/models/m", 405),
        ("POST", "/", 405),
        ("HEAD", "/health", 200),
    ] {
        assert_eq!(server.ask(method, path, "", "").status, status, "{method} {path}");
    }
    let reply = server.chat_with("n", "n=1", &json!({}));
    assert_eq!((reply.status, &*reply.code()), (404, "model_not_found"));
    assert_eq!(reply.json()["error"]["param"], "model");
}

#[test]
fn preloaded_models_are_there_before_anybody_asks() {
    let first = ModelConfig { preload: true, ..model("m") };
    let server = Setup { load_ms: 100, ..Setup::of([first, model("n")]) }.start();
    assert_eq!(server.get("/health/ready").status, 503);
    assert_eq!(server.get("/health/live").status, 200);
    let began = Instant::now();
    while server.get("/health/ready").status != 200 {
        assert!(began.elapsed() < Duration::from_secs(5));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(server.stage.loads.load(std::sync::atomic::Ordering::SeqCst), 1);
}
