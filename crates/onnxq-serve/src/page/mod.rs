//! A page to try the models in a browser: one document without anything from elsewhere.

use std::sync::LazyLock;

use base64::{Engine, prelude::BASE64_STANDARD};
use hyper::header::{self, HeaderValue};
use sha2::{Digest, Sha256};

use crate::http::{Answer, text};

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");
const PAGE: &str = include_str!("page.html");

static DOCUMENT: LazyLock<String> =
    LazyLock::new(|| PAGE.replace("{{style}}", STYLE).replace("{{script}}", SCRIPT));

/// Only what is in the document runs, and it talks to this server only.
static POLICY: LazyLock<String> = LazyLock::new(|| {
    let hash = |text: &str| BASE64_STANDARD.encode(Sha256::digest(text.as_bytes()));
    format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    )
});

pub(crate) fn answer() -> Answer {
    let mut answer = text("text/html; charset=utf-8", DOCUMENT.clone());
    let headers = answer.headers_mut();
    let policy = HeaderValue::from_str(&POLICY).expect("the policy is plain text");
    headers.insert(header::CONTENT_SECURITY_POLICY, policy);
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    answer
}
