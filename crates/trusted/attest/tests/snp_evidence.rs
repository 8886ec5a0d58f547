//! SEV-SNP evidence through the same verifier and the same policies as everything else: a real Milan report, with its chip's
//! certificate beside it or among the endorsements. The links themselves are tested in tests/snp.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use sesemi_attest::freshness::{Growing, Level};
use sesemi_attest::snp::SnpReport;
use sesemi_attest::{
    AppraisalError, AppraisalPolicy, Claims, Endorsements, Evidence, EvidenceVerifier, Rejected,
    TeeKind, TrustAnchor, VerifyError,
};

/// 1 September 2026, within the period of AMD's revocation list here.
const NOW: u64 = 1_788_220_800;
const MILAN: &str =
    "[snp.milan]\nminimum-tcb = { boot-loader = 3, tee = 0, snp = 8, microcode = 115 }";

fn testdata(file: &str) -> Vec<u8> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/snp");
    std::fs::read(folder.join(file)).unwrap()
}

fn report() -> Vec<u8> {
    testdata("amd/report-milan.bin")
}

fn bound() -> [u8; 64] {
    SnpReport::parse(&report()).unwrap().report_data
}

fn endorsements(product: &str, vceks: &[Vec<u8>]) -> Endorsements {
    let vceks: Vec<String> = vceks.iter().map(hex::encode).collect();
    let crl = hex::encode(testdata(&format!("amd/crl-{product}.der")));
    let sets = serde_json::json!({ "snp": [{ "product": product, "crl": crl, "vceks": vceks }] });
    Endorsements::from_json(sets.to_string().as_bytes()).unwrap()
}

fn verifier(endorsements: Endorsements) -> EvidenceVerifier {
    EvidenceVerifier::new(TrustAnchor::production().unwrap(), endorsements)
}

fn policy(rest: &str) -> AppraisalPolicy {
    AppraisalPolicy::from_toml(&format!(
        "code = \"per-release\"\nplatforms = \"any\"\n{rest}"
    ))
    .unwrap()
}

fn evidence(vcek: Option<&[u8]>) -> Evidence {
    Evidence::from_snp(&report(), vcek).unwrap()
}

fn judge(
    verifier: &EvidenceVerifier,
    evidence: &Evidence,
    policy: &AppraisalPolicy,
) -> Result<Claims, Rejected> {
    verifier.accept(evidence, &bound(), policy, NOW)
}

#[test]
fn a_real_report_is_accepted_with_its_certificate_beside_it_or_among_the_endorsements() {
    let vcek = testdata("amd/vcek-milan.der");
    let beside = judge(
        &verifier(endorsements("milan", &[])),
        &evidence(Some(&vcek)),
        &policy(MILAN),
    );
    let other = testdata("amd/vcek-turin.der");
    let among = judge(
        &verifier(endorsements("milan", &[other, vcek])),
        &evidence(None),
        &policy(MILAN),
    );
    let (beside, among) = (beside.unwrap(), among.unwrap());
    // Other evidence, which says the same.
    assert_ne!(beside.evidence, among.evidence);
    let among = Claims {
        evidence: beside.evidence,
        ..among
    };
    assert_eq!(beside, among);
    assert_eq!(beside.identity.tee, TeeKind::Snp);
    assert_eq!(beside.platform.len(), 64, "a chip id");
    assert!(!beside.simulated);
}

#[test]
fn the_report_is_read_out_of_evidence_and_a_quote_has_none() {
    let vcek = testdata("amd/vcek-milan.der");
    for vcek in [None, Some(vcek.as_slice())] {
        let read = evidence(vcek).snp_report();
        assert_eq!(read, SnpReport::parse(&report()));
    }
    let quote = testdata("../dcap/sgx-v3.quote");
    let quote = Evidence::from_bytes(quote).unwrap();
    assert!(quote.snp_report().is_err());
}

#[test]
fn without_certificate_or_revocation_list_nothing_is_accepted() {
    let vcek = testdata("amd/vcek-milan.der");
    for (endorsements, evidence) in [
        (endorsements("milan", &[]), evidence(None)),
        (endorsements("genoa", &[]), evidence(Some(&vcek))),
        (
            endorsements("milan", &[testdata("amd/vcek-turin.der")]),
            evidence(None),
        ),
    ] {
        assert!(matches!(
            judge(&verifier(endorsements), &evidence, &policy(MILAN)),
            Err(Rejected::Verify(VerifyError::NoEndorsements(TeeKind::Snp)))
        ));
    }
}

#[test]
fn a_certificate_of_somebody_elses_authority_is_refused_by_every_built_in_root() {
    for file in [
        "made/vcek.der",
        "made/vcek-turin.der",
        "made/vcek-issued-by-another.der",
    ] {
        let judged = judge(
            &verifier(endorsements("milan", &[])),
            &evidence(Some(&testdata(file))),
            &policy(MILAN),
        );
        assert!(
            matches!(judged, Err(Rejected::Verify(VerifyError::UnknownIssuer))),
            "{file}: {judged:?}"
        );
    }
    // One that borrowed AMD's names gets further, to the signature.
    let judged = judge(
        &verifier(endorsements("milan", &[])),
        &evidence(Some(&testdata("made/vcek-in-amds-name.der"))),
        &policy(MILAN),
    );
    assert!(
        matches!(judged, Err(Rejected::Verify(VerifyError::Snp(_)))),
        "{judged:?}"
    );
}

#[test]
fn firmware_below_the_policys_minimum_and_products_it_does_not_name_are_refused() {
    let verifier = verifier(endorsements("milan", &[testdata("amd/vcek-milan.der")]));
    let judged = |rest: &str| judge(&verifier, &evidence(None), &policy(rest));
    assert!(matches!(
        judged(""),
        Err(Rejected::Appraisal(AppraisalError::NoMinimumTcb { .. }))
    ));
    assert!(matches!(
        judged(&MILAN.replace("snp = 8", "snp = 9")),
        Err(Rejected::Appraisal(AppraisalError::SnpTcb { .. }))
    ));
    judged(MILAN).unwrap();
}

#[test]
fn only_listed_chips_are_accepted_where_the_policy_lists_them() {
    let verifier = verifier(endorsements("milan", &[testdata("amd/vcek-milan.der")]));
    let listed = |chip: &[u8]| {
        let text = format!(
            "code = \"per-release\"\nplatforms = [\"{}\"]\n{MILAN}",
            hex::encode(chip)
        );
        AppraisalPolicy::from_toml(&text).unwrap()
    };
    let chip = SnpReport::parse(&report()).unwrap().chip_id;
    judge(&verifier, &evidence(None), &listed(&chip)).unwrap();
    assert!(matches!(
        judge(&verifier, &evidence(None), &listed(&[1; 64])),
        Err(Rejected::Appraisal(
            AppraisalError::PlatformNotListed { .. }
        ))
    ));
}

#[test]
fn a_report_is_bound_to_its_report_data_alone() {
    let verifier = verifier(endorsements("milan", &[testdata("amd/vcek-milan.der")]));
    let judged = verifier.accept(&evidence(None), &[1; 64], &policy(MILAN), NOW);
    assert!(matches!(
        judged,
        Err(Rejected::Verify(VerifyError::NotBound))
    ));
}

#[test]
fn a_revocation_list_that_has_expired_is_refused_even_with_the_clock_set_back() {
    let verifier = verifier(endorsements("milan", &[testdata("amd/vcek-milan.der")]));
    let at = |now| verifier.accept(&evidence(None), &bound(), &policy(MILAN), now);
    let later = NOW + 90 * 86_400;
    assert!(at(later).is_err());
    // Long before the list was issued: the clock is taken to be at its date at least, so the list is valid.
    at(NOW).unwrap();
    at(1_000_000_000).unwrap();
    // Something newer was signed, and this verifier has seen it: the old list has expired whatever the clock says.
    let seen = Level {
        what: Growing::SignedDate,
        at_least: later,
    };
    verifier.floor().raise_to(&[seen]).unwrap();
    assert!(matches!(
        at(NOW),
        Err(Rejected::Verify(VerifyError::Snp(_)))
    ));
}

#[test]
fn a_simulated_anchor_believes_no_real_chip() {
    let machine = tempfile::tempdir().unwrap();
    let created = std::time::UNIX_EPOCH + std::time::Duration::from_secs(NOW);
    let machine = sesemi_simtee::Machine::create(machine.path(), created).unwrap();
    let anchor = TrustAnchor::simulated(machine.root_der().to_vec()).unwrap();
    let verifier = EvidenceVerifier::new(anchor, endorsements("milan", &[]));
    let judged = judge(
        &verifier,
        &evidence(Some(&testdata("amd/vcek-milan.der"))),
        &policy(MILAN),
    );
    assert!(matches!(
        judged,
        Err(Rejected::Verify(VerifyError::OtherTee(TeeKind::Snp)))
    ));
}
