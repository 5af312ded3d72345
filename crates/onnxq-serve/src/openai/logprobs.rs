//! How likely tokens were, in both of OpenAI's forms.

use serde_json::{Map, Value, json};

use onnxq_run::answer::TokenLogprob;

/// Of a message: an object for each token.
pub(super) fn of_chat(tokens: &[TokenLogprob]) -> Value {
    let one = |token: &str, logprob: Option<f32>| json!({"token": token, "logprob": logprob, "bytes": token.as_bytes()});
    let all = tokens.iter().map(|it| {
        let mut object = one(&it.token, it.logprob);
        let top = it.top.iter().map(|it| one(&it.token, Some(it.logprob)));
        object["top_logprobs"] = top.collect();
        object
    });
    json!({"content": all.collect::<Value>(), "refusal": null})
}

/// Of a text: a list for each property. `offset` is where the first token begins, in characters.
pub(super) fn of_text(tokens: &[TokenLogprob], mut offset: usize) -> Value {
    let mut offsets = Vec::new();
    for token in tokens {
        offsets.push(offset);
        offset += token.token.chars().count();
    }
    json!({
        "tokens": tokens.iter().map(|it| &it.token).collect::<Vec<_>>(),
        "token_logprobs": tokens.iter().map(|it| it.logprob).collect::<Vec<_>>(),
        "top_logprobs": tokens.iter().map(top).collect::<Vec<_>>(),
        "text_offset": offsets,
    })
}

/// The most likely tokens and the one that came. Of tokens with equal texts the likeliest counts,
/// which stands first.
fn top(token: &TokenLogprob) -> Value {
    let Some(own) = token.logprob else { return Value::Null };
    let mut map = Map::new();
    let all = token.top.iter().map(|it| (&it.token, it.logprob));
    for (text, logprob) in all.chain([(&token.token, own)]) {
        map.entry(text.clone()).or_insert_with(|| json!(logprob));
    }
    Value::Object(map)
}

#[cfg(test)]
mod tests {
    use super::*;
    use onnxq_run::answer::TopLogprob;

    #[test]
    fn both_forms_have_every_token() {
        let top = |token: &str, logprob| TopLogprob { token: token.into(), id: 0, logprob };
        let tokens = [
            TokenLogprob { token: "é".into(), id: 1, logprob: None, top: vec![] },
            TokenLogprob {
                token: " b".into(),
                id: 2,
                logprob: Some(-2.0),
                top: vec![top(" c", -0.5), top(" c", -1.5)],
            },
        ];
        let text = of_text(&tokens, 3);
        assert_eq!(text["text_offset"], json!([3, 4]));
        assert_eq!(text["token_logprobs"], json!([null, -2.0]));
        assert_eq!(text["top_logprobs"], json!([null, {" b": -2.0, " c": -0.5}]));
        let chat = of_chat(&tokens);
        assert_eq!(chat["content"][0]["bytes"], json!([195, 169]));
        assert_eq!(chat["content"][1]["top_logprobs"][1]["logprob"], json!(-1.5));
    }
}
