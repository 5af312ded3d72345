//! The one error of the library.

use std::fmt;

use onnxq_ir::diag::Diagnostic;

/// What went wrong, with a code that scripts can rely on and a hint that works.
pub struct Error {
    inner: Box<dyn Diagnostic + Send + Sync>,
}

impl Error {
    /// `E205`; `onnxq explain E205` says more, and `docs/error-codes.md` lists all.
    pub fn code(&self) -> &'static str {
        self.inner.code().name()
    }

    /// What to do about it, apart from the facts of the message.
    pub fn hint(&self) -> Option<String> {
        self.inner.hint()
    }

    /// The exit code of the command line for it: 2 usage, 3 rejected input, 4 unsupported,
    /// 5 environment, 6 nothing to do, 70 a bug.
    pub fn exit_code(&self) -> u8 {
        self.inner.code().exit()
    }

    pub(crate) fn of(inner: impl Into<Box<dyn Diagnostic + Send + Sync>>) -> Error {
        Error { inner: inner.into() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code(), self.inner)?;
        self.hint().map_or(Ok(()), |hint| write!(f, " (hint: {hint})"))
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.inner.source()
    }
}
