//! `onnxq serve` from outside: one process, a real port, real models.
#![cfg(unix)]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, ChildStdout, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::common::{fixture, outside::run};

struct Server {
    process: Child,
    address: String,
    _out: BufReader<ChildStdout>,
    /// From the start to the line that says so.
    began: Duration,
}

impl Server {
    fn start(args: &[&str], cache: &Path) -> Server {
        let began = Instant::now();
        let mut process = Command::new(env!("CARGO_BIN_EXE_onnxq"))
            .args(["serve", "--quiet", "--listen", "127.0.0.1:0"])
            .args(args)
            .env("XDG_CACHE_HOME", cache)
            .env("ORT_DYLIB_PATH", library())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let (_, rest) = line.split_once("listening on http://").expect("a line");
        let address = rest.split(' ').next().unwrap().to_owned();
        Server { process, address, _out: out, began: began.elapsed() }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let length = body.len();
        let text = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{body}"
        );
        stream.write_all(text.as_bytes()).unwrap();
        let mut reply = String::new();
        stream.read_to_string(&mut reply).unwrap();
        let status = reply.split(' ').nth(1).unwrap().parse().unwrap();
        let (_, body) = reply.split_once("\r\n\r\n").unwrap();
        (status, body.to_owned())
    }

    fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let (status, text) = self.ask("POST", path, &body.to_string());
        (status, serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    /// Processes that the server started.
    fn workers(&self) -> Vec<String> {
        let own = self.process.id();
        let children = fs::read_to_string(format!("/proc/{own}/task/{own}/children"));
        let of_threads = fs::read_dir(format!("/proc/{own}/task")).unwrap().flatten();
        let all = of_threads.filter_map(|it| fs::read_to_string(it.path().join("children")).ok());
        let all: Vec<String> = all.chain(children).collect();
        let mut ids: Vec<String> =
            all.iter().flat_map(|it| it.split_whitespace()).map(str::to_owned).collect();
        ids.sort();
        ids.dedup();
        ids
    }

    /// Asks it to end; what it ended with.
    fn end(mut self) -> Option<i32> {
        let id = self.process.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(20) {
            if let Some(status) = self.process.try_wait().unwrap() {
                return status.code();
            }
            thread::sleep(Duration::from_millis(5));
        }
        panic!("the server did not end")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The library that the other tests use, wherever the cache of this one is.
fn library() -> String {
    let found = run(&["runtime", "path"]);
    assert_eq!(found.code, 0, "{}", found.error);
    found.out.trim().to_owned()
}

#[test]
fn twenty_models_are_there_at_once_and_none_is_loaded() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("model.onnx").canonicalize().unwrap();
    let lines: String =
        (0..20).map(|it| format!("  m{it}: {{path: {}}}\n", model.display())).collect();
    let yaml = folder.path().join("serve.yaml");
    fs::write(&yaml, format!("memory: 1GiB\nmodels:\n{lines}")).unwrap();
    let server = Server::start(&["--config", yaml.to_str().unwrap()], folder.path());
    // 0.3 s are asked for; this is a debug build beside other tests.
    assert!(server.began < Duration::from_secs(3), "{:?}", server.began);
    let (status, list) = server.ask("GET", "/v1/models", "");
    assert_eq!((status, list.matches("\"object\":\"model\"").count()), (200, 20));
    assert!(server.workers().is_empty());
    assert_eq!(server.end(), Some(0));
}

#[test]
fn slips_are_told_before_anything_listens() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = folder.path().join("serve.yaml");
    let path = yaml.to_str().unwrap();
    let model = fixture("model.onnx");
    let model = model.to_str().unwrap();
    fs::write(&yaml, "models: {m: {pth: x}}\n").unwrap();
    let slip = run(&["serve", "--config", path]);
    assert_eq!(slip.code, 2);
    assert!(slip.error.contains("error[E713]:") && slip.error.contains("did you mean `path`?"));
    fs::write(&yaml, "models: {m: {path: nothing.onnx}}\n").unwrap();
    assert!(run(&["serve", "--config", path]).error.contains("error[E715]: model `m`"));
    let open = run(&["serve", model, "--listen", "0.0.0.0:0"]);
    assert!(open.error.contains("error[E716]") && open.error.contains("--token-file"));
    let short = folder.path().join("token");
    fs::write(&short, "short\n").unwrap();
    let token = ["serve", model, "--token-file", short.to_str().unwrap()];
    assert!(run(&token).error.contains("error[E716]: the token has 5 characters"));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let busy = run(&["serve", model, "--listen", &address]);
    assert_eq!(busy.code, 5);
    assert!(busy.error.contains(&format!("error[E717]: {address} cannot be listened on")));
    assert_eq!(run(&["serve", model, "--check"]).out, "1 model: ok\n");
    assert_eq!(run(&["serve"]).code, 2);
}

/// The decoder with a cache, its tokenizer beside it, in a folder of its own.
fn decoder(folder: &Path) -> String {
    for (from, to) in [("model_with_past.onnx", "lm.onnx"), ("tokenizer.json", "tokenizer.json")] {
        fs::copy(fixture(from), folder.join(to)).unwrap();
    }
    folder.join("lm.onnx").to_str().unwrap().to_owned()
}

fn completion(prompt: &Value, more: &Value) -> Value {
    let mut body = json!({"model": "lm", "prompt": prompt, "temperature": 0});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

#[test]
fn a_real_model_answers_scores_and_is_unloaded() {
    let folder = tempfile::tempdir().unwrap();
    let model = decoder(folder.path());
    let server = Server::start(&[&model], folder.path());
    let path = "/v1/completions";
    let (status, first) = server.post(path, &completion(&json!("The war"), &json!({})));
    assert_eq!(status, 200, "{first}");
    assert_eq!(first["usage"]["completion_tokens"], 16);
    let text = first["choices"][0]["text"].as_str().unwrap();
    // The same request has the same answer, and `run` gives it too.
    let (_, again) = server.post(path, &completion(&json!("The war"), &json!({})));
    assert_eq!(again["choices"][0]["text"], text);
    let args = ["run", &model, "The war", "--max-tokens", "16", "--temperature", "0"];
    let told = run(&args);
    assert!(told.out.contains(text.trim()), "{}\n{text}\n{}", told.out, told.error);
    // As harnesses of evaluation ask: the likelihood of what is there already.
    let more = json!({"echo": true, "logprobs": 1, "max_tokens": 1});
    let (status, scored) = server.post(path, &completion(&json!([[5, 6, 7, 8]]), &more));
    assert_eq!(status, 200, "{scored}");
    let logprobs = &scored["choices"][0]["logprobs"];
    let own = logprobs["token_logprobs"].as_array().unwrap();
    assert_eq!((own.len(), &own[0]), (5, &Value::Null));
    assert!(own[1..].iter().all(|it| it.as_f64().is_some_and(|it| it < 0.0)), "{own:?}");
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), 5);
    assert_eq!(logprobs["top_logprobs"][0], Value::Null);
    assert!(logprobs["top_logprobs"][1].is_object());
    // More than the context has room for.
    let ids: Vec<u32> = vec![5; 5000];
    let (status, long) = server.post(path, &completion(&json!(ids), &json!({})));
    assert_eq!(
        (status, &long["error"]["code"]),
        (400, &json!("context_length_exceeded")),
        "{long}"
    );
    // Messages need a template, which this model does not have.
    let body = json!({"messages": [{"role": "user", "content": "x"}]});
    let (status, chat) = server.post("/v1/chat/completions", &body);
    assert_eq!((status, &chat["error"]["code"]), (400, &json!("E626")));
    let (_, ps) = server.ask("GET", "/v1/ps", "");
    let ps: Value = serde_json::from_str(&ps).unwrap();
    assert!(ps["data"][0]["resident_bytes"].as_u64().unwrap() > 1 << 20, "{ps}");
    assert_eq!(server.workers().len(), 1);
    assert!(folder.path().join("onnxq/serve.json").exists());
    assert_eq!(server.end(), Some(0));
}

#[test]
fn a_worker_that_is_killed_or_whose_file_is_cut_off_costs_one_answer() {
    let folder = tempfile::tempdir().unwrap();
    let model = decoder(folder.path());
    let server = Server::start(&[&model], folder.path());
    let body = completion(&json!("The war"), &json!({"max_tokens": 200, "stream": true}));
    let path = "/v1/completions";
    assert_eq!(server.post(path, &completion(&json!("The"), &json!({}))).0, 200);
    let workers = server.workers();
    let mut stream = TcpStream::connect(&server.address).unwrap();
    let body = body.to_string();
    let length = body.len();
    let text = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\
         content-length: {length}\r\n\r\n{body}"
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut piece = [0; 300];
    stream.read_exact(&mut piece).unwrap();
    assert!(Command::new("kill").args(["-9", &workers[0]]).status().unwrap().success());
    let mut rest = String::new();
    stream.read_to_string(&mut rest).unwrap();
    // It may have said everything before.
    assert!(rest.contains("\"code\":\"E806\"") || rest.contains("[DONE]"), "{rest}");
    assert_eq!(server.post(path, &completion(&json!("The"), &json!({}))).0, 200);
    assert_ne!(server.workers(), workers);
    // A loaded model whose file is cut off: whatever comes of that, the server says so and goes on.
    let bytes = fs::read(&model).unwrap();
    fs::write(&model, &bytes[..bytes.len() / 2]).unwrap();
    for id in server.workers() {
        assert!(Command::new("kill").args(["-9", &id]).status().unwrap().success());
    }
    let ask = |_| server.post(path, &completion(&json!("The"), &json!({})));
    let told: Vec<_> = (0..3).map(ask).collect();
    let (status, broken) = &told[2];
    assert_eq!(*status, 503, "{broken}");
    assert!(!broken.to_string().contains("lm.onnx"), "{broken}");
    assert_eq!(server.ask("GET", "/health", "").0, 200);
    assert_eq!(server.end(), Some(0));
}
