//! The files of a simulated machine, and how they are read and written.
//!
//! ```text
//! DIR/machine.json                private keys and sealing secret, certificates, faults, collateral; mode 0600
//! DIR/public/root.der             the root certificate, for verifiers
//! DIR/public/root.pem             the same, for people
//! DIR/public/collateral.json      the collateral for SGX, as `dcap_qvl::QuoteCollateralV3` in JSON
//! DIR/public/collateral-tdx.json  the collateral for TDX, likewise
//! ```
//!
//! `machine.json` is the whole truth; the files in `public/` are copies that can be written again from it. Each file
//! is written under another name, synced and renamed, so that a crash leaves the old file or the new one, and who reads
//! it meanwhile gets one of the two.
//!
//! A copy of the directory is a snapshot of the machine: put back, it is the machine as it was, faults and collateral
//! included. Its keys never change, so quotes and sealed data of other times stay valid.

use std::fs::{File, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::collateral::Collaterals;
use crate::fault::Faults;
use crate::pki::{Certificates, Secrets};
use crate::processor::Identity;
use crate::validity::Validity;
use crate::{SimteeError, Tee};

/// The format that this version writes and reads.
const FORMAT: u32 = 2;
/// Far more than a machine needs (about 30 KiB), far less than would hurt to read.
const MAX_STATE_BYTES: u64 = 256 * 1024;
const MACHINE_FILE: &str = "machine.json";
const PUBLIC_DIRECTORY: &str = "public";

/// What `machine.json` holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct State {
    format: u32,
    pub(crate) secrets: Secrets,
    pub(crate) identity: Identity,
    pub(crate) certificates: Certificates,
    /// In what way the machine misbehaves.
    pub(crate) faults: Faults,
    /// How many times collateral was issued; the number of the revocation lists.
    pub(crate) issue: u32,
    /// For how long the collateral is valid, if no fault says otherwise.
    pub(crate) validity: Validity,
    pub(crate) collateral: Collaterals,
}

/// The part of any format that says which one it is.
#[derive(Deserialize)]
struct FormatOnly {
    format: u32,
}

impl State {
    /// The state of a new machine.
    pub(crate) fn new(
        secrets: Secrets,
        identity: Identity,
        certificates: Certificates,
        validity: Validity,
        collateral: Collaterals,
    ) -> Self {
        Self {
            format: FORMAT,
            secrets,
            identity,
            certificates,
            faults: Faults::default(),
            issue: 1,
            validity,
            collateral,
        }
    }

    /// The path of `machine.json`.
    pub(crate) fn file(directory: &Path) -> PathBuf {
        directory.join(MACHINE_FILE)
    }

    /// Reads `machine.json`.
    pub(crate) fn read(directory: &Path) -> Result<Self, SimteeError> {
        let path = Self::file(directory);
        let bytes = read_bounded(&path)?;
        let found = serde_json::from_slice::<FormatOnly>(&bytes)
            .map_err(|e| describe(&path, &e))?
            .format;
        if found != FORMAT {
            return Err(SimteeError::StateFormat {
                path,
                found,
                expected: FORMAT,
            });
        }
        serde_json::from_slice(&bytes).map_err(|e| describe(&path, &e))
    }

    /// Writes `machine.json` of a new machine; fails if there is one, even if it appeared a moment ago.
    pub(crate) fn write_new(&self, directory: &Path) -> Result<(), SimteeError> {
        self.write(directory, Existing::Keep)
    }

    /// Replaces `machine.json`.
    pub(crate) fn replace(&self, directory: &Path) -> Result<(), SimteeError> {
        self.write(directory, Existing::Replace)
    }

    fn write(&self, directory: &Path, existing: Existing) -> Result<(), SimteeError> {
        let json =
            Zeroizing::new(serde_json::to_vec_pretty(self).map_err(SimteeError::StateEncoding)?);
        write_atomically(&Self::file(directory), &json, 0o600, existing)
    }

    /// Writes the files that verifiers read.
    pub(crate) fn publish(&self, directory: &Path) -> Result<(), SimteeError> {
        let public = directory.join(PUBLIC_DIRECTORY);
        let write = |name: &str, bytes: &[u8]| {
            write_atomically(&public.join(name), bytes, 0o644, Existing::Replace)
        };
        write("root.der", &self.certificates.root_der)?;
        write("root.pem", self.certificates.root_pem.as_bytes())?;
        for tee in [Tee::Sgx, Tee::Tdx] {
            let collateral = serde_json::to_vec_pretty(self.collateral.of(tee))
                .map_err(SimteeError::StateEncoding)?;
            write(tee.collateral_file(), &collateral)?;
        }
        Ok(())
    }
}

/// What to do with a file that is already there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Existing {
    Keep,
    Replace,
}

fn read_bounded(path: &Path) -> Result<Zeroizing<Vec<u8>>, SimteeError> {
    let file = File::open(path).map_err(|source| match source.kind() {
        ErrorKind::NotFound => SimteeError::StateMissing {
            path: path.to_owned(),
        },
        _ => SimteeError::Io {
            action: "open",
            path: path.to_owned(),
            source,
        },
    })?;
    let size = file
        .metadata()
        .map_err(SimteeError::io("read the size of", path))?
        .len();
    let too_large = |size| SimteeError::StateTooLarge {
        path: path.to_owned(),
        size,
        limit: MAX_STATE_BYTES,
    };
    if size > MAX_STATE_BYTES {
        return Err(too_large(size));
    }
    // Room for all that may come: a buffer that grew would leave copies of the keys behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(MAX_STATE_BYTES as usize));
    let read = file
        .take(MAX_STATE_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(SimteeError::io("read", path))?;
    if read as u64 > MAX_STATE_BYTES {
        return Err(too_large(read as u64));
    }
    Ok(bytes)
}

/// Says where the JSON goes wrong but not what stands there: it may be a key.
fn describe(path: &Path, error: &serde_json::Error) -> SimteeError {
    let (path, line, column) = (path.to_owned(), error.line(), error.column());
    if error.is_eof() {
        SimteeError::StateTruncated { path, line, column }
    } else {
        SimteeError::StateMalformed { path, line, column }
    }
}

fn write_atomically(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    existing: Existing,
) -> Result<(), SimteeError> {
    let directory = path
        .parent()
        .map_or_else(|| PathBuf::from("."), Path::to_owned);
    std::fs::create_dir_all(&directory).map_err(SimteeError::io("create", &directory))?;
    let mut file = tempfile::Builder::new()
        .prefix(".simtee-")
        .permissions(Permissions::from_mode(mode))
        .tempfile_in(&directory)
        .map_err(SimteeError::io("create a temporary file in", &directory))?;
    file.write_all(bytes)
        .map_err(SimteeError::io("write", path))?;
    file.as_file()
        .sync_all()
        .map_err(SimteeError::io("sync", path))?;
    let renamed = match existing {
        Existing::Keep => file.persist_noclobber(path),
        Existing::Replace => file.persist(path),
    };
    renamed.map_err(|failed| match failed.error.kind() {
        ErrorKind::AlreadyExists => SimteeError::StateExists {
            path: path.to_owned(),
        },
        _ => SimteeError::Io {
            action: "write",
            path: path.to_owned(),
            source: failed.error,
        },
    })?;
    // The rename itself must survive a crash too.
    File::open(&directory)
        .and_then(|directory| directory.sync_all())
        .map_err(SimteeError::io("sync", &directory))
}
