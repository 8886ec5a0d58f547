//! The SeMIRT binary with the embedded engine.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use sesemi_process::WipingAllocator;
use sesemi_semirt::config::check_environment;
use sesemi_semirt::engine::rten::Rten;
use sesemi_semirt::serve::{self, EngineStart};

#[global_allocator]
static ALLOCATOR: WipingAllocator = WipingAllocator;

fn main() -> ExitCode {
    serve::main(EngineStart {
        check_environment: |names| check_environment(names),
        prepare: || Ok(()),
        start: |(), threads| Ok(Rten::new(threads)),
    })
}
