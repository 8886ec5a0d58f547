//! Certificates and revocation lists that must be refused. All are signed as they should be unless their name says not.

use sesemi_attest::snp::{AmdRoot, Link, MAX_CERTIFICATE, MAX_CRL, Product, SnpError};

use crate::made::{made, middle_of, refusal};
use crate::testdata;

fn with_vcek(file: &str) -> SnpError {
    refusal(|case| case.vcek = made(file))
}

fn with_crl(file: &str) -> SnpError {
    refusal(|case| case.crl = made(file))
}

fn root_of(ark: &str, ask: &str) -> Result<AmdRoot, SnpError> {
    AmdRoot::custom(&made(ark), &made(ask), Product::Milan)
}

#[test]
fn authorities_that_nobody_or_somebody_else_signed_make_no_root() {
    root_of("ark", "ask").unwrap();
    let refused = |ark, ask, error| assert_eq!(root_of(ark, ask), Err(error), "{ark} {ask}");
    refused(
        "ark-signed-by-another",
        "ask",
        SnpError::Signature(Link::Ark),
    );
    refused("ark-issued-by-another", "ask", SnpError::Issuer(Link::Ark));
    refused(
        "ark",
        "ask-signed-by-another",
        SnpError::Signature(Link::Ask),
    );
    refused("ark", "ask-issued-by-another", SnpError::Issuer(Link::Ask));
}

#[test]
fn authorities_that_may_not_sign_make_no_root() {
    let refused = |ark, ask, link| {
        assert_eq!(
            root_of(ark, ask),
            Err(SnpError::CaFlags(link)),
            "{ark} {ask}"
        );
    };
    refused("ark-without-crl-sign", "ask", Link::Ark);
    refused("ark", "ask-no-ca", Link::Ask);
    refused("ark", "ask-without-cert-sign", Link::Ask);
    refused("vcek", "ask", Link::Ark);
    refused("ark", "vcek", Link::Ask);
}

#[test]
fn what_is_no_certificate_makes_no_root() {
    let (ark, ask) = (made("ark"), made("ask"));
    let custom = |ark: &[u8], ask: &[u8]| AmdRoot::custom(ark, ask, Product::Milan).unwrap_err();
    let too_long = vec![0; MAX_CERTIFICATE + 1];
    assert_eq!(custom(&[], &ask), SnpError::Malformed(Link::Ark));
    assert_eq!(custom(&ark, &[]), SnpError::Malformed(Link::Ask));
    assert_eq!(custom(&too_long, &ask), SnpError::TooLong(Link::Ark));
    assert_eq!(custom(&ark, &too_long), SnpError::TooLong(Link::Ask));
    assert_eq!(
        custom(&[&ark[..], &[0]].concat(), &ask),
        SnpError::Malformed(Link::Ark)
    );
}

#[test]
fn each_link_has_its_time() {
    // The periods are nested: each year brings or takes away one more link.
    let years = [
        (2019, SnpError::NotYetValid(Link::Ark)),
        (2020, SnpError::NotYetValid(Link::Ask)),
        (2021, SnpError::NotYetValid(Link::Vcek)),
        (2022, SnpError::NotYetValid(Link::Crl)),
        (2057, SnpError::Expired(Link::Crl)),
        (2058, SnpError::Expired(Link::Vcek)),
        (2059, SnpError::Expired(Link::Ask)),
        (2060, SnpError::Expired(Link::Ark)),
    ];
    for (year, error) in years {
        assert_eq!(refusal(|case| case.now = middle_of(year)), error, "{year}");
    }
    assert_eq!(
        refusal(|case| case.now = 0),
        SnpError::NotYetValid(Link::Ark)
    );
    assert_eq!(
        refusal(|case| case.now = u64::MAX),
        SnpError::Expired(Link::Ark)
    );
}

#[test]
fn a_vcek_that_the_intermediate_did_not_sign_is_refused() {
    assert_eq!(
        with_vcek("vcek-signed-by-another"),
        SnpError::Signature(Link::Vcek)
    );
    assert_eq!(
        with_vcek("vcek-issued-by-another"),
        SnpError::Issuer(Link::Vcek)
    );
}

#[test]
fn a_certificate_of_the_wrong_kind_is_no_vcek() {
    assert_eq!(with_vcek("vcek-named-vlek"), SnpError::NotVcek);
    assert_eq!(with_vcek("vcek-is-ca"), SnpError::CaFlags(Link::Vcek));
    assert_eq!(with_vcek("vcek-p256"), SnpError::VcekKey);
    assert_eq!(with_vcek("vcek-sha256"), SnpError::Algorithm(Link::Vcek));
    assert_eq!(
        with_vcek("vcek-unknown-critical"),
        SnpError::UnknownCritical(Link::Vcek)
    );
    assert_eq!(with_vcek("ask"), SnpError::Issuer(Link::Vcek));
}

#[test]
fn a_vcek_of_another_product_line_is_refused() {
    assert_eq!(with_vcek("vcek-turin"), SnpError::VcekProduct);
}

#[test]
fn a_vcek_that_does_not_say_which_chip_it_is_for_is_refused() {
    assert_eq!(
        with_vcek("vcek-without-hwid"),
        SnpError::VcekExtension("hardware id")
    );
}

#[test]
fn what_is_no_certificate_is_no_vcek() {
    let malformed = SnpError::Malformed(Link::Vcek);
    assert_eq!(refusal(|case| case.vcek.clear()), malformed);
    assert_eq!(refusal(|case| case.vcek.push(0)), malformed);
    assert_eq!(refusal(|case| case.vcek = made("crl")), malformed);
    let too_long = SnpError::TooLong(Link::Vcek);
    assert_eq!(
        refusal(|case| case.vcek.resize(MAX_CERTIFICATE + 1, 0)),
        too_long
    );
}

#[test]
fn a_revocation_list_that_the_root_did_not_sign_is_refused() {
    assert_eq!(
        with_crl("crl-signed-by-another"),
        SnpError::Signature(Link::Crl)
    );
    assert_eq!(
        with_crl("crl-issued-by-another"),
        SnpError::Issuer(Link::Crl)
    );
    assert_eq!(with_crl("crl-sha256"), SnpError::Algorithm(Link::Crl));
}

#[test]
fn a_list_that_is_not_whole_is_refused() {
    assert_eq!(with_crl("crl-delta"), SnpError::UnknownCritical(Link::Crl));
    assert_eq!(
        with_crl("crl-without-number"),
        SnpError::Malformed(Link::Crl)
    );
}

#[test]
fn there_is_no_way_without_a_revocation_list() {
    let malformed = SnpError::Malformed(Link::Crl);
    assert_eq!(refusal(|case| case.crl.clear()), malformed);
    assert_eq!(refusal(|case| case.crl.push(0)), malformed);
    assert_eq!(with_crl("vcek"), malformed);
    let too_long = SnpError::TooLong(Link::Crl);
    assert_eq!(refusal(|case| case.crl.resize(MAX_CRL + 1, 0)), too_long);
}

#[test]
fn revoked_certificates_are_refused() {
    assert_eq!(with_crl("crl-revokes-ark"), SnpError::Revoked(Link::Ark));
    assert_eq!(with_crl("crl-revokes-ask"), SnpError::Revoked(Link::Ask));
    assert_eq!(with_crl("crl-revokes-vcek"), SnpError::Revoked(Link::Vcek));
}

#[test]
fn amds_roots_refuse_the_made_pki() {
    for product in Product::ALL {
        let refused = refusal(|case| {
            case.root = AmdRoot::builtin(product).unwrap();
            // Of version 2, which does not say what processor it is from.
            case.report[0] = 2;
            case.report[0x188..0x18b].fill(0);
            if product == Product::Turin {
                for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
                    case.report[offset + 6] = 0;
                }
            }
        });
        assert_eq!(refused, SnpError::Issuer(Link::Vcek), "{product:?}");
    }
}

#[test]
fn amds_names_without_amds_signature_are_refused() {
    // Within the period of AMD's list here.
    let now = 1_788_220_800;
    let amds = || AmdRoot::builtin(Product::Milan).unwrap();
    let vcek = refusal(|case| {
        (case.root, case.now) = (amds(), now);
        case.vcek = made("vcek-in-amds-name");
        case.crl = testdata("amd/crl-milan.der");
    });
    assert_eq!(vcek, SnpError::Signature(Link::Vcek));
    let crl = refusal(|case| {
        (case.root, case.now) = (amds(), now);
        case.vcek = made("vcek-in-amds-name");
        case.crl = made("crl-in-amds-name");
    });
    assert_eq!(crl, SnpError::Signature(Link::Crl));
}
