//! `AttributeProto` → `Attr`, subgraphs included.

use std::sync::Arc;

use prost::Message;

use super::{
    LoadError,
    graph_in::GraphReader,
    proto::{self, GraphProto},
};
use crate::ir::{Attr, GraphId};

impl<'a> GraphReader<'a> {
    /// The attribute; `None` if the message has no value.
    pub(super) fn attr(
        &mut self,
        it: &'a proto::AttributeProto,
    ) -> Result<Option<Attr>, LoadError> {
        use proto::attribute_proto::AttributeType as Type;
        if let Some(name) = it.ref_attr_name.as_deref().filter(|it| !it.is_empty()) {
            return Ok(Some(Attr::Ref { name: name.into(), kind: it.r#type.unwrap_or(0) }));
        }
        Ok(Some(match it.r#type() {
            Type::Float => Attr::Float(it.f()),
            Type::Int => Attr::Int(it.i()),
            Type::String => Attr::String(it.s.clone().unwrap_or_default()),
            Type::Tensor => match &it.t {
                Some(tensor) => Attr::Tensor(self.tensors.tensor(tensor)?),
                None => return Ok(None),
            },
            Type::Graph => match &it.g {
                Some(graph) => Attr::Graph(self.subgraph(graph)?),
                None => return Ok(None),
            },
            Type::SparseTensor => match &it.sparse_tensor {
                Some(sparse) => Attr::Sparse(Arc::new(self.tensors.sparse(sparse)?)),
                None => return Ok(None),
            },
            Type::TypeProto => match &it.tp {
                Some(ty) => Attr::Type(ty.encode_to_vec().into()),
                None => return Ok(None),
            },
            Type::Floats => Attr::Floats(it.floats.clone()),
            Type::Ints => Attr::Ints(it.ints.clone()),
            Type::Strings => Attr::Strings(it.strings.clone()),
            Type::Tensors => {
                let list = it.tensors.iter().map(|it| self.tensors.tensor(it));
                Attr::Tensors(list.collect::<Result<_, _>>()?)
            }
            Type::Graphs => {
                let list = it.graphs.iter().map(|it| self.subgraph(it));
                Attr::Graphs(list.collect::<Result<_, _>>()?)
            }
            Type::SparseTensors => {
                let list = it.sparse_tensors.iter().map(|it| self.tensors.sparse(it).map(Arc::new));
                Attr::Sparses(list.collect::<Result<_, _>>()?)
            }
            Type::TypeProtos => {
                Attr::Types(it.type_protos.iter().map(|it| it.encode_to_vec().into()).collect())
            }
            Type::Undefined => return Ok(None),
        }))
    }

    fn subgraph(&mut self, proto: &'a GraphProto) -> Result<GraphId, LoadError> {
        let id = self.model.add_graph();
        self.graph(id, proto)?;
        Ok(id)
    }
}
