//! The page in a real browser: the policy blocks nothing of ours, and names stay text.
//!
//! Needs `chromium` in PATH (Debian: `apt-get install chromium`); `.ci/run` installs it.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use onnxq_report::{Report, emit::emitter};

use crate::common::reports::{HOSTILE, full, hostile, minimal};

/// A browser needs a few hundred MB; one at a time is enough.
static ONE: Mutex<()> = Mutex::new(());

const PATIENCE: Duration = Duration::from_secs(120);

/// What became of a page.
struct Seen {
    /// The document after its scripts ran.
    dom: String,
    /// What the console heard, and whatever else the browser complains of.
    log: String,
}

impl Seen {
    /// Lines of the console that say something was blocked or failed.
    fn complaints(&self) -> Vec<&str> {
        const WORDS: [&str; 5] =
            ["Refused to", "violates", "Content Security Policy", "Uncaught", "Error:"];
        let console = self.log.lines().filter(|it| it.contains("CONSOLE"));
        console.filter(|line| WORDS.iter().any(|it| line.contains(it))).collect()
    }
}

fn browse(page: &str, fragment: &str) -> Seen {
    browse_in(1280, page, fragment)
}

/// In a window of so many pixels.
fn browse_in(width: usize, page: &str, fragment: &str) -> Seen {
    let _one = ONE.lock().unwrap_or_else(|it| it.into_inner());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("page.html");
    fs::write(&path, page).unwrap();
    let output = |name: &str| fs::File::create(folder.path().join(name)).unwrap();
    let url = format!("file://{}{fragment}", path.display());
    let mut browser = chromium(folder.path())
        .arg("--dump-dom")
        .arg(format!("--window-size={width},900"))
        .arg(url)
        .stdin(Stdio::null())
        .stdout(output("dom"))
        .stderr(output("log"))
        .spawn()
        .expect("chromium must be in PATH");
    let began = Instant::now();
    while browser.try_wait().unwrap().is_none() {
        if began.elapsed() > PATIENCE {
            browser.kill().unwrap();
            browser.wait().unwrap();
            panic!("chromium did not end:\n{}", read(folder.path(), "log"));
        }
        thread::sleep(Duration::from_millis(50));
    }
    let seen = Seen { dom: read(folder.path(), "dom"), log: read(folder.path(), "log") };
    assert!(seen.dom.contains("<html"), "no page came back:\n{}", seen.log);
    seen
}

fn chromium(folder: &Path) -> Command {
    let mut command = Command::new("chromium");
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"])
        .args(["--no-first-run", "--disable-background-networking", "--disable-component-update"])
        .args(["--enable-logging=stderr", "--v=0", "--virtual-time-budget=5000"])
        .arg(format!("--user-data-dir={}", folder.join("profile").display()))
        .env("HOME", folder)
        .env("XDG_CONFIG_HOME", folder)
        .env("XDG_CACHE_HOME", folder);
    command
}

fn read(folder: &Path, name: &str) -> String {
    String::from_utf8_lossy(&fs::read(folder.join(name)).unwrap()).into_owned()
}

fn page(report: &Report) -> String {
    (emitter("html").unwrap().emit)(report)
}

/// What a script says in the page's title. The page's own policy would stop that.
fn told(width: usize, page: &str, script: &str) -> String {
    let (head, rest) = page.split_once("<meta http-equiv").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let script = format!("<script>document.title = {script};</script></body>");
    let open = format!("{head}{rest}").replace("</body>", &script);
    let seen = browse_in(width, &open, "");
    let (_, title) = seen.dom.split_once("<title>").unwrap();
    title.split("</title>").next().unwrap().to_owned()
}

/// The text of each cell of a column, top to bottom.
fn column(dom: &str, table: &str, column: usize) -> Vec<String> {
    let (_, rest) = dom.split_once(&format!("<table id=\"{table}\"")).expect("the table");
    let (_, body) = rest.split_once("<tbody>").unwrap();
    let (body, _) = body.split_once("</tbody>").unwrap();
    let cell = |row: &str| {
        let cell = row.split("<td").nth(column + 1).unwrap();
        let (_, text) = cell.split_once('>').unwrap();
        text.split("</td>").next().unwrap().to_owned()
    };
    body.split("<tr>").skip(1).map(cell).collect()
}

#[test]
fn nothing_is_blocked_and_no_script_fails() {
    for report in [minimal(), full()] {
        let seen = browse(&page(&report), "");
        assert_eq!(seen.complaints(), [""; 0], "{}", seen.log);
    }
    let seen = browse(&page(&full()), "");
    // The script ran: heads became buttons, and what copies is there.
    assert!(seen.dom.contains("<button type=\"button\">measured</button>"));
    assert!(seen.dom.contains("data-copy=\"card-text\">Copy</button>"));
}

#[test]
fn hostile_names_stay_text() {
    let seen = browse(&page(&hostile()), "");
    assert_eq!(seen.complaints(), [""; 0], "{}", seen.log);
    let count = |part: &str| seen.dom.matches(part).count();
    assert_eq!((count("<script"), count("</script>"), count("<title>FAIL")), (1, 1, 1));
    assert_eq!((count("<a href=\"http"), count("<a href=\"java")), (0, 0));
    let ours = count("<img src=\"data:image/png;base64,");
    assert_eq!((count("<img"), ours), (4, 4));
    let name = "&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;\\u{1b}]8;;http";
    assert!(count(name) > 100, "{}", count(name));
    // Sorted, names move as text.
    let sorted = browse(&page(&hostile()), "#sort=precision-node,1");
    assert_eq!(sorted.complaints(), [""; 0], "{}", sorted.log);
    assert_eq!(sorted.dom.matches("<script").count(), 1);
}

/// Pictures are decoded, have words for those who do not see them, and fit the window.
#[test]
fn pictures_are_seen_at_any_width() {
    let page = page(&full());
    for width in [1280, 390] {
        let sizes = "[...document.images].map((it) => it.naturalWidth + 'x' + it.naturalHeight)";
        assert_eq!(told(width, &page, &format!("{sizes}.join()")), "32x20,32x20,32x20,32x20");
        let bad = "[...document.images].filter((it) => !it.alt \
             || it.getBoundingClientRect().right > innerWidth || it.width < 100).length";
        assert_eq!(told(width, &page, bad), "0", "at {width}");
    }
}

#[test]
fn a_link_sorts_a_table() {
    let page = page(&full());
    let order = |fragment: &str| {
        let seen = browse(&page, fragment);
        assert_eq!(seen.complaints(), [""; 0], "{}", seen.log);
        let order: Vec<usize> =
            column(&seen.dom, "precision-node", 0).iter().map(|it| it.parse().unwrap()).collect();
        (order, seen.dom.matches("aria-sort=\"descending\">").count())
    };
    let (unsorted, marked) = order("");
    assert_eq!((&unsorted[..3], marked), (&[14, 1, 2][..], 0));
    let (down, marked) = order("#sort=precision-node,0,descending");
    assert_eq!((down, marked), ((1..=60).rev().collect(), 1));
    let (up, _) = order("#sort=precision-node,0");
    assert_eq!(up, (1..=60).collect::<Vec<_>>());
    // A link to nowhere, or a hostile one, does nothing.
    for fragment in ["#sort=none,0", "#sort=precision-node,99", "#sort=<img>,0", "#sort="] {
        assert_eq!(order(fragment).0, unsorted);
    }
}

#[test]
fn nothing_is_wider_than_the_window() {
    let page = page(&full());
    let wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth";
    for window in [1280, 768, 500, 390] {
        assert_eq!(told(window, &page, wider), "0", "in a window of {window}");
    }
    let hidden = "[...document.querySelectorAll('.scroll')]\
         .filter((it) => it.querySelector('table') && it.scrollWidth > it.clientWidth)\
         .map((it) => it.querySelector('table').id).join()";
    assert_eq!(told(1280, &page, hidden), "", "tables with a scrollbar");
}

#[test]
fn a_link_filters_a_table_and_its_rows_can_be_saved() {
    let page = page(&full());
    let seen = browse(&page, "#filter=precision-node,kernel%20DOWN_PROJ");
    assert_eq!(seen.complaints(), [""; 0], "{}", seen.log);
    assert!(seen.dom.contains("1 of 60 rows"), "{}", seen.dom);
    for fragment in ["#filter=none,x", "#filter=precision-node,%", "#filter=<img>,x"] {
        assert_eq!(browse(&page, fragment).complaints(), [""; 0]);
    }
    let table = "document.getElementById('precision-node')";
    let lines = format!("csv({table}).split('\\r\\n').slice(0, 2).join('|')");
    assert_eq!(
        told(1280, &page, &lines),
        "order,node,operator,stored as,computes in,bytes,declared,executed,differs|\
         14,/model/layers.1/down_proj/MatMul,MatMulNBits,int8,int8,110000,int4 in blocks of 32,\
         \"SQNBitGemm, CompInt8\",runs in float: the block size has no kernel here"
    );
    // A spreadsheet runs what begins like a formula.
    let formula = "field(Object.assign(document.createElement('td'), { textContent: '=1+1' }))";
    assert_eq!(told(1280, &page, formula), "'=1+1");
}

#[test]
fn a_link_opens_the_layer_that_it_is_for() {
    let page = page(&full());
    let opened = |fragment: &str| browse(&page, fragment).dom.matches("open=\"\"").count();
    assert_eq!((opened(""), opened("#layer-28")), (0, 1));
    // Every link within the page leads somewhere.
    let lost = "[...document.querySelectorAll('a[href^=\"#\"]')]\
         .filter((it) => !document.getElementById(it.hash.slice(1))).map((it) => it.hash).join()";
    assert_eq!(told(1280, &page, lost), "");
}

/// The checks above can fail: the same page with what a careless template would let through.
#[test]
fn what_would_be_blocked_is_seen() {
    let page = page(&full());
    for (what, part) in [
        ("a script", "<script>document.title = 'pwned'</script>"),
        ("a handler", "<img src=x onerror=\"document.title = 'pwned'\">"),
        ("a style", "<p style=\"color: red\">x</p>"),
        ("a picture", "<img src=\"http://127.0.0.1:9/x.png\">"),
    ] {
        let seen = browse(&page.replacen("<main>", &format!("<main>{part}"), 1), "");
        assert!(!seen.complaints().is_empty(), "{what} went unnoticed:\n{}", seen.log);
        assert!(!seen.dom.contains("<title>pwned"), "{what} ran");
    }
    // Without the policy, an unescaped name runs: it is no dead text that was tested.
    let (head, rest) = page.split_once("<meta http-equiv").unwrap();
    let (_, rest) = rest.split_once('\n').unwrap();
    let pwn =
        |text: String, at: u8| text.replace(&format!("alert({at})"), "document.title='pwned'");
    let script = (1..=3).fold(HOSTILE.to_owned(), pwn);
    let open = format!("{head}{rest}").replacen("<main>", &format!("<main>{script}"), 1);
    assert!(browse(&open, "").dom.contains("<title>pwned"));
}
