//! What an identity remembers of KeyServices, beside its file: the newest point of each one's log that it has seen, so that a
//! rollback or a fork is noticed by the next command too, and which service it met at an address, if nobody told it.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sesemi::{Digest, Point, ServiceId, StatePoint};

use crate::error::{CliError, file};
use crate::files::read_at_most;

/// Longest file of this kind, in bytes.
const MAX: usize = 4096;

/// A `.seen` file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Seen {
    service: String,
    sequence: u64,
    chain: String,
    /// Who governs the service: SHA-256 of its custodians and their threshold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    custodians: Option<String>,
}

/// A `.pin` file.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pin {
    address: String,
    service: String,
}

/// One file for each identity and service.
#[must_use]
pub fn seen_file(identity: &Path, service: ServiceId) -> PathBuf {
    beside(identity, &format!("{}.seen", service.short()))
}

/// One file for each identity and address.
fn pin_file(identity: &Path, address: &str) -> PathBuf {
    let safe = address.replace(|c: char| !c.is_ascii_alphanumeric() && c != '.', "_");
    beside(identity, &format!("{safe}.pin"))
}

fn beside(identity: &Path, ending: &str) -> PathBuf {
    let mut name = identity.as_os_str().to_owned();
    name.push(".");
    name.push(ending);
    PathBuf::from(name)
}

/// What a `.seen` file says.
///
/// # Errors
/// [`CliError`] if it cannot be read or is none.
pub fn read_seen(path: &Path) -> Result<StatePoint, CliError> {
    let text = read(path)?
        .ok_or_else(|| CliError::Input(format!("there is no {}; see --help", path.display())))?;
    parse_seen(path, &text)
}

fn parse_seen(path: &Path, text: &str) -> Result<StatePoint, CliError> {
    let path = path.display();
    if text.trim().parse::<u64>().is_ok() {
        return Err(CliError::Input(format!(
            "{path} holds only a number, as earlier versions kept it, which shows no fork; if KeyService is known to be as it should be, remove the file, and the next command keeps more"
        )));
    }
    let wrong = |what: &str| {
        CliError::Input(format!(
            "{path} is not a .seen file ({what}); it shows a rollback of KeyService, so restore it if you can, and remove it only if you trust the service as it is"
        ))
    };
    let seen: Seen = toml::from_str(text).map_err(|e| wrong(e.message()))?;
    Ok(StatePoint {
        service: seen.service.parse().map_err(|_| wrong("service"))?,
        point: Point {
            sequence: seen.sequence,
            chain: seen.chain.parse().map_err(|_| wrong("chain"))?,
        },
    })
}

/// The newest point of a service's log that an identity has seen; the start if it never saw any.
///
/// # Errors
/// [`CliError`] if what was kept cannot be used.
pub fn newest_seen(identity: &Path, service: ServiceId) -> Result<Point, CliError> {
    let path = seen_file(identity, service);
    let Some(text) = read(&path)? else {
        return Ok(Point::START);
    };
    let seen = parse_seen(&path, &text)?;
    if seen.service != service {
        return Err(CliError::Input(format!(
            "{} is of KeyService {}, not of {service}",
            path.display(),
            seen.service
        )));
    }
    Ok(seen.point)
}

/// Who governed a service when an identity last saw it, by [`sesemi::custodians_digest`].
///
/// # Errors
/// [`CliError`] if what was kept cannot be used.
pub fn custodians_seen(identity: &Path, service: ServiceId) -> Result<Option<Digest>, CliError> {
    let path = seen_file(identity, service);
    let kept = read(&path)?.and_then(|text| toml::from_str::<Seen>(&text).ok());
    let Some(text) = kept.and_then(|seen| seen.custodians) else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        CliError::Input(format!(
            "{} does not say who the custodians are; remove it only if you trust the service as it is",
            path.display()
        ))
    })
}

/// Keeps a point, unless a newer one is kept: another command may have seen more in the meantime.
///
/// # Errors
/// [`CliError`] if it cannot be written, or what was kept cannot be used.
pub fn keep_seen(
    identity: &Path,
    state: StatePoint,
    custodians: Option<Digest>,
) -> Result<(), CliError> {
    let known = custodians_seen(identity, state.service)?;
    let newest = newest_seen(identity, state.service)?.sequence;
    if newest >= state.point.sequence && known == custodians.or(known) {
        return Ok(());
    }
    if newest > state.point.sequence {
        return Ok(());
    }
    let seen = Seen {
        service: state.service.to_string(),
        sequence: state.point.sequence,
        chain: state.point.chain.to_string(),
        custodians: custodians.or(known).map(|digest| digest.to_string()),
    };
    let comment = "# How far the log of this KeyService went when this identity last saw it. It shows a rollback or a fork: keep it.";
    write(&seen_file(identity, state.service), comment, &seen)
}

/// The service that an identity met at an address.
///
/// # Errors
/// [`CliError`] if what was kept cannot be used.
pub fn pinned(identity: &Path, address: &str) -> Result<Option<ServiceId>, CliError> {
    let path = pin_file(identity, address);
    let Some(text) = read(&path)? else {
        return Ok(None);
    };
    let wrong = || {
        CliError::Input(format!(
            "{} does not say which KeyService is at {address}; give --keyservice-id, or remove it to trust the one that answers",
            path.display()
        ))
    };
    let pin: Pin = toml::from_str(&text).map_err(|_| wrong())?;
    if pin.address != address {
        return Err(wrong());
    }
    pin.service.parse().map(Some).map_err(|_| wrong())
}

/// Remembers which service is at an address; gives the file's name.
///
/// # Errors
/// [`CliError::File`].
pub fn pin(identity: &Path, address: &str, service: ServiceId) -> Result<PathBuf, CliError> {
    let path = pin_file(identity, address);
    let pin = Pin {
        address: address.to_owned(),
        service: service.to_string(),
    };
    let comment = "# The KeyService that was at this address at the first contact. Any other is refused there.";
    write(&path, comment, &pin)?;
    Ok(path)
}

fn read(path: &Path) -> Result<Option<String>, CliError> {
    match read_at_most(path, MAX) {
        Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file(path)(error)),
    }
}

/// Replaces a file whole or not at all.
fn write(path: &Path, comment: &str, content: &impl Serialize) -> Result<(), CliError> {
    let text = toml::to_string(content)
        .map_err(|e| CliError::Input(format!("{} cannot be written: {e}", path.display())))?;
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.new", std::process::id()));
    std::fs::write(&staged, format!("{comment}\n{text}"))
        .and_then(|()| std::fs::rename(&staged, path))
        .map_err(file(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(sequence: u64) -> StatePoint {
        StatePoint {
            service: ServiceId([7; 32]),
            point: Point {
                sequence,
                chain: Digest([9; 32]),
            },
        }
    }

    #[test]
    fn who_governed_a_service_is_kept_once_it_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("a.identity");
        let service = state(0).service;
        keep_seen(&identity, state(5), None).unwrap();
        assert_eq!(custodians_seen(&identity, service).unwrap(), None);
        let named = Some(Digest([3; 32]));
        keep_seen(&identity, state(5), named).unwrap();
        assert_eq!(custodians_seen(&identity, service).unwrap(), named);
        keep_seen(&identity, state(6), None).unwrap();
        assert_eq!(custodians_seen(&identity, service).unwrap(), named);
        assert_eq!(newest_seen(&identity, service).unwrap(), state(6).point);
    }

    #[test]
    fn what_was_seen_reads_back_and_never_goes_back() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("a.identity");
        let service = state(0).service;
        assert_eq!(newest_seen(&identity, service).unwrap(), Point::START);
        keep_seen(&identity, state(5), None).unwrap();
        keep_seen(&identity, state(4), None).unwrap();
        assert_eq!(newest_seen(&identity, service).unwrap(), state(5).point);
        assert_eq!(read_seen(&seen_file(&identity, service)).unwrap(), state(5));
        let other = ServiceId([8; 32]);
        assert_eq!(newest_seen(&identity, other).unwrap(), Point::START);
    }

    #[test]
    fn a_file_of_an_earlier_version_or_another_service_is_refused_with_a_hint() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("a.identity");
        let service = state(0).service;
        let path = seen_file(&identity, service);
        std::fs::write(&path, "5\n").unwrap();
        let refused = newest_seen(&identity, service).unwrap_err().to_string();
        assert!(refused.contains("remove the file"), "{refused}");
        assert!(
            keep_seen(&identity, state(9), None).is_err(),
            "not overwritten"
        );
        std::fs::write(&path, "service = 1\n").unwrap();
        assert!(newest_seen(&identity, service).is_err());
        std::fs::remove_file(&path).unwrap();
        keep_seen(&identity, state(5), None).unwrap();
        // Two services whose short ids are equal.
        let mut twin = service;
        twin.0[31] ^= 1;
        let refused = newest_seen(&identity, twin).unwrap_err().to_string();
        assert!(refused.contains("is of KeyService"), "{refused}");
    }

    #[test]
    fn a_service_is_pinned_for_one_identity_and_address() {
        let folder = tempfile::tempdir().unwrap();
        let identity = folder.path().join("a.identity");
        let address = "[::1]:7400";
        assert_eq!(pinned(&identity, address).unwrap(), None);
        let path = pin(&identity, address, state(0).service).unwrap();
        assert_eq!(pinned(&identity, address).unwrap(), Some(state(0).service));
        assert_eq!(pinned(&identity, "127.0.0.1:7400").unwrap(), None);
        std::fs::write(path, "nothing").unwrap();
        assert!(pinned(&identity, address).is_err());
    }
}
