//! Reference values from files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use proptest::prelude::*;
use sesemi::TrustAnchor;
use sesemi::measure::Measurement;
use sesemi::measure::reference::{MAX_REFERENCE, Reference};

/// The examples in the documentation of the module: TDX, SEV-SNP, SGX.
fn examples() -> Vec<String> {
    let source = include_str!("../src/measure/reference.rs");
    let lines: Vec<&str> = source
        .lines()
        .filter_map(|l| l.strip_prefix("//!"))
        .collect();
    let blocks = lines.split(|line| line.trim().starts_with("```"));
    blocks
        .skip(1)
        .step_by(2)
        .map(|block| block.join("\n"))
        .collect()
}

fn error(text: &str) -> String {
    Reference::from_toml(text).unwrap_err().to_string()
}

fn measured(text: &str) -> Measurement {
    Reference::from_toml(text).unwrap().measurement
}

#[test]
fn the_documented_examples_are_reference_values() {
    let [tdx, snp, sgx] = examples().try_into().unwrap();
    let Measurement::Tdx(tdx) = measured(&tdx) else {
        panic!("not TDX");
    };
    assert_eq!((tdx.mr_td[0], tdx.mr_td[47]), (0x91, 0xb7));
    assert_eq!(
        (tdx.rt_mr[0][0], tdx.rt_mr[2][0], tdx.rt_mr[3]),
        (0x0c, 0x2c, [0; 48])
    );
    assert_eq!(tdx.td_attributes, [0, 0, 0, 0x10, 0, 0, 0, 0]);
    assert_eq!(tdx.xfam, [0xe7, 2, 6, 0, 0, 0, 0, 0]);
    assert_eq!((tdx.mr_owner, tdx.mr_config_id), ([0; 48], [0; 48]));
    let Measurement::Snp(product, snp) = measured(&snp) else {
        panic!("not SEV-SNP");
    };
    assert_eq!(product.as_str().to_ascii_lowercase(), "milan");
    assert_eq!(
        (snp.policy, snp.guest_svn, snp.host_data),
        (0x30000, 0, [0; 32])
    );
    let Measurement::Sgx(sgx) = measured(&sgx) else {
        panic!("not SGX");
    };
    assert_eq!((sgx.isv_prod_id, sgx.isv_svn), (1, 2));
}

#[test]
fn each_field_reaches_its_place_in_the_identity() {
    let anchor = TrustAnchor::production().unwrap();
    let identity = |text: &str| measured(text).identity(&anchor).unwrap();
    let hex48 = |digits: &str| digits.repeat(48);
    let tdx = format!(
        "kind = \"tdx\"\nmr-td = \"{}\"\nrt-mr = [\"{}\", \"{}\", \"{}\", \"{}\"]\nmr-owner = \"{}\"\nmr-config-id = \"{}\"\n\
         mr-owner-config = \"{}\"\ntd-attributes = \"0001020304050607\"\nxfam = \"08090a0b0c0d0e0f\"\n",
        hex48("a0"),
        hex48("b0"),
        hex48("b1"),
        hex48("b2"),
        hex48("b3"),
        hex48("c0"),
        hex48("d0"),
        hex48("d1"),
    );
    let tdx = identity(&tdx);
    let firsts: Vec<u8> = tdx.measurements.iter().map(|m| m[0]).collect();
    assert_eq!(firsts, [0xa0, 0xb0, 0xb1, 0xb2, 0xb3]);
    assert_eq!(tdx.signer[0], 0xc0);
    assert_eq!((tdx.configuration[0], tdx.configuration[48]), (0xd0, 0xd1));
    assert_eq!(tdx.configuration[96..], (0..16).collect::<Vec<u8>>());

    let snp = format!(
        "kind = \"snp\"\nproduct = \"genoa\"\nmeasurement = \"{}\"\npolicy = 0x30000\nid-key-digest = \"{}\"\n\
         author-key-digest = \"{}\"\nguest-svn = 7\nfamily-id = \"{}\"\nimage-id = \"{}\"\nhost-data = \"{}\"\n",
        hex48("a0"),
        hex48("b0"),
        hex48("b1"),
        "c0".repeat(16),
        "c1".repeat(16),
        "d0".repeat(32),
    );
    let milan = identity(&snp.replace("genoa", "milan"));
    let snp = identity(&snp);
    assert_eq!((snp.measurements[0][0], snp.security_version), (0xa0, 7));
    assert_eq!((snp.signer[0], snp.signer[48]), (0xb0, 0xb1));
    let configuration = &snp.configuration;
    assert_eq!(
        (configuration[0], configuration[32], configuration[48]),
        (0xd0, 0xc0, 0xc1)
    );
    assert_eq!(configuration[64..], 0x30000_u64.to_le_bytes());
    assert_ne!(
        milan.trust_domain, snp.trust_domain,
        "each product line has a root of its own"
    );
}

#[test]
fn a_simulated_root_gives_no_identity_of_sev_snp() {
    let [_, snp, _] = examples().try_into().unwrap();
    let production = TrustAnchor::production().unwrap();
    assert!(measured(&snp).identity(&production).is_ok());
    let intel = include_bytes!("../../../trusted/attest/roots/intel-sgx-root-ca.der");
    let simulated = TrustAnchor::simulated(intel.to_vec()).unwrap();
    assert!(measured(&snp).identity(&simulated).is_err());
}

/// Each example without the line that begins with `field`, and with `line` in its place.
fn with(example: &str, field: &str, line: &str) -> String {
    let changed: Vec<&str> = example
        .lines()
        .map(|old| {
            if old.trim_start().starts_with(field) {
                line
            } else {
                old
            }
        })
        .collect();
    assert_ne!(changed.join("\n"), example, "{field} is not in the example");
    changed.join("\n")
}

#[test]
fn what_says_which_code_it_is_cannot_be_left_out() {
    let [tdx, snp, sgx] = examples().try_into().unwrap();
    for (example, fields) in [
        (&tdx, &["mr-td", "td-attributes", "xfam"][..]),
        (&snp, &["product", "measurement", "policy"]),
        (&sgx, &["mr-enclave", "mr-signer", "isv-prod-id", "isv-svn"]),
    ] {
        for field in fields {
            let shown = error(&with(example, field, ""));
            assert!(
                shown.contains(&format!("missing field `{field}`")),
                "{shown}"
            );
        }
    }
    assert!(error(&tdx.replace("rt-mr = [", "rt-mr-others = [")).contains("rt-mr-others"));
}

#[test]
fn a_fault_is_shown_with_its_line() {
    let [tdx, snp, sgx] = examples().try_into().unwrap();
    let cases = [
        (
            with(&tdx, "mr-td", "mr-td = \"00\""),
            "line 3",
            "expected 96 hexadecimal digits",
        ),
        (
            with(&tdx, "xfam", "xfam = \"zz02060000000000\""),
            "xfam",
            "'z' at place 0",
        ),
        (
            with(&tdx, "td-attributes", "td-atributes = \"0000001000000000\""),
            "td-atributes",
            "unknown field",
        ),
        (
            with(&snp, "product", "product = \"rome\""),
            "line 2",
            "rome",
        ),
        (with(&snp, "policy", "policy = -1"), "line 4", "policy"),
        (with(&sgx, "isv-svn", "isv-svn = 65536"), "line 5", "65536"),
        (with(&sgx, "kind", "kind = \"sev\""), "line 1", "sev"),
    ];
    for (text, place, what) in cases {
        let shown = error(&text);
        assert!(shown.contains(place) && shown.contains(what), "{shown}");
    }
    let three = tdx.replacen("  \"000000", "  # \"000000", 1);
    assert!(
        error(&three).contains("array of length 4"),
        "{}",
        error(&three)
    );
}

#[test]
fn what_no_verifier_accepts_is_not_approved_either() {
    let [tdx, snp, sgx] = examples().try_into().unwrap();
    let cases = [
        (
            with(
                &tdx,
                "td-attributes",
                "td-attributes = \"0100001000000000\"",
            ),
            "under debug",
        ),
        (with(&snp, "policy", "policy = 0xB0000"), "bit 19"),
        (with(&snp, "policy", "policy = 0x70000"), "bit 18"),
        (with(&snp, "policy", "policy = 0"), "bit 17"),
        (
            with(
                &snp,
                "measurement",
                &format!("measurement = \"{}\"", "00".repeat(48)),
            ),
            "measurement",
        ),
        (
            with(&tdx, "mr-td", &format!("mr-td = \"{}\"", "00".repeat(48))),
            "mr-td",
        ),
        (
            with(
                &sgx,
                "mr-enclave",
                &format!("mr-enclave = \"{}\"", "00".repeat(32)),
            ),
            "mr-enclave",
        ),
    ];
    for (text, what) in cases {
        assert!(error(&text).contains(what), "{}", error(&text));
    }
}

#[test]
fn a_domain_whose_kernel_was_not_measured_comes_with_a_caution() {
    let [tdx, ..] = <[String; 3]>::try_from(examples()).unwrap();
    assert!(Reference::from_toml(&tdx).unwrap().cautions.is_empty());
    let second = "\"1c7a4bb5d1f6a96fd1b2d21d5d8e5a4a3c2b1a09f8e7d6c5b4a392817060504f3e2d1c0b0a09080706050403020100ff\"";
    let unmeasured = tdx.replacen(second, &format!("\"{}\"", "00".repeat(48)), 1);
    assert_ne!(unmeasured, tdx);
    assert_eq!(Reference::from_toml(&unmeasured).unwrap().cautions.len(), 1);
}

#[test]
fn a_file_that_is_too_long_is_refused_unread() {
    assert!(error(&"#".repeat(MAX_REFERENCE + 1)).contains("longer than"));
}

proptest! {
    #[test]
    fn no_text_panics(text in ".{0,300}", kind in "sgx|tdx|snp|x") {
        let _ = Reference::from_toml(&text);
        let _ = Reference::from_toml(&format!("kind = \"{kind}\"\n{text}"));
    }
}
