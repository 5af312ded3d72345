//! Why a job failed.

use std::{error, fmt};

use onnxq_ir::diag::{Code, Diagnostic};

/// Why a job failed: the error of the step that did. `?` makes one of any error with a code.
#[derive(Debug)]
pub struct Error(Box<dyn Diagnostic + Send + Sync>);

impl Error {
    /// Which row of the table of codes explains it.
    pub fn code(&self) -> Code {
        self.0.code()
    }

    /// Advice, apart from the facts of the message.
    pub fn hint(&self) -> Option<String> {
        self.0.hint()
    }

    /// The error of the step, if it is an `E`.
    pub fn downcast_ref<E: Diagnostic + 'static>(&self) -> Option<&E> {
        let error: &(dyn error::Error + 'static) = &*self.0;
        error.downcast_ref()
    }
}

/// Possible because `Error` itself is no `Diagnostic`: its methods have the same names instead.
impl<E: Diagnostic + Send + Sync + 'static> From<E> for Error {
    fn from(error: E) -> Error {
        Error(Box::new(error))
    }
}

impl From<Error> for Box<dyn Diagnostic + Send + Sync> {
    fn from(error: Error) -> Self {
        error.0
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl error::Error for Error {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        self.0.source()
    }
}

#[cfg(test)]
mod tests {
    use onnxq_ir::{Broken, tensor::TensorError};

    use super::*;
    use crate::NeedsData;

    #[test]
    fn an_error_is_that_of_its_step() {
        let error = Error::from(NeedsData { who: "transform `smooth`".to_owned() });
        let text = "transform `smooth` needs calibration data, and there is none";
        assert_eq!((error.code(), &*error.to_string()), (Code::E610, text));
        assert!(error.hint().is_some() && error.downcast_ref::<NeedsData>().is_some());
        assert_eq!(Error::from(TensorError::Io(String::new())).code(), Code::E901);
    }

    #[test]
    fn what_only_a_bug_can_break_is_a_bug() {
        let code = Error::from(Broken("uses".to_owned())).code();
        assert_eq!((code, code.exit()), (Code::E999, onnxq_ir::diag::EXIT_BUG));
    }
}
