//! The files that hold the state key, each sealed under another key.
//!
//! Both are deterministic CBOR maps: a plain header that says what the file is and whose, then 60 sealed bytes (nonce, key,
//! tag). The seal's place is the whole header, so that none of it can be changed, and no file can stand in for another.
//!
//! `<code>.tee`: `{0: "sesemi-unlock-tee-v1", 1: service, 2: code, 3: sealed}`, under the TEE's sealing key.
//!
//! `recovery`: `{0: "sesemi-unlock-recovery-v1", 1: service, 2: threshold, 3: [digest of each share], 4: sealed}`, under the
//! recovery key. The digests let a service that is still locked tell a wrong share from a right one as it comes, so that nobody
//! who hands in nonsense keeps the custodians from unlocking.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use minicbor::bytes::ByteSlice;
use minicbor::{Decode, Encode};
use sesemi_attest::sealing::{SealError, Sealer};
use sesemi_protocol::cbor::{self, CborError};
use sesemi_protocol::{CodeIdentityDigest, Digest, Entropy, SecretKey, ServiceId};

use super::error::{MAX_FILE, UnlockError};
use super::files;
use super::{Scheme, Share, ShareError, combine};

/// The folder of these files, within the state folder.
pub const FOLDER: &str = "unlock";

const RECOVERY: &str = "recovery";
const TEE_FORMAT: &str = "sesemi-unlock-tee-v1";
const RECOVERY_FORMAT: &str = "sesemi-unlock-recovery-v1";
const TEE_PURPOSE: &str = "keyservice/unlock/tee";
const RECOVERY_PURPOSE: &str = "keyservice/unlock/recovery";

/// What opening gives.
#[derive(Debug)]
pub struct Unlocked {
    /// The service that the file says it belongs to; sealed with the key, so it is what the writer meant.
    pub service: ServiceId,
    /// The state key.
    pub state_key: SecretKey,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct TeeFile<'a> {
    #[b(0)]
    format: &'a str,
    #[n(1)]
    service: ServiceId,
    #[n(2)]
    code: CodeIdentityDigest,
    #[b(3)]
    sealed: &'a ByteSlice,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct RecoveryFile<'a> {
    #[b(0)]
    format: &'a str,
    #[n(1)]
    service: ServiceId,
    #[n(2)]
    threshold: u8,
    #[n(3)]
    shares: Vec<Digest>,
    #[b(4)]
    sealed: &'a ByteSlice,
}

/// The folder `unlock` of one state folder.
#[derive(Debug, Clone)]
pub struct UnlockFolder(PathBuf);

impl UnlockFolder {
    /// The one in the folder `state`, which must exist before anything is written.
    #[must_use]
    pub fn new(state: &Path) -> Self {
        Self(state.join(FOLDER))
    }

    /// Whether there is any way to a state key: a file of any code's, or the custodians'. The folder alone, or a file that was
    /// never finished, is what a crash at the founding leaves.
    #[must_use]
    pub fn holds_any(&self) -> bool {
        let Ok(files) = std::fs::read_dir(&self.0) else {
            return false;
        };
        files.filter_map(Result::ok).any(|file| {
            let path = file.path();
            path.extension().is_some_and(|ending| ending == "tee") || path == self.recovery_path()
        })
    }

    /// Where the file of `code` is.
    #[must_use]
    pub fn tee_path(&self, code: CodeIdentityDigest) -> PathBuf {
        self.0.join(tee_name(code))
    }

    /// Where the recovery file is.
    #[must_use]
    pub fn recovery_path(&self) -> PathBuf {
        self.0.join(RECOVERY)
    }

    /// Lets `code` open the state at its next start: seals the state key under the TEE's sealing key. A file that is there
    /// is replaced.
    ///
    /// # Errors
    /// [`UnlockError::Io`], [`UnlockError::Seal`]; what was there before is then still there.
    pub fn write_tee(
        &self,
        service: ServiceId,
        code: CodeIdentityDigest,
        sealing_key: &SecretKey,
        state_key: &SecretKey,
        entropy: &dyn Entropy,
    ) -> Result<(), UnlockError> {
        self.write_file(
            &tee_name(code),
            service,
            code,
            sealing_key,
            state_key,
            entropy,
        )
    }

    /// Keeps a state key that may become the one of `code`, beside the present one: which of the two it is says the log.
    ///
    /// # Errors
    /// As [`UnlockFolder::write_tee`].
    pub fn write_next_tee(
        &self,
        service: ServiceId,
        code: CodeIdentityDigest,
        sealing_key: &SecretKey,
        state_key: &SecretKey,
        entropy: &dyn Entropy,
    ) -> Result<(), UnlockError> {
        self.write_file(
            &next_name(code),
            service,
            code,
            sealing_key,
            state_key,
            entropy,
        )
    }

    fn write_file(
        &self,
        name: &str,
        service: ServiceId,
        code: CodeIdentityDigest,
        sealing_key: &SecretKey,
        state_key: &SecretKey,
        entropy: &dyn Entropy,
    ) -> Result<(), UnlockError> {
        let mut file = TeeFile {
            format: TEE_FORMAT,
            service,
            code,
            sealed: nothing(),
        };
        let sealed = seal(sealing_key, TEE_PURPOSE, &file, state_key, entropy)?;
        file.sealed = sealed.as_slice().into();
        self.write(name, &file)
    }

    /// Opens the key that may become the one of `code`; `None` if there is none.
    ///
    /// # Errors
    /// As [`UnlockFolder::open_tee`].
    pub fn open_next_tee(
        &self,
        code: CodeIdentityDigest,
        sealing_key: &SecretKey,
    ) -> Result<Option<Unlocked>, UnlockError> {
        let path = self.0.join(next_name(code));
        if !path.exists() {
            return Ok(None);
        }
        self.open_file(path, code, sealing_key).map(Some)
    }

    /// Makes the next key the present one.
    ///
    /// # Errors
    /// [`UnlockError::Io`].
    pub fn promote_next(&self, code: CodeIdentityDigest) -> Result<(), UnlockError> {
        let path = self.0.join(next_name(code));
        files::rename(&path, &self.tee_path(code)).map_err(|source| UnlockError::Io {
            action: "rename",
            path,
            source,
        })
    }

    /// Opens the state for `code` with the TEE's sealing key.
    ///
    /// # Errors
    /// [`UnlockError::NoTeeFile`] and [`UnlockError::OtherPlatform`] if this code cannot open it here; the others for a file
    /// that is damaged.
    pub fn open_tee(
        &self,
        code: CodeIdentityDigest,
        sealing_key: &SecretKey,
    ) -> Result<Unlocked, UnlockError> {
        self.open_file(self.tee_path(code), code, sealing_key)
    }

    fn open_file(
        &self,
        path: PathBuf,
        code: CodeIdentityDigest,
        sealing_key: &SecretKey,
    ) -> Result<Unlocked, UnlockError> {
        let bytes = read(&path)?.ok_or_else(|| UnlockError::NoTeeFile(path.clone()))?;
        let mut file: TeeFile<'_> = decode(&path, &bytes)?;
        expect_format(&path, file.format, TEE_FORMAT)?;
        if file.code != code {
            let found = format!("the file of code {}", file.code);
            return Err(UnlockError::Misplaced { path, found });
        }
        let sealed = core::mem::replace(&mut file.sealed, nothing());
        let state_key = unseal(sealing_key, TEE_PURPOSE, &file, sealed)?
            .ok_or(UnlockError::OtherPlatform(path))?;
        Ok(Unlocked {
            service: file.service,
            state_key,
        })
    }

    /// Lets the custodians open the state: seals the state key under the key that `shares` make, which are all shares of one
    /// key in their order. A file that is there is replaced, and its shares are then worth nothing.
    ///
    /// # Errors
    /// [`UnlockError::NotAllShares`], [`UnlockError::Share`] for shares that do not belong together; [`UnlockError::Io`],
    /// [`UnlockError::Seal`]. What was there before is then still there.
    pub fn write_recovery(
        &self,
        shares: &[Share],
        state_key: &SecretKey,
        entropy: &dyn Entropy,
    ) -> Result<(), UnlockError> {
        let first = shares.first().ok_or(UnlockError::NotAllShares)?;
        let (service, scheme) = (first.service(), first.scheme());
        let recovery_key = combine(service, shares)?;
        let complete = shares.iter().map(Share::index).eq(1..=scheme.count());
        // A custodian must not learn at a recovery that the share was never worth anything.
        let mut groups = shares.windows(usize::from(scheme.threshold()));
        let agree = groups.all(|group| combine(service, group).as_ref() == Ok(&recovery_key));
        if !(complete && agree) {
            return Err(UnlockError::NotAllShares);
        }
        let mut file = RecoveryFile {
            format: RECOVERY_FORMAT,
            service,
            threshold: scheme.threshold(),
            shares: shares
                .iter()
                .map(Share::commitment)
                .collect::<Result<_, _>>()?,
            sealed: nothing(),
        };
        let sealed = seal(&recovery_key, RECOVERY_PURPOSE, &file, state_key, entropy)?;
        file.sealed = sealed.as_slice().into();
        self.write(RECOVERY, &file)
    }

    /// Reads the recovery file, which needs no key.
    ///
    /// # Errors
    /// [`UnlockError::NoRecoveryFile`]; the others for a file that is damaged.
    pub fn read_recovery(&self) -> Result<Recovery, UnlockError> {
        let path = self.recovery_path();
        let bytes = read(&path)?.ok_or_else(|| UnlockError::NoRecoveryFile(path.clone()))?;
        let file: RecoveryFile<'_> = decode(&path, &bytes)?;
        expect_format(&path, file.format, RECOVERY_FORMAT)?;
        let count = u8::try_from(file.shares.len()).unwrap_or(u8::MAX);
        let scheme = match Scheme::new(file.threshold, count) {
            Ok(scheme) => scheme,
            Err(error) => {
                let source = CborError::Malformed(error.to_string());
                return Err(UnlockError::Malformed { path, source });
            }
        };
        Ok(Recovery {
            service: file.service,
            scheme,
            commitments: file.shares,
            sealed: file.sealed.to_vec(),
            path,
        })
    }

    fn write(&self, name: &str, file: &impl Encode<()>) -> Result<(), UnlockError> {
        let bytes = cbor::encode(file).map_err(UnlockError::Encode)?;
        files::write(&self.0, name, &bytes).map_err(|source| UnlockError::Io {
            action: "write",
            path: self.0.join(name),
            source,
        })
    }
}

/// A recovery file as it was read. Until shares open it, what it says is only what the host says.
#[derive(Debug, Clone)]
pub struct Recovery {
    service: ServiceId,
    scheme: Scheme,
    commitments: Vec<Digest>,
    sealed: Vec<u8>,
    path: PathBuf,
}

impl Recovery {
    /// The service whose shares open it.
    #[must_use]
    pub fn service(&self) -> ServiceId {
        self.service
    }

    /// How many shares there are, and how many are enough.
    #[must_use]
    pub fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Whether `share` is one of those that open it.
    ///
    /// # Errors
    /// [`ShareError::OtherService`]; [`ShareError::Wrong`].
    pub fn check(&self, share: &Share) -> Result<(), ShareError> {
        let index = share.index();
        if share.service() != self.service {
            return Err(ShareError::OtherService {
                index,
                found: share.service(),
                expected: self.service,
            });
        }
        let place = usize::from(index).checked_sub(1);
        let expected = place.and_then(|place| self.commitments.get(place));
        if expected == Some(&share.commitment()?) {
            Ok(())
        } else {
            Err(ShareError::Wrong(index))
        }
    }

    /// Opens the state with enough shares.
    ///
    /// # Errors
    /// [`UnlockError::Share`] for too few shares, one twice, those of another service and wrong ones;
    /// [`UnlockError::NotOpenedByShares`] if the file is not what was written.
    pub fn open(&self, shares: &[Share]) -> Result<Unlocked, UnlockError> {
        for share in shares {
            self.check(share)?;
        }
        if shares.is_empty() {
            let need = self.scheme.threshold();
            return Err(ShareError::TooFew { have: 0, need }.into());
        }
        let recovery_key = combine(self.service, shares)?;
        let file = RecoveryFile {
            format: RECOVERY_FORMAT,
            service: self.service,
            threshold: self.scheme.threshold(),
            shares: self.commitments.clone(),
            sealed: nothing(),
        };
        let state_key = unseal(&recovery_key, RECOVERY_PURPOSE, &file, &self.sealed)?
            .ok_or_else(|| UnlockError::NotOpenedByShares(self.path.clone()))?;
        Ok(Unlocked {
            service: self.service,
            state_key,
        })
    }
}

fn tee_name(code: CodeIdentityDigest) -> String {
    format!("{code}.tee")
}

fn next_name(code: CodeIdentityDigest) -> String {
    format!("{code}.tee.next")
}

/// What stands for the sealed bytes while the header is the seal's place.
fn nothing() -> &'static ByteSlice {
    [0u8; 0].as_slice().into()
}

fn seal(
    key: &SecretKey,
    purpose: &str,
    header: &impl Encode<()>,
    state_key: &SecretKey,
    entropy: &dyn Entropy,
) -> Result<Vec<u8>, UnlockError> {
    let place = cbor::encode(header).map_err(UnlockError::Encode)?;
    Sealer::new(key, purpose)
        .and_then(|sealer| sealer.seal(&place, state_key.expose(), entropy))
        .map_err(UnlockError::Seal)
}

/// The state key, or `None` if `key` does not open it at this place.
fn unseal(
    key: &SecretKey,
    purpose: &str,
    header: &impl Encode<()>,
    sealed: &[u8],
) -> Result<Option<SecretKey>, UnlockError> {
    let place = cbor::encode(header).map_err(UnlockError::Encode)?;
    let sealer = Sealer::new(key, purpose).map_err(UnlockError::Seal)?;
    match sealer.unseal(&place, sealed) {
        Ok(plaintext) => Ok(SecretKey::from_slice(&plaintext)),
        Err(SealError::NotAuthentic) => Ok(None),
        Err(error @ SealError::Provider) => Err(UnlockError::Seal(error)),
    }
}

/// The file's bytes; `None` if it is not there.
fn read(path: &Path) -> Result<Option<Vec<u8>>, UnlockError> {
    match files::read(path, MAX_FILE) {
        Ok(Some(bytes)) => Ok(Some(bytes)),
        Ok(None) => Err(UnlockError::TooLong(path.to_owned())),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(UnlockError::Io {
            action: "read",
            path: path.to_owned(),
            source,
        }),
    }
}

fn decode<'b, T>(path: &Path, bytes: &'b [u8]) -> Result<T, UnlockError>
where
    T: Decode<'b, ()> + Encode<()>,
{
    cbor::decode(bytes, MAX_FILE).map_err(|source| UnlockError::Malformed {
        path: path.to_owned(),
        source,
    })
}

fn expect_format(path: &Path, found: &str, expected: &str) -> Result<(), UnlockError> {
    if found == expected {
        return Ok(());
    }
    Err(UnlockError::Misplaced {
        path: path.to_owned(),
        found: format!(
            "of the format {:?}",
            found.chars().take(40).collect::<String>()
        ),
    })
}
