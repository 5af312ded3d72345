//! How a subcommand fails.

use std::{error::Error, io};

use onnxq_ir::diag::{Code, Diagnostic};

/// An error with a code. `?` makes one of any library error.
#[derive(Debug)]
pub enum Failure {
    Coded(Box<dyn Diagnostic + Send + Sync>),
    /// The result could not be printed.
    Stdout(io::Error),
}

impl<E: Into<Box<dyn Diagnostic + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Failure {
        Failure::Coded(error.into())
    }
}

impl Failure {
    pub fn code(&self) -> Code {
        match self {
            Failure::Coded(error) => error.code(),
            Failure::Stdout(_) => Code::E901,
        }
    }

    pub fn exit(&self) -> u8 {
        self.code().exit()
    }

    pub fn message(&self) -> String {
        match self {
            Failure::Coded(error) => error.to_string(),
            Failure::Stdout(_) => "the result could not be printed".to_owned(),
        }
    }

    pub fn hint(&self) -> Option<String> {
        match self {
            Failure::Coded(error) => error.hint(),
            Failure::Stdout(_) => None,
        }
    }

    /// The causes, nearest first.
    pub fn causes(&self) -> Vec<String> {
        let mut cause: Option<&dyn Error> = match self {
            Failure::Coded(error) => error.source(),
            Failure::Stdout(error) => Some(error),
        };
        let mut list = Vec::new();
        while let Some(error) = cause {
            list.push(error.to_string());
            cause = error.source();
        }
        list
    }

    /// The library error, if it is an `E`.
    pub fn downcast_ref<E: Diagnostic + 'static>(&self) -> Option<&E> {
        let Failure::Coded(error) = self else { return None };
        let error: &(dyn Error + 'static) = &**error;
        error.downcast_ref()
    }

    /// Whether the reader of the result has seen enough, as `head` does.
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Failure::Stdout(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::diag::EXIT_USAGE;
    use onnxq_quant::recipe;

    #[test]
    fn a_library_error_keeps_its_code_hint_and_causes() {
        let fails = || -> Result<(), Failure> {
            recipe::load("avx22")?;
            Ok(())
        };
        let failure = fails().unwrap_err();
        assert_eq!((failure.code(), failure.exit()), (Code::E705, EXIT_USAGE));
        assert_eq!(failure.hint().unwrap(), "did you mean `avx2`?");
        let unread: Failure = recipe::load("/none/such.yaml").unwrap_err().into();
        assert_eq!(unread.causes().len(), 1);
    }
}
