//! What a recipe for GGUF files can say.

use super::{Entry, Recipe, RecipeError};
use crate::format::GGUF;

/// The graph of a GGUF file is llama.cpp's own: nothing but types of weights can be chosen.
pub(super) fn check(recipe: &Recipe) -> Result<(), RecipeError> {
    let conflict = |at, what: &str| {
        let what = format!("{what}: the graph of a GGUF file is llama.cpp's own");
        Err(RecipeError::Conflict { at, what })
    };
    let given = [
        ("prepare", recipe.prepare.is_some()),
        ("transforms", recipe.transforms.as_ref().is_some_and(|it| !it.is_empty())),
        ("adapt", recipe.adapt.is_some()),
        ("distil", recipe.distil.is_some()),
    ];
    if let Some((key, _)) = given.into_iter().find(|it| it.1) {
        return conflict(recipe.place.at(key), &format!("`{key}` does not go with format `gguf`"));
    }
    let others = |it: &&Entry| it.format.iter().flatten().any(|it| it != GGUF.name);
    match recipe.quantize.iter().find(others) {
        Some(it) => {
            conflict(it.place.at("format"), "one format of a recipe is `gguf`, this is another")
        }
        None => Ok(()),
    }
}
