//! temp
use super::{Model, Name};
pub fn unique_names(model: &Model) -> Vec<Name> {
    let mut seen = std::collections::BTreeSet::new();
    model
        .values()
        .map(|(_, v)| {
            let mut n = v.name.clone();
            let mut k = 0;
            if v.name.is_empty() && v.uses.is_empty() {
                return n;
            }
            while n.is_empty() || !seen.insert(n.clone()) {
                k += 1;
                n = format!("{}_{k}", v.name).into();
            }
            n
        })
        .collect()
}
pub fn unique_node_names(model: &Model) -> Vec<Name> {
    let max = model.nodes().iter().map(|it| it.index()).max().map_or(0, |it| it + 1);
    let mut out: Vec<Name> = vec!["".into(); max];
    let mut seen = std::collections::BTreeSet::new();
    for id in model.nodes() {
        let base = model.node(id).name.clone();
        let mut n = base.clone();
        let mut k = 0;
        if base.is_empty() {
            continue;
        }
        while !seen.insert(n.clone()) {
            k += 1;
            n = format!("{base}_{k}").into();
        }
        out[id.index()] = n;
    }
    out
}
