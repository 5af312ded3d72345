//! What becomes of which weight.

use std::fmt;

use onnxq_quant::recipe;

use super::Error;

/// A recipe: which weights get which bits, how, and what is judged afterwards.
#[derive(Clone)]
pub struct Recipe {
    pub(crate) inner: recipe::Recipe,
}

/// The names of the shipped recipes, in alphabetical order.
pub fn recipes() -> impl Iterator<Item = &'static str> {
    recipe::SHIPPED.iter().map(|it| it.0)
}

impl Recipe {
    /// A shipped recipe by its name, or a YAML file by its path.
    ///
    /// # Errors
    /// E701 to E706 with line and column; E705 if there is no such recipe.
    pub fn load(name_or_path: &str) -> Result<Recipe, Error> {
        Ok(Recipe { inner: recipe::load(name_or_path).map_err(Error::of)? })
    }

    /// Changes one value, as `--set` does: `quantize.0.weight.solver=hqq`.
    ///
    /// # Errors
    /// E701 or E703 if there is no such key or it cannot be that.
    pub fn set(&self, assignment: &str) -> Result<Recipe, Error> {
        Ok(Recipe { inner: recipe::apply_set(&self.inner, assignment).map_err(Error::of)? })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The recipe in full, whatever it extends.
    pub fn to_yaml(&self) -> String {
        recipe::to_yaml(&self.inner)
    }
}

impl fmt::Debug for Recipe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Recipe").field(&self.inner.name).finish()
    }
}
