//! What the user should know although nothing failed.

use std::fmt;

use serde::{Serialize, Serializer};

use super::Code;

/// Something that the user should know although nothing failed. Shown and serialized as a text:
/// `W405: the nodes of graph `main` were not sorted`.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Warning {
    /// What `onnxq explain` knows it by; remarks that need no explanation have none.
    pub code: Option<Code>,
    /// A line, names from files in it escaped.
    pub message: String,
}

impl Warning {
    /// A warning that `onnxq explain` has more to say about.
    pub fn new(code: Code, message: impl Into<String>) -> Warning {
        Warning { code: Some(code), message: message.into() }
    }

    /// A warning that says everything itself.
    pub fn remark(message: impl Into<String>) -> Warning {
        Warning { code: None, message: message.into() }
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(code) = self.code {
            write!(f, "{code}: ")?;
        }
        f.write_str(&self.message)
    }
}

impl Serialize for Warning {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_stands_before_the_message() {
        let coded = Warning::new(Code::W210, "tensors overlap");
        assert_eq!(serde_json::to_value(coded).unwrap(), "W210: tensors overlap");
        assert_eq!(Warning::remark("slow").to_string(), "slow");
    }
}
