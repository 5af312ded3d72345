//! Fetches the pinned wheel: through pip, or from a configured package index.
//!
//! No index is named here: whoever has neither pip nor an index must name one.

use std::{
    fs,
    io::{self, Read, Write},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use ureq::{
    Agent, Proxy,
    tls::{RootCerts, TlsConfig},
};

use super::{
    InstallError, PackageIndex,
    install::{Pin, pins},
};
use onnxq_ir::{ctx::Progress, untrusted::escape};

/// An index lists every file of every version; this is many times the largest known.
const MAX_INDEX: u64 = 64 << 20;

pub(super) fn download(
    pin: &Pin,
    folder: &Path,
    index: &PackageIndex,
    progress: &dyn Progress,
) -> Result<PathBuf, InstallError> {
    progress.start("fetch", pin.size);
    let result = through_pip(pin, folder, index.url.as_deref()).or_else(|pip| {
        let fetched = match index.url.clone().or_else(|| configured(index)) {
            Some(url) => from_index(&agent(index.proxy), pin, folder, &url, progress),
            None => Err("none is configured".to_owned()),
        };
        fetched.map_err(|index| InstallError::Fetch { file: pin.file.clone(), pip, index })
    });
    progress.done(&format!("ONNX Runtime {} into the cache", pin.version));
    result
}

fn through_pip(pin: &Pin, folder: &Path, index_url: Option<&str>) -> Result<PathBuf, String> {
    let requirements = folder.join("requirements.txt");
    let line = format!("onnxruntime=={} --hash=sha256:{}\n", pin.version, pin.sha256);
    fs::write(&requirements, line).map_err(|it| it.to_string())?;
    let mut command = Command::new(if cfg!(windows) { "python" } else { "python3" });
    // `-m` imports from the working folder first: it must be one that nobody else fills.
    command
        .current_dir(folder)
        .args(["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"])
        .args(["--no-deps", "--only-binary=:all:", "--require-hashes"])
        .args(["--platform", &pin.platform, "--python-version", &pins().python])
        .args(["--implementation", "cp"])
        .arg("-r")
        .arg(&requirements)
        .arg("-d")
        .arg(folder)
        .stdin(Stdio::null());
    if let Some(url) = index_url {
        command.args(["--index-url", url]);
    }
    let output = command.output().map_err(|it| format!("no Python: {it}"))?;
    let wheel = folder.join(&pin.file);
    if output.status.success() && wheel.is_file() {
        return Ok(wheel);
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let line = text.lines().find(|it| it.starts_with("ERROR")).or(text.lines().last());
    Err(escape(line.unwrap_or("it failed without a message")))
}

fn from_index(
    agent: &Agent,
    pin: &Pin,
    folder: &Path,
    index_url: &str,
    progress: &dyn Progress,
) -> Result<PathBuf, String> {
    let page = format!("{}/onnxruntime/", index_url.trim_end_matches('/'));
    let mut text = String::new();
    let reader = get(agent, &page, MAX_INDEX)?;
    io::BufReader::new(reader).read_to_string(&mut text).map_err(|it| it.to_string())?;
    let link = link(&text, &pin.file).ok_or_else(|| format!("it does not list `{}`", pin.file))?;
    let wheel = folder.join(&pin.file);
    // The checksum is compared later; the size keeps a wrong answer from filling the disk.
    let mut reader = get(agent, &resolve(&page, &link), pin.size + 1)?;
    let mut file = fs::File::create(&wheel).map_err(|it| it.to_string())?;
    copy(&mut reader, &mut file, progress).map_err(|it| it.to_string())?;
    Ok(wheel)
}

fn agent(proxy: bool) -> Agent {
    let tls = TlsConfig::builder().root_certs(RootCerts::PlatformVerifier).build();
    let proxy = if proxy { Proxy::try_from_env() } else { None };
    Agent::config_builder()
        .tls_config(tls)
        .proxy(proxy)
        .timeout_connect(Some(Duration::from_secs(30)))
        .timeout_recv_response(Some(Duration::from_secs(60)))
        .build()
        .into()
}

fn get(agent: &Agent, url: &str, limit: u64) -> Result<impl Read + use<>, String> {
    // Every index serves this page; only some also serve JSON.
    let response = agent.get(url).header("Accept", "text/html, */*;q=0.5").call();
    let response = response.map_err(|it| escape(&it.to_string()))?;
    Ok(response.into_body().into_with_config().limit(limit).reader())
}

fn copy(from: &mut impl Read, to: &mut impl Write, progress: &dyn Progress) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let n = from.read(&mut buffer)?;
        if n == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..n])?;
        progress.step(n as u64);
    }
}

/// The address of `file` on an index page, without its checksum.
fn link(page: &str, file: &str) -> Option<String> {
    let quoted = page.split("href=").skip(1).filter_map(|it| {
        let quote = it.chars().next().filter(|it| matches!(it, '"' | '\''))?;
        it[1..].split(quote).next()
    });
    let addresses = quoted.map(|it| it.split('#').next().unwrap_or(it).replace("&amp;", "&"));
    let is_file =
        |it: &String| it.split('?').next().and_then(|it| it.rsplit('/').next()) == Some(file);
    addresses.into_iter().find(is_file)
}

/// The absolute address of a link on the page `base`, whose address ends in a slash.
fn resolve(base: &str, link: &str) -> String {
    if link.contains("://") {
        return link.to_owned();
    }
    let Some((scheme, rest)) = base.split_once("://") else { return link.to_owned() };
    if let Some(rest) = link.strip_prefix("//") {
        return format!("{scheme}://{rest}");
    }
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    if let Some(link) = link.strip_prefix('/') {
        return format!("{scheme}://{host}/{link}");
    }
    let mut folders: Vec<&str> = path.split('/').filter(|it| !it.is_empty()).collect();
    for part in link.split('/') {
        match part {
            "." => {}
            ".." => drop(folders.pop()),
            _ => folders.push(part),
        }
    }
    format!("{scheme}://{host}/{}", folders.join("/"))
}

/// The index that the user configured for pip or uv.
fn configured(index: &PackageIndex) -> Option<String> {
    let in_file = |it: &PathBuf| index_url(&fs::read_to_string(it).ok()?);
    let in_files = || index.pip_files.iter().find_map(in_file);
    let configured = index.configured.clone().or_else(in_files)?;
    // uv allows `name=url`.
    match configured.split_once('=') {
        Some((name, url)) if !name.contains(':') => Some(url.to_owned()),
        _ => Some(configured),
    }
}

/// `index-url` of a section that concerns downloads.
fn index_url(config: &str) -> Option<String> {
    let mut relevant = false;
    for line in config.lines().map(str::trim) {
        if let Some(section) = line.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
            relevant = matches!(section, "global" | "download" | "install");
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        if relevant && matches!(key.trim(), "index-url" | "index_url") {
            return Some(value.trim().to_owned());
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, thread};

    use super::*;
    use onnxq_ir::ctx::Silent;

    #[test]
    fn links_are_found_and_resolved() {
        let page = "<a href=\"../x-1.0.whl?a=1&amp;b=2#sha256=00\">x</a>\n<a href='/y.whl'>y</a>";
        assert_eq!(link(page, "x-1.0.whl").unwrap(), "../x-1.0.whl?a=1&b=2");
        assert_eq!(link(page, "y.whl").unwrap(), "/y.whl");
        assert_eq!(link(page, "1.0.whl"), None);
        let base = "https://host:1/simple/onnxruntime/";
        assert_eq!(resolve(base, "../../files/y.whl"), "https://host:1/files/y.whl");
        assert_eq!(resolve(base, "/y.whl"), "https://host:1/y.whl");
        assert_eq!(resolve(base, "//other/y.whl"), "https://other/y.whl");
        assert_eq!(resolve(base, "http://other/y.whl"), "http://other/y.whl");
    }

    #[test]
    fn the_index_of_a_pip_configuration_is_read() {
        let config = "[list]\nindex-url = http://no/\n[global]\nindex-url = http://yes/simple\n";
        assert_eq!(index_url(config).unwrap(), "http://yes/simple");
        assert_eq!(index_url("[global]\ntimeout = 60\n"), None);
    }

    #[test]
    fn a_wheel_comes_from_an_index() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/simple/", listener.local_addr().unwrap());
        let pin: Pin = serde_json::from_str(
            r#"{"version": "", "os": "", "arch": "", "platform": "", "file": "a.whl", "size": 5, "sha256": ""}"#,
        )
        .unwrap();
        let server = thread::spawn(move || {
            let answers = [
                ("<a href=\"../../a.whl#sha256=0\">a</a>", "/simple/onnxruntime/"),
                ("wheel", "/a.whl"),
            ];
            for (body, path) in answers {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = [0; 4096];
                let n = stream.read(&mut request).unwrap();
                let request = String::from_utf8_lossy(&request[..n]).into_owned();
                assert!(request.starts_with(&format!("GET {path} ")), "{request}");
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                    body.len()
                );
                stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let agent = Agent::config_builder().proxy(None).build().into();
        let wheel = from_index(&agent, &pin, dir.path(), &url, &Silent).unwrap();
        assert_eq!(fs::read(wheel).unwrap(), b"wheel");
        server.join().unwrap();
    }
}
