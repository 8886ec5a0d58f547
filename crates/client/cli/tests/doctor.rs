//! `sesemi doctor` on made-up machines.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fs;
use std::path::Path;

use sesemi_cli::doctor::{Fact, Machine, Report, State, examine};
use tempfile::TempDir;

/// A machine with these processor flags and files.
fn machine(flags: &str, files: &[(&str, &str)]) -> TempDir {
    let root = tempfile::tempdir().unwrap();
    let cpuinfo = format!("processor\t: 0\nmodel name\t: Test CPU\nflags\t\t: fpu {flags}\n");
    let always = [
        ("proc/cpuinfo", cpuinfo.as_str()),
        ("proc/sys/kernel/osrelease", "6.8.0-test\n"),
    ];
    for (path, content) in always.iter().chain(files) {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    root
}

fn look(root: &TempDir) -> Report {
    examine(&Machine::at(root.path()), Path::new("/nowhere")).unwrap()
}

fn fact<'a>(report: &'a Report, section: &str, name: &str) -> &'a Fact {
    let section = report.sections.iter().find(|it| it.name == section);
    let found = section.unwrap().facts.iter().find(|it| it.name == name);
    found.unwrap_or_else(|| panic!("no {name} in {report:#?}"))
}

#[test]
fn a_machine_without_a_tee_protects_nothing_and_says_so_first() {
    let report = look(&machine("sse2", &[]));
    assert_eq!(report.protects, "nothing (simulated)");
    assert!(report.usable.is_empty() && report.hosts.is_empty());
    assert!(
        anstream::adapter::strip_str(&report.to_string())
            .to_string()
            .starts_with("protects: nothing (simulated)\n")
    );
    for (tee, name) in [("sgx", "processor"), ("tdx", "guest"), ("snp", "guest")] {
        let fact = fact(&report, tee, name);
        assert_eq!(fact.state, State::Absent);
        assert!(fact.hint.is_some());
    }
}

#[test]
fn sgx_is_usable_with_its_devices_and_not_by_the_processor_alone() {
    let flags = "sgx sgx_lc";
    let bare = look(&machine(flags, &[]));
    assert_eq!(bare.protects, "nothing (simulated)");
    assert_eq!(fact(&bare, "sgx", "launch control").state, State::Ready);
    assert_eq!(fact(&bare, "sgx", "/dev/sgx_enclave").state, State::Absent);
    let only_enclave = look(&machine(flags, &[("dev/sgx_enclave", "")]));
    assert!(
        only_enclave.usable.is_empty(),
        "quotes need the provisioning device"
    );
    let both = look(&machine(
        flags,
        &[
            ("dev/sgx_enclave", ""),
            ("dev/sgx_provision", ""),
            (
                "sys/devices/system/node/node0/x86/sgx_total_bytes",
                "68719476736\n",
            ),
            (
                "sys/devices/system/node/node1/x86/sgx_total_bytes",
                "68719476736\n",
            ),
        ],
    ));
    assert_eq!(both.usable, ["sgx"]);
    assert_eq!(both.protects, "could protect memory in sgx");
    assert_eq!(fact(&both, "sgx", "protected memory").detail, "131072 MiB");
}

#[test]
fn a_guest_is_told_what_is_between_it_and_its_reports() {
    let device = ("dev/tdx_guest", "");
    let unmounted = look(&machine("tdx_guest", &[device]));
    assert!(unmounted.usable.is_empty());
    assert!(
        fact(&unmounted, "tdx", "reports")
            .hint
            .unwrap()
            .starts_with("mount")
    );
    let mounts = (
        "proc/mounts",
        "proc /proc proc rw 0 0\nconfigfs /sys/kernel/config configfs rw 0 0\n",
    );
    let no_module = look(&machine("tdx_guest", &[device, mounts]));
    assert!(
        fact(&no_module, "tdx", "reports")
            .hint
            .unwrap()
            .contains("modprobe")
    );
    let tsm = ("sys/kernel/config/tsm/report/.keep", "");
    let complete = look(&machine("tdx_guest", &[device, mounts, tsm]));
    assert_eq!(complete.usable, ["tdx"]);
    let snp = look(&machine("", &[("dev/sev-guest", ""), mounts, tsm]));
    assert_eq!(snp.usable, ["snp"]);
}

#[test]
fn a_host_of_confidential_guests_is_not_taken_for_one_of_them() {
    let parameter = |value| [("sys/module/kvm_amd/parameters/sev_snp", value)];
    let on = look(&machine("sev_snp", &parameter("Y\n")));
    assert_eq!(
        (on.usable.as_slice(), on.hosts.as_slice()),
        (&[][..], &["snp"][..])
    );
    assert_eq!(on.protects, "nothing (simulated) here; its guests by snp");
    let off = look(&machine("sev_snp", &parameter("N\n")));
    assert!(off.hosts.is_empty());
    assert!(fact(&off, "snp", "host").hint.is_some());
    let tdx = look(&machine(
        "",
        &[("sys/module/kvm_intel/parameters/tdx", "Y\n")],
    ));
    assert_eq!(tdx.hosts, ["tdx"]);
}

#[test]
fn json_says_the_same_as_the_table() {
    let report = look(&machine("sgx", &[]));
    let json: serde_json::Value = serde_json::from_str(&report.as_json()).unwrap();
    assert_eq!(json["protects"], report.protects);
    let table = anstream::adapter::strip_str(&report.to_string()).to_string();
    for section in json["sections"].as_array().unwrap() {
        for fact in section["facts"].as_array().unwrap() {
            let detail = fact["detail"].as_str().unwrap();
            assert!(table.contains(detail), "{detail}");
        }
    }
}

#[test]
fn a_machine_that_does_not_say_what_it_is_is_an_error() {
    let empty = tempfile::tempdir().unwrap();
    let error = examine(&Machine::at(empty.path()), Path::new("/nowhere")).unwrap_err();
    assert!(error.to_string().contains("/proc/cpuinfo"));
}
