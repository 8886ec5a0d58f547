//! `sesemi-simtee`: a simulated trusted execution environment.
//!
//! One program plays the three parts that real hardware keeps apart: the *processor* (it measures a program
//! before running it and derives sealing keys for it), the *quoting enclave* (it signs quotes) and the
//! *provisioning service* (it certifies the quoting enclave and publishes the collateral that verifiers need).
//! It exists so that every part of SeSeMI can be run, attested and tested on any Linux machine, with evidence in
//! the real format: an SGX DCAP quote, version 3, which an unmodified DCAP verifier accepts, provided that it was
//! told to trust this simulator's root. Production roots refuse it.
//!
//! # How a simulated enclave is started
//!
//! [`Image::load`] copies a program into a memory file, seals it against change and hashes what was sealed;
//! [`Image::launch`] runs exactly those bytes with the [`device`] socket as standard input. The device answers for
//! the measurement that the launcher took, so a program cannot claim to be another.
//!
//! # What is not simulated
//!
//! - **Protection from root.** Memory is ordinary memory: root, and whoever may trace the process, reads it all. The
//!   simulator's private keys lie in a file. Nothing that needs to stay secret belongs in a simulated enclave.
//! - **The size of the EPC** (the enclave page cache) and the cost of paging when it is exceeded.
//! - **Transition costs**: no enclave entry or exit, no flushing, no memory encryption. Timings taken here are those of
//!   an ordinary process and must be labelled as simulated wherever they are shown.
//! - **Side channels**, and the mitigations that real platforms pay for.
//! - **Measurement of what is loaded later**: only the program file is measured, not the interpreter of a dynamically
//!   linked one, nor its libraries, arguments or environment. Simulated enclaves should be statically linked.

mod collateral;
mod der;
pub mod device;
mod elf;
mod error;
mod image;
mod launch;
mod machine;
mod measurement;
mod pki;
mod processor;
mod quote;
mod seal;
mod state;
mod validity;

pub use error::SimteeError;
pub use image::{Image, MAX_IMAGE_BYTES};
pub use launch::{Enclave, Signaller, StopSignal};
pub use machine::{InitOutcome, Machine};
pub use measurement::{Measurement, SIMULATED_SIGNER_LABEL};
pub use pki::{PCK_CA_NAME, ROOT_NAME};
pub use processor::FMSPC;
pub use seal::{SEAL_KEY_LABEL, SealPolicy};
pub use validity::{CERTIFICATE_DAYS, CLOCK_SKEW, COLLATERAL_DAYS, TCB_EVALUATION_DATA_NUMBER};
