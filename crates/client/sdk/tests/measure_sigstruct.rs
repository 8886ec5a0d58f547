//! SIGSTRUCTs: a real one that others published, and ones made for this test; see testdata/sigstruct/README.md.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use proptest::prelude::*;
use sesemi::measure::Measurement;
use sesemi::measure::gramine::{MAX_MANIFEST, Manifest};
use sesemi::measure::sigstruct::{SIGSTRUCT_LEN, Sigstruct, SigstructError};
use sesemi::{TeeKind, TrustAnchor};

const PUBLISHED: &[u8] = include_bytes!("../testdata/sigstruct/sgx-crate.sig");
const PRODUCTION: &[u8] = include_bytes!("../testdata/sigstruct/production.sig");
const DEBUG: &[u8] = include_bytes!("../testdata/sigstruct/debug.sig");
const CONFIGURABLE: &[u8] = include_bytes!("../testdata/sigstruct/configurable.sig");
const MANIFEST: &str = include_str!("../testdata/sigstruct/production.manifest.sgx");

/// What the signature covers (SDM 38.13), and the signature and its key themselves.
const SIGNED: [core::ops::Range<usize>; 2] = [0..128, 900..1028];
const KEY_AND_SIGNATURE: core::ops::Range<usize> = 128..900;

#[test]
fn a_published_sigstruct_verifies_and_says_what_it_said_there() {
    let m = Sigstruct::verify(PUBLISHED).unwrap().measurement;
    assert_eq!(
        hex::encode(m.mr_enclave),
        "b999536238fcf4e9d360ef6cd3e0c20ef8a684c7b93f74a9c4a4c6d517d61fc0"
    );
    assert_eq!(
        hex::encode(m.mr_signer),
        "2f9f8fd4fe12d77232f1d87571ca8252ca27714efe7705e46222cffd5a22e8c4"
    );
    assert_eq!((m.isv_prod_id, m.isv_svn, m.config_id), (0, 0, [0; 64]));
}

#[test]
fn a_sigstruct_gives_the_identity_under_the_production_root() {
    let signed = Sigstruct::verify(PRODUCTION).unwrap();
    assert_eq!(signed.date, 0x2026_1122);
    let m = signed.measurement;
    assert_eq!((m.isv_prod_id, m.isv_svn), (1, 2));
    assert_eq!(
        hex::encode(m.mr_enclave),
        "a5defe07508c951cac5b89856c6d0298eb0bfb1fc61505fd140e7d6d877d4c7a"
    );
    let anchor = TrustAnchor::production().unwrap();
    let identity = Measurement::Sgx(m).identity(&anchor).unwrap();
    assert_eq!(identity.tee, TeeKind::Sgx);
    assert_eq!(identity.trust_domain, anchor.domain().0);
    assert_eq!(&identity.measurements[0][..], m.mr_enclave);
}

#[test]
fn an_enclave_that_can_be_debugged_or_configured_at_launch_is_refused() {
    assert_eq!(Sigstruct::verify(DEBUG), Err(SigstructError::Debug));
    assert_eq!(
        Sigstruct::verify(CONFIGURABLE),
        Err(SigstructError::Configurable)
    );
}

#[test]
fn no_signed_byte_can_be_changed() {
    for at in SIGNED.into_iter().flatten().chain(KEY_AND_SIGNATURE) {
        let mut changed = PRODUCTION.to_vec();
        changed[at] ^= 1;
        let refused = Sigstruct::verify(&changed);
        assert!(
            matches!(
                refused,
                Err(SigstructError::Signature | SigstructError::Constant { .. })
            ),
            "byte {at}: {refused:?}"
        );
    }
}

#[test]
fn the_debug_bit_cannot_be_cleared_after_signing() {
    let mut cleared = DEBUG.to_vec();
    cleared[928] &= !2;
    assert_eq!(Sigstruct::verify(&cleared), Err(SigstructError::Signature));
}

#[test]
fn another_length_is_refused_and_named() {
    for length in [0, 1, SIGSTRUCT_LEN - 1] {
        let error = Sigstruct::verify(&PRODUCTION[..length]).unwrap_err();
        assert_eq!(
            error,
            SigstructError::Length {
                found: length as u64
            }
        );
    }
    let longer = [PRODUCTION, &[0]].concat();
    assert!(Sigstruct::verify(&longer).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
        let _ = Sigstruct::verify(&bytes);
    }

    #[test]
    fn no_bytes_after_a_true_header_panic_or_verify(bytes in prop::collection::vec(any::<u8>(), SIGSTRUCT_LEN - 128)) {
        let bytes = [&PRODUCTION[..128], &bytes].concat();
        prop_assert!(Sigstruct::verify(&bytes).is_err());
    }

    #[test]
    fn no_text_panics_as_a_manifest(text in ".{0,200}") {
        if let Ok(manifest) = Manifest::from_toml(&text) {
            let _ = manifest.findings(&Sigstruct::verify(PRODUCTION).unwrap().measurement);
        }
    }
}

/// The options that are found at fault in the manifest after `from` became `to`.
fn faults(from: &str, to: &str) -> Vec<String> {
    assert!(MANIFEST.contains(from), "{from} is not in the manifest");
    let manifest = Manifest::from_toml(&MANIFEST.replacen(from, to, 1)).unwrap();
    let signed = Sigstruct::verify(PRODUCTION).unwrap().measurement;
    let found = manifest.findings(&signed);
    found.into_iter().map(|finding| finding.option).collect()
}

#[test]
fn a_sound_manifest_has_no_findings() {
    assert_eq!(faults("debug", "debug"), [""; 0]);
    assert_eq!(faults("debug = false\n", ""), [""; 0]);
}

#[test]
fn every_setting_that_opens_the_enclave_or_contradicts_the_signature_is_found() {
    let argv =
        "loader.argv = [\"sesemi-semirt\", \"serve\", \"--config\", \"/etc/sesemi/semirt.toml\"]";
    let cases = [
        ("debug = false", "debug = true", "sgx.debug"),
        ("isvsvn = 2", "isvsvn = 3", "sgx.isvsvn"),
        ("isvprodid = 1\n", "", "sgx.isvprodid"),
        ("isvsvn = 2", "isvsvn = \"2\"", "sgx.isvsvn"),
        ("\"dcap\"", "\"none\"", "sgx.remote_attestation"),
        (
            "remote_attestation = \"dcap\"\n",
            "",
            "sgx.remote_attestation",
        ),
        ("\"error\"", "\"trace\"", "loader.log_level"),
        ("\"error\"", "1", "loader.log_level"),
        (
            "debug = false",
            "debug = false\nenable_stats = true",
            "sgx.enable_stats",
        ),
        (
            "debug = false",
            "debug = false\nfile_check_policy = \"allow_all_but_log\"",
            "sgx.file_check_policy",
        ),
        (
            "debug = false",
            "debug = false\ninsecure__rpc_thread_num = 2",
            "sgx.insecure__rpc_thread_num",
        ),
        (
            "MALLOC_ARENA_MAX = \"1\"",
            "MALLOC_ARENA_MAX = { passthrough = true }",
            "loader.env.MALLOC_ARENA_MAX",
        ),
        (
            "{ path = \"/etc/sesemi\",",
            "{ type = \"encrypted\", key_name = \"_sgx_mrenclave\", path = \"/etc/sesemi\",",
            "fs.mounts /etc/sesemi",
        ),
        ("sha256", "md5", "sgx.trusted_files"),
        (argv, "", "loader.argv"),
    ];
    for (from, to, option) in cases {
        assert_eq!(faults(from, to), [option], "{from} -> {to}");
    }
    assert_eq!(
        faults(argv, "loader.insecure__use_cmdline_argv = true"),
        ["loader.argv", "loader.insecure__use_cmdline_argv"]
    );
}

#[test]
fn what_is_no_manifest_is_refused_with_its_line() {
    let error = Manifest::from_toml("[sgx]\ndebug = fals\n").unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
    assert!(Manifest::from_toml(&" ".repeat(MAX_MANIFEST + 1)).is_err());
}

/// A template of deploy/gramine as `gramine-manifest` would render it for a static program, near enough: lines that Jinja drops
/// are dropped, and a value with a default has it.
fn rendered(part: &str) -> String {
    let path = format!(
        "{}/../../../deploy/gramine/sesemi-{part}.manifest.template",
        env!("CARGO_MANIFEST_DIR")
    );
    let template = std::fs::read_to_string(path).unwrap();
    let mut dynamic = false;
    let mut out = String::new();
    for line in template.lines() {
        match line {
            r#"{% if linking == "dynamic" %}"# => dynamic = true,
            "{% endif %}" => dynamic = false,
            _ if dynamic => {}
            line => out += &format!("{}\n", without_expressions(line)),
        }
    }
    out
}

fn without_expressions(line: &str) -> String {
    let Some((before, rest)) = line.split_once("{{ ") else {
        return line.to_owned();
    };
    let (expression, after) = rest.split_once(" }}").unwrap();
    let value = match expression {
        "gramine.libos" => "/usr/lib/libsysdb.so",
        "'true' if edmm == '1' else 'false'" => "false",
        other => other.split('\'').nth(1).unwrap(),
    };
    format!("{before}{value}{after}")
}

#[test]
fn the_templates_in_deploy_have_no_setting_that_opens_the_enclave() {
    for (part, product) in [("keyservice", 1), ("semirt", 2)] {
        let manifest = Manifest::from_toml(&rendered(part)).unwrap();
        let mut signed = Sigstruct::verify(PRODUCTION).unwrap().measurement;
        (signed.isv_prod_id, signed.isv_svn) = (product, 1);
        let found = manifest.findings(&signed);
        let options: Vec<&str> = found.iter().map(|it| it.option.as_str()).collect();
        // Its files have no hashes before it is signed; and that is all.
        assert_eq!(options, ["sgx.trusted_files"], "{part}");
    }
}
