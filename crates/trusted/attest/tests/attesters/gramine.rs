//! SGX under Gramine, on real files: what Gramine shows as `/dev/attestation`, in a temporary folder.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use sesemi_attest::evidence::{EvidenceError, MAX_EVIDENCE};
use sesemi_attest::tee::files::SystemFiles;
use sesemi_attest::tee::gramine::Gramine;
use sesemi_attest::{Attester, AttesterError, SealBinding, TeeKind};
use tempfile::TempDir;

use crate::{AMPLE, SOON, in_time, patiently, report_data, sgx_quote, tdx_quote};

const BY_SIGNER: SealBinding = SealBinding::Signer {
    security_version: None,
};

/// The pseudo-files of a Gramine that attests, with a quote about `report_data(1)`.
pub(crate) struct Folder(TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        let folder = Self(TempDir::new().unwrap());
        fs::create_dir(folder.path().join("keys")).unwrap();
        folder.set("attestation_type", b"dcap");
        folder.set("user_report_data", b"");
        folder.set("quote", &sgx_quote(&report_data(1), 3));
        folder.set("keys/_sgx_mrenclave", &[1; 16]);
        folder.set("keys/_sgx_mrsigner", &[2; 16]);
        folder
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn set(&self, file: &str, content: &[u8]) {
        fs::write(self.path().join(file), content).unwrap();
    }

    fn remove(&self, file: &str) {
        fs::remove_file(self.path().join(file)).unwrap();
    }

    /// Makes a file one that nobody writes to, so that reading it waits for ever.
    fn make_pipe(&self, file: &str) -> PathBuf {
        let path = self.path().join(file);
        fs::remove_file(&path).unwrap();
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        path
    }

    pub(crate) fn open(&self) -> Result<Gramine, AttesterError> {
        self.open_with(AMPLE)
    }

    fn open_with(&self, deadline: Duration) -> Result<Gramine, AttesterError> {
        Gramine::open(self.path(), Arc::new(SystemFiles), deadline)
    }

    /// Opens it with a deadline that can be waited for, however slow this machine is now.
    fn open_soon(&self) -> Gramine {
        patiently(|| in_time(self.open_with(SOON)))
    }
}

#[test]
fn an_enclave_writes_its_report_data_and_hands_on_the_quote() {
    let folder = Folder::new();
    let enclave = folder.open().unwrap();
    assert_eq!((enclave.name(), enclave.tee()), ("sgx", TeeKind::Sgx));
    let data = report_data(1);
    assert_eq!(
        enclave.evidence(&data).unwrap().as_bytes(),
        sgx_quote(&data, 3)
    );
    assert_eq!(
        fs::read(folder.path().join("user_report_data")).unwrap(),
        data
    );
}

#[test]
fn a_quote_about_other_report_data_goes_nowhere() {
    let folder = Folder::new();
    let result = folder.open().unwrap().evidence(&report_data(2));
    let Err(AttesterError::Contract(reason)) = result else {
        panic!("{result:?}");
    };
    assert!(reason.contains("other report data"), "{reason}");
}

#[test]
fn what_is_no_quote_of_sgx_or_too_long_goes_nowhere() {
    let folder = Folder::new();
    let enclave = folder.open().unwrap();
    let given = |quote: &[u8]| {
        folder.set("quote", quote);
        enclave.evidence(&report_data(1)).unwrap_err()
    };
    assert!(matches!(
        given(&vec![3; MAX_EVIDENCE + 1]),
        AttesterError::Evidence(EvidenceError::TooLong(MAX_EVIDENCE))
    ));
    assert!(matches!(
        given(b""),
        AttesterError::Evidence(EvidenceError::Unknown)
    ));
    assert!(matches!(
        given(&tdx_quote(4, &report_data(1))),
        AttesterError::Contract("its quote is not of SGX")
    ));
    assert!(matches!(
        given(&sgx_quote(&report_data(1), 3)[..431]),
        AttesterError::Contract("its evidence is too short to hold report data")
    ));
}

#[test]
fn a_gramine_that_does_not_attest_says_what_to_write_into_the_manifest() {
    let folder = Folder::new();
    for (kind, advice) in [
        ("none", "sgx.remote_attestation = \"dcap\""),
        ("epid", "EPID"),
    ] {
        folder.set("attestation_type", kind.as_bytes());
        let Err(AttesterError::Unusable { hint, .. }) = folder.open() else {
            panic!("{kind} was taken");
        };
        assert!(hint.contains(advice), "{hint}");
    }
    folder.remove("attestation_type");
    let Err(AttesterError::Unusable { hint, .. }) = folder.open() else {
        panic!("a Gramine without SGX was taken");
    };
    assert!(hint.contains("gramine-sgx"), "{hint}");

    folder.set("attestation_type", b"maa");
    let Err(AttesterError::UnknownProvider(kind)) = folder.open() else {
        panic!("an unknown kind was taken");
    };
    assert_eq!(kind, "maa");
    folder.set("attestation_type", &[0xff; 4]);
    assert!(matches!(folder.open(), Err(AttesterError::Contract(_))));
}

#[test]
fn files_that_are_missing_or_cannot_be_written_are_device_errors() {
    for file in ["quote", "user_report_data"] {
        let folder = Folder::new();
        let enclave = folder.open().unwrap();
        folder.remove(file);
        assert!(matches!(
            enclave.evidence(&report_data(1)),
            Err(AttesterError::Device(_))
        ));
        assert!(!folder.path().join(file).exists(), "{file} was made");
    }
}

#[test]
fn a_quoting_enclave_that_never_answers_is_given_up() {
    let folder = Folder::new();
    let pipe = folder.make_pipe("quote");
    let enclave = folder.open_soon();
    assert!(matches!(
        enclave.evidence(&report_data(1)),
        Err(AttesterError::TimedOut("give a quote"))
    ));
    assert!(matches!(
        enclave.evidence(&report_data(1)),
        Err(AttesterError::OutOfService(_))
    ));
    assert!(matches!(
        enclave.sealing_key(SealBinding::Measurement),
        Err(AttesterError::OutOfService(_))
    ));
    // The thread that waits for the pipe is let go.
    drop(OpenOptions::new().write(true).open(pipe).unwrap());
}

#[test]
fn a_gramine_that_does_not_even_say_how_it_attests_is_given_up() {
    let folder = Folder::new();
    let pipe = folder.make_pipe("attestation_type");
    assert!(matches!(
        folder.open_with(SOON),
        Err(AttesterError::TimedOut("say how it attests"))
    ));
    drop(OpenOptions::new().write(true).open(pipe).unwrap());
}

#[test]
fn sealing_keys_differ_by_binding_stay_the_same_and_are_never_gramines_own() {
    let folder = Folder::new();
    let enclave = folder.open().unwrap();
    let by_measurement = enclave.sealing_key(SealBinding::Measurement).unwrap();
    let by_signer = enclave.sealing_key(BY_SIGNER).unwrap();
    assert_ne!(by_measurement, by_signer);
    assert_eq!(
        folder
            .open()
            .unwrap()
            .sealing_key(SealBinding::Measurement)
            .unwrap(),
        by_measurement
    );
    assert_ne!(by_measurement.expose()[..16], [1; 16]);
    // The same bytes in both files still make two keys: each has its purpose in it.
    folder.set("keys/_sgx_mrsigner", &[1; 16]);
    assert_ne!(enclave.sealing_key(BY_SIGNER).unwrap(), by_measurement);
}

#[test]
fn a_key_by_signer_is_for_the_enclaves_own_security_version_only() {
    let folder = Folder::new();
    folder.set("quote", &sgx_quote(&[0; 64], 3));
    let enclave = folder.open().unwrap();
    let of_version = |version| {
        enclave.sealing_key(SealBinding::Signer {
            security_version: Some(version),
        })
    };
    assert_eq!(
        of_version(3).unwrap(),
        enclave.sealing_key(BY_SIGNER).unwrap()
    );
    for other in [2, 4, 0x0300] {
        let Err(AttesterError::NoSealingKey { tee: "sgx", hint }) = of_version(other) else {
            panic!("version {other} has a key");
        };
        assert!(hint.contains("own security version"), "{hint}");
    }
}

#[test]
fn keys_of_zeros_of_another_length_or_that_are_missing_are_refused() {
    for (file, binding) in [
        ("keys/_sgx_mrenclave", SealBinding::Measurement),
        ("keys/_sgx_mrsigner", BY_SIGNER),
    ] {
        let folder = Folder::new();
        let enclave = folder.open().unwrap();
        folder.set(file, &[0; 16]);
        assert!(matches!(
            enclave.sealing_key(binding),
            Err(AttesterError::Contract("its key is all zeros"))
        ));
        for length in [0, 15, 17, 32] {
            folder.set(file, &vec![7; length]);
            assert!(matches!(
                enclave.sealing_key(binding),
                Err(AttesterError::Contract(
                    "its sealing key has another length than 16 bytes"
                ))
            ));
        }
        folder.remove(file);
        let Err(AttesterError::NoSealingKey { hint, .. }) = enclave.sealing_key(binding) else {
            panic!("a key out of nothing");
        };
        assert!(hint.contains("1.5"), "{hint}");
    }
}
