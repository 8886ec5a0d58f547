//! `sesemi-simtee`: a simulated trusted execution environment.
//!
//! One program plays the three parts that real hardware keeps apart: the *processor* (it measures a program
//! before running it and derives sealing keys for it), the *quoting enclave* (it signs quotes) and the
//! *provisioning service* (it certifies the quoting enclave and publishes the collateral that verifiers need).
//! It exists so that every part of SeSeMI can be run, attested and tested on any Linux machine, with evidence in
//! the real format: SGX DCAP quotes, version 3, and TDX DCAP quotes, version 4, which an unmodified DCAP verifier
//! accepts, provided that it was told to trust this simulator's root. Production roots refuse them.
//!
//! # How a simulated enclave is started
//!
//! [`Image::load`] copies a program into a memory file, seals it against change and hashes what was sealed;
//! [`Image::launch`] runs exactly those bytes as an enclave (or, with [`Image::launch_in`], as a trust domain) with the
//! [`device`] socket as standard input. The device answers for the measurement that the launcher took, so a program
//! cannot claim to be another.
//!
//! # How it is made to misbehave
//!
//! A [`Machine`] can be given a [`Fault`]: a revoked platform, collateral that has expired, a forged signature. Each is
//! one thing that is wrong and nothing else. They are what tests of verifiers are made of.
//!
//! # How verifiers get its collateral
//!
//! From the files in the machine's `public/` directory, or over HTTP as from a provisioning certification service:
//! [`serve_collateral`].
//!
//! Formats and the device protocol are specified in `spec/simtee.md`.
//!
//! # What is not simulated
//!
//! - **Protection from root.** Memory is ordinary memory: root, and whoever may trace the process, reads it all. The
//!   simulator's private keys lie in a file. Nothing that needs to stay secret belongs in a simulated enclave.
//! - **The size of the EPC** (the enclave page cache) and the cost of paging when it is exceeded.
//! - **Transition costs**: no enclave entry or exit, no flushing, no memory encryption. Timings taken here are those of
//!   an ordinary process and must be labelled as simulated wherever they are shown.
//! - **Side channels**, and the mitigations that real platforms pay for.
//! - **Measurement of what is loaded later**: the program file is measured and the libraries that it is given
//!   ([`Image::with_library`]), not the interpreter of a dynamically linked one, nor the libraries that this finds by itself,
//!   arguments or environment. Simulated enclaves should be statically linked.

mod collateral;
mod der;
pub mod device;
mod elf;
mod error;
mod fault;
mod follow;
mod image;
mod launch;
mod machine;
mod measurement;
mod pcs;
mod pki;
mod processor;
mod qe;
mod quote;
mod seal;
mod serve;
mod state;
mod tee;
mod validity;

pub use error::SimteeError;
pub use fault::{Fault, PlatformStatus};
pub use image::{Image, MAX_IMAGE_BYTES, MAX_LIBRARIES};
pub use launch::{Enclave, FIRST_LIBRARY, Signaller, StopSignal};
pub use machine::{InitOutcome, Machine};
pub use measurement::{Measured, Measurement, SIMULATED_SIGNER_LABEL, TdMeasurement};
pub use pki::{PCK_CA_NAME, ROOT_NAME};
pub use processor::FMSPC;
pub use seal::{SEAL_KEY_LABEL, SealPolicy};
pub use serve::{
    EXCHANGE_TIMEOUT, HEAD_TIMEOUT, MAX_CONNECTIONS, MAX_HEAD_BYTES, serve_collateral,
};
pub use tee::Tee;
pub use validity::{CERTIFICATE_DAYS, CLOCK_SKEW, COLLATERAL_DAYS, TCB_EVALUATION_DATA_NUMBER};
