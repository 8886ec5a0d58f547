//! The TEEs: what the processor has, what the kernel gives to programs, and what is missing in between.
//!
//! Of a TEE that the processor does not have only that is said. Sources: the kernel's documentation of SGX
//! (arch/x86/sgx.rst), of configfs-tsm (ABI/testing/configfs-tsm) and of the modules' parameters.

use std::path::Path;

use super::machine::{Machine, Processor};
use super::report::{Fact, Report, Section, State};

/// The folder in which a guest asks for reports, on Linux 6.7 and later.
const TSM: &str = "sys/kernel/config/tsm/report";

/// A section, and whether trusted programs can run in that TEE here, and whether guests of the kind can.
struct Found {
    section: Section,
    usable: bool,
    hosted: bool,
}

pub(super) fn examine(
    machine: &Machine,
    processor: &Processor,
    kernel: &str,
    binaries: &Path,
) -> Report {
    let found = [
        ("sgx", sgx(machine, processor)),
        ("tdx", tdx(machine, processor)),
        ("snp", snp(machine, processor)),
    ];
    let names = |which: fn(&Found) -> bool| -> Vec<&'static str> {
        let matching = found.iter().filter(|(_, it)| which(it));
        matching.map(|(name, _)| *name).collect()
    };
    let (usable, hosts) = (names(|it| it.usable), names(|it| it.hosted));
    let protects = match (usable.as_slice(), hosts.as_slice()) {
        ([], []) => "nothing (simulated)".to_owned(),
        ([], hosts) => format!(
            "nothing (simulated) here; its guests by {}",
            hosts.join(", ")
        ),
        (usable, _) => format!("could protect memory in {}", usable.join(", ")),
    };
    let mut sections = vec![the_machine(machine, processor, kernel)];
    sections.extend(found.into_iter().map(|(_, it)| it.section));
    sections.push(simulated(binaries));
    Report {
        protects,
        usable,
        hosts,
        sections,
    }
}

fn the_machine(machine: &Machine, processor: &Processor, kernel: &str) -> Section {
    let cores = match machine.text("proc/sys/kernel/core_pattern") {
        Ok(pattern) if pattern.is_empty() => "are not written".to_owned(),
        Ok(pattern) => format!("go to {pattern}"),
        Err(_) => "cannot tell where they go".to_owned(),
    };
    let virtual_ = if processor.has("hypervisor") {
        "virtual: the processor may have more than it shows"
    } else {
        "bare metal, or a hypervisor that hides"
    };
    Section {
        name: "machine",
        about: "what this is",
        facts: vec![
            Fact::new("processor", State::Info, processor.name.clone()),
            Fact::new("kernel", State::Info, kernel),
            Fact::new("kind", State::Info, virtual_),
            Fact::new("core dumps", State::Info, cores),
        ],
    }
}

fn device(machine: &Machine, name: &'static str, hint: &'static str) -> Fact {
    let there = machine.has(name.trim_start_matches('/'));
    let detail = if there { "there" } else { "not there" };
    Fact::ready_if(name, there, detail, hint)
}

fn ready(facts: &[Fact], name: &str) -> bool {
    let mut ready = facts.iter().filter(|it| it.state == State::Ready);
    ready.any(|it| it.name == name)
}

fn sgx(machine: &Machine, processor: &Processor) -> Found {
    let inside = machine.has("dev/attestation/user_report_data");
    let shown = processor.has("sgx") || machine.has("dev/sgx_enclave") || inside;
    let mut facts = vec![Fact::ready_if(
        "processor",
        shown,
        if shown { "sgx" } else { "shows no sgx" },
        "an Intel processor with SGX, switched on in the firmware",
    )];
    if shown {
        facts.extend([
            Fact::ready_if(
                "launch control",
                processor.has("sgx_lc"),
                "sgx_lc in /proc/cpuinfo",
                "switch on flexible launch control in the firmware; Linux has no SGX driver without it",
            ),
            device(machine, "/dev/sgx_enclave", "Linux 5.11 or later with CONFIG_X86_SGX"),
            device(
                machine,
                "/dev/sgx_provision",
                "quotes need it; give the user of Gramine access to it",
            ),
            protected_memory(machine),
            device(
                machine,
                "/var/run/aesmd/aesm.socket",
                "Gramine asks this service for quotes: install sgx-aesm-service with the DCAP quote library",
            ),
            inside_gramine(inside),
        ]);
    }
    let devices = ["/dev/sgx_enclave", "/dev/sgx_provision"];
    Found {
        usable: inside || devices.iter().all(|name| ready(&facts, name)),
        hosted: false,
        section: Section {
            name: "sgx",
            about: "Intel SGX: an enclave in a process",
            facts,
        },
    }
}

fn protected_memory(machine: &Machine) -> Fact {
    let sizes = machine.folders("sys/devices/system/node");
    let sizes = sizes.iter().filter_map(|node| {
        let path = node.join("x86/sgx_total_bytes");
        machine.text(path.to_str()?).ok()?.parse().ok()
    });
    let total = sizes.fold(0_u64, u64::saturating_add);
    let mib = total / (1024 * 1024);
    Fact::ready_if(
        "protected memory",
        total > 0,
        format!("{mib} MiB"),
        "the kernel does not say how much there is; Linux 5.17 and later does",
    )
}

fn inside_gramine(inside: bool) -> Fact {
    let detail = if inside {
        "this process runs in an enclave under Gramine"
    } else {
        "this process does not run in one"
    };
    Fact::new("enclave", State::Info, detail)
}

/// What a guest of either kind asks for reports.
fn report_interface(machine: &Machine) -> Fact {
    let mounts = machine.text("proc/mounts").unwrap_or_default();
    let mounted = mounts
        .lines()
        .any(|line| line.split(' ').nth(2) == Some("configfs"));
    if machine.has(TSM) {
        return Fact::new("reports", State::Ready, format!("configfs-tsm at /{TSM}"));
    }
    let (detail, hint) = if mounted {
        (
            "configfs is mounted, without tsm",
            "Linux 6.7 or later with the module of this TEE: modprobe tdx_guest or sev_guest",
        )
    } else {
        (
            "configfs is not mounted",
            "mount -t configfs none /sys/kernel/config",
        )
    };
    Fact::ready_if("reports", false, detail, hint)
}

/// The module's parameter that lets this machine host such guests.
fn host(machine: &Machine, path: &str, hint: &'static str) -> Option<Fact> {
    let on = machine.parameter(path)?;
    let detail = format!("/{path} is {}", if on { "on" } else { "off" });
    Some(Fact::ready_if("host", on, detail, hint))
}

fn tdx(machine: &Machine, processor: &Processor) -> Found {
    let guest = processor.has("tdx_guest") || machine.has("dev/tdx_guest");
    let mut facts = vec![Fact::ready_if(
        "guest",
        guest,
        if guest {
            "this machine is a TDX domain"
        } else {
            "this machine shows no tdx_guest"
        },
        "start it as a TDX domain, for example with runtimeClassName kata-qemu-tdx",
    )];
    if guest {
        facts.push(device(machine, "/dev/tdx_guest", "modprobe tdx_guest"));
        facts.push(report_interface(machine));
    }
    facts.extend(host(
        machine,
        "sys/module/kvm_intel/parameters/tdx",
        "switch TDX on in the firmware and load kvm_intel with tdx=1 (Linux 6.16 or later)",
    ));
    Found {
        usable: ready(&facts, "reports"),
        hosted: ready(&facts, "host"),
        section: Section {
            name: "tdx",
            about: "Intel TDX: a confidential virtual machine",
            facts,
        },
    }
}

fn snp(machine: &Machine, processor: &Processor) -> Found {
    // Hosts show sev_snp too: the guest's device alone tells a guest.
    let guest = machine.has("dev/sev-guest");
    let mut facts = vec![Fact::ready_if(
        "guest",
        guest,
        if guest {
            "this machine is an SEV-SNP guest"
        } else {
            "this machine has no /dev/sev-guest"
        },
        "start it as an SEV-SNP guest, for example with runtimeClassName kata-qemu-snp, and modprobe sev_guest",
    )];
    if guest {
        facts.push(report_interface(machine));
    }
    if processor.has("sev_snp") && !guest {
        facts.push(Fact::new("processor", State::Ready, "sev_snp"));
    }
    facts.extend(host(
        machine,
        "sys/module/kvm_amd/parameters/sev_snp",
        "switch SEV-SNP on in the firmware (Linux 6.11 or later)",
    ));
    Found {
        usable: ready(&facts, "reports"),
        hosted: ready(&facts, "host"),
        section: Section {
            name: "snp",
            about: "AMD SEV-SNP: a confidential virtual machine",
            facts,
        },
    }
}

fn simulated(binaries: &Path) -> Section {
    let simtee = binaries.join("simtee");
    let there = simtee.is_file();
    let detail = format!("{}{}", if there { "" } else { "no " }, simtee.display());
    let mut facts = vec![Fact::ready_if(
        "simtee",
        there,
        detail,
        "cargo xtask build, or --bin-dir DIR",
    )];
    facts.push(Fact::new(
        "protects",
        State::Info,
        "nothing: it is for development and tests",
    ));
    Section {
        name: "simulated",
        about: "the simulated TEE",
        facts,
    }
}
