//! Which parts of a chat the assistant says, found by rendering it up to each turn and beyond.

use super::{cut::Piece, record::Wrong};
use crate::data::{ChatTemplate, DataError, Vocabulary};

/// A part of the text, and whether the assistant says it.
pub(super) type Span = (String, bool);

const UNSTABLE: &str = "write one line for each answer, which ends with it, or lines of {\"prompt\": …, \
    \"response\": …}";

/// The text of a chat in parts. What a template writes after the role of an answer, up to where the next
/// message begins, is the assistant's.
pub(super) fn spans(
    template: &ChatTemplate,
    messages: &[(String, String)],
) -> Result<Vec<Span>, Wrong> {
    let list: Vec<(&str, &str)> = messages.iter().map(|it| (&*it.0, &*it.1)).collect();
    let render = |count: usize, generation: bool| {
        template.render(&list[..count], generation).map_err(|it| Wrong {
            fact: format!("has messages that the model's chat template does not take: {it}"),
            hint: None,
        })
    };
    let last = list.iter().rposition(|it| it.0 == "assistant").map_or(0, |it| it + 1);
    let text = render(last, false)?;
    let (mut spans, mut done): (Vec<Span>, usize) = (Vec::new(), 0);
    for at in (0..last).filter(|it| list[*it].0 == "assistant") {
        let before = render(at, true)?;
        let after = if at + 1 == last { text.clone() } else { render(at + 1, false)? };
        let is_stable = text.starts_with(&before)
            && text.starts_with(&after)
            && (done..after.len()).contains(&before.len());
        if !is_stable {
            let fact = format!(
                "has an answer in message {at} that the model's chat template writes in another way \
                 once more follows, so that its tokens cannot be told"
            );
            return Err(Wrong::new(fact, UNSTABLE));
        }
        spans.push((text[done..before.len()].to_owned(), false));
        spans.push((text[before.len()..after.len()].to_owned(), true));
        done = after.len();
    }
    Ok(spans)
}

/// The tokens of the parts. Of an answer they count up to the special token that ends it: what a
/// template writes behind that is not the model's to say.
pub(super) fn encode(vocabulary: &Vocabulary, spans: &[Span]) -> Result<Piece, DataError> {
    let mut piece = Piece::default();
    for (text, is_answer) in spans {
        let ids = vocabulary.encode(text, false)?;
        let end =
            ids.iter().rposition(|it| vocabulary.is_special(*it)).map_or(ids.len(), |it| it + 1);
        let counted = if *is_answer { end } else { 0 };
        piece.push(&ids[..counted], true);
        piece.push(&ids[counted..], false);
    }
    Ok(piece)
}
