//! A check that compared nothing would say that a form is right.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use sesemi_compile::{
    CompileError, Tolerance, check, check_against, sample_inputs, specs, split_weights,
};
use sesemi_protocol::package::{Form, Manifest, ModelFormat};
use sesemi_semirt::engine::rten::Rten;
use sesemi_semirt::engine::{Engine, EngineError, LoadedModel};

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

/// RTen, and an engine that should run models as they are written, and may fail to.
struct Failing {
    rten: Rten,
    takes_unoptimised: bool,
}

impl Engine for Failing {
    fn name(&self) -> &'static str {
        "failing"
    }

    fn takes(&self, form: &Form) -> bool {
        let unoptimised = form.format == ModelFormat::OnnxRuntimeCompiled;
        self.rten.takes(form) || (unoptimised && self.takes_unoptimised)
    }

    fn wipes(&self) -> bool {
        self.rten.wipes()
    }

    fn load(
        &self,
        manifest: &Manifest,
        form: &Form,
        parts: Vec<Vec<u8>>,
    ) -> Result<Box<dyn LoadedModel>, EngineError> {
        if form.format == ModelFormat::OnnxRuntimeCompiled {
            return Err(EngineError::Load("the original is broken".into()));
        }
        self.rten.load(manifest, form, parts)
    }
}

#[test]
fn an_original_that_fails_as_it_is_written_is_told_and_not_replaced_by_an_optimised_one() {
    let (inputs, _) = specs(TINY).unwrap();
    let samples = [sample_inputs(&inputs, 1)];
    let form = split_weights(TINY).unwrap();
    let checked = |takes_unoptimised| {
        let rten = Rten::new(1);
        let reference = Failing {
            rten,
            takes_unoptimised,
        };
        let (engine, tolerance) = (Rten::new(1), Tolerance::default());
        check_against(&engine, &reference, TINY, &form, &samples, tolerance)
    };
    // One that has no such form runs the model in its own way.
    checked(false).unwrap();
    let failed = checked(true).unwrap_err();
    assert!(
        matches!(&failed, CompileError::Original(EngineError::Load(why)) if why.contains("broken")),
        "{failed}"
    );
}
