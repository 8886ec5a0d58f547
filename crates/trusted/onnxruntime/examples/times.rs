//! How long each step takes in this process, for the paper's models: `times LIBRARY [MODEL] [THREADS]`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::path::Path;
use std::time::{Duration, Instant};

use sesemi_compile::{CompiledForm, compile_for_onnxruntime, sample_inputs, specs, split_weights};
use sesemi_onnxruntime::{Library, OnnxRuntime};
use sesemi_paper_models::Network;
use sesemi_protocol::package::{InstructionSet, Manifest, Memory, ModelFormat};
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_semirt::engine::Engine as _;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let name = arguments.get(1).map_or("mobilenet-v1", String::as_str);
    let threads = arguments.get(2).map_or(1, |it| it.parse().unwrap());
    let network = Network::ALL.into_iter().find(|it| it.name() == name);
    let onnx = network.expect("one of the paper's models").onnx().unwrap();
    let started = Instant::now();
    let library = Library::load(Path::new(&arguments[0])).unwrap();
    let mapped = started.elapsed();
    let engine = OnnxRuntime::starting(library, threads).unwrap();
    engine.environment().unwrap();
    println!(
        "map {mapped:?}, start {:?}",
        started.elapsed().saturating_sub(mapped)
    );
    let whole = CompiledForm {
        format: ModelFormat::Onnx,
        instruction_set: InstructionSet::Any,
        parts: vec![onnx.clone()],
        memory: Memory::default(),
        prepack: false,
    };
    let forms = [
        (
            "compiled",
            compile_for_onnxruntime(&engine, &onnx, false).unwrap(),
        ),
        (
            "compiled, prepacked",
            compile_for_onnxruntime(&engine, &onnx, true).unwrap(),
        ),
        ("with weights", split_weights(&onnx).unwrap()),
        ("whole", whole),
    ];
    let (inputs, outputs) = specs(&onnx).unwrap();
    let input = sample_inputs(&inputs, 1);
    let views: Vec<TensorView<'_>> = input.iter().map(Tensor::view).collect();
    for (name, form) in forms {
        let parts = form.parts();
        let manifest =
            Manifest::describing(inputs.clone(), outputs.clone(), &[form.content(&parts)]);
        let (mut loads, mut firsts, mut hots) = (vec![], vec![], vec![]);
        for _ in 0..7 {
            let parts = form.parts.clone();
            let started = Instant::now();
            let model = engine.load(&manifest, &manifest.forms[0], parts).unwrap();
            loads.push(started.elapsed());
            let mut execution = model.execution().unwrap();
            execution.run(&views, &[]).unwrap();
            firsts.push(started.elapsed());
            for _ in 0..20 {
                let started = Instant::now();
                execution.run(&views, &[]).unwrap();
                hots.push(started.elapsed());
            }
        }
        println!(
            "{name}: load {:?}, load and first run {:?}, hot {:?}",
            median(loads),
            median(firsts),
            median(hots)
        );
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
