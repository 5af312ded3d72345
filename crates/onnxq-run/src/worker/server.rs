//! The worker's side: one request in, one answer out.

use std::io::{self, Read, Write};

use super::{Answer, Refusal, Request, footprint};
use onnxq_ir::diag::Code;

/// Reads a request, does what it says, and writes the answer.
pub fn serve(mut input: impl Read, mut output: impl Write) -> io::Result<()> {
    let mut text = String::new();
    input.read_to_string(&mut text)?;
    let answer = match serde_json::from_str(&text) {
        Ok(request) => answer(&request),
        Err(error) => Answer::Refused(Refusal {
            code: Code::E999.name().to_owned(),
            message: format!("the request was not understood: {error}"),
            hint: None,
        }),
    };
    serde_json::to_writer(&mut output, &answer)?;
    output.flush()
}

/// What comes of a request; errors are answers too.
pub fn answer(request: &Request) -> Answer {
    match request {
        Request::Footprint(job) => {
            footprint::measure(job).map_or_else(Answer::Refused, Answer::Footprint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::FootprintJob;

    fn served(request: &str) -> Answer {
        let mut output = Vec::new();
        serve(request.as_bytes(), &mut output).unwrap();
        serde_json::from_slice(&output).unwrap()
    }

    #[test]
    fn what_cannot_be_done_or_understood_is_answered() {
        let job = FootprintJob {
            model: "/nonexistent/m.onnx".into(),
            data: "/nonexistent/x.npy".into(),
            tokenizer: None,
            preprocess: None,
            open: Default::default(),
            threads: 1,
            library: "/nonexistent".into(),
            custom_ops: Vec::new(),
        };
        let request = serde_json::to_string(&Request::Footprint(job)).unwrap();
        let Answer::Refused(it) = served(&request) else { panic!("not refused") };
        assert_eq!(it.code, "E905");
        assert!(it.message.contains("m.onnx"), "{}", it.message);
        let Answer::Refused(it) = served("{}") else { panic!("not refused") };
        assert_eq!(it.code, "E999");
    }
}
