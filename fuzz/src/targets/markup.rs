//! Whether a page holds any markup that is not the emitter's own.

use quick_xml::{Reader, events::Event};

/// Elements of the page and of its plots.
const ELEMENTS: &[&str] = &[
    "a",
    "body",
    "button",
    "caption",
    "circle",
    "dd",
    "desc",
    "details",
    "div",
    "dl",
    "dt",
    "figcaption",
    "figure",
    "footer",
    "g",
    "h1",
    "h2",
    "h3",
    "head",
    "header",
    "html",
    "img",
    "line",
    "main",
    "meta",
    "nav",
    "p",
    "path",
    "pattern",
    "polygon",
    "polyline",
    "pre",
    "rect",
    "script",
    "section",
    "span",
    "strong",
    "style",
    "summary",
    "svg",
    "table",
    "tbody",
    "td",
    "text",
    "th",
    "thead",
    "title",
    "tr",
    "tspan",
];
/// What sources begin with: pictures that the page itself holds.
const PICTURE: &str = "data:image/png;base64,";
/// Elements that appear once: a second one is not the emitter's.
const ONCE: &[&str] = &["body", "head", "html", "main", "script", "style"];

/// Elements and attributes are known, nothing loads or runs.
pub(super) fn check_html(page: &str) {
    let mut counts = vec![0; ONCE.len()];
    let mut rest = page;
    while let Some(at) = rest.find('<') {
        rest = &rest[at + 1..];
        if rest.starts_with("!DOCTYPE html>") {
            continue;
        }
        let closes = rest.starts_with('/');
        let tag = rest.strip_prefix('/').unwrap_or(rest);
        let end = tag.find(|it: char| !it.is_ascii_alphanumeric()).unwrap_or(tag.len());
        let name = &tag[..end];
        assert!(ELEMENTS.contains(&name), "`<{}` in the page", start(rest));
        if let Some(at) = ONCE.iter().position(|it| *it == name).filter(|_| !closes) {
            counts[at] += 1;
            assert!(counts[at] == 1, "a second <{name}> in the page");
        }
        rest = attributes(&tag[end..]);
        if !closes && ["script", "style"].contains(&name) {
            let close = format!("</{name}>");
            rest = &rest[rest.find(&close).expect("it is closed")..];
        }
    }
}

/// Checks the attributes of an element, and gives back what follows it.
fn attributes(tag: &str) -> &str {
    let mut rest = tag;
    loop {
        rest = rest.trim_ascii_start();
        if let Some(after) = rest.strip_prefix("/>").or_else(|| rest.strip_prefix('>')) {
            return after;
        }
        let end = rest.find(|it: char| !it.is_ascii_alphanumeric() && !matches!(it, '-' | ':'));
        let name = &rest[..end.unwrap_or(rest.len())];
        assert!(!name.is_empty(), "`{}` within an element", start(rest));
        assert!(!name.starts_with("on"), "an event handler `{name}`");
        rest = &rest[name.len()..];
        let Some(value) = rest.strip_prefix("=\"") else { continue };
        let end = value.find('"').expect("a value ends");
        let text = &value[..end];
        assert!(!text.contains('<'), "`<` in the attribute {name}");
        let leads = ["href", "src", "xlink:href", "action", "formaction"].contains(&name);
        let inside = text.starts_with('#') || name == "src" && text.starts_with(PICTURE);
        assert!(!leads || inside, "{name} leads out: {}", start(text));
        rest = &value[end + 1..];
    }
}

/// A reader of XML takes it, and finds only our elements.
pub(super) fn check_xml(page: &str) {
    const OURS: &[&str] =
        &["failure", "properties", "property", "skipped", "testcase", "testsuite", "testsuites"];
    let mut reader = Reader::from_str(page);
    loop {
        match reader.read_event() {
            Ok(Event::Start(it) | Event::Empty(it)) => {
                let name = it.name().as_ref().to_owned();
                assert!(OURS.contains(&&*name), "<{name}> in XML");
                for it in it.attributes() {
                    it.expect("attributes are well-formed");
                }
            }
            Ok(Event::Eof) => break,
            Ok(Event::Comment(_) | Event::PI(_) | Event::DocType(_)) => {
                panic!("a comment or an instruction in XML")
            }
            Ok(_) => {}
            Err(error) => panic!("XML is not well-formed: {error}"),
        }
    }
    let legal = |it: char| matches!(it, '\t' | '\n' | '\r' | ' '..='\u{fffd}' | '\u{10000}'..);
    assert!(page.chars().all(legal), "characters that XML has not");
}

/// No element and no control character.
pub(super) fn check_markdown(page: &str) {
    for (at, _) in page.match_indices('<') {
        assert!(
            !page[at + 1..]
                .starts_with(|it: char| it.is_ascii_alphabetic() || matches!(it, '/' | '!' | '?')),
            "`<{}` in Markdown",
            start(&page[at + 1..])
        );
    }
    let hidden = |it: char| it.is_control() && it != '\n';
    assert!(!page.contains(hidden), "a control character in Markdown");
}

fn start(text: &str) -> String {
    text.chars().take(40).collect()
}
