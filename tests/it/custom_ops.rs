//! Operators of libraries: `--custom-ops`.

use crate::{
    common::outside::run,
    odd_outputs::{Case, constant},
};

fn model() -> String {
    let (w, v) = (constant("w", &[32, 32], 1), constant("v", &[32, 32], 2));
    format!(
        r#"<ir_version: 8, opset_import: ["" : 17, "my.ops" : 1]>
main (float[n,32] x) => (float[n,32] y) <{w}, {v}> {{
   a = MatMul (x, w)
   b = my.ops.Squash (a)
   y = MatMul (b, v)
}}"#
    )
}

#[test]
fn who_lacks_an_operator_is_told_of_the_flag() {
    let case = Case::new(&model(), &[8, 32]);
    for ran in [case.quantize("avx512_vnni_static", &[]), case.validate(&[])] {
        assert_eq!(ran.code, 5, "{}", ran.error);
        for part in ["E803", "my.ops:Squash", "--custom-ops LIB"] {
            assert!(ran.error.contains(part), "{part}: {}", ran.error);
        }
    }
}

#[test]
fn a_library_that_is_none_is_named_before_anything_is_written() {
    let case = Case::new(&model(), &[8, 32]);
    let absent = case.place.path("absent.so");
    let ran = case.quantize("avx512_vnni", &["--custom-ops", &absent]);
    assert_eq!(ran.code, 2, "{}", ran.error);
    assert!(ran.error.contains("E905") && ran.error.contains("--custom-ops"), "{}", ran.error);
    let junk = case.place.write("junk.so", "no library");
    let runtime = run(&["runtime", "path"]);
    assert_eq!(runtime.code, 0, "{}", runtime.error);
    // ONNX Runtime itself is a library, and registers nothing.
    for (library, why) in [(&*junk, "junk.so"), (runtime.out.trim(), "RegisterCustomOps")] {
        for recipe in ["avx512_vnni", "avx512_vnni_static"] {
            let ran = case.quantize(recipe, &["--custom-ops", library]);
            assert_eq!(ran.code, 5, "{}", ran.error);
            assert!(ran.error.contains("E805") && ran.error.contains(why), "{}", ran.error);
            assert!(!std::path::Path::new(&case.place.path(&format!("{recipe}.onnx"))).exists());
        }
        let ran = case.validate(&["--custom-ops", library]);
        assert_eq!(ran.code, 5, "{}", ran.error);
    }
}
