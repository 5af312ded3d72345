//! A server in this process, and a client that does what real ones do and what they should not.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::Path,
    sync::{Arc, atomic::Ordering::SeqCst},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::sync::oneshot;

use crate::{
    backend::scripted::{Scripted, Stage},
    config::{Limits, ModelConfig},
    http::{self, App, Guard},
    log::Log,
    registry::Registry,
};

pub(super) struct Server {
    pub address: SocketAddr,
    pub stage: Arc<Stage>,
    pub registry: Arc<Registry>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// What a server is made of; every test changes a part.
pub(super) struct Setup {
    pub models: Vec<ModelConfig>,
    pub budget: u64,
    pub limits: Limits,
    pub token: Option<&'static str>,
    pub hosts: Vec<String>,
    pub origins: Vec<String>,
    pub state_file: Option<std::path::PathBuf>,
    pub log: Log,
    pub load_ms: u64,
    pub bytes: u64,
}

pub(super) fn model(name: &str) -> ModelConfig {
    ModelConfig::new(name, Path::new("Cargo.toml"))
}

impl Default for Setup {
    fn default() -> Setup {
        Setup {
            models: vec![model("m")],
            budget: 1000,
            limits: Limits::default(),
            token: None,
            hosts: Vec::new(),
            origins: Vec::new(),
            state_file: None,
            log: Log::silent(),
            load_ms: 0,
            bytes: 100,
        }
    }
}

impl Setup {
    pub(super) fn of(models: impl IntoIterator<Item = ModelConfig>) -> Setup {
        Setup { models: models.into_iter().collect(), ..Setup::default() }
    }

    pub(super) fn start(self) -> Server {
        let stage = Arc::new(Stage::default());
        stage.load_ms.store(self.load_ms, SeqCst);
        stage.bytes.store(self.bytes, SeqCst);
        let backend = Box::new(Scripted(stage.clone()));
        let registry = Registry::new(self.models, backend, self.budget, self.state_file, self.log);
        let guard = Guard::new(self.token, self.hosts, self.origins);
        let app = Arc::new(App::new(registry.clone(), self.limits, guard));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let (end, ended) = oneshot::channel();
        registry.preload();
        let thread = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                http::run(listener, app, async { drop(ended.await) }).await;
            });
        });
        Server { address, stage, registry, end: Some(end), thread: Some(thread) }
    }
}

impl Server {
    pub(super) fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    /// Sends these bytes and reads whatever comes until the server closes.
    pub(super) fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = self.connect();
        // Who refuses early may close before everything is written.
        drop(stream.write_all(bytes));
        Reply::read(stream)
    }

    pub(super) fn ask(&self, method: &str, path: &str, headers: &str, body: &str) -> Reply {
        self.raw(request(method, path, headers, body).as_bytes())
    }

    pub(super) fn get(&self, path: &str) -> Reply {
        self.ask("GET", path, "", "")
    }

    pub(super) fn post(&self, path: &str, body: &Value) -> Reply {
        self.ask("POST", path, "", &body.to_string())
    }

    /// One message to `m`, whose text is a script.
    pub(super) fn chat(&self, script: &str) -> Reply {
        self.chat_with("m", script, &json!({}))
    }

    pub(super) fn chat_with(&self, model: &str, script: &str, more: &Value) -> Reply {
        self.post("/v1/chat/completions", &chat_body(model, script, more))
    }

    /// Sends a streaming chat and gives the connection back, after so many pieces were read.
    pub(super) fn begin_stream(&self, script: &str, pieces: usize) -> TcpStream {
        let body = chat_body("m", script, &json!({"stream": true})).to_string();
        let mut stream = self.connect();
        stream.write_all(request("POST", "/v1/chat/completions", "", &body).as_bytes()).unwrap();
        let mut seen = Vec::new();
        let mut byte = [0];
        while String::from_utf8_lossy(&seen).matches("data: ").count() < pieces {
            stream.read_exact(&mut byte).unwrap();
            seen.push(byte[0]);
        }
        stream
    }

    pub(super) fn stop(&mut self) {
        drop(self.end.take());
        self.thread.take().unwrap().join().unwrap();
    }

    /// Waits until something is so; how long that took.
    pub(super) fn until(&self, what: &str, is_so: impl Fn(&Stage) -> bool) -> Duration {
        let began = Instant::now();
        while !is_so(&self.stage) {
            assert!(began.elapsed() < Duration::from_secs(10), "{what} did not happen");
            thread::sleep(Duration::from_millis(1));
        }
        began.elapsed()
    }

    pub(super) fn until_busy(&self) {
        self.until("a slot is busy", |it| it.busy.load(SeqCst) > 0);
    }

    pub(super) fn until_free(&self) -> Duration {
        self.until("the slot is free", |it| it.busy.load(SeqCst) == 0)
    }

    /// That the model answers as if nothing had been.
    #[track_caller]
    pub(super) fn assert_answers(&self) {
        let reply = self.chat("n=2");
        assert_eq!((reply.status, reply.said()), (200, "t1 t2 ".to_owned()), "{}", reply.body);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if self.thread.is_some() && !thread::panicking() {
            self.stop();
            assert_eq!(self.stage.alive.load(SeqCst), 0, "slots are left");
        }
    }
}

pub(super) fn chat_body(model: &str, script: &str, more: &Value) -> Value {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": script}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

pub(super) fn request(method: &str, path: &str, headers: &str, body: &str) -> String {
    let host = if headers.to_lowercase().contains("host:") { "" } else { "host: localhost\r\n" };
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\n{host}connection: close\r\ncontent-length: {length}\r\n\
         {headers}\r\n{body}"
    )
}

#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Reply {
    pub(super) fn read(mut stream: TcpStream) -> Reply {
        let mut bytes = Vec::new();
        drop(stream.read_to_end(&mut bytes));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
        let status = head.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
        let is_chunked = head.to_lowercase().contains("transfer-encoding: chunked");
        let body = if is_chunked { joined(body) } else { body.to_owned() };
        Reply { status, head: head.to_lowercase(), body }
    }

    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    pub(super) fn code(&self) -> String {
        self.json()["error"]["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The text of the first choice.
    pub(super) fn said(&self) -> String {
        let choice = &self.json()["choices"][0];
        let text = choice["message"]["content"].as_str().or(choice["text"].as_str());
        text.unwrap_or_default().to_owned()
    }

    /// The pieces of a stream, but for the mark of its end.
    pub(super) fn pieces(&self) -> Vec<Value> {
        let data = self.body.lines().filter_map(|it| it.strip_prefix("data: "));
        let pieces = data.filter(|it| *it != "[DONE]");
        pieces.map(|it| serde_json::from_str(it).unwrap()).collect()
    }
}

/// Without the sizes of chunks.
fn joined(mut body: &str) -> String {
    let mut text = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap_or(0).min(rest.len());
        text.push_str(&rest[..size]);
        body = rest[size..].trim_start_matches("\r\n");
    }
    text
}
