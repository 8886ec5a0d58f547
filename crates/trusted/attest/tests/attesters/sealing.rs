//! Sealing keys of confidential virtual machines.

use std::path::Path;
use std::sync::{Arc, Mutex};

use sesemi_attest::tee::configfs::{self, Limits};
use sesemi_attest::tee::snp::{DerivedKeySource, KeyFields};
use sesemi_attest::{Attester, AttesterError, SealBinding};
use zeroize::Zeroizing;

use crate::kernel::{Behaviour, Kernel};

/// A firmware that must not be asked.
pub(crate) struct NoKeys;

impl DerivedKeySource for NoKeys {
    fn derive(&self, _: KeyFields) -> Result<Zeroizing<[u8; 32]>, AttesterError> {
        panic!("the firmware was asked for a key")
    }
}

/// A firmware that derives these bytes, and notes what it was asked for.
struct Firmware {
    key: [u8; 32],
    asked: Mutex<Vec<KeyFields>>,
}

impl DerivedKeySource for Firmware {
    fn derive(&self, fields: KeyFields) -> Result<Zeroizing<[u8; 32]>, AttesterError> {
        self.asked.lock().unwrap().push(fields);
        Ok(Zeroizing::new(self.key))
    }
}

/// A firmware that refuses.
struct Refusing;

impl DerivedKeySource for Refusing {
    fn derive(&self, _: KeyFields) -> Result<Zeroizing<[u8; 32]>, AttesterError> {
        Err(AttesterError::Refused("invalid parameters".into()))
    }
}

fn guest(behaviour: Behaviour, keys: Arc<dyn DerivedKeySource>) -> Arc<dyn Attester> {
    let limits = Limits {
        deadline: crate::AMPLE,
        ..Limits::default()
    };
    configfs::open(
        Path::new("/sys/kernel/config/tsm/report"),
        Kernel::new(behaviour),
        limits,
        keys,
    )
    .unwrap()
    .unwrap()
}

fn firmware(key: [u8; 32]) -> Arc<Firmware> {
    Arc::new(Firmware {
        key,
        asked: Mutex::new(Vec::new()),
    })
}

#[test]
fn a_tdx_guest_has_no_sealing_key_and_says_what_to_do_instead() {
    for binding in [
        SealBinding::Measurement,
        SealBinding::Signer {
            security_version: None,
        },
    ] {
        let result = guest(Behaviour::tdx(), Arc::new(NoKeys)).sealing_key(binding);
        let Err(AttesterError::NoSealingKey { tee: "tdx", hint }) = result else {
            panic!("{result:?}");
        };
        assert!(hint.contains("recovery shares"), "{hint}");
    }
}

#[test]
fn an_snp_guests_key_depends_on_its_measurement_and_policy_and_is_never_the_firmwares_own() {
    let firmware = firmware([7; 32]);
    let key = guest(Behaviour::snp(), firmware.clone())
        .sealing_key(SealBinding::Measurement)
        .unwrap();
    assert_ne!(key.expose(), &[7; 32]);
    let again = guest(Behaviour::snp(), firmware.clone())
        .sealing_key(SealBinding::Measurement)
        .unwrap();
    assert_eq!(key, again);
    let everything = KeyFields {
        guest_policy: true,
        image_id: true,
        family_id: true,
        measurement: true,
    };
    assert_eq!(*firmware.asked.lock().unwrap(), [everything, everything]);
}

#[test]
fn an_snp_guest_has_no_key_by_signer() {
    for security_version in [None, Some(1)] {
        let result = guest(Behaviour::snp(), Arc::new(NoKeys))
            .sealing_key(SealBinding::Signer { security_version });
        let Err(AttesterError::NoSealingKey { tee: "snp", hint }) = result else {
            panic!("{result:?}");
        };
        assert!(hint.contains("by measurement"), "{hint}");
    }
}

#[test]
fn a_key_of_zeros_is_refused_and_a_refusal_reported() {
    let zeros = guest(Behaviour::snp(), firmware([0; 32])).sealing_key(SealBinding::Measurement);
    assert!(matches!(
        zeros,
        Err(AttesterError::Contract("its key is all zeros"))
    ));
    let refused = guest(Behaviour::snp(), Arc::new(Refusing)).sealing_key(SealBinding::Measurement);
    assert!(matches!(refused, Err(AttesterError::Refused(_))));
}

#[test]
fn a_guest_with_host_data_has_no_sealing_key_because_another_guest_would_get_the_same() {
    let mut behaviour = Behaviour::snp();
    behaviour.report = Box::new(|report_data| {
        let mut report = crate::snp_report(report_data);
        report[0xc0] = 1;
        report
    });
    let result = guest(behaviour, Arc::new(NoKeys)).sealing_key(SealBinding::Measurement);
    let Err(AttesterError::NoSealingKey { tee: "snp", hint }) = result else {
        panic!("{result:?}");
    };
    assert!(hint.contains("HOST_DATA"), "{hint}");
}
