//! Real models, in every form, at once and one after the other.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sesemi_compile::{
    Tolerance, check, compare, compile_for_onnxruntime, described, sample_inputs, specs,
    split_weights, whole,
};
use sesemi_paper_models::Network;
use sesemi_protocol::package::ModelFormat;
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_semirt::engine::rten::Rten;
use sesemi_semirt::engine::{Engine as _, EngineError, Execution};
use support::{engine, load};

const TINY: &[u8] = include_bytes!("../../../../models/breast-cancer/breast-cancer.onnx");
const ELEMENTS: usize = 3 * 224 * 224;

fn run(execution: &mut dyn Execution, inputs: &[Tensor]) -> Result<Vec<Tensor>, EngineError> {
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    execution.run(&views, &[])
}

/// What `noise` of `crates/paper-models/check.py` makes, to the bit.
fn image(number: usize) -> Tensor {
    let places = number * ELEMENTS..(number + 1) * ELEMENTS;
    let noise = |place: usize| {
        let mut x = place as u32;
        x = (x ^ x >> 16).wrapping_mul(0x7feb_352d);
        x = (x ^ x >> 15).wrapping_mul(0x846c_a68b);
        x ^= x >> 16;
        ((x >> 8) as f32 / 8_388_608.0 - 1.0) * 1.75
    };
    let values: Vec<f32> = places.map(noise).collect();
    Tensor::fp32("image", &[1, 3, 224, 224], &values).unwrap()
}

fn expected(network: Network) -> Vec<Tensor> {
    let folder = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../paper-models/tests/expected"
    );
    let text = std::fs::read_to_string(format!("{folder}/{network}.txt")).unwrap();
    let values: Vec<f32> = text.lines().map(|line| line.parse().unwrap()).collect();
    vec![Tensor::fp32("logits", &[1, 1000], &values).unwrap()]
}

#[test]
fn every_form_of_mobilenet_gives_the_scores_that_are_pinned() {
    let Some(engine) = engine() else { return };
    let onnx = Network::MobileNetV1.onnx().unwrap();
    let expected = expected(Network::MobileNetV1);
    let forms = [
        whole(&onnx),
        split_weights(&onnx).unwrap(),
        compile_for_onnxruntime(engine, &onnx, false).unwrap(),
        compile_for_onnxruntime(engine, &onnx, true).unwrap(),
    ];
    for form in forms {
        let model = load(engine, &onnx, &form).unwrap();
        let mut execution = model.execution().unwrap();
        for _ in 0..2 {
            let found = run(&mut *execution, &[image(1)]).unwrap();
            compare(&expected, &found, Tolerance::default()).unwrap();
        }
    }
}

#[test]
fn densenet_compiled_gives_the_scores_that_are_pinned() {
    let Some(engine) = engine() else { return };
    let onnx = Network::DenseNet121.onnx().unwrap();
    let form = compile_for_onnxruntime(engine, &onnx, false).unwrap();
    let model = load(engine, &onnx, &form).unwrap();
    let found = run(&mut *model.execution().unwrap(), &[image(1)]).unwrap();
    compare(
        &expected(Network::DenseNet121),
        &found,
        Tolerance::default(),
    )
    .unwrap();
}

#[test]
fn resnet_compiled_gives_the_scores_that_are_pinned() {
    let Some(engine) = engine() else { return };
    let onnx = Network::ResNet101.onnx().unwrap();
    let form = compile_for_onnxruntime(engine, &onnx, false).unwrap();
    let model = load(engine, &onnx, &form).unwrap();
    let found = run(&mut *model.execution().unwrap(), &[image(1)]).unwrap();
    compare(&expected(Network::ResNet101), &found, Tolerance::default()).unwrap();
}

#[test]
fn both_engines_agree_on_a_trained_model_for_every_batch() {
    let Some(engine) = engine() else { return };
    let forms = [
        whole(TINY),
        split_weights(TINY).unwrap(),
        compile_for_onnxruntime(engine, TINY, false).unwrap(),
    ];
    let reference = load(&Rten::new(1), TINY, &whole(TINY)).unwrap();
    let mut reference = reference.execution().unwrap();
    for form in forms {
        let model = load(engine, TINY, &form).unwrap();
        let mut execution = model.execution().unwrap();
        for batch in [1u64, 7, 2, 64] {
            let values: Vec<f32> = (0..batch * 30).map(|it| (it % 17) as f32 - 8.0).collect();
            let input = [Tensor::fp32("features", &[batch, 30], &values).unwrap()];
            let expected = run(&mut *reference, &input).unwrap();
            let found = run(&mut *execution, &input).unwrap();
            compare(&expected, &found, Tolerance::default()).unwrap();
        }
    }
}

#[test]
fn the_memory_of_weights_comes_back_when_nobody_runs_them_and_serves_the_next_model() {
    let Some(engine) = engine() else { return };
    let onnx = Network::MobileNetV1.onnx().unwrap();
    let expected = expected(Network::MobileNetV1);
    let form = compile_for_onnxruntime(engine, &onnx, false).unwrap();
    let is_right = |execution: &mut dyn Execution| {
        let found = run(execution, &[image(1)]).unwrap();
        compare(&expected, &found, Tolerance::default()).unwrap();
    };
    // Somebody runs them: they stay, and are what they were.
    let model = load(engine, &onnx, &form).unwrap();
    let mut execution = model.execution().unwrap();
    assert!(model.into_memory().is_none());
    is_right(&mut *execution);

    let model = load(engine, &onnx, &form).unwrap();
    is_right(&mut *model.execution().unwrap());
    let mut left = model.into_memory().unwrap();
    assert!(left.ends_with(&form.parts[0]) || left.starts_with(&form.parts[0]));
    left.fill(0xa5);
    let mut memory = std::mem::take(&mut left.0);
    memory.truncate(form.parts[0].len());
    memory.copy_from_slice(&form.parts[0]);
    let (manifest, described) = described(&onnx, &form).unwrap();
    let parts = std::iter::once(memory).chain(form.parts[1..].iter().cloned());
    let next = engine.load(&manifest, &described, parts.collect()).unwrap();
    is_right(&mut *next.execution().unwrap());
}

#[test]
fn a_compiled_form_is_checked_against_the_original_and_measured() {
    let Some(engine) = engine() else { return };
    let onnx = Network::MobileNetV1.onnx().unwrap();
    let (inputs, _) = specs(&onnx).unwrap();
    let samples: Vec<_> = (0..2).map(|seed| sample_inputs(&inputs, seed)).collect();
    assert_ne!(samples[0], samples[1]);
    let form = compile_for_onnxruntime(engine, &onnx, false).unwrap();
    assert_eq!(form.format, ModelFormat::OnnxRuntimeCompiled);
    assert!(
        form.parts[2].len() < 200_000,
        "the weights are not in the graph"
    );
    let checked = check(engine, &onnx, &form, &samples, Tolerance::default()).unwrap();
    assert!(checked.memory.loaded >= form.parts.iter().map(Vec::len).sum::<usize>() as u64);

    // Weights of another model of the same shape.
    let mut wrong = form.clone();
    for value in wrong.parts[0].chunks_exact_mut(4) {
        value[3] ^= 0x80;
    }
    let differs = check(engine, &onnx, &wrong, &samples, Tolerance::default()).unwrap_err();
    assert!(differs.to_string().contains("something else"), "{differs}");
}

#[test]
fn many_runs_at_once_in_one_session_each_get_their_own_result() {
    let Some(engine) = engine() else { return };
    let onnx = Network::MobileNetV1.onnx().unwrap();
    let form = compile_for_onnxruntime(engine, &onnx, false).unwrap();
    let model = load(engine, &onnx, &form).unwrap();
    let inputs: Vec<[Tensor; 1]> = (0..4).map(|number| [image(number)]).collect();
    let mut alone = model.execution().unwrap();
    let expected: Vec<_> = inputs
        .iter()
        .map(|it| run(&mut *alone, it).unwrap())
        .collect();
    assert_ne!(expected[0], expected[1]);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (model, inputs, expected) = (&model, &inputs, &expected);
            scope.spawn(move || {
                let mut execution = model.execution().unwrap();
                for round in 0..10 {
                    let number = (thread + round) % inputs.len();
                    let found = run(&mut *execution, &inputs[number]).unwrap();
                    compare(&expected[number], &found, Tolerance::default()).unwrap();
                }
            });
        }
    });
}

#[test]
fn models_come_and_go_while_others_run() {
    let Some(engine) = engine() else { return };
    let form = compile_for_onnxruntime(engine, TINY, false).unwrap();
    let input = [Tensor::fp32("features", &[1, 30], &[0.5; 30]).unwrap()];
    let model = load(engine, TINY, &form).unwrap();
    let expected = run(&mut *model.execution().unwrap(), &input).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..20 {
                    let model = load(engine, TINY, &form).unwrap();
                    let mut execution = model.execution().unwrap();
                    // An execution keeps what it needs.
                    drop(model);
                    assert_eq!(run(&mut *execution, &input).unwrap(), expected);
                }
            });
        }
    });
}

/// The folder of this thread in /proc.
fn own_thread() -> PathBuf {
    Path::new("/proc").join(std::fs::read_link("/proc/thread-self").unwrap())
}

/// Waits until a thread has used 20 ms of a processor since now, or has ended.
fn has_begun_to_compute(thread: &Path) {
    let used = || -> Option<u64> {
        let stat = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        stat.split_whitespace().next()?.parse().ok()
    };
    let began = Instant::now();
    // It computes for seconds, so it is there. Where nothing could be read, nothing would be waited for.
    let first = used().expect("the kernel says how long a thread has run");
    while used().is_some_and(|now| now < first + 20_000_000) {
        assert!(began.elapsed() < Duration::from_secs(60));
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_run_that_is_stopped_ends_with_an_error_and_leaves_others_alone() {
    let Some(engine) = engine() else { return };
    let onnx = Network::MobileNetV1.onnx().unwrap();
    let form = compile_for_onnxruntime(engine, &onnx, false).unwrap();
    let model = load(engine, &onnx, &form).unwrap();
    let mut stopped = model.execution().unwrap();
    let mut other = model.execution().unwrap();
    let stopper = stopped.stopper().unwrap();
    // Forty images at once take long enough that the stop finds the run under way.
    let values = vec![0.25; 40 * ELEMENTS];
    let many = Tensor::fp32("image", &[40, 3, 224, 224], &values).unwrap();
    let (execution, input) = (&mut *stopped, std::slice::from_ref(&many));
    let ended = std::thread::scope(|scope| {
        let (tell, told) = std::sync::mpsc::channel();
        let running = scope.spawn(move || {
            tell.send(own_thread()).unwrap();
            run(execution, input)
        });
        has_begun_to_compute(&told.recv().unwrap());
        stopper.stop();
        running.join().unwrap()
    });
    assert!(matches!(ended, Err(EngineError::Run(_))), "{ended:?}");
    assert!(matches!(
        run(&mut *stopped, &[image(1)]),
        Err(EngineError::Run(_))
    ));
    let found = run(&mut *other, &[image(1)]).unwrap();
    compare(
        &expected(Network::MobileNetV1),
        &found,
        Tolerance::default(),
    )
    .unwrap();
}
