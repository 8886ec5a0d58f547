//! A check that compared nothing would say that a form is right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sesemi_compile::{CompileError, Tolerance, check, sample_inputs, specs, split_weights};
use sesemi_semirt::engine::rten::Rten;

const TINY: &[u8] = include_bytes!("../../../../models/breast-cancer/breast-cancer.onnx");

#[test]
fn a_check_without_samples_is_refused_and_one_with_a_sample_is_made() {
    let (engine, form) = (Rten::new(1), split_weights(TINY).unwrap());
    let check = |samples: &[Vec<_>]| check(&engine, TINY, &form, samples, Tolerance::default());
    let refused = check(&[]).unwrap_err();
    assert!(matches!(&refused, CompileError::Model(why) if why.contains("sample")));
    let (inputs, _) = specs(TINY).unwrap();
    check(&[sample_inputs(&inputs, 1)]).unwrap();
}
