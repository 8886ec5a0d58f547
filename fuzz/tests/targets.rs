//! Every target on stable Rust: its seeds, some bytes of no form at all, and a bounded number of inputs near the seeds, the
//! same in every run. A target that fails prints the input, in hexadecimal.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
#[cfg(feature = "engine")]
use std::path::Path;

use sesemi_fuzz::{Mutator, TARGETS, Target};

/// The number that the inputs depend on. Another one tries others.
const BEGIN: u64 = 2026;

fn try_one(target: &Target, bytes: &[u8]) {
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| (target.run)(bytes))) {
        eprintln!("{} fails on {}", target.name, shown(bytes));
        resume_unwind(panic);
    }
}

fn shown(bytes: &[u8]) -> String {
    let front: String = bytes
        .iter()
        .take(8192)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("{} bytes: {front}", bytes.len())
}

fn run(name: &str) {
    let target = TARGETS.iter().find(|target| target.name == name).unwrap();
    let seeds = (target.seeds)();
    for seed in &seeds {
        try_one(target, seed);
    }
    for bytes in [&[][..], &[0], &[0xff], &[0; 64], &[0xff; 64]] {
        try_one(target, bytes);
    }
    let mut mutator = Mutator::new(BEGIN);
    for _ in 0..target.iterations {
        try_one(target, &mutator.mutate(&seeds));
    }
}

macro_rules! tests {
    ($($(#[$when:meta])? $test:ident $target:literal)*) => {
        $($(#[$when])?
        #[test]
        fn $test() {
            run($target);
        })*

        const TESTED: &[&str] = &[$($(#[$when])? $target),*];
    };
}

tests! {
    an_accepted_policy_has_one_digest "appraisal_policy"
    only_the_same_entries_lead_to_the_same_point "audit_chain"
    an_entry_is_shown_to_whom_it_concerns_and_to_nobody_else "audit_entry"
    no_client_that_says_anything_is_taken_for_an_enclave "channel_from_client"
    no_server_that_says_anything_is_taken_for_keyservice "channel_from_server"
    an_accepted_command_has_one_spelling_and_one_signer "command"
    only_the_sealed_message_opens "cose_encrypt0"
    only_the_signed_message_verifies "cose_sign1"
    #[cfg(feature = "engine")]
    accepted_rows_have_numbers_in_every_column "csv_rows"
    no_endorsements_change_what_evidence_says "endorsements"
    #[cfg(feature = "engine")]
    the_engine_gives_what_the_manifest_promises "engine_input"
    #[cfg(feature = "engine")]
    bytes_that_are_no_model_are_refused_before_the_engine_hangs "engine_model"
    accepted_evidence_is_kept_as_it_came "evidence"
    freshness_levels_only_grow "freshness_levels"
    an_accepted_head_is_of_the_service_that_signed_it "head"
    #[cfg(feature = "programs")]
    an_accepted_identity_file_says_the_same_when_saved_again "identity_file"
    an_accepted_id_has_one_spelling "ids"
    #[cfg(feature = "engine")]
    accepted_inputs_fit_the_manifest "model_input"
    #[cfg(feature = "engine")]
    weights_of_an_accepted_graph_are_nowhere_but_where_they_may_be "outside_weights"
    only_a_sealed_package_opens_as_a_whole_and_by_form "package"
    accepted_content_of_a_package_is_what_an_owner_would_seal "package_content"
    an_accepted_header_of_a_package_has_one_spelling "package_header"
    padding_never_shrinks "padding"
    an_accepted_query_has_one_spelling_and_one_asker "query"
    accepted_evidence_says_what_the_real_machine_said "quote"
    an_accepted_receipt_is_for_the_command_and_from_the_service "receipt"
    an_accepted_reference_has_one_spelling_and_leads_nowhere_else "reference"
    what_is_asked_and_released_keeps_its_order_and_shows_no_key "release"
    only_the_sealed_request_opens "request"
    accepted_content_of_a_request_is_what_a_client_would_seal "request_content"
    only_a_response_to_the_request_opens "response"
    accepted_content_of_a_response_is_what_semirt_would_seal "response_content"
    only_sealed_state_opens_and_only_in_its_place "sealed_state"
    #[cfg(feature = "engine")]
    accepted_settings_are_within_their_bounds "settings_files"
    an_accepted_share_is_the_same_wherever_it_stands "share"
    an_accepted_report_says_what_stands_in_it "snp_report"
    only_the_genuine_link_completes_a_chain "snp_verification"
    #[cfg(feature = "programs")]
    any_history_leaves_a_state_that_reads_back_and_decides_as_it_explains "state_history"
    #[cfg(feature = "programs")]
    an_accepted_snapshot_reads_back_as_the_same_state "state_snapshot"
    an_accepted_tensor_is_as_large_as_it_says "tensor_description"
    weights_of_an_accepted_list_lie_apart_and_inside "weight_list"
    an_accepted_message_has_one_spelling "wire"
}

fn names() -> BTreeSet<String> {
    let names = TARGETS.iter().map(|target| target.name.to_owned());
    names.collect()
}

#[test]
fn every_target_is_tested() {
    let tested: BTreeSet<_> = TESTED.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(tested, names());
}

/// All targets are there only with the features that leave none out.
#[cfg(feature = "engine")]
#[test]
fn every_target_has_a_program_for_libfuzzer() {
    let targets = names();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let programs: BTreeSet<_> = std::fs::read_dir(folder.join("fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(programs, targets);

    let manifest = std::fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for name in &targets {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")));
        let program = folder.join(format!("fuzz_targets/{name}.rs"));
        let program = std::fs::read_to_string(program).unwrap();
        assert!(program.contains(&format!("sesemi_fuzz::{name}(bytes)")));
    }
}

#[test]
fn the_same_number_makes_the_same_inputs() {
    let seeds = [(0..100).collect(), (100..200).collect()];
    let inputs = |number| {
        let mut mutator = Mutator::new(number);
        (0..100).map(|_| mutator.mutate(&seeds)).collect::<Vec<_>>()
    };
    assert_eq!(inputs(1), inputs(1));
    assert_ne!(inputs(1), inputs(2));
    let distinct: BTreeSet<_> = inputs(1).into_iter().collect();
    assert!(
        distinct.len() > 90,
        "{} of 100 are distinct",
        distinct.len()
    );
}
