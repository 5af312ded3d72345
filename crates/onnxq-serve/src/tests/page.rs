//! The page in a real browser: what it shows, and that its policy blocks nothing of its own.
//!
//! Needs `chromium` in PATH (Debian: `apt-get install chromium`); `.ci/run` installs it.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{Mutex, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use super::server::{Server, Setup, model};
use crate::{config::ModelConfig, presets::Preset};

/// A browser needs a few hundred MB; one at a time is enough.
static ONE: Mutex<()> = Mutex::new(());

const PATIENCE: Duration = Duration::from_secs(60);

/// The document after its scripts ran; they must not complain.
fn browse(address: SocketAddr) -> String {
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let output = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
    let mut browser = chromium(folder.path(), &["--virtual-time-budget=5000", "--dump-dom"])
        .arg(format!("http://{address}/"))
        .stdout(output("dom"))
        .stderr(output("log"))
        .spawn()
        .expect("chromium must be in PATH");
    let began = Instant::now();
    while browser.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            browser.kill().unwrap();
            browser.wait().unwrap();
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let read = |name: &str| {
        String::from_utf8_lossy(&fs::read(folder.path().join(name)).unwrap()).into_owned()
    };
    let (dom, log) = (read("dom"), read("log"));
    assert!(dom.contains("<html"), "no page came back:\n{log}");
    for word in ["Refused to", "violates", "Content Security Policy", "Uncaught"] {
        assert!(!log.contains(word), "{log}");
    }
    dom
}

fn chromium(folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .args(["--enable-logging=stderr", "--v=0"])
        .args(more)
        .args(["--window-size=390,800", "--no-proxy-server"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .env("HOME", folder)
        .env("XDG_CONFIG_HOME", folder)
        .env("XDG_CACHE_HOME", folder)
        .stdin(Stdio::null());
    command
}

/// The page after a script of ours has used it, which the page's own policy would stop. What the
/// script leaves is told over the same connection as everything else: nobody knows how long it takes.
fn used(server: &Server, script: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, behind) = (listener.local_addr().unwrap(), server.address);
    let script = format!(
        "<script>(async () => {{
            while (!models.length) await new Promise(done => setTimeout(done, 5));
            {script}
            await fetch('/told', {{ method: 'POST', body: out.outerHTML }});
        }})();</script></body>"
    );
    let page = server.get("/").body.replace("</body>", &script);
    let (tell, told) = mpsc::channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (page, tell) = (page.clone(), tell.clone());
            thread::spawn(move || pass(stream, behind, &page, &tell));
        }
    });
    let _one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = tempfile::tempdir().unwrap();
    let mut browser = chromium(folder.path(), &["--remote-debugging-port=0"])
        .arg(format!("http://{address}/"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("chromium must be in PATH");
    let page = told.recv_timeout(PATIENCE);
    browser.kill().unwrap();
    browser.wait().unwrap();
    page.expect("the script did not end")
}

/// One request and its answer.
fn pass(mut stream: TcpStream, behind: SocketAddr, page: &str, tell: &mpsc::Sender<String>) {
    let mut head = Vec::new();
    let mut byte = [0];
    while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|it| it > 0) {
        head.push(byte[0]);
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    if head.starts_with("POST /told ") {
        let length = head.to_lowercase();
        let (_, length) = length.split_once("content-length: ").unwrap();
        let length = length.split("\r\n").next().unwrap().parse().unwrap();
        let mut body = vec![0; length];
        stream.read_exact(&mut body).unwrap();
        return drop(tell.send(String::from_utf8(body).unwrap()));
    }
    if head.starts_with("GET / ") {
        let length = page.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/html; charset=utf-8\r\nconnection: close\r\n\
             content-length: {length}\r\n\r\n{page}"
        );
        return drop(stream.write_all(answer.as_bytes()));
    }
    let head = head.replace("keep-alive", "close");
    let mut server = TcpStream::connect(behind).unwrap();
    server.write_all(head.as_bytes()).unwrap();
    let (mut from, to) = (stream.try_clone().unwrap(), server.try_clone().unwrap());
    thread::spawn(move || {
        drop(std::io::copy(&mut from, &mut &to));
        // Who leaves here has left there.
        drop(to.shutdown(Shutdown::Both));
    });
    drop(std::io::copy(&mut server, &mut stream));
    drop(stream.shutdown(Shutdown::Both));
}

#[test]
fn models_are_listed_and_nothing_is_blocked() {
    let labels = ModelConfig { preset: Preset::Classify, ..model("intent") };
    let server = Setup::of([labels, model("m")]).start();
    let dom = browse(server.address);
    assert!(dom.contains("<option value=\"intent\">intent</option>"), "{dom}");
    assert!(dom.contains("<option value=\"m\">m</option>"));
    assert!(dom.contains(">Classify</button>") && dom.contains("which label a text has"));
    // Without its token, the page asks for it and says nothing of models.
    let server = Setup { token: Some("correct-horse-battery"), ..Setup::default() }.start();
    let dom = browse(server.address);
    assert!(dom.contains("<form id=\"key\">") && !dom.contains("value=\"m\""));
    assert!(dom.contains("aria-live=\"polite\"></main>"));
}

#[test]
fn a_conversation_is_written_as_it_comes() {
    let server = Setup::default().start();
    let script = "
        text.value = 'n=3 ms=5 <b>bold</b>'; await send();
        text.value = 'n=2'; await send();
    ";
    let dom = used(&server, script);
    // The scripted model reads the first message of a conversation, which is the first script.
    let answers = dom.matches("<div class=\"said assistant\"><p>t1 t2 t3 </p>").count();
    assert_eq!(answers, 2, "{dom}");
    assert!(dom.contains("<p>n=3 ms=5 &lt;b&gt;bold&lt;/b&gt;</p>"));
    assert!(dom.contains("3 tokens · ") && dom.contains("first after "));
    assert!(dom.contains("cut off"));
}

#[test]
fn an_answer_can_be_stopped_and_an_error_is_shown() {
    let server = Setup::default().start();
    let script = "
        text.value = 'crash=2'; await send();
        clear(); describe();
        text.value = 'refuse=1'; await send();
        const sent = (text.value = 'n=90 ms=20', messages = [], send());
        setTimeout(() => at('stop').click(), 200); await sent;
    ";
    let dom = used(&server, script);
    assert!(dom.contains("<p class=\"fault\">"), "{dom}");
    assert!(dom.contains("· stopped</small>"), "{dom}");
    server.until_free();
    server.assert_answers();
}

#[test]
fn labels_and_distances_are_drawn() {
    let labels = ModelConfig { preset: Preset::Classify, ..model("a") };
    let vectors = ModelConfig { preset: Preset::Embed, ..model("b") };
    let server = Setup::of([labels, vectors]).start();
    let script = "
        text.value = 'fine'; await send();
        pick.value = 'b'; describe();
        text.value = 'x\\nlonger'; await send();
    ";
    let dom = used(&server, script);
    assert!(
        dom.contains(
            "<span>good</span><meter max=\"1\" value=\"0.75\"></meter><span>75.0 %</span>"
        )
    );
    assert!(dom.contains("<th>2 numbers each</th>") && dom.contains("<td>1.000</td>"), "{dom}");
}
