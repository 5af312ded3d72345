use onnxq::{
    ctx::Ctx,
    onnx::*,
    quant::{format::*, ops::*, plan::*, scheme::*, solve::*, *},
    tensor::Zeros,
};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let (mode, bits, block, sym) = (
        a[3].as_str(),
        a[4].parse::<u32>().unwrap(),
        a[5].parse::<usize>().unwrap(),
        a[6] == "sym",
    );
    let t = std::time::Instant::now();
    let mut l = open(a[1].as_ref(), &OpenOptions::default()).unwrap();
    let m = &mut l.model;
    let mut plan = Plan::default();
    for node in m.nodes() {
        if let Some(Ok(s)) = site(m, node) {
            if m.constant(s.weight).unwrap().numel() < 4096 {
                continue;
            }
            let (fmt, scheme, act) = if s.kind == Weight::Gather {
                (
                    "gather_block_quantized",
                    Scheme {
                        bits: 8,
                        zeros: Zeros::Symmetric,
                        granularity: Granularity::Block(128),
                        range: Range::Full,
                    },
                    None,
                )
            } else if mode == "nbits" {
                (
                    "matmul_nbits",
                    Scheme {
                        bits,
                        zeros: if sym { Zeros::Symmetric } else { Zeros::Asymmetric },
                        granularity: Granularity::Block(block),
                        range: Range::Full,
                    },
                    None,
                )
            } else {
                (
                    if mode == "fused" { "dynamic_fused" } else { "dynamic" },
                    Scheme {
                        bits: 8,
                        zeros: Zeros::Symmetric,
                        granularity: Granularity::Channel,
                        range: Range::Full,
                    },
                    Some(if mode == "row" { Activation::Row } else { Activation::Tensor }),
                )
            };
            let f = format(fmt).unwrap();
            match (f.scheme)(scheme, act) {
                Ok(scheme) => plan.sites.push(SitePlan {
                    site: s,
                    scheme,
                    solver: SolverSpec::Rtn,
                    activation: act,
                    format: f,
                }),
                Err(e) => println!("kept {}: {e}", m.node_label(node)),
            }
        }
    }
    println!("{} sites", plan.sites.len());
    insert::quantize(m, &plan);
    m.verify().unwrap();
    let n = lower(m, FORMATS).unwrap();
    m.remove_all_dead();
    m.verify().unwrap();
    println!("lowered {n} {:?}", t.elapsed());
    let s = save(
        m,
        a[2].as_ref(),
        &SaveOptions { force: true, ..Default::default() },
        Some(&l.files),
        &Ctx::silent(),
    )
    .unwrap();
    println!("{:?} {:?}", s.files, t.elapsed());
}
