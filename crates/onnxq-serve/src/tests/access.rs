//! Who may ask, and how much.

use serde_json::json;

use super::server::{Setup, chat_body, model};
use crate::config::Limits;

const TOKEN: &str = "correct-horse-battery";

#[test]
fn a_token_is_needed_for_everything_that_says_or_costs_something() {
    let server = Setup { token: Some(TOKEN), ..Setup::default() }.start();
    let with = |path: &str, token: &str| {
        server.ask("GET", path, &format!("authorization: Bearer {token}\r\n"), "")
    };
    for path in ["/v1/models", "/v1/ps", "/metrics", "/nothing"] {
        let reply = server.get(path);
        assert_eq!((reply.status, &*reply.code()), (401, "invalid_api_key"), "{path}");
        assert!(reply.head.contains("www-authenticate: bearer"));
        assert_eq!(with(path, "correct-horse-batterz").status, 401);
    }
    assert_eq!(with("/v1/models", TOKEN).status, 200);
    for path in ["/", "/health", "/health/ready"] {
        assert_eq!(server.get(path).status, 200);
    }
    assert_eq!(server.chat("n=1").status, 401);
}

#[test]
fn pages_from_elsewhere_are_kept_out_unless_listed() {
    let origins = vec!["https://app.example".to_owned()];
    let server = Setup { origins, token: Some(TOKEN), ..Setup::default() }.start();
    let ask = |method: &str, headers: &str| {
        let token = format!("authorization: Bearer {TOKEN}\r\n");
        server.ask(method, "/v1/models", &format!("{headers}{token}"), "")
    };
    assert_eq!(ask("GET", "host: evil.example\r\n").status, 403);
    assert_eq!(ask("GET", "host: evil.example\r\n").code(), "host_not_allowed");
    assert_eq!(ask("GET", "origin: https://evil.example\r\n").code(), "origin_not_allowed");
    assert_eq!(ask("GET", "origin: null\r\n").status, 403);
    let own = ask("GET", "host: localhost:1\r\norigin: http://localhost:1\r\n");
    assert_eq!(own.status, 200);
    assert!(!own.head.contains("access-control"));
    let listed = ask("GET", "origin: https://app.example\r\n");
    assert_eq!(listed.status, 200);
    assert!(listed.head.contains("access-control-allow-origin: https://app.example"));
    // Browsers ask first, and without a token.
    let path = "/v1/chat/completions";
    let first = server.ask("OPTIONS", path, "origin: https://app.example\r\n", "");
    assert_eq!(first.status, 204);
    assert!(first.head.contains("access-control-allow-headers: authorization"));
    assert_eq!(server.ask("OPTIONS", path, "origin: https://evil.example\r\n", "").status, 403);
    // An error can be read by a listed page too.
    let wrong = server.ask("GET", "/v1/models", "origin: https://app.example\r\n", "");
    assert_eq!(wrong.status, 401);
    assert!(wrong.head.contains("access-control-allow-origin"));
}

#[test]
fn the_page_runs_nothing_but_its_own() {
    let server = Setup::default().start();
    let reply = server.get("/");
    assert_eq!(reply.status, 200);
    assert!(
        reply.head.contains("content-security-policy: default-src 'none'; script-src 'sha256-")
    );
    assert!(reply.head.contains("x-content-type-options: nosniff"));
    assert!(!reply.body.contains("http://") && !reply.body.contains("https://"));
    assert!(!reply.body.contains("innerHTML"));
}

#[test]
fn fields_that_change_the_meaning_are_refused_by_name() {
    let server = Setup::default().start();
    let cases = [
        (json!({"tools": [{"type": "function"}]}), "tools"),
        (json!({"functions": [{}]}), "functions"),
        (json!({"n": 2}), "n"),
        (json!({"response_format": {"type": "json_object"}}), "response_format"),
        (json!({"best_of": 3}), "best_of"),
        (json!({"frequency_penalty": 0.5}), "frequency_penalty"),
        (json!({"logit_bias": {"5": 1}}), "logit_bias"),
        (json!({"temperature": -1}), "temperature"),
        (json!({"temperature": "NaN"}), "temperature"),
        (json!({"temperature": 1e300}), "temperature"),
        (json!({"top_p": 0}), "top_p"),
        (json!({"min_p": 2}), "min_p"),
        (json!({"repetition_penalty": 0}), "repetition_penalty"),
        (json!({"seed": 1.5}), "seed"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"top_logprobs": 21, "logprobs": true}), "top_logprobs"),
        (json!({"top_logprobs": 2}), "top_logprobs"),
        (json!({"stop": vec!["x"; 17]}), "stop"),
        (json!({"stop": [""]}), "stop"),
        (json!({"stop": "x".repeat(257)}), "stop"),
        (json!({"stop": 5}), "stop"),
        (json!({"stream": "yes"}), "stream"),
        (json!({"stream_options": 1}), "stream_options"),
        (json!({"model": 5}), "model"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": [{"role": "tool", "content": "x"}]}), "messages[0]"),
        (json!({"messages": [{"role": "user"}]}), "messages[0]"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}),
            "messages[0].content",
        ),
    ];
    for (more, param) in cases {
        let reply = server.chat_with("m", "n=1", &more);
        assert_eq!(reply.status, 400, "{more}: {}", reply.body);
        let error = &reply.json()["error"];
        assert_eq!(
            (&error["param"], &error["type"]),
            (&json!(param), &json!("invalid_request_error"))
        );
    }
    let reply = server.post("/v1/completions", &json!({"prompt": "x", "suffix": "y"}));
    assert_eq!((reply.status, &reply.json()["error"]["param"]), (400, &json!("suffix")));
    assert_eq!(server.stage.loads.load(std::sync::atomic::Ordering::SeqCst), 0);
    server.assert_answers();
}

#[test]
fn bodies_that_are_none_are_refused() {
    let server = Setup::default().start();
    let nested = format!("{{\"a\": {}", "[".repeat(100_000));
    let path = "/v1/chat/completions";
    let nan = r#"{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}"#;
    for body in ["", "[]", "{", nan, &nested] {
        let reply = server.ask("POST", path, "", body);
        assert_eq!((reply.status, &*reply.code()), (400, "invalid_json"), "{}", reply.body);
    }
    let mut bytes = super::server::request("POST", path, "", "").into_bytes();
    let broken = b"{\"messages\": [{\"role\": \"user\", \"content\": \"\xff\xfe\"}]}";
    bytes = String::from_utf8(bytes).unwrap().replace("length: 0", "length: 49").into_bytes();
    bytes.extend_from_slice(&broken[..49]);
    assert_eq!(server.raw(&bytes).code(), "invalid_json");
    let stops = json!({"stop": vec!["x"; 1_000_000]});
    let reply = server.chat_with("m", "n=1", &stops);
    assert_eq!(reply.status, 413);
    let reply = server.chat_with("m", "n=1", &json!({"stop": vec!["x"; 200_000]}));
    assert_eq!(reply.status, 400);
    server.assert_answers();
}

#[test]
fn bodies_and_headers_have_a_largest_size() {
    let limits = Limits { body_bytes: 1000, ..Limits::default() };
    let server = Setup { limits, ..Setup::default() }.start();
    let path = "/v1/chat/completions";
    let large = "x".repeat(64 << 20);
    let reply = server.ask("POST", path, "", &large);
    assert_eq!((reply.status, &*reply.code()), (413, "request_too_large"));
    // One that waits for a word before it sends.
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nexpect: 100-continue\r\n\
        content-length: 67108864\r\nconnection: close\r\n\r\n";
    assert_eq!(server.raw(head.as_bytes()).status, 413);
    // Without a length.
    let piece = format!("400\r\n{}\r\n", "x".repeat(0x400));
    let chunks = format!("{}0\r\n\r\n", piece.repeat(3));
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
        transfer-encoding: chunked\r\n\r\n";
    assert_eq!(server.raw(format!("{head}{chunks}").as_bytes()).status, 413);
    let long = format!("x-long: {}\r\n", "x".repeat(20_000));
    assert_eq!(server.ask("GET", "/health", &long, "").status, 431);
    let many = "x-a: 1\r\n".repeat(200);
    assert_eq!(server.ask("GET", "/health", &many, "").status, 431);
    assert_eq!(server.ask("GET", &"/x".repeat(10_000), "", "").status, 431);
    server.assert_answers();
}

#[test]
fn bodies_that_wait_have_a_largest_size_together() {
    let limits = Limits { all_bodies: 1000, ..Limits::default() };
    let server = Setup { limits, ..Setup::default() }.start();
    let busy = server.begin_stream("n=90 ms=20", 2);
    let long = format!("n=1 {}", "x".repeat(500));
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| server.chat(&long).status);
        while server.registry.list()[0].waiting == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        let reply = server.chat(&long);
        assert_eq!((reply.status, &*reply.code()), (503, "too_many_bytes"));
        drop(busy);
        assert_eq!(waiting.join().unwrap(), 200);
    });
    assert_eq!(server.chat(&long).status, 200);
}

#[test]
fn deadlines_are_whole_milliseconds_within_bounds() {
    let server = Setup::of([model("m")]).start();
    for value in ["0", "-5", "x", "99999999999", "1.5"] {
        let header = format!("x-onnxq-deadline-ms: {value}\r\n");
        let body = chat_body("m", "n=1", &json!({})).to_string();
        let reply = server.ask("POST", "/v1/chat/completions", &header, &body);
        assert_eq!(reply.status, 400, "{value}");
    }
}
