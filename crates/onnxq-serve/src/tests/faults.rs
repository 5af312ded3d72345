//! Workers that fail, clients that are slow, and the end of the server.

use std::{
    io::{Read, Write},
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use super::server::{Reply, Setup, chat_body, model, request};
use crate::{
    backend::{Fault, Handle, Why},
    config::{Limits, ModelConfig},
};
use onnxq_ir::diag::Code;

#[test]
fn a_crash_is_told_to_its_client_and_the_next_one_is_answered() {
    let server = Setup::of([model("m"), model("other")]).start();
    assert_eq!(server.chat_with("other", "n=1", &json!({})).status, 200);
    for (script, status, code) in
        [("crash=3", 500, "E803"), ("memory=3", 503, "out_of_memory"), ("crash=1", 500, "E803")]
    {
        let reply = server.chat(script);
        assert_eq!((reply.status, &*reply.code()), (status, code), "{}", reply.body);
        assert!(!reply.body.contains("secret"));
        server.assert_answers();
    }
    let reply = server.chat_with("m", "crash=3", &json!({"stream": true}));
    let pieces = reply.pieces();
    assert_eq!((reply.status, pieces.len()), (200, 4));
    assert_eq!(pieces[3]["error"]["code"], "E803");
    server.assert_answers();
    // Three crashed, one ran out of memory; the other model stayed.
    assert_eq!(server.stage.loads.load(SeqCst), 6);
}

#[test]
fn a_process_that_is_killed_takes_only_its_answer() {
    let server = Setup::default().start();
    let mut client = server.begin_stream("n=90 ms=20", 2);
    server.stage.handles.lock().unwrap()[0].kill();
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("\"code\":\"E803\"") && !rest.contains("secret"), "{rest}");
    let began = Instant::now();
    server.assert_answers();
    assert!(began.elapsed() < Duration::from_secs(1));
    // While it is idle, it costs no answer.
    server.stage.handles.lock().unwrap()[1].kill();
    server.until("that is noticed", |it| it.alive.load(SeqCst) == 0);
    server.assert_answers();
}

#[test]
fn what_the_model_refuses_costs_nothing_else() {
    let server = Setup::default().start();
    let reply = server.chat("refuse=1");
    assert_eq!((reply.status, &*reply.code()), (400, "E905"));
    assert!(!reply.body.contains("secret"));
    let reply = server.chat_with("m", "refuse=1", &json!({"stream": true}));
    assert_eq!(reply.status, 400);
    server.assert_answers();
    assert_eq!(server.stage.loads.load(SeqCst), 1);
}

#[test]
fn a_job_that_does_not_end_is_ended() {
    let server = Setup::default().start();
    let client = server.begin_stream("n=5 hang=2", 2);
    thread::sleep(Duration::from_millis(20));
    drop(client);
    // Cancelling does not help; after two seconds the process is killed.
    let took = server.until_free();
    assert!(took > Duration::from_secs(1) && took < Duration::from_secs(4), "{took:?}");
    server.assert_answers();
}

#[test]
fn a_model_that_cannot_be_loaded_is_tried_again_later() {
    let server = Setup::of([model("m"), model("other")]).start();
    let fault = Fault::new(Why::Refused, Some(Code::E101), "/secret/model.onnx is cut off");
    *server.stage.broken.lock().unwrap() = Some(fault);
    for _ in 0..3 {
        let reply = server.chat("n=1");
        assert_eq!((reply.status, &*reply.code()), (503, "E101"), "{}", reply.body);
        assert!(reply.head.contains("retry-after") && !reply.body.contains("secret"));
    }
    assert_eq!(server.stage.loads.load(SeqCst), 1);
    *server.stage.broken.lock().unwrap() = None;
    assert_eq!(server.chat_with("other", "n=1", &json!({})).status, 200);
    assert_eq!(server.chat("n=1").status, 503);
    server.registry.forget_failures();
    server.assert_answers();
}

#[test]
fn a_slow_reader_does_not_keep_the_slot() {
    let limits = Limits { body_time: Duration::from_millis(300), ..Limits::default() };
    let server = Setup { limits, ..Setup::default() }.start();
    // More than the system buffers for a client that reads nothing.
    let body = json!({"prompt": "n=60000", "max_tokens": 60000, "logprobs": 1, "stream": true});
    let mut client = server.connect();
    let text = request("POST", "/v1/completions", "", &body.to_string());
    client.write_all(text.as_bytes()).unwrap();
    server.until("it is answered", |it| it.answers.load(SeqCst) == 1);
    server.assert_answers();
    // It is not waited for either.
    let began = Instant::now();
    while server.registry.metrics.connections.load(SeqCst) > 0 {
        assert!(began.elapsed() < Duration::from_secs(5));
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn slow_writers_have_a_limit() {
    let limits = Limits {
        header_time: Duration::from_millis(200),
        body_time: Duration::from_millis(200),
        ..Limits::default()
    };
    let server = Setup { limits, ..Setup::default() }.start();
    // One byte at a time is fine, if it is quick.
    let body = chat_body("m", "n=1", &json!({})).to_string();
    let mut client = server.connect();
    for byte in request("POST", "/v1/chat/completions", "", &body).bytes() {
        client.write_all(&[byte]).unwrap();
    }
    assert_eq!(Reply::read(client).said(), "t1 ");
    // Headers that never end, and a body that never comes.
    let began = Instant::now();
    server.raw(b"GET /health HTTP/1.1\r\nhost: localhost\r\nx");
    assert!(began.elapsed() < Duration::from_secs(2));
    let began = Instant::now();
    server.raw(b"");
    assert!(began.elapsed() < Duration::from_secs(2));
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\
        connection: close\r\n\r\n{";
    let reply = server.raw(head.as_bytes());
    assert_eq!((reply.status, &*reply.code()), (408, "request_timeout"));
    server.assert_answers();
}

#[test]
fn connections_have_a_limit() {
    let limits = Limits { connections: 2, ..Limits::default() };
    let server = Setup { limits, ..Setup::default() }.start();
    let held = [server.connect(), server.connect()];
    while server.registry.metrics.connections.load(SeqCst) < 2 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(server.raw(b"").status, 503);
    drop(held);
    while server.registry.metrics.connections.load(SeqCst) > 0 {
        thread::sleep(Duration::from_millis(1));
    }
    server.assert_answers();
}

#[test]
fn health_answers_while_a_model_is_loaded() {
    let server = Setup { load_ms: 200, ..Setup::default() }.start();
    thread::scope(|scope| {
        let first = scope.spawn(|| server.chat("n=1").status);
        server.until("it is loaded", |it| it.loads.load(SeqCst) == 1);
        for _ in 0..20 {
            let began = Instant::now();
            assert_eq!(server.get("/health").status, 200);
            assert!(began.elapsed() < Duration::from_millis(100));
        }
        assert_eq!(first.join().unwrap(), 200);
    });
}

#[test]
fn the_end_lets_answers_end_and_leaves_nothing() {
    let slots = ModelConfig { slots: 2, ..model("m") };
    let mut server = Setup::of([slots]).start();
    let mut client = server.begin_stream("n=20 ms=10", 2);
    let busy = server.begin_stream("n=90 ms=10", 2);
    let body = chat_body("m", "n=1", &json!({})).to_string();
    let mut queued = server.connect();
    queued.write_all(request("POST", "/v1/chat/completions", "", &body).as_bytes()).unwrap();
    while server.registry.list()[0].waiting == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    drop(busy);
    let _third = server.begin_stream("n=90 ms=10", 1);
    server.stop();
    assert_eq!(server.stage.alive.load(SeqCst), 0);
    let mut rest = String::new();
    client.read_to_string(&mut rest).unwrap();
    assert!(rest.contains("[DONE]"), "{rest}");
    assert!([200, 503].contains(&Reply::read(queued).status));
    assert!(std::net::TcpStream::connect(server.address).is_err());
}

#[test]
fn the_end_ends_what_is_being_loaded() {
    let mut server = Setup { load_ms: 60_000, ..Setup::default() }.start();
    let body = chat_body("m", "n=1", &json!({})).to_string();
    let mut client = server.connect();
    client.write_all(request("POST", "/v1/chat/completions", "", &body).as_bytes()).unwrap();
    server.until("it is loaded", |it| it.loads.load(SeqCst) == 1);
    server.stop();
    let reply = Reply::read(client);
    assert_eq!((reply.status, &*reply.code()), (503, "shutting_down"));
    assert_eq!(server.stage.alive.load(SeqCst), 0);
}
