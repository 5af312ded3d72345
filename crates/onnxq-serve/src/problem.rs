//! Why a request has no answer, as clients of OpenAI's interface read it.
//!
//! A message never has a path, a prompt or a detail of the machine in it; those are for the log.

use std::time::Duration;

use serde_json::{Value, json};

/// Of the kinds that clients tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request is wrong.
    Request,
    /// Nobody may ask that.
    Permission,
    /// There is no such thing.
    Missing,
    /// Too much is asked for at once.
    Overloaded,
    /// The server failed.
    Server,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Request => "invalid_request_error",
            Kind::Permission => "authentication_error",
            Kind::Missing => "not_found_error",
            Kind::Overloaded => "overloaded_error",
            Kind::Server => "server_error",
        }
    }
}

/// A status and what stands in the body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub status: u16,
    pub kind: Kind,
    /// For programs: `queue_full`, or a code that `onnxq explain` knows.
    pub code: String,
    pub message: String,
    /// The field that is wrong.
    pub param: Option<String>,
    /// After how long it is worth asking again.
    pub retry: Option<Duration>,
    /// For the log only.
    pub detail: Option<String>,
}

impl Problem {
    pub(crate) fn new(status: u16, kind: Kind, code: &str, message: impl Into<String>) -> Problem {
        let message = message.into();
        Problem {
            status,
            kind,
            code: code.to_owned(),
            message,
            param: None,
            retry: None,
            detail: None,
        }
    }

    /// A field that is missing, of the wrong type or out of range.
    pub(crate) fn field(param: &str, what: impl AsRef<str>) -> Problem {
        let message = format!("`{param}` {}", what.as_ref());
        let problem = Problem::new(400, Kind::Request, "invalid_value", message);
        Problem { param: Some(param.to_owned()), ..problem }
    }

    /// A field that would change what the answer means, and that is not understood.
    pub(crate) fn unsupported(param: &str, what: impl AsRef<str>) -> Problem {
        Problem { code: "unsupported_parameter".into(), ..Problem::field(param, what) }
    }

    pub(crate) fn request(code: &str, message: impl Into<String>) -> Problem {
        Problem::new(400, Kind::Request, code, message)
    }

    /// Too much at once: worth another try.
    pub(crate) fn busy(code: &str, message: impl Into<String>, retry: Duration) -> Problem {
        let problem = Problem::new(503, Kind::Overloaded, code, message);
        Problem { retry: Some(retry), ..problem }
    }

    pub(crate) fn late() -> Problem {
        let message = "the deadline passed before the answer was complete";
        Problem::new(504, Kind::Server, "deadline_exceeded", message)
    }

    pub(crate) fn leaving() -> Problem {
        let message = "the server is shutting down";
        Problem::busy("shutting_down", message, Duration::from_secs(5))
    }

    pub(crate) fn with_detail(self, detail: impl Into<String>) -> Problem {
        Problem { detail: Some(detail.into()), ..self }
    }

    /// The body.
    pub(crate) fn json(&self) -> Value {
        json!({"error": {
            "message": self.message,
            "type": self.kind.name(),
            "param": self.param,
            "code": self.code,
        }})
    }
}
