//! The files of a simulated machine: what survives a reload, what is refused, and which keys they lead to.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use dcap_qvl::QuoteCollateralV3;
use sesemi_simtee::{Fault, InitOutcome, Machine, Measurement, SealPolicy, SimteeError};

fn create(state: &Path) -> Machine {
    Machine::create(state, SystemTime::now()).unwrap()
}

#[test]
fn a_machine_is_the_same_after_a_reload() {
    let state = tempfile::tempdir().unwrap();
    let created = create(state.path());
    let loaded = Machine::load(state.path()).unwrap();
    assert_eq!(loaded.root_der(), created.root_der());
    assert_eq!(loaded.collateral(), created.collateral());
    assert_eq!(loaded.trust_domain(), created.trust_domain());
    assert_eq!(loaded.ppid(), created.ppid());
}

#[test]
fn the_public_files_are_what_a_verifier_needs_and_the_private_one_is_private() {
    let state = tempfile::tempdir().unwrap();
    let machine = create(state.path());
    let read = |name: &str| std::fs::read(state.path().join(name)).unwrap();
    assert_eq!(read("public/root.der"), machine.root_der());
    assert_eq!(read("public/root.pem"), machine.root_pem().as_bytes());
    let collateral: QuoteCollateralV3 =
        serde_json::from_slice(&read("public/collateral.json")).unwrap();
    assert_eq!(&collateral, machine.collateral());
    let mode = std::fs::metadata(state.path().join("machine.json"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn no_temporary_file_is_left_behind() {
    let state = tempfile::tempdir().unwrap();
    create(state.path());
    let names = |path: &Path| {
        let mut names: Vec<_> = std::fs::read_dir(path)
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(state.path()), ["machine.json", "public"]);
    assert_eq!(
        names(&state.path().join("public")),
        [
            "collateral-tdx.json",
            "collateral.json",
            "root.der",
            "root.pem"
        ]
    );
}

#[test]
fn creating_over_a_machine_is_refused_and_changes_nothing() {
    let state = tempfile::tempdir().unwrap();
    let first = create(state.path());
    let second = Machine::create(state.path(), SystemTime::now());
    assert!(matches!(second, Err(SimteeError::StateExists { .. })));
    assert_eq!(
        Machine::load(state.path()).unwrap().root_der(),
        first.root_der()
    );
    assert_eq!(
        std::fs::read(state.path().join("public/root.der")).unwrap(),
        first.root_der()
    );
}

#[test]
fn init_creates_once_then_keeps_and_restores_missing_public_files() {
    let state = tempfile::tempdir().unwrap();
    let (first, outcome) = Machine::init(state.path(), SystemTime::now()).unwrap();
    assert_eq!(outcome, InitOutcome::Created);
    std::fs::remove_dir_all(state.path().join("public")).unwrap();
    let (second, outcome) = Machine::init(state.path(), SystemTime::now()).unwrap();
    assert_eq!(outcome, InitOutcome::Kept);
    assert_eq!(second.root_der(), first.root_der());
    assert_eq!(
        std::fs::read(state.path().join("public/root.der")).unwrap(),
        first.root_der()
    );
}

#[test]
fn init_renews_collateral_that_has_expired_and_keeps_the_keys() {
    let state = tempfile::tempdir().unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(60 * 24 * 60 * 60);
    let old = Machine::create(state.path(), long_ago).unwrap();
    let (renewed, outcome) = Machine::init(state.path(), SystemTime::now()).unwrap();
    assert_eq!(outcome, InitOutcome::Renewed);
    assert_eq!(renewed.root_der(), old.root_der());
    assert!(renewed.collateral_expires() > SystemTime::now());
    assert_eq!(
        Machine::load(state.path()).unwrap().collateral(),
        renewed.collateral()
    );
}

#[test]
fn two_that_initialise_at_once_get_the_same_machine() {
    let state = tempfile::tempdir().unwrap();
    let domains: Vec<_> = std::thread::scope(|scope| {
        let both = [0, 1].map(|_| {
            scope.spawn(|| {
                Machine::init(state.path(), SystemTime::now())
                    .unwrap()
                    .0
                    .trust_domain()
            })
        });
        both.into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    assert_eq!(domains[0], domains[1]);
}

#[test]
fn a_missing_machine_is_an_error_that_says_what_to_do() {
    let state = tempfile::tempdir().unwrap();
    let error = Machine::load(state.path()).unwrap_err();
    assert!(matches!(error, SimteeError::StateMissing { .. }));
    assert!(
        error.to_string().contains("machine.json") && error.to_string().contains("simtee init")
    );
}

#[test]
fn a_truncated_machine_is_an_error_that_names_the_file_and_no_key() {
    let state = tempfile::tempdir().unwrap();
    create(state.path());
    let path = state.path().join("machine.json");
    let whole = std::fs::read(&path).unwrap();
    for length in [0, 1, whole.len() / 4, whole.len() / 2, whole.len() - 2] {
        std::fs::write(&path, &whole[..length]).unwrap();
        let error = Machine::load(state.path()).unwrap_err();
        assert!(
            matches!(error, SimteeError::StateTruncated { .. }),
            "{length}: {error}"
        );
        assert!(
            error.to_string().contains("machine.json is truncated"),
            "{error}"
        );
        assert!(error.to_string().len() < 400, "{error}");
    }
}

#[test]
fn a_machine_that_is_too_large_is_refused_before_it_is_read() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().join("machine.json");
    // A sparse file: reading it would take a terabyte.
    std::fs::File::create(&path)
        .unwrap()
        .set_len(1 << 40)
        .unwrap();
    assert!(
        matches!(Machine::load(state.path()), Err(SimteeError::StateTooLarge { size, .. }) if size == 1 << 40)
    );
}

#[test]
fn a_machine_of_another_format_or_with_a_broken_key_is_refused() {
    let state = tempfile::tempdir().unwrap();
    create(state.path());
    let path = state.path().join("machine.json");
    let original: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    let load_with = |pointer: &str, value: serde_json::Value| {
        let mut changed = original.clone();
        *changed.pointer_mut(pointer).unwrap() = value;
        std::fs::write(&path, serde_json::to_vec(&changed).unwrap()).unwrap();
        Machine::load(state.path()).map(|_| ())
    };
    assert!(matches!(
        load_with("/format", 1.into()),
        Err(SimteeError::StateFormat { found: 1, .. })
    ));
    assert!(matches!(
        load_with("/secrets/pck_key", "00".into()),
        Err(SimteeError::Key { which: "PCK" })
    ));
    assert!(matches!(
        load_with("/secrets/seal_secret", "00".into()),
        Err(SimteeError::StateMalformed { .. })
    ));
}

#[test]
fn sealing_keys_differ_by_measurement_machine_and_policy_and_survive_a_reload() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (machine, other_machine) = (create(one.path()), create(two.path()));
    let (program, other_program) = (Measurement::of_elf(b"one"), Measurement::of_elf(b"two"));

    let key = machine.seal_key(&program, SealPolicy::Measurement);
    assert_ne!(
        key,
        machine.seal_key(&other_program, SealPolicy::Measurement)
    );
    assert_ne!(
        key,
        other_machine.seal_key(&program, SealPolicy::Measurement)
    );
    assert_ne!(key, machine.seal_key(&program, SealPolicy::Signer));
    assert_eq!(
        key,
        Machine::load(one.path())
            .unwrap()
            .seal_key(&program, SealPolicy::Measurement)
    );
}

#[test]
fn programs_of_one_signer_share_the_key_by_signer_but_not_across_configurations() {
    let state = tempfile::tempdir().unwrap();
    let machine = create(state.path());
    let (one, two) = (Measurement::of_elf(b"one"), Measurement::of_elf(b"two"));
    let configured = Measurement {
        config_id: [1; 64],
        ..one.clone()
    };
    let key = |measurement| machine.seal_key(measurement, SealPolicy::Signer);
    assert_eq!(key(&one), key(&two));
    assert_ne!(key(&one), key(&configured));
}

#[test]
fn a_newer_program_gets_the_keys_of_older_versions_and_an_older_one_none_of_newer_versions() {
    let state = tempfile::tempdir().unwrap();
    let machine = create(state.path());
    let version = |isv_svn| Measurement {
        isv_svn,
        ..Measurement::of_elf(b"any build")
    };
    let own = |isv_svn| machine.seal_key(&version(isv_svn), SealPolicy::Signer);
    for older in 0..=3 {
        assert_eq!(
            machine.seal_key_of_version(&version(3), older).unwrap(),
            own(older)
        );
    }
    assert_ne!(own(2), own(3));
    assert!(matches!(
        machine.seal_key_of_version(&version(2), 3),
        Err(SimteeError::NewerVersion { asked: 3, own: 2 })
    ));
    // The policy by measurement knows no versions.
    let by_measurement = |isv_svn| machine.seal_key(&version(isv_svn), SealPolicy::Measurement);
    assert_eq!(by_measurement(2), by_measurement(3));
}

#[test]
fn an_unknown_fault_in_the_file_is_refused() {
    let state = tempfile::tempdir().unwrap();
    create(state.path());
    let path = state.path().join("machine.json");
    let mut machine: serde_json::Value =
        serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
    machine["faults"] = serde_json::json!(["no-such-fault"]);
    std::fs::write(&path, serde_json::to_vec(&machine).unwrap()).unwrap();
    assert!(matches!(
        Machine::load(state.path()),
        Err(SimteeError::StateMalformed { .. })
    ));
}

#[test]
fn init_keeps_faults_and_renews_collateral_under_them() {
    let state = tempfile::tempdir().unwrap();
    let long_ago = SystemTime::now() - Duration::from_secs(60 * 24 * 60 * 60);
    let fault = Fault::ClockOffset {
        seconds: -40 * 24 * 60 * 60,
    };
    Machine::create(state.path(), long_ago)
        .unwrap()
        .with_fault(fault.clone())
        .unwrap();
    let (renewed, outcome) = Machine::init(state.path(), SystemTime::now()).unwrap();
    assert_eq!(outcome, InitOutcome::Renewed);
    assert_eq!(renewed.faults(), [fault]);
    // Renewed, and off by the same amount again: that is no reason to renew it for ever.
    assert!(renewed.collateral_expires() < SystemTime::now());
    let (_, outcome) = Machine::init(state.path(), SystemTime::now()).unwrap();
    assert_eq!(outcome, InitOutcome::Kept);
}

#[test]
fn a_machine_does_not_show_its_keys_when_it_is_printed() {
    let state = tempfile::tempdir().unwrap();
    let printed = format!("{:?}", create(state.path()));
    assert!(
        printed.contains("trust_domain") && printed.len() < 200,
        "{printed}"
    );
}
