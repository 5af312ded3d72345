use onnxq::{
    calibrate::*, ctx::Ctx, engine::RuntimeOptions, onnx, quant::stats::Needs, rewrite,
    tensor::Tensor,
};
fn anon() -> String {
    let s = std::fs::read_to_string("/proc/self/status").unwrap();
    s.lines()
        .filter(|l| l.starts_with("RssAnon") || l.starts_with("VmHWM"))
        .collect::<Vec<_>>()
        .join(" ")
}
fn main() {
    let args: Vec<String> = std::env::args().collect();
    let loaded = onnx::open(args[1].as_ref(), &Default::default()).unwrap();
    let mut model = loaded.model;
    let steps: Vec<String> = rewrite::STANDARD.iter().map(|it| it.to_string()).collect();
    rewrite::run(&mut model, &steps, &Ctx::silent()).unwrap();
    println!("prepared {}", anon());
    let dir = tempfile::tempdir().unwrap();
    let mut npy = b"\x93NUMPY\x01\x00".to_vec();
    let mut h = "{'descr': '<i8', 'fortran_order': False, 'shape': (4, 128), }".to_string();
    while (10 + h.len() + 1) % 64 != 0 {
        h.push(' ')
    }
    h.push('\n');
    npy.extend((h.len() as u16).to_le_bytes());
    npy.extend(h.bytes());
    for i in 0..512i64 {
        npy.extend(((i * 7919) % 32000).to_le_bytes())
    }
    let f = dir.path().join("ids.npy");
    std::fs::write(&f, npy).unwrap();
    let inputs = model_inputs(&model);
    let batches = open(&f, &inputs, &DataOptions::default()).unwrap();
    let mut wants = vec![];
    for n in model.nodes() {
        let it = model.node(n);
        if it.op.is("MatMul") && model.constant(it.inputs[1].unwrap()).is_ok() {
            let value = it.inputs[0].unwrap();
            if can_observe(&model, value).is_ok() {
                wants.push(Want { value, needs: Needs::Diagonal })
            }
        }
    }
    let _ = Tensor::scalar(0.0);
    let options = CollectOptions {
        memory: args[2].parse::<u64>().unwrap() << 20,
        threads: args[3].parse().unwrap(),
        sequential: args.get(4).is_some(),
    };
    let t = std::time::Instant::now();
    let rt = RuntimeOptions::default();
    let mut c = Collector::new(&model, &loaded.files, wants, batches, options, &rt, None).unwrap();
    while let Some(s) = c.next(&[], &Ctx::silent()).unwrap() {
        println!(
            "{} stats, k {}, rows {}, {:?} {}",
            s.len(),
            s[0].1.k(),
            s[0].1.rows,
            t.elapsed(),
            anon()
        );
    }
}
