//! Whether past and present of a model may be one buffer.

use super::super::roles::{Role, role};
use onnxq_ir::{Model, NodeId, ValueId};

/// The operator that writes new tokens behind old ones if both are one buffer, and where it takes them.
const OPERATOR: &str = "com.microsoft.GroupQueryAttention";
const PAST: [usize; 2] = [3, 4];

/// Whether the past goes nowhere but into operators that can write behind it.
pub fn shares_buffer(model: &Model) -> bool {
    let graph = model.graph(model.main);
    let name = |it: &ValueId| &*model.value(*it).name;
    let past = graph.inputs.iter().filter(|it| role(name(it)) == Some(Role::Past));
    let mut past = past.copied().peekable();
    past.peek().is_some() && past.all(|it| writes_behind(model, it))
}

fn writes_behind(model: &Model, past: ValueId) -> bool {
    let Ok(user) = model.only_use(past) else { return false };
    let node = model.node(user);
    node.op.is(OPERATOR) && gives_present(model, user, past)
}

/// The output that belongs to the past is one of the model's.
fn gives_present(model: &Model, node: NodeId, past: ValueId) -> bool {
    let node = model.node(node);
    let at = PAST.iter().position(|it| node.inputs.get(*it) == Some(&Some(past)));
    let present = at.and_then(|it| node.outputs.get(it + 1).copied());
    present.is_some_and(|it| model.is_output(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ends: &str) -> bool {
        let text = format!(
            "<ir_version: 10, opset_import: [\"\" : 21, \"com.microsoft\" : 1]>
            main (float[b,s,32] q, float[b,2,p,8] past_key_0, float[b,2,p,8] past_value_0,
                  int32[b] lengths, int32[1] total)
                => (float[b,s,32] logits, float[b,2,p,8] present_key_0, float[b,2,p,8] present_value_0)
            {{
                logits, k, v = com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2>
                    (q, q, q, past_key_0, past_value_0, lengths, total)
                {ends}
            }}"
        );
        shares_buffer(&onnxq_ir::text::parse(&text).unwrap())
    }

    #[test]
    fn the_operator_must_have_past_and_present_for_itself() {
        assert!(!of("present_key_0 = Identity (k) present_value_0 = Identity (v)"));
        let direct = "<ir_version: 10, opset_import: [\"\" : 21, \"com.microsoft\" : 1]>
            main (float[b,s,32] q, float[b,2,p,8] past_key_0, float[b,2,p,8] past_value_0,
                  int32[b] lengths, int32[1] total)
                => (float[b,s,32] logits, float[b,2,p,8] present_key_0, float[b,2,p,8] present_value_0)
            {
                logits, present_key_0, present_value_0 =
                    com.microsoft.GroupQueryAttention <num_heads = 4, kv_num_heads = 2>
                    (q, q, q, past_key_0, past_value_0, lengths, total)
            }";
        assert!(shares_buffer(&onnxq_ir::text::parse(direct).unwrap()));
        let none = "main (float[n] x) => (float[n] y) { y = Identity (x) }";
        assert!(!shares_buffer(&onnxq_ir::text::parse(none).unwrap()));
    }
}
