//! What a service gives up before it starts its threads, and the log of it.

use std::path::{Path, PathBuf};

use sesemi_hardening::sandbox::{self, State};
use sesemi_hardening::{secret_memory, wiping};

pub use sesemi_hardening::sandbox::{HardenError, Measure, Paths, probe};

use crate::trust::TrustSettings;

/// What a TEE's evidence is read from, where there is such a TEE.
const OF_TEES: [&str; 4] = [
    "/sys/kernel/config/tsm/report",
    "/dev/sev-guest",
    "/dev/tdx_guest",
    "/dev/tdx-guest",
];
/// Where the number of processors that may be used is read from.
const OF_THE_SYSTEM: [&str; 4] = [
    "/proc/cpuinfo",
    "/proc/self/cgroup",
    "/proc/self/mountinfo",
    "/sys/fs/cgroup",
];

/// Leaves this process `folders` and what every service needs: the folder of its endorsements to read again while it runs,
/// and the devices of TEEs. All threads share one arena of the allocator from then on. To be called before the first thread is started.
///
/// # Errors
/// [`HardenError`], if a folder is missing or the kernel refuses a measure that it offers.
pub fn enter(mut folders: Paths, trust: &TrustSettings) -> Result<(), HardenError> {
    if !wiping::share_one_arena() {
        tracing::warn!(
            "the allocator cannot be bound to one arena: more memory may be kept than is used"
        );
    }
    let there = |paths: &[&str]| -> Vec<PathBuf> {
        let paths = paths.iter().map(PathBuf::from);
        paths.filter(|path| path.exists()).collect()
    };
    // The one file of these settings that is read again while the service runs.
    let again = trust.endorsements.iter().map(|file| folder_of(file));
    folders.read.extend(again);
    folders.read.extend(there(&OF_THE_SYSTEM));
    folders.write.extend(there(&OF_TEES));
    let report = sandbox::harden(&folders)?;

    let names = |state| -> Vec<_> { report.in_state(state).map(|it| it.name).collect() };
    tracing::info!(
        enforced = names(State::Enforced).join(", "),
        library_os = names(State::LeftToLibraryOs).join(", "),
        keys = %secret_memory::placement(),
        "hardened"
    );
    for measure in report.in_state(State::NotOffered) {
        tracing::warn!(
            measure = measure.name,
            detail = measure.detail,
            "not hardened"
        );
    }
    Ok(())
}

/// The folder that a file is replaced in; a folder itself.
fn folder_of(file: &Path) -> PathBuf {
    if file.is_dir() {
        return file.to_owned();
    }
    match file.parent() {
        None => file.to_owned(),
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        // Everything would be readable then: the file alone, which must be written in place.
        Some(folder) if folder == Path::new("/") => file.to_owned(),
        Some(folder) => folder.to_owned(),
    }
}
