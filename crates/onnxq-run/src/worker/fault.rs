//! Errors of the engine on their way through a pipe: those that callers tell apart stay what they are.

use serde::{Deserialize, Serialize};

use super::protocol::Refusal;
use crate::engine::EngineError;

/// What the engine of a worker says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "fault", rename_all = "snake_case")]
pub enum Fault {
    Run { message: String },
    Refused { model: String, version: String, message: String },
    TooOld { model: String, version: String, message: String },
    Other(Refusal),
}

impl From<EngineError> for Fault {
    fn from(error: EngineError) -> Fault {
        match error {
            EngineError::Run(message) => Fault::Run { message },
            EngineError::Refused { model, version, message } => {
                Fault::Refused { model, version, message }
            }
            EngineError::TooOld { model, version, message } => {
                Fault::TooOld { model, version, message }
            }
            other => Fault::Other(other.into()),
        }
    }
}

impl From<Fault> for EngineError {
    fn from(fault: Fault) -> EngineError {
        match fault {
            Fault::Run { message } => EngineError::Run(message),
            Fault::Refused { model, version, message } => {
                EngineError::Refused { model, version, message }
            }
            Fault::TooOld { model, version, message } => {
                EngineError::TooOld { model, version, message }
            }
            Fault::Other(Refusal { code, message, hint }) => {
                EngineError::Told { code, message, hint }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_ir::diag::Diagnostic;

    #[test]
    fn codes_messages_and_hints_survive() {
        let version = || "1.32.0".to_owned();
        let model = || "`m.onnx`".to_owned();
        let errors = || {
            [
                EngineError::Run("no".into()),
                EngineError::Refused {
                    model: model(),
                    version: version(),
                    message: "is not a registered function/op".into(),
                },
                EngineError::TooOld { model: model(), version: version(), message: "x".into() },
                EngineError::MissingInput { name: "x".into(), given: vec![] },
                EngineError::CustomOps { path: "lib.so".into(), reason: "none".into() },
            ]
        };
        for (sent, before) in errors().into_iter().zip(errors()) {
            let json = serde_json::to_string(&Fault::from(sent)).unwrap();
            let back: EngineError = serde_json::from_str::<Fault>(&json).unwrap().into();
            assert_eq!(back.code(), before.code());
            assert_eq!(back.to_string(), before.to_string());
            assert_eq!(back.hint(), before.hint());
        }
    }
}
