//! Fuzz targets: for everything that SeSeMI reads from outside, one function that takes any bytes.
//!
//! A target feeds its bytes to one reader and checks what must hold of whatever the reader *accepted*: that it has one
//! spelling, that no other key opens it, that nothing in it is longer than announced. A panic, of the reader or of such a
//! check, is a finding; an error is not.
//!
//! Where a signature or a seal stands before a reader, two kinds of input are tried: the bytes as the whole message, which
//! shows that nothing but the genuine message gets through, and the bytes as what is *inside*, signed or sealed here with
//! keys that the target knows, which brings them to the reader behind it.
//!
//! [`TARGETS`] lists them with their seeds. `tests/targets.rs` runs each for a bounded time on stable Rust; the programs
//! under `fuzz_targets/` run them under libFuzzer for as long as one likes (README.md).

#![forbid(unsafe_code)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    reason = "a panic is how a target reports a finding, and nothing links this crate"
)]

mod attest;
mod input;
mod mutation;
#[cfg(feature = "programs")]
mod programs;
mod protocol;
mod samples;

pub use attest::channel::{channel_from_client, channel_from_server};
pub use attest::evidence::{evidence, freshness_levels, sealed_state};
pub use attest::policy::{appraisal_policy, endorsements};
pub use attest::quote::quote;
pub use attest::snp::{snp_report, snp_verification};
pub use mutation::Mutator;
#[cfg(feature = "engine")]
pub use programs::engine::{engine_input, engine_model, model_input};
#[cfg(feature = "engine")]
pub use programs::files::{csv_rows, settings_files};
#[cfg(feature = "engine")]
pub use programs::graph::outside_weights;
#[cfg(feature = "programs")]
pub use programs::identity::identity_file;
#[cfg(feature = "programs")]
pub use programs::state::{state_history, state_snapshot};
pub use protocol::audit::{audit_chain, audit_entry};
pub use protocol::cose::{cose_encrypt0, cose_sign1};
pub use protocol::envelope::{request, request_content, response, response_content};
pub use protocol::package::{package, package_content, package_header, weight_list};
pub use protocol::reference::reference;
pub use protocol::release::{release, share};
pub use protocol::signed::{command, head, query, receipt};
pub use protocol::values::{ids, padding, tensor_description};
pub use protocol::wire::wire;

/// A reader to be fuzzed.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// The name of the function, and of the program under `fuzz_targets/`.
    pub name: &'static str,
    /// Tries one input. It panics if something does not hold.
    pub run: fn(&[u8]),
    /// Inputs to begin with: valid ones, and what the test vectors say must be refused.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// How many inputs the test in `tests/targets.rs` tries: fewer for readers that verify signatures or open files.
    pub iterations: usize,
}

macro_rules! targets {
    ($($(#[$when:meta])? $name:ident from $seeds:path, $iterations:literal times;)*) => {
        /// All targets.
        pub const TARGETS: &[Target] = &[$($(#[$when])? Target {
            name: stringify!($name),
            run: $name,
            seeds: $seeds,
            iterations: $iterations,
        }),*];
    };
}

targets! {
    appraisal_policy from attest::policy::policy_seeds, 3000 times;
    audit_chain from protocol::audit::chain_seeds, 3000 times;
    audit_entry from protocol::audit::entry_seeds, 3000 times;
    channel_from_client from attest::channel::from_client_seeds, 150 times;
    channel_from_server from attest::channel::from_server_seeds, 300 times;
    command from protocol::signed::command_seeds, 2000 times;
    cose_encrypt0 from protocol::cose::encrypt0_seeds, 4000 times;
    cose_sign1 from protocol::cose::sign1_seeds, 3000 times;
    #[cfg(feature = "engine")]
    csv_rows from programs::files::csv_seeds, 3000 times;
    endorsements from attest::policy::endorsements_seeds, 300 times;
    #[cfg(feature = "engine")]
    engine_input from programs::engine::engine_seeds, 2000 times;
    #[cfg(feature = "engine")]
    engine_model from programs::engine::model_seeds, 2000 times;
    evidence from attest::evidence::evidence_seeds, 4000 times;
    freshness_levels from attest::evidence::freshness_seeds, 4000 times;
    head from protocol::signed::head_seeds, 2000 times;
    #[cfg(feature = "programs")]
    identity_file from programs::identity::identity_seeds, 2000 times;
    ids from protocol::values::id_seeds, 4000 times;
    #[cfg(feature = "engine")]
    model_input from programs::engine::model_input_seeds, 4000 times;
    #[cfg(feature = "engine")]
    outside_weights from programs::graph::graph_seeds, 4000 times;
    package from protocol::package::package_seeds, 1500 times;
    package_content from protocol::package::content_seeds, 1500 times;
    package_header from protocol::package::header_seeds, 4000 times;
    padding from protocol::values::padding_seeds, 4000 times;
    query from protocol::signed::query_seeds, 2000 times;
    quote from attest::quote::quote_seeds, 400 times;
    receipt from protocol::signed::receipt_seeds, 2000 times;
    reference from protocol::reference::reference_seeds, 4000 times;
    release from protocol::release::release_seeds, 3000 times;
    request from protocol::envelope::request_seeds, 3000 times;
    request_content from protocol::envelope::request_content_seeds, 3000 times;
    response from protocol::envelope::response_seeds, 3000 times;
    response_content from protocol::envelope::response_content_seeds, 3000 times;
    sealed_state from attest::evidence::sealed_seeds, 3000 times;
    #[cfg(feature = "engine")]
    settings_files from programs::files::settings_seeds, 1500 times;
    share from protocol::release::share_seeds, 3000 times;
    snp_report from attest::snp::report_seeds, 4000 times;
    snp_verification from attest::snp::verification_seeds, 1000 times;
    #[cfg(feature = "programs")]
    state_history from programs::state::state_history_seeds, 3000 times;
    #[cfg(feature = "programs")]
    state_snapshot from programs::state::state_snapshot_seeds, 3000 times;
    tensor_description from protocol::values::tensor_seeds, 4000 times;
    weight_list from protocol::package::weight_list_seeds, 4000 times;
    wire from protocol::wire::wire_seeds, 3000 times;
}
