//! onnxq: float ONNX in; the smallest, fastest, verified model for the target CPU out.
