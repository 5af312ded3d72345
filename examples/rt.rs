use onnxq::{codes::Fault, ctx::Ctx, onnx::*};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let t = std::time::Instant::now();
    match open(a[1].as_ref(), &OpenOptions::default()) {
        Err(e) => {
            println!("{} {e}", e.code());
            std::process::exit(3)
        }
        Ok(l) => {
            println!(
                "ok {} nodes, {:?}, warnings {:?}",
                l.model.node_count(),
                t.elapsed(),
                l.warnings
            );
            l.model.verify().unwrap();
            if let Some(o) = a.get(2) {
                let ext = if a.len() > 3 { ExternalData::Always } else { ExternalData::Auto };
                match save(
                    &l.model,
                    o.as_ref(),
                    &SaveOptions { external: ext, force: true },
                    Some(&l.files),
                    &Ctx::silent(),
                ) {
                    Ok(s) => println!("{:?}", s.files),
                    Err(e) => {
                        println!("{} {e} {:?}", e.code(), std::error::Error::source(&e));
                        std::process::exit(5)
                    }
                }
            }
        }
    }
}
