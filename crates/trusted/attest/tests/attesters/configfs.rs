//! Evidence of TDX and SEV-SNP guests. After every failure the entry that was made is gone again.

use std::path::Path;
use std::sync::mpsc;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Duration;

use sesemi_attest::evidence::{EvidenceError, MAX_EVIDENCE, MAX_VCEK};
use sesemi_attest::tee::certificate_table::MAX_TABLE;
use sesemi_attest::tee::configfs::{self, Limits};
use sesemi_attest::{Attester, AttesterError, Evidence, TeeKind};

use crate::kernel::{
    Behaviour, EACCES, EAGAIN, EBUSY, EINVAL, EIO, ENXIO, EROFS, FOR_EVER, Kernel,
};
use crate::sealing::NoKeys;
use crate::{
    AMPLE, SOON, VCEK, VLEK, certificate_table, in_time, patiently, report_data, sgx_quote,
    tdx_quote,
};

const ATTEMPTS: u32 = 5;

fn limits() -> Limits {
    Limits {
        attempts: ATTEMPTS,
        pause: Duration::from_micros(1),
        deadline: AMPLE,
    }
}

fn open_with(kernel: &Arc<Kernel>, limits: Limits) -> Result<Arc<dyn Attester>, AttesterError> {
    let root = Path::new("/sys/kernel/config/tsm/report");
    configfs::open(root, kernel.clone(), limits, Arc::new(NoKeys))
        .map(|found| found.expect("a TEE"))
}

fn open(kernel: &Arc<Kernel>) -> Arc<dyn Attester> {
    open_with(kernel, limits()).unwrap()
}

/// Opens it with a deadline that can be waited for, however slow this machine is now.
fn open_soon(kernel: &Arc<Kernel>) -> Arc<dyn Attester> {
    let limits = Limits {
        deadline: SOON,
        ..limits()
    };
    patiently(|| in_time(open_with(kernel, limits)))
}

/// Asks a guest on such a kernel for evidence; nothing is left behind, whatever comes of it.
fn evidence_on(behaviour: Behaviour) -> Result<Evidence, AttesterError> {
    let kernel = Kernel::new(behaviour);
    let evidence = open(&kernel).evidence(&report_data(1));
    assert!(kernel.is_clean(), "an entry was left behind");
    evidence
}

fn device_error(result: Result<Evidence, AttesterError>) -> Option<i32> {
    match result {
        Err(AttesterError::Device(error)) => error.raw_os_error(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_tdx_guest_hands_on_the_quote_about_what_was_asked() {
    for version in [4, 5] {
        let kernel = Kernel::new(Behaviour {
            report: Box::new(move |data| tdx_quote(version, data)),
            ..Behaviour::tdx()
        });
        let guest = open(&kernel);
        assert_eq!((guest.name(), guest.tee()), ("tdx", TeeKind::Tdx));
        for seed in [1, 2] {
            let evidence = guest.evidence(&report_data(seed)).unwrap();
            assert_eq!(evidence.as_bytes(), tdx_quote(version, &report_data(seed)));
        }
        assert!(kernel.is_clean());
    }
}

#[test]
fn an_snp_guest_hands_on_its_report_for_privilege_level_0_with_the_chips_certificate() {
    let kernel = Kernel::new(Behaviour::snp());
    let guest = open(&kernel);
    assert_eq!((guest.name(), guest.tee()), ("snp", TeeKind::Snp));
    let data = report_data(1);
    let report = crate::snp_report(&data);
    let with = Evidence::from_snp(&report, Some(b"the chip's")).unwrap();
    assert_eq!(guest.evidence(&data).unwrap(), with);
    assert_eq!(kernel.privilege_levels(), [b"0"]);

    let without = Evidence::from_snp(&report, None).unwrap();
    for certificates in [None, Some(vec![]), Some(vec![0; 24])] {
        kernel.change(|kernel| kernel.certificates = certificates);
        assert_eq!(guest.evidence(&data).unwrap(), without);
    }
    assert!(kernel.is_clean());
}

#[test]
fn a_kernel_without_privilege_levels_is_not_told_one() {
    let guest = Behaviour {
        privilege_floor: None,
        ..Behaviour::snp()
    };
    assert_eq!(evidence_on(guest).unwrap().tee(), TeeKind::Snp);
}

#[test]
fn every_request_has_an_entry_of_its_own_under_an_unpredictable_name() {
    let kernel = Kernel::new(Behaviour::tdx());
    for _ in 0..2 {
        let guest = open(&kernel);
        guest.evidence(&report_data(1)).unwrap();
        guest.evidence(&report_data(1)).unwrap();
    }
    let mut names = kernel.names();
    let made = names.len();
    names.sort();
    names.dedup();
    assert_eq!((names.len(), made), (6, 6));
}

#[test]
fn reports_that_come_a_byte_at_a_time_are_complete() {
    for behaviour in [Behaviour::tdx(), Behaviour::snp()] {
        let in_bytes = evidence_on(Behaviour {
            short_reads: true,
            ..behaviour
        })
        .unwrap();
        let at_once = match in_bytes.tee() {
            TeeKind::Tdx => evidence_on(Behaviour::tdx()),
            _ => evidence_on(Behaviour::snp()),
        };
        assert_eq!(in_bytes, at_once.unwrap());
    }
}

#[test]
fn requests_at_the_same_time_each_get_their_own_report() {
    let kernel = Kernel::new(Behaviour::tdx());
    let guest = open(&kernel);
    let start = Arc::new(Barrier::new(8));
    let asking: Vec<_> = (0..8)
        .map(|seed| {
            let (guest, start) = (guest.clone(), start.clone());
            thread::spawn(move || {
                start.wait();
                let data = report_data(seed);
                assert_eq!(
                    guest.evidence(&data).unwrap().as_bytes(),
                    tdx_quote(4, &data)
                );
            })
        })
        .collect();
    for asking in asking {
        asking.join().unwrap();
    }
    assert!(kernel.is_clean());
}

#[test]
fn a_kernel_that_is_busy_for_a_while_is_asked_again_and_one_that_stays_so_is_not_for_ever() {
    for (operation, errno) in [("inblob", EBUSY), ("outblob", EBUSY), ("outblob", EAGAIN)] {
        let for_a_while = Behaviour::tdx().failing(operation, errno, ATTEMPTS - 1);
        assert!(evidence_on(for_a_while).is_ok(), "{operation} {errno}");
        let kernel = Kernel::new(Behaviour::tdx().failing(operation, errno, FOR_EVER));
        let result = open(&kernel).evidence(&report_data(1));
        assert_eq!(device_error(result), Some(errno));
        assert!(kernel.is_clean());
        // One entry to see which TEE it is, one for each attempt.
        assert_eq!(kernel.names().len(), 1 + ATTEMPTS as usize);
    }
}

#[test]
fn nobody_pauses_beyond_the_deadline() {
    let kernel = Kernel::new(Behaviour::tdx().failing("outblob", EBUSY, FOR_EVER));
    let limits = Limits {
        pause: AMPLE * 2,
        ..limits()
    };
    let guest = open_with(&kernel, limits).unwrap();
    assert_eq!(device_error(guest.evidence(&report_data(1))), Some(EBUSY));
    assert_eq!(kernel.names().len(), 2);
}

#[test]
fn a_report_that_another_program_interfered_with_is_not_used() {
    type Set = fn(&mut Behaviour, u32);
    let ways: [Set; 3] = [
        |kernel, times| kernel.races_before = times,
        |kernel, times| kernel.races_during = times,
        // A write that failed when its file was closed, which no system call tells.
        |kernel, times| kernel.lost_writes = times,
    ];
    for interfere in ways {
        for mut behaviour in [Behaviour::tdx(), Behaviour::snp()] {
            interfere(&mut behaviour, ATTEMPTS - 1);
            assert!(evidence_on(behaviour).is_ok());
        }
        let mut behaviour = Behaviour::tdx();
        interfere(&mut behaviour, FOR_EVER);
        assert!(matches!(evidence_on(behaviour), Err(AttesterError::Raced)));
    }
}

#[test]
fn the_counter_of_writes_may_wrap() {
    let wrapping = Behaviour {
        first_generation: u64::MAX,
        ..Behaviour::snp()
    };
    assert!(evidence_on(wrapping).is_ok());
}

#[test]
fn a_kernel_that_fails_is_not_asked_again() {
    for (operation, errno) in [
        ("provider", EIO),
        ("generation", EIO),
        ("inblob", EINVAL),
        ("outblob", EIO),
        ("outblob", EINVAL),
    ] {
        let kernel = Kernel::new(Behaviour::tdx());
        let guest = open(&kernel);
        kernel.change(|kernel| {
            kernel.errors.insert(operation, (errno, 1));
        });
        let result = guest.evidence(&report_data(1));
        assert_eq!(device_error(result), Some(errno), "{operation}");
        assert!(kernel.is_clean());
        assert_eq!(kernel.names().len(), 2, "{operation} was tried again");
    }
    for operation in ["auxblob", "privlevel", "privlevel_floor"] {
        let failing = Behaviour::snp().failing(operation, EIO, 1);
        assert_eq!(device_error(evidence_on(failing)), Some(EIO), "{operation}");
    }
}

#[test]
fn a_kernel_that_never_answers_is_given_up_and_used_again_once_it_does() {
    let (release, hang) = mpsc::channel();
    let kernel = Kernel::new(Behaviour {
        hang: Some(hang),
        ..Behaviour::snp()
    });
    let guest = open_soon(&kernel);
    let made = kernel.names().len();
    assert!(matches!(
        guest.evidence(&report_data(1)),
        Err(AttesterError::TimedOut("give a report"))
    ));
    for _ in 0..3 {
        assert!(matches!(
            guest.evidence(&report_data(1)),
            Err(AttesterError::OutOfService(_))
        ));
    }
    release.send(()).unwrap();
    kernel.wait_until_clean();
    assert_eq!(kernel.names().len(), made + 1, "the kernel was asked again");
    let data = report_data(2);
    let evidence = patiently(|| match guest.evidence(&data) {
        // The work has ended, and that was not noted yet.
        Err(AttesterError::OutOfService(_)) => None,
        other => in_time(other),
    });
    let report = crate::snp_report(&data);
    assert_eq!(
        evidence,
        Evidence::from_snp(&report, Some(b"the chip's")).unwrap()
    );
}

#[test]
fn what_is_too_long_is_refused() {
    for length in [MAX_EVIDENCE + 1, 1 << 24] {
        let long = Behaviour {
            report: Box::new(move |_| vec![4; length]),
            ..Behaviour::tdx()
        };
        assert!(matches!(
            evidence_on(long),
            Err(AttesterError::Evidence(EvidenceError::TooLong(
                MAX_EVIDENCE
            )))
        ));
    }
    let many_certificates = Behaviour {
        certificates: Some(vec![0; MAX_TABLE + 1]),
        ..Behaviour::snp()
    };
    let Err(AttesterError::Contract(reason)) = evidence_on(many_certificates) else {
        panic!("was taken");
    };
    assert_eq!(reason, "its table of certificates is too long");
    let certificate = Behaviour {
        certificates: Some(certificate_table(VCEK, &vec![1; MAX_VCEK + 1])),
        ..Behaviour::snp()
    };
    assert!(matches!(
        evidence_on(certificate),
        Err(AttesterError::Evidence(EvidenceError::TooLong(MAX_VCEK)))
    ));
}

#[test]
fn evidence_about_other_report_data_goes_nowhere() {
    let other = report_data(9);
    for behaviour in [
        Behaviour {
            report: Box::new(move |_| tdx_quote(4, &other)),
            ..Behaviour::tdx()
        },
        Behaviour {
            report: Box::new(move |_| tdx_quote(5, &other)),
            ..Behaviour::tdx()
        },
        Behaviour {
            report: Box::new(move |_| crate::snp_report(&other)),
            ..Behaviour::snp()
        },
    ] {
        let Err(AttesterError::Contract(reason)) = evidence_on(behaviour) else {
            panic!("was handed on");
        };
        assert!(reason.contains("other report data"), "{reason}");
    }
}

#[test]
fn what_is_no_evidence_of_this_tee_goes_nowhere() {
    let giving = |guest: Behaviour, report: fn(&[u8; 64]) -> Vec<u8>| {
        evidence_on(Behaviour {
            report: Box::new(report),
            ..guest
        })
    };
    let contract = |result| match result {
        Err(AttesterError::Contract(reason)) => reason,
        other => panic!("{other:?}"),
    };
    let of_sgx = giving(Behaviour::tdx(), |data| sgx_quote(data, 1));
    assert_eq!(contract(of_sgx), "its quote is not of TDX");
    let cut_off = giving(Behaviour::tdx(), |data| tdx_quote(4, data)[..600].to_vec());
    assert_eq!(
        contract(cut_off),
        "its evidence is too short to hold report data"
    );
    for length in [0, 1183, 1185] {
        let result = evidence_on(Behaviour {
            report: Box::new(move |_| vec![0; length]),
            ..Behaviour::snp()
        });
        assert_eq!(
            contract(result),
            "its report has another length than 1184 bytes"
        );
    }
    for report in [|_: &[u8; 64]| vec![], |_: &[u8; 64]| b"no quote".to_vec()] {
        assert!(matches!(
            giving(Behaviour::tdx(), report),
            Err(AttesterError::Evidence(EvidenceError::Unknown))
        ));
    }
}

#[test]
fn a_host_that_hands_out_other_certificates_is_told_and_a_malformed_table_refused() {
    let with = |certificates: Vec<u8>| {
        evidence_on(Behaviour {
            certificates: Some(certificates),
            ..Behaviour::snp()
        })
    };
    let Err(AttesterError::Unusable { tee: "snp", hint }) =
        with(certificate_table(VLEK, b"loaded"))
    else {
        panic!("was taken");
    };
    assert!(hint.contains("VLEK"), "{hint}");
    let in_pem = certificate_table(VCEK, b"-----BEGIN CERTIFICATE-----");
    let Err(AttesterError::Unusable { tee: "snp", hint }) = with(in_pem) else {
        panic!("was taken");
    };
    assert!(hint.contains("DER"), "{hint}");
    assert!(matches!(
        with(vec![1; 100]),
        Err(AttesterError::Contract(
            "the host's table of certificates is malformed"
        ))
    ));
}

#[test]
fn a_guest_above_privilege_level_0_is_refused() {
    let under_svsm = Behaviour {
        privilege_floor: Some("2"),
        ..Behaviour::snp()
    };
    assert!(matches!(
        evidence_on(under_svsm),
        Err(AttesterError::Unusable { tee: "snp", .. })
    ));
}

#[test]
fn a_driver_that_is_not_known_is_named() {
    let kernel = Kernel::new(Behaviour {
        providers: vec!["arm_cca_guest"],
        ..Behaviour::tdx()
    });
    let Err(AttesterError::UnknownProvider(name)) = open_with(&kernel, limits()) else {
        panic!("was taken");
    };
    assert_eq!(name, "arm_cca_guest");
    assert!(kernel.is_clean());
}

#[test]
fn a_driver_that_changes_is_not_believed() {
    let changing = Behaviour {
        providers: vec!["tdx_guest", "sev_guest"],
        ..Behaviour::tdx()
    };
    assert!(matches!(
        evidence_on(changing),
        Err(AttesterError::Contract("its provider changed"))
    ));
}

#[test]
fn attributes_that_are_no_names_or_numbers_are_refused() {
    for generation in ["", "many", "-1", "18446744073709551616"] {
        let odd = Behaviour {
            generation: Some(generation),
            ..Behaviour::tdx()
        };
        assert!(matches!(
            evidence_on(odd),
            Err(AttesterError::Contract("its generation is no number"))
        ));
    }
    let long = "a name that is so long that nobody would call a driver by it, not even here";
    let kernel = Kernel::new(Behaviour {
        providers: vec![long],
        ..Behaviour::tdx()
    });
    assert!(matches!(
        open_with(&kernel, limits()),
        Err(AttesterError::Contract("its provider is no name"))
    ));
    assert!(kernel.is_clean());
}

#[test]
fn a_kernel_without_a_driver_is_no_tee_and_a_folder_that_is_closed_to_us_an_error() {
    let root = Path::new("/sys/kernel/config/tsm/report");
    let on = |errno| {
        let kernel = Kernel::new(Behaviour::tdx().failing("mkdir", errno, FOR_EVER));
        configfs::open(root, kernel, limits(), Arc::new(NoKeys))
    };
    assert!(on(ENXIO).unwrap().is_none());
    for closed in [EACCES, EROFS] {
        assert!(matches!(
            on(closed),
            Err(AttesterError::Unusable {
                tee: "configfs-tsm",
                ..
            })
        ));
    }
    assert!(matches!(on(EIO), Err(AttesterError::Device(_))));
}
