//! Memory: what is loaded stays within the budget, whoever asks.

use std::{
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::server::{Setup, model};
use crate::config::{KeepAlive, ModelConfig};

#[test]
fn three_models_take_turns_in_room_for_two() {
    let server = Setup { budget: 250, ..Setup::of(["a", "b", "c"].map(model)) }.start();
    for round in 0..334 {
        for name in ["a", "b", "c"] {
            let reply = server.chat_with(name, "n=1", &json!({}));
            assert_eq!(reply.status, 200, "{round} {name}: {}", reply.body);
        }
    }
    // Guesses before the first load are of the whole budget, so that models came one by one.
    assert!(server.stage.peak.load(SeqCst) <= 250, "{}", server.stage.peak.load(SeqCst));
    let ps = server.get("/v1/ps").json();
    let resident = |at: usize| ps["data"][at]["resident_bytes"].as_u64().unwrap();
    assert_eq!((0..3).map(resident).sum::<u64>(), 200);
}

#[test]
fn the_least_recently_used_goes_first_and_a_busy_one_never() {
    let server = Setup { budget: 250, ..Setup::of(["a", "b", "m"].map(model)) }.start();
    let idle = |name: &str| {
        let ps = server.get("/v1/ps").json();
        let row = ps["data"].as_array().unwrap().iter().find(|it| it["model"] == name);
        row.unwrap()["slots"]["idle"].as_u64().unwrap()
    };
    for name in ["a", "m", "b", "m", "a"] {
        assert_eq!(server.chat_with(name, "n=1", &json!({})).status, 200);
    }
    assert_eq!(["a", "b", "m"].map(idle), [1, 0, 1]);
    let busy = server.begin_stream("n=90 ms=20", 2);
    // `a` goes for `b`, then `b` for `a`, while `m` answers.
    for name in ["b", "a"] {
        assert_eq!(server.chat_with(name, "n=1", &json!({})).status, 200);
    }
    assert_eq!(server.stage.busy.load(SeqCst), 1);
    drop(busy);
}

#[test]
fn nobody_is_refused_for_memory_before_the_deadline() {
    let server = Setup { budget: 150, ..Setup::of(["a", "m"].map(model)) }.start();
    server.assert_answers();
    let busy = server.begin_stream("n=90 ms=20", 2);
    let header = "x-onnxq-deadline-ms: 100\r\n";
    let body = super::server::chat_body("a", "n=1", &json!({})).to_string();
    let reply = server.ask("POST", "/v1/chat/completions", header, &body);
    assert_eq!((reply.status, &*reply.code()), (503, "out_of_memory"));
    assert!(reply.head.contains("retry-after"));
    let waits = thread::scope(|scope| {
        let waiting = scope.spawn(|| server.chat_with("a", "n=1", &json!({})).status);
        thread::sleep(Duration::from_millis(50));
        drop(busy);
        waiting.join().unwrap()
    });
    assert_eq!(waits, 200);
    assert!(server.stage.peak.load(SeqCst) <= 150);
}

#[test]
fn a_model_that_is_larger_than_everything_is_refused_once_that_is_known() {
    let server = Setup { budget: 150, bytes: 200, ..Setup::default() }.start();
    for _ in 0..3 {
        let reply = server.chat("n=1");
        assert_eq!((reply.status, &*reply.code()), (503, "E718"), "{}", reply.body);
    }
    assert_eq!(server.stage.loads.load(SeqCst), 1);
    server.until("it is unloaded", |it| it.alive.load(SeqCst) == 0);
}

#[test]
fn idle_models_are_unloaded_when_their_time_is_over() {
    let soon = ModelConfig { keep_alive: KeepAlive::For(Duration::from_millis(150)), ..model("m") };
    let at_once = ModelConfig { keep_alive: KeepAlive::For(Duration::ZERO), ..model("n") };
    let never = ModelConfig { keep_alive: KeepAlive::Forever, ..model("o") };
    // What is guessed of each before it is loaded has room beside the others.
    let server = Setup { budget: 1 << 20, ..Setup::of([soon, at_once, never]) }.start();
    for name in ["m", "n", "o"] {
        assert_eq!(server.chat_with(name, "n=1", &json!({})).status, 200);
    }
    server.until("`n` is gone", |it| it.alive.load(SeqCst) == 2);
    let took = server.until("`m` is gone", |it| it.alive.load(SeqCst) == 1);
    assert!(took > Duration::from_millis(50) && took < Duration::from_secs(1), "{took:?}");
    // It comes back when it is asked for.
    server.assert_answers();
    let began = Instant::now();
    while server.stage.alive.load(SeqCst) > 1 {
        assert!(began.elapsed() < Duration::from_secs(1));
        thread::sleep(Duration::from_millis(5));
    }
    assert!(server.get("/metrics").body.contains("onnxq_unloads_total{model=\"m\"} 2\n"));
    assert_eq!(server.get("/v1/ps").json()["data"][2]["expires_in"], json!(null));
}

#[test]
fn a_full_cache_counts() {
    let server = Setup { budget: 250, ..Setup::of(["a", "m"].map(model)) }.start();
    // 100 tokens of context.
    server.stage.bytes_per_token.store(1, SeqCst);
    server.assert_answers();
    assert_eq!(server.get("/v1/ps").json()["data"][1]["reserved_bytes"], 200);
    assert_eq!(server.chat_with("a", "n=1", &json!({})).status, 200);
    assert_eq!(server.stage.alive.load(SeqCst), 1);
}

#[test]
fn a_full_disk_is_a_warning() {
    let lines = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let kept = lines.clone();
    let log = crate::log::Log::new(move |line| kept.lock().unwrap().push(line.to_owned()));
    // A folder cannot be made where a file is.
    let state_file = Some("Cargo.toml/state.json".into());
    let server = Setup { state_file, log, ..Setup::default() }.start();
    server.assert_answers();
    drop(server);
    let lines = lines.lock().unwrap();
    let has = |word: &str| lines.iter().any(|it| it.contains(word));
    assert!(has("event=warning model=m what=\"what it takes of memory cannot be kept"));
    assert!(has("event=request method=POST path=/v1/chat/completions model=m status=200"));
    assert!(!has("n=2"), "what was said is in the log");
}
