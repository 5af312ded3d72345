//! Waiting, deadlines, and clients that leave.

use std::{
    io::Write,
    sync::{Barrier, atomic::Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::server::{Reply, Server, Setup, chat_body, model, request};
use crate::config::ModelConfig;

fn ask_within(server: &Server, script: &str, ms: u64, more: &serde_json::Value) -> Reply {
    let header = format!("x-onnxq-deadline-ms: {ms}\r\n");
    let body = chat_body("m", script, more).to_string();
    server.ask("POST", "/v1/chat/completions", &header, &body)
}

#[test]
fn requests_that_come_at_once_share_one_load() {
    let server = Setup { load_ms: 80, ..Setup::default() }.start();
    thread::scope(|scope| {
        let all: Vec<_> = (0..8).map(|_| scope.spawn(|| server.chat("n=1").status)).collect();
        assert!(all.into_iter().all(|it| it.join().unwrap() == 200));
    });
    assert_eq!(server.stage.loads.load(SeqCst), 1);
}

#[test]
fn a_burst_is_answered_or_refused_at_once() {
    let server = Setup::default().start();
    server.assert_answers();
    const COUNT: usize = 200;
    let barrier = Barrier::new(COUNT);
    let ask = || {
        barrier.wait();
        let began = Instant::now();
        let reply = server.chat("n=1 ms=40");
        (reply, began.elapsed())
    };
    let replies: Vec<(Reply, Duration)> = thread::scope(|scope| {
        let all: Vec<_> = (0..COUNT).map(|_| scope.spawn(ask)).collect();
        all.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let count = |status| replies.iter().filter(|it| it.0.status == status).count();
    assert_eq!(count(200) + count(503), COUNT);
    assert!((9..30).contains(&count(200)), "{}", count(200));
    for (reply, _) in replies.iter().filter(|it| it.0.status == 503) {
        assert_eq!(reply.code(), "queue_full");
        assert!(reply.head.contains("retry-after: 1"));
    }
    // How long a refusal takes on its own, whatever the machine does beside.
    let _busy = server.begin_stream("n=90 ms=20", 2);
    thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..8).map(|_| scope.spawn(|| ask_within(&server, "n=1", 700, &json!({})))).collect();
        while server.registry.list()[0].waiting < 8 {
            thread::sleep(Duration::from_millis(1));
        }
        let began = Instant::now();
        assert_eq!(server.chat("n=1").status, 503);
        assert!(began.elapsed() < Duration::from_millis(100), "{:?}", began.elapsed());
        for it in waiting {
            assert_eq!(it.join().unwrap().status, 504);
        }
    });
}

#[test]
fn slots_answer_at_once() {
    let server = Setup::of([ModelConfig { slots: 3, ..model("m") }]).start();
    thread::scope(|scope| {
        let all: Vec<_> = (0..3).map(|_| scope.spawn(|| server.chat("n=1 ms=150"))).collect();
        server.until("three are busy", |it| it.busy.load(SeqCst) == 3);
        assert!(all.into_iter().all(|it| it.join().unwrap().status == 200));
    });
    assert_eq!(server.stage.loads.load(SeqCst), 3);
}

#[test]
fn the_deadline_covers_every_phase() {
    let server = Setup { load_ms: 150, ..Setup::default() }.start();
    // While it is loaded, which goes on for those who come later.
    let reply = ask_within(&server, "n=1", 50, &json!({}));
    assert_eq!((reply.status, &*reply.code()), (504, "deadline_exceeded"));
    server.assert_answers();
    assert_eq!(server.stage.loads.load(SeqCst), 1);
    // While it reads the prompt and while it answers.
    assert_eq!(ask_within(&server, "n=1 prefill=5000", 50, &json!({})).status, 504);
    assert_eq!(ask_within(&server, "n=90 ms=20", 50, &json!({})).status, 504);
    // In a stream, whose status is known by then.
    let reply = ask_within(&server, "n=90 ms=20", 80, &json!({"stream": true}));
    assert_eq!(reply.status, 200);
    assert_eq!(reply.pieces().last().unwrap()["error"]["code"], "deadline_exceeded");
    assert!(!reply.body.contains("[DONE]"));
    assert!(server.until_free() < Duration::from_millis(100));
    // In the queue.
    let _busy = server.begin_stream("n=90 ms=20", 2);
    assert_eq!(ask_within(&server, "n=1", 50, &json!({})).status, 504);
    drop(_busy);
    server.assert_answers();
    assert_eq!(server.stage.loads.load(SeqCst), 1);
}

#[test]
fn whoever_leaves_frees_the_slot() {
    let server = Setup::default().start();
    server.assert_answers();
    // In the middle of a stream, of a whole answer, and of the prompt.
    for (script, stream) in [("n=90 ms=20", true), ("n=90 ms=20", false), ("prefill=5000", true)] {
        let body = chat_body("m", script, &json!({"stream": stream})).to_string();
        let mut client = server.connect();
        client.write_all(request("POST", "/v1/chat/completions", "", &body).as_bytes()).unwrap();
        server.until_busy();
        thread::sleep(Duration::from_millis(30));
        drop(client);
        let took = server.until_free();
        assert!(took < Duration::from_millis(50), "{script} {stream}: {took:?}");
        server.assert_answers();
    }
    assert_eq!(server.stage.loads.load(SeqCst), 1);
}

#[test]
fn whoever_leaves_the_queue_is_not_answered() {
    let server = Setup { load_ms: 100, ..Setup::default() }.start();
    let body = chat_body("m", "n=7", &json!({})).to_string();
    let whole = request("POST", "/v1/chat/completions", "", &body);
    // While the model is loaded for it, and behind another one.
    for behind in [false, true] {
        let busy = behind.then(|| server.begin_stream("n=90 ms=20", 2));
        let mut client = server.connect();
        client.write_all(whole.as_bytes()).unwrap();
        while server.registry.list()[0].waiting == 0 {
            thread::sleep(Duration::from_millis(1));
        }
        drop(client);
        let began = Instant::now();
        while server.registry.list()[0].waiting > 0 {
            assert!(began.elapsed() < Duration::from_secs(1));
            thread::sleep(Duration::from_millis(1));
        }
        drop(busy);
        server.until_free();
    }
    server.assert_answers();
    // The stream and the last one, and nobody who left.
    assert_eq!(server.stage.answers.load(SeqCst), 2);
}

#[test]
fn whoever_leaves_before_the_request_is_whole_costs_nothing() {
    let server = Setup::default().start();
    let whole = request("POST", "/v1/chat/completions", "", &"x".repeat(100));
    for length in [1, 20, whole.len() - 50] {
        let mut client = server.connect();
        client.write_all(&whole.as_bytes()[..length]).unwrap();
        drop(client);
    }
    server.assert_answers();
    let connections = || server.registry.metrics.connections.load(SeqCst);
    let began = Instant::now();
    while connections() > 0 {
        assert!(began.elapsed() < Duration::from_secs(2));
        thread::sleep(Duration::from_millis(5));
    }
}
