//! The SeMIRT binary with ONNX Runtime.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use sesemi_onnxruntime::{Library, OnnxRuntime, check_environment, place};
use sesemi_process::WipingAllocator;
use sesemi_semirt::serve::{self, EngineStart};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    serve::main(EngineStart {
        check_environment: |names| check_environment(names),
        // Mapping code is a right that the sandbox takes away; starting it, which takes ten times as long, needs none.
        prepare: || Ok(Library::load(&place())?),
        start: |library, threads| Ok(OnnxRuntime::starting(library, threads)?),
    })
}
