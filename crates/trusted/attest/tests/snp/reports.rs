//! Reports that must be refused for what they say, though everything about their signature holds.

use sesemi_attest::snp::{Product, REPORT_LEN, SnpError, SnpReport, TcbVersion};

use crate::made::{Case, refusal};

fn set(offset: usize, value: u8) -> SnpError {
    refusal(|case| case.report[offset] = value)
}

#[test]
fn made_reports_verify_in_each_version_and_layout() {
    for version in [2, 3, 5] {
        for mut case in [Case::milan(), Case::turin()] {
            case.report[0] = version;
            if version == 2 {
                case.report[0x188..0x18b].fill(0);
            }
            if version == 5 {
                case.report[0x1f8] = 7;
                case.report[0x200] = 8;
            }
            let verified = case.verify().unwrap();
            assert_eq!(verified.report.report_data, [0xda; 64]);
            assert_eq!(verified.report.measurement, [0x3e; 48]);
            assert_eq!(verified.report.cpuid.is_some(), version >= 3);
            assert_eq!(
                verified.report.mitigations,
                (version == 5).then_some([7, 8])
            );
            assert_eq!(verified.crl_number, 7);
            let expected = TcbVersion {
                boot_loader: 3,
                tee: 0,
                snp: 0x85,
                microcode: 115,
                fmc: (verified.product == Product::Turin).then_some(1),
            };
            assert_eq!(verified.reported_tcb, expected);
        }
    }
}

#[test]
fn every_field_is_read_from_its_place() {
    let mut bytes: Vec<u8> = (0..REPORT_LEN).map(|at| (at / 4) as u8).collect();
    bytes[..4].copy_from_slice(&[5, 0, 0, 0]);
    bytes[0x1e8..0x1f0].copy_from_slice(&[4, 52, 1, 0, 3, 51, 1, 0]);
    bytes[0x48..0x50].copy_from_slice(&[0b0001_1110, 0, 0, 0, 0, 0, 0, 0]);
    for reserved in [
        0x18b..0x1a0,
        0x1eb..0x1ec,
        0x1ef..0x1f0,
        0x208..0x2a0,
        0x2d0..0x2e8,
        0x318..0x4a0,
    ] {
        bytes[reserved].fill(0);
    }
    let report = SnpReport::parse(&bytes).unwrap();
    let word = |offset: usize| u32::from_le_bytes([(offset / 4) as u8; 4]);
    let words = |offset: usize| u64::from(word(offset)) | u64::from(word(offset + 4)) << 32;
    let from = |offset: usize, len: usize| bytes[offset..offset + len].to_vec();
    assert_eq!(report.guest_svn, word(0x04));
    assert_eq!(report.policy.0, words(0x08));
    assert_eq!(report.family_id.to_vec(), from(0x10, 16));
    assert_eq!(report.image_id.to_vec(), from(0x20, 16));
    assert_eq!(report.vmpl, word(0x30));
    assert_eq!(report.signature_algorithm, word(0x34));
    assert_eq!(report.current_tcb.0.to_vec(), from(0x38, 8));
    assert_eq!(report.platform_info.0, words(0x40));
    assert!(!report.key_info.author_key_enabled());
    assert!(report.key_info.chip_key_masked());
    assert_eq!(report.key_info.signing_key(), 7);
    assert_eq!(report.report_data.to_vec(), from(0x50, 64));
    assert_eq!(report.measurement.to_vec(), from(0x90, 48));
    assert_eq!(report.host_data.to_vec(), from(0xc0, 32));
    assert_eq!(report.id_key_digest.to_vec(), from(0xe0, 48));
    assert_eq!(report.author_key_digest.to_vec(), from(0x110, 48));
    assert_eq!(report.report_id.to_vec(), from(0x140, 32));
    assert_eq!(report.report_id_ma.to_vec(), from(0x160, 32));
    assert_eq!(report.reported_tcb.0.to_vec(), from(0x180, 8));
    assert_eq!(report.cpuid.unwrap().to_vec(), from(0x188, 3));
    assert_eq!(report.chip_id.to_vec(), from(0x1a0, 64));
    assert_eq!(report.committed_tcb.0.to_vec(), from(0x1e0, 8));
    for (version, at) in [
        (report.current_version, 0x1e8),
        (report.committed_version, 0x1ec),
    ] {
        assert_eq!(
            vec![version.build, version.minor, version.major],
            from(at, 3)
        );
    }
    assert_eq!(report.launch_tcb.0.to_vec(), from(0x1f0, 8));
    assert_eq!(report.mitigations, Some([words(0x1f8), words(0x200)]));
}

#[test]
fn a_report_has_one_length() {
    let case = Case::milan();
    let report = case.signed();
    let longer = [&report[..], &[0]].concat();
    for bytes in [&[][..], &report[..REPORT_LEN - 1], &longer] {
        let refused = SnpError::ReportLength(bytes.len());
        assert_eq!(SnpReport::parse(bytes), Err(refused.clone()));
        assert_eq!(case.verify_bytes(bytes), Err(refused));
    }
}

#[test]
fn unknown_versions_are_refused() {
    for version in [0, 1, 4, 6, 0xff] {
        assert_eq!(set(0, version), SnpError::ReportVersion(version.into()));
    }
    assert_eq!(set(1, 1), SnpError::ReportVersion(0x103));
}

#[test]
fn reserved_fields_must_be_zero() {
    for offset in [0x4c, 0x18b, 0x1eb, 0x1ef, 0x1f8] {
        assert_eq!(set(offset, 1), SnpError::Reserved(offset));
    }
    assert_eq!(set(0x48, 1 << 5), SnpError::Reserved(0x48));
    // The last byte of each as well.
    for (last, offset) in [(0x4f, 0x4c), (0x19f, 0x18b), (0x29f, 0x1f8)] {
        assert_eq!(set(last, 1), SnpError::Reserved(offset));
    }
}

#[test]
fn what_is_reserved_depends_on_the_version() {
    let version_2_with_cpuid = refusal(|case| case.report[0] = 2);
    assert_eq!(version_2_with_cpuid, SnpError::Reserved(0x188));
    let version_5 = refusal(|case| {
        case.report[0] = 5;
        case.report[0x208] = 1;
    });
    assert_eq!(version_5, SnpError::Reserved(0x208));
}

#[test]
fn the_padding_of_the_signature_must_be_zero() {
    let case = Case::milan();
    for (at, offset) in [
        (0x2d0, 0x2d0),
        (0x2e7, 0x2d0),
        (0x318, 0x318),
        (0x330, 0x330),
        (0x49f, 0x330),
    ] {
        let mut report = case.signed();
        report[at] = 1;
        assert_eq!(case.verify_bytes(&report), Err(SnpError::Reserved(offset)));
    }
}

#[test]
fn reserved_bytes_of_a_tcb_must_be_zero() {
    for field in [0x38, 0x180, 0x1e0, 0x1f0] {
        assert_eq!(set(field + 3, 1), SnpError::TcbReserved);
    }
}

#[test]
fn other_signature_algorithms_are_refused() {
    assert_eq!(set(0x34, 0), SnpError::SignatureAlgorithm(0));
    assert_eq!(set(0x34, 2), SnpError::SignatureAlgorithm(2));
}

#[test]
fn reports_signed_by_another_key_than_the_chips_are_refused() {
    assert_eq!(set(0x48, 1 << 2), SnpError::SigningKey(1));
    assert_eq!(set(0x48, 7 << 2), SnpError::SigningKey(7));
}

#[test]
fn an_author_key_is_no_reason_to_refuse() {
    let mut case = Case::milan();
    case.report[0x48] = 1;
    assert!(case.verify().unwrap().report.key_info.author_key_enabled());
}

#[test]
fn a_masked_chip_key_is_refused() {
    assert_eq!(set(0x48, 2), SnpError::ChipKeyMasked);
}

#[test]
fn a_masked_chip_id_is_refused() {
    let masked = refusal(|case| case.report[0x1a0..0x1e0].fill(0));
    assert_eq!(masked, SnpError::ChipIdMasked);
}

#[test]
fn a_guest_that_may_be_debugged_is_refused() {
    assert_eq!(set(0x0a, 0x03 | 1 << 3), SnpError::DebugAllowed);
}

#[test]
fn a_guest_that_may_be_migrated_is_refused() {
    assert_eq!(set(0x0a, 0x03 | 1 << 2), SnpError::MigrationAllowed);
}

#[test]
fn a_policy_with_reserved_bits_is_refused() {
    assert_eq!(set(0x0a, 0x01), SnpError::Policy(0x1_0000));
    assert_eq!(set(0x0b, 1 << 2), SnpError::Policy(0x403_0000));
    assert_eq!(set(0x0f, 0x80), SnpError::Policy(0x8000_0000_0003_0000));
}

#[test]
fn reports_for_lower_privilege_levels_are_refused() {
    assert_eq!(set(0x30, 1), SnpError::Vmpl(1));
    assert_eq!(set(0x33, 1), SnpError::Vmpl(0x0100_0000));
}

#[test]
fn a_processor_of_another_product_line_is_refused() {
    let product = |family, model| SnpError::ReportProduct { family, model };
    assert_eq!(set(0x189, 0x11), product(0x19, 0x11));
    assert_eq!(set(0x188, 0x1a), product(0x1a, 0x01));
    assert_eq!(set(0x188, 0x17), product(0x17, 0x01));
}

#[test]
fn firmware_below_the_minimum_is_refused_in_each_component() {
    let higher: [fn(&mut TcbVersion); 5] = [
        |tcb| tcb.boot_loader = 4,
        |tcb| tcb.tee = 1,
        |tcb| tcb.snp = 0x86,
        |tcb| tcb.microcode = 116,
        |tcb| tcb.fmc = Some(0),
    ];
    for higher in higher {
        let refused = refusal(|case| higher(&mut case.minimum));
        let SnpError::TcbTooLow { what, .. } = refused else {
            panic!("{refused}");
        };
        assert_eq!(what, "reported TCB");
    }
    let mut case = Case::turin();
    case.minimum = case.verify().unwrap().reported_tcb;
    case.verify().unwrap();
    case.minimum.fmc = Some(2);
    assert!(matches!(case.verify(), Err(SnpError::TcbTooLow { .. })));
}

#[test]
fn a_guest_launched_on_firmware_below_the_minimum_is_refused_though_it_was_updated_since() {
    let refused = refusal(|case| {
        case.minimum.snp = 0x85;
        case.report[0x1f6] = 0x84;
    });
    assert!(matches!(
        refused,
        SnpError::TcbTooLow {
            what: "TCB at launch",
            ..
        }
    ));
}

#[test]
fn tcb_versions_that_contradict_each_other_are_refused() {
    // Reported above committed; committed above current.
    assert_eq!(set(0x1e0, 2), SnpError::TcbOrder);
    assert_eq!(set(0x38, 2), SnpError::TcbOrder);
}

#[test]
fn a_report_of_another_tcb_than_the_certificates_is_refused() {
    // Higher than certified in all of them, so that the minimum and the order hold.
    for component in [0, 1, 6, 7] {
        let refused = refusal(|case| {
            for offset in [0x38, 0x180, 0x1e0, 0x1f0] {
                case.report[offset + component] += 1;
            }
        });
        assert!(matches!(refused, SnpError::VcekTcb { .. }), "{refused}");
    }
}

#[test]
fn the_certificates_tcb_is_compared_with_the_reported_and_no_other() {
    // An update not yet committed: the key is still that of the old firmware.
    let mut case = Case::milan();
    case.report[0x38] = 9;
    case.verify().unwrap();
}

#[test]
fn a_report_of_another_chip_than_the_certificates_is_refused() {
    assert_eq!(set(0x1a0, 0xff), SnpError::VcekChip);
    assert_eq!(set(0x1df, 0xff), SnpError::VcekChip);
}

#[test]
fn a_turins_chip_id_ends_after_eight_bytes() {
    let mut case = Case::turin();
    case.report[0x1a8] = 1;
    assert_eq!(case.verify(), Err(SnpError::VcekChip));
}

#[test]
fn a_report_that_the_chips_key_did_not_sign_is_refused() {
    let case = Case::milan();
    let mut other = Case::milan();
    other.report[0x50] = 0;
    // The signature of one report under the text of another.
    let mut report = case.signed();
    report[..0x2a0].copy_from_slice(&other.signed()[..0x2a0]);
    assert_eq!(case.verify_bytes(&report), Err(SnpError::ReportSignature));
    // No signature at all: r and s zero.
    assert_eq!(
        case.verify_bytes(&case.report),
        Err(SnpError::ReportSignature)
    );
}
