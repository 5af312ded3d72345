//! The parameters of an architecture, in the order of the graph.

use super::{
    Architecture, Attention, Block, Embedding, Head, Linear, Mlp, Norm, Param, Qkv, Sublayer,
};

impl Architecture {
    /// Every tensor that it reads; what is used in several places or in parts, as often.
    pub fn params(&self) -> Vec<&Param> {
        let mut list = Vec::new();
        self.embedding.collect(&mut list);
        self.blocks.iter().for_each(|it| it.collect(&mut list));
        self.norm.iter().for_each(|it| it.collect(&mut list));
        self.head.collect(&mut list);
        list
    }

    /// The products of blocks, and that of a head over the vocabulary.
    pub fn linears(&self) -> Vec<&Linear> {
        let mut list = Vec::new();
        for block in &self.blocks {
            let (attention, mlp) = (&block.attention.body, &block.mlp.body);
            match &attention.qkv {
                Qkv::Apart(three) => list.extend(three.iter()),
                Qkv::Joint(one) => list.push(one),
            }
            list.extend([&attention.out, &mlp.up, &mlp.down]);
            list.extend(&mlp.gate);
        }
        if let Head::Tokens { weight, .. } = &self.head {
            list.push(weight);
        }
        list
    }
}

impl Embedding {
    fn collect<'a>(&'a self, list: &mut Vec<&'a Param>) {
        list.push(&self.words);
        list.extend(self.positions.as_ref().map(|it| &it.table));
        list.extend(&self.types);
        self.norm.iter().for_each(|it| it.collect(list));
    }
}

impl Block {
    fn collect<'a>(&'a self, list: &mut Vec<&'a Param>) {
        self.attention.collect(list, Attention::collect);
        self.mlp.collect(list, Mlp::collect);
    }
}

impl<T> Sublayer<T> {
    fn collect<'a>(&'a self, list: &mut Vec<&'a Param>, body: fn(&'a T, &mut Vec<&'a Param>)) {
        self.input_norm.iter().for_each(|it| it.collect(list));
        body(&self.body, list);
        self.output_norm.iter().for_each(|it| it.collect(list));
        self.sum_norm.iter().for_each(|it| it.collect(list));
    }
}

impl Attention {
    fn collect<'a>(&'a self, list: &mut Vec<&'a Param>) {
        match &self.qkv {
            Qkv::Apart(three) => three.iter().for_each(|it| it.collect(list)),
            Qkv::Joint(one) => one.collect(list),
        }
        self.q_norm.iter().chain(&self.k_norm).for_each(|it| it.collect(list));
        self.out.collect(list);
    }
}

impl Mlp {
    fn collect<'a>(&'a self, list: &mut Vec<&'a Param>) {
        self.gate.iter().for_each(|it| it.collect(list));
        self.up.collect(list);
        self.down.collect(list);
    }
}

impl Head {
    fn collect<'a>(&'a self, list: &mut Vec<&'a Param>) {
        match self {
            Head::Hidden | Head::Sentence { .. } => {}
            Head::Tokens { weight: out, .. } | Head::TokenClasses(out) => out.collect(list),
            Head::Classes { hidden, out } => {
                hidden.iter().for_each(|it| it.0.collect(list));
                out.collect(list);
            }
        }
    }
}

impl Linear {
    fn collect<'a>(&'a self, list: &mut Vec<&'a Param>) {
        list.push(&self.weight);
        list.extend(&self.bias);
    }
}

impl Norm {
    fn collect<'a>(&'a self, list: &mut Vec<&'a Param>) {
        list.push(&self.weight);
        list.extend(&self.bias);
    }
}
