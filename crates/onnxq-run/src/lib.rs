//! Running models: ONNX Runtime, data, calibration, and comparing two models on data.

pub mod answer;
pub mod calibrate;
pub mod compare;
pub mod data;
pub mod engine;
pub mod kept;
pub mod worker;
