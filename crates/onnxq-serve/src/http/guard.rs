//! Who may ask: the name the server is asked under, the page that asks, the token.

use std::net::{IpAddr, SocketAddr};

use hyper::{
    HeaderMap, Uri,
    header::{self, HeaderValue},
};
use sha2::{Digest, Sha256};

use super::route::Route;
use crate::problem::{Kind, Problem};

/// Letters of a token, at least and at most.
const LENGTHS: std::ops::RangeInclusive<usize> = 16..=256;

pub(crate) struct Guard {
    /// Of the token, so that comparing takes the same time for all that are wrong.
    digest: Option<[u8; 32]>,
    /// Names beside addresses and `localhost`.
    hosts: Vec<String>,
    origins: Vec<String>,
}

/// Why a text is no token.
pub(crate) fn check_token(token: &str) -> Result<(), String> {
    let is_plain = token.bytes().all(|it| it.is_ascii_graphic());
    match (LENGTHS.contains(&token.len()), is_plain) {
        (true, true) => Ok(()),
        (false, _) => Err(format!("the token has {} characters", token.len())),
        (true, false) => Err("the token has a space or a character that is not ASCII".into()),
    }
}

impl Guard {
    pub(crate) fn new(token: Option<&str>, hosts: Vec<String>, origins: Vec<String>) -> Guard {
        let digest = token.map(|it| Sha256::digest(it.as_bytes()).into());
        Guard { digest, hosts, origins }
    }

    pub(super) fn check(
        &self,
        route: &Route,
        uri: &Uri,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        let host = self.host(uri, headers)?;
        self.origin(&host, headers)?;
        if route.is_open || route.is_preflight { Ok(()) } else { self.token(headers) }
    }

    /// A name that somebody made point to this machine is none of ours (DNS rebinding); an address
    /// cannot be made to point anywhere.
    fn host(&self, uri: &Uri, headers: &HeaderMap) -> Result<String, Problem> {
        let mut given = headers.get_all(header::HOST).iter();
        let host = match (uri.authority(), given.next(), given.next()) {
            (Some(authority), _, _) => authority.as_str(),
            (None, Some(host), None) => host.to_str().unwrap_or(""),
            _ => "",
        };
        let host = host.to_ascii_lowercase();
        let name = name_of(&host);
        let is_address = name.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        let is_local = name == "localhost" || name.ends_with(".localhost");
        if is_address || is_local || self.hosts.iter().any(|it| it == name || *it == host) {
            return Ok(host);
        }
        let what = "the server is not known by the name in the Host header";
        Err(Problem::new(403, Kind::Permission, "host_not_allowed", what))
    }

    /// Other pages may not even ask, or any page on the web could make the models work.
    fn origin(&self, host: &str, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(origin) = headers.get(header::ORIGIN) else { return Ok(()) };
        let origin = origin.to_str().unwrap_or("").to_ascii_lowercase();
        let own = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
        if own == Some(host) || self.is_listed(&origin) {
            return Ok(());
        }
        let what = "pages of this origin may not use the server";
        Err(Problem::new(403, Kind::Permission, "origin_not_allowed", what))
    }

    fn is_listed(&self, origin: &str) -> bool {
        self.origins.iter().any(|it| it.eq_ignore_ascii_case(origin))
    }

    /// The origin to name in the answer, so that a browser lets the page read it.
    pub(super) fn allowed_origin(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let origin = headers.get(header::ORIGIN)?;
        self.is_listed(origin.to_str().ok()?).then(|| origin.clone())
    }

    fn token(&self, headers: &HeaderMap) -> Result<(), Problem> {
        let Some(expected) = &self.digest else { return Ok(()) };
        let given = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
        let token = given.and_then(|it| {
            let (scheme, token) = it.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
        });
        let found: [u8; 32] = Sha256::digest(token.unwrap_or("").as_bytes()).into();
        if token.is_some() && is_equal(expected, &found) {
            return Ok(());
        }
        let what = "a valid token is needed: Authorization: Bearer TOKEN";
        Err(Problem::new(401, Kind::Permission, "invalid_api_key", what))
    }
}

/// Looks at every byte, whatever the first ones are.
fn is_equal(a: &[u8; 32], b: &[u8; 32]) -> bool {
    std::hint::black_box(a.iter().zip(b).fold(0, |sum, (a, b)| sum | (a ^ b))) == 0
}

/// Without the port.
fn name_of(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|it| it.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether only programs of this machine reach an address.
pub(crate) fn is_loopback(address: &SocketAddr) -> bool {
    address.ip().to_canonical().is_loopback()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(rows: &[(&'static str, &str)]) -> HeaderMap {
        rows.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn guard() -> Guard {
        let (hosts, origins) = (vec!["edge.lan".into()], vec!["https://app.example".into()]);
        Guard::new(Some("correct-horse-battery"), hosts, origins)
    }

    #[test]
    fn names_that_point_here_by_somebody_elses_will_are_refused() {
        let uri = Uri::from_static("/v1/models");
        let ask = |host| guard().host(&uri, &headers(&[("host", host)])).is_ok();
        let fine = ["localhost:8080", "127.0.0.1", "[::1]:80", "192.168.1.7:8080", "EDGE.lan:1"];
        assert!(fine.into_iter().all(ask));
        for host in ["evil.example", "evil.example:8080", "", "localhost.evil.example", "a b"] {
            assert!(!ask(host), "{host}");
        }
        assert!(guard().host(&uri, &headers(&[])).is_err());
        let two = headers(&[("host", "localhost"), ("host", "evil.example")]);
        assert!(guard().host(&uri, &two).is_err());
        let whole = Uri::from_static("http://evil.example/v1/models");
        assert!(guard().host(&whole, &headers(&[("host", "localhost")])).is_err());
    }

    #[test]
    fn only_listed_pages_and_our_own_may_ask() {
        let ask =
            |origin| guard().origin("localhost:8080", &headers(&[("origin", origin)])).is_ok();
        assert!(ask("https://app.example") && ask("http://localhost:8080"));
        for origin in ["null", "http://localhost:9090", "https://app.example.evil", "http://"] {
            assert!(!ask(origin), "{origin}");
        }
        let named = |origin| guard().allowed_origin(&headers(&[("origin", origin)]));
        assert_eq!(named("https://app.example").unwrap(), "https://app.example");
        assert_eq!(named("http://localhost:8080"), None);
    }

    #[test]
    fn the_whole_token_counts() {
        let ask = |value| guard().token(&headers(&[("authorization", value)])).is_ok();
        assert!(ask("Bearer correct-horse-battery") && ask("bearer  correct-horse-battery "));
        for value in ["Bearer correct-horse-batterx", "Bearer", "Bearer ", "correct-horse-battery"]
        {
            assert!(!ask(value), "{value}");
        }
        assert!(guard().token(&headers(&[])).is_err());
        assert!(Guard::new(None, vec![], vec![]).token(&headers(&[])).is_ok());
        assert!(check_token("0123456789abcdef").is_ok());
        for token in ["short", "has a space in it", "ümlautümlautüml"] {
            assert!(check_token(token).is_err(), "{token}");
        }
    }
}
