//! The engine starts and runs in a process that has given up its rights: no file, no program, no executable memory.
//!
//! Rights must be given up before a second thread is started, so this is a program of its own. It starts itself again, because what
//! it runs has to be compiled first, with an engine, which has threads.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

mod support;

use std::path::Path;
use std::process::Command;

use sesemi_compile::{
    CompiledForm, Tolerance, compare, compile_for_onnxruntime, sample_inputs, specs, split_weights,
};
use sesemi_hardening::sandbox::{Paths, harden};
use sesemi_onnxruntime::{Library, OnnxRuntime, blocks_for};
use sesemi_paper_models::Network;
use sesemi_protocol::package::{InstructionSet, Memory, ModelFormat};
use sesemi_protocol::tensor::{Tensor, TensorView};
use sesemi_semirt::engine::Execution;
use support::{engine, library, load};

const SEED: u64 = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, role, folder] = arguments.as_slice()
        && role == "hardened"
    {
        return hardened(Path::new(folder));
    }
    let Some(engine) = engine() else { return };
    let onnx = Network::MobileNetV1.onnx().unwrap();
    let form = compile_for_onnxruntime(engine, &onnx, false).unwrap();
    let folder = tempfile::tempdir().unwrap();
    for (index, part) in form.parts.iter().enumerate() {
        std::fs::write(folder.path().join(index.to_string()), part).unwrap();
    }
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["hardened", folder.path().to_str().unwrap()])
        .status()
        .unwrap();
    assert!(child.success(), "{child}");
    println!("the engine runs in a process without rights ... ok");
}

fn run(execution: &mut dyn Execution, inputs: &[Tensor]) -> Vec<Tensor> {
    let views: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
    execution.run(&views, &[]).unwrap()
}

fn hardened(folder: &Path) {
    // All that is read is read before.
    let onnx = Network::MobileNetV1.onnx().unwrap();
    let part = |index: usize| std::fs::read(folder.join(index.to_string())).unwrap();
    let compiled = CompiledForm {
        format: ModelFormat::OnnxRuntimeCompiled,
        instruction_set: blocks_for().unwrap_or(InstructionSet::Any),
        parts: (0..3).map(part).collect(),
        memory: Memory::default(),
        prepack: false,
    };
    let path = library().unwrap();
    let mapped = Library::load(&path).unwrap();
    // What services are left with on every machine.
    let read = vec!["/proc/cpuinfo".into()];
    harden(&Paths {
        read,
        ..Paths::default()
    })
    .unwrap();

    let engine = OnnxRuntime::starting(mapped, 2).unwrap();
    let split = split_weights(&onnx).unwrap();
    let (inputs, _) = specs(&onnx).unwrap();
    let input = sample_inputs(&inputs, SEED);
    let expected = {
        let model = load(&engine, &onnx, &split).unwrap();
        run(&mut *model.execution().unwrap(), &input)
    };
    let model = load(&engine, &onnx, &compiled).unwrap();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut execution = model.execution().unwrap();
                for _ in 0..3 {
                    let found = run(&mut *execution, &input);
                    compare(&expected, &found, Tolerance::default()).unwrap();
                }
            });
        }
    });
    // The rights are gone indeed.
    assert!(std::fs::read(&path).is_err());
}
