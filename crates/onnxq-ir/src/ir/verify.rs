//! The invariants of a model. A broken one is our bug, not the user's.

use super::{Def, GraphId, Model, Use, User, ValueId};
use crate::diag::{Code, Diagnostic};

/// A broken invariant: which, and where.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{0}")]
pub struct Broken(pub String);

/// What a file can do wrong is found when it is read: this is a bug of whoever changed the model.
impl Diagnostic for Broken {
    fn code(&self) -> Code {
        Code::E999
    }
}

impl Model {
    /// Use lists match inputs; every use comes after its definition, or is a constant, an input
    /// or a value of a graph around it.
    pub fn verify(&self) -> Result<(), Broken> {
        let mut uses: Vec<(ValueId, Use)> = Vec::new();
        let roots = std::iter::once(self.main).chain(self.functions.iter().map(|it| it.body));
        let mut seen = vec![false; self.value_count()];
        for root in roots {
            self.verify_graph(root, &mut seen, &mut uses)?;
        }
        uses.sort();
        let mut recorded: Vec<(ValueId, Use)> =
            self.values().flat_map(|(id, it)| it.uses.iter().map(move |it| (id, *it))).collect();
        recorded.sort();
        if uses == recorded {
            return Ok(());
        }
        if let Some((id, _)) = uses
            .iter()
            .find(|it| recorded.binary_search(it).is_err())
            .or_else(|| recorded.iter().find(|it| uses.binary_search(it).is_err()))
        {
            return Err(Broken(format!("use list of `{}`", self.value(*id).name)));
        }
        Ok(())
    }

    fn verify_graph(
        &self,
        id: GraphId,
        seen: &mut [bool],
        uses: &mut Vec<(ValueId, Use)>,
    ) -> Result<(), Broken> {
        let graph = self.graph(id);
        let mut own = graph.inputs.clone();
        graph.inputs.iter().for_each(|it| seen[it.index()] = true);
        for node in self.nodes_of(id) {
            let it = self.node(node);
            if it.graph != id {
                return Err(Broken(format!("`{}` lies in another graph", self.node_label(node))));
            }
            for (index, value) in it.inputs.iter().enumerate() {
                let Some(value) = *value else { continue };
                self.verify_use(value, seen)?;
                uses.push((value, Use { user: User::Node(node), index }));
            }
            for inner in it.attrs.graphs() {
                if self.graph(inner).parent != Some(node) {
                    return Err(Broken(format!("parent of a body of `{}`", self.node_label(node))));
                }
                self.verify_graph(inner, seen, uses)?;
            }
            own.extend(&it.outputs);
            for &output in &it.outputs {
                let Def::Node(def) = self.value(output).def else {
                    return Err(Broken(format!("`{}` is not computed", self.value(output).name)));
                };
                if def != node || std::mem::replace(&mut seen[output.index()], true) {
                    return Err(Broken(format!(
                        "`{}` has two definitions",
                        self.value(output).name
                    )));
                }
            }
        }
        for (index, &value) in graph.outputs.iter().enumerate() {
            self.verify_use(value, seen)?;
            uses.push((value, Use { user: User::Output(id), index }));
        }
        for (index, it) in graph.annotations.iter().enumerate() {
            uses.extend(
                it.params
                    .iter()
                    .map(|(_, value)| (*value, Use { user: User::Annotation(id), index })),
            );
        }
        // Nobody outside sees them; a copy of the set for each body would be quadratic.
        own.iter().for_each(|it| seen[it.index()] = false);
        Ok(())
    }

    fn verify_use(&self, value: ValueId, seen: &[bool]) -> Result<(), Broken> {
        match self.value(value).def {
            Def::Const(_) | Def::Sparse(_) => Ok(()),
            _ if seen[value.index()] => Ok(()),
            _ => Err(Broken(format!("`{}` is used before it is defined", self.value(value).name))),
        }
    }
}
