//! The configuration of a model that lost layers or hidden channels.

use serde_json::{Map, Value};

/// What families call the number of layers.
const LAYERS: &[&str] = &["n_layer", "n_layers", "num_hidden_layers", "num_layers"];
/// What families call the width of a feed-forward block.
const WIDTHS: &[&str] = &["hidden_dim", "intermediate_size", "n_inner"];
/// Lists with an entry for each layer.
const LISTS: &[&str] =
    &["attention_layers", "layer_types", "layers_block_type", "mlp_layer_types", "no_rope_layers"];
/// Where a configuration has that of its language model.
const NESTED: &[&str] = &["decoder", "model", "text_config"];

/// A configuration with the layers `kept`, by their numbers in the whole model, and feed-forward
/// blocks of `width` hidden channels where that is given. Other fields stay as they are.
///
/// Lists with an entry for each layer keep those of `kept`. What a rule over all layers said, as every
/// sixth layer of Gemma 3 sees the whole text, is stated layer by layer.
pub fn config_with(config: &Value, kept: &[usize], width: Option<usize>) -> Value {
    let Value::Object(fields) = config else { return config.clone() };
    let mut fields = fields.clone();
    for name in NESTED {
        if let Some(inner) = fields.get_mut(*name).filter(|it| it.is_object()) {
            *inner = config_with(inner, kept, width);
        }
    }
    let layers = LAYERS.iter().find_map(|it| size(&fields, it));
    if let Some(layers) = layers {
        let types = layer_types(&fields, layers);
        if let Some(types) = types.filter(|_| kept.len() != layers) {
            fields.insert("layer_types".into(), types.into());
        }
        for name in LISTS {
            if let Some(value) = fields.get_mut(*name) {
                keep(value, layers, kept);
            }
        }
        if let Some(first) = size(&fields, "max_window_layers").filter(|it| *it < layers) {
            let before = kept.iter().filter(|it| **it < first).count();
            fields.insert("max_window_layers".into(), before.into());
        }
    }
    for name in LAYERS.iter().filter(|_| layers.is_some()) {
        if fields.contains_key(*name) {
            fields.insert((*name).into(), kept.len().into());
        }
    }
    if let Some(width) = width {
        narrow(&mut fields, width);
    }
    Value::Object(fields)
}

fn size(fields: &Map<String, Value>, name: &str) -> Option<usize> {
    fields.get(name)?.as_u64().and_then(|it| usize::try_from(it).ok())
}

/// The entries of layers that stay.
fn keep(value: &mut Value, layers: usize, kept: &[usize]) {
    if let Value::Array(list) = value
        && list.len() == layers
    {
        *list = kept.iter().filter_map(|it| list.get(*it).cloned()).collect();
    }
}

/// The kinds of layers, where a rule and no list says them.
fn layer_types(fields: &Map<String, Value>, layers: usize) -> Option<Vec<Value>> {
    if fields.get("layer_types").is_some_and(|it| !it.is_null()) {
        return None;
    }
    let is_local = |layer: usize| match fields.get("model_type")?.as_str()? {
        "gemma2" => Some(layer.is_multiple_of(2)),
        "gemma3" | "gemma3_text" => {
            let every = size(fields, "sliding_window_pattern").unwrap_or(6).max(1);
            Some(!(layer + 1).is_multiple_of(every))
        }
        _ => None,
    };
    let name = |local: bool| if local { "sliding_attention" } else { "full_attention" };
    (0..layers).map(|it| is_local(it).map(|it| name(it).into())).collect()
}

/// Where a configuration leaves the width out, as GPT-2's does, it is stated now.
fn narrow(fields: &mut Map<String, Value>, width: usize) {
    let mut stated = false;
    for name in WIDTHS {
        // Models with convolutions or embeddings of their own call other sizes so, in lists.
        if let Some(value) = fields.get_mut(*name).filter(|it| it.is_u64() || it.is_null()) {
            *value = width.into();
            stated = true;
        }
    }
    if !stated && fields.contains_key("n_layer") {
        fields.insert("n_inner".into(), width.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_familys_words_are_known() {
        let llama = json!({"num_hidden_layers": 4, "intermediate_size": 352, "hidden_size": 128,
            "rope_scaling": null, "eos_token_id": [1, 2]});
        let expected = json!({"num_hidden_layers": 2, "intermediate_size": 300, "hidden_size": 128,
            "rope_scaling": null, "eos_token_id": [1, 2]});
        assert_eq!(config_with(&llama, &[0, 3], Some(300)), expected);
        let gpt2 = json!({"n_layer": 3, "n_inner": null, "n_embd": 8});
        let expected = json!({"n_layer": 1, "n_inner": 20, "n_embd": 8});
        assert_eq!(config_with(&gpt2, &[1], Some(20)), expected);
        let silent = json!({"n_layer": 3});
        let stated = json!({"n_layer": 3, "n_inner": 20});
        assert_eq!(config_with(&silent, &[0, 1, 2], Some(20)), stated);
        let distilbert = json!({"n_layers": 2, "hidden_dim": 30});
        assert_eq!(config_with(&distilbert, &[1], None), json!({"n_layers": 1, "hidden_dim": 30}));
        let genai = json!({"model": {"decoder": {"num_hidden_layers": 4}, "vocab_size": 9}});
        let expected = json!({"model": {"decoder": {"num_hidden_layers": 1}, "vocab_size": 9}});
        assert_eq!(config_with(&genai, &[2], None), expected);
        assert_eq!(config_with(&json!([1]), &[0], Some(1)), json!([1]));
    }

    #[test]
    fn lists_by_layer_keep_their_entries() {
        let config = json!({"num_hidden_layers": 3, "layer_types": ["a", "b", "c"],
            "max_window_layers": 2, "eos_token_id": [1, 2, 3]});
        let smaller = config_with(&config, &[0, 2], None);
        let expected = json!({"num_hidden_layers": 2, "layer_types": ["a", "c"],
            "max_window_layers": 1, "eos_token_id": [1, 2, 3]});
        assert_eq!(smaller, expected);
        assert_eq!(config_with(&config, &[0, 1, 2], None), config);
        let gemma = json!({"model_type": "gemma2", "num_hidden_layers": 3});
        let types = json!(["sliding_attention", "sliding_attention"]);
        assert_eq!(config_with(&gemma, &[0, 2], None)["layer_types"], types);
    }
}
