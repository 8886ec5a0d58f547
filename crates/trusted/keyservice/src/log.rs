//! The log: every accepted command, sealed, chained by hash, and on disk before it is acknowledged.
//!
//! Entry *n* is sealed to its place: its number and the digest of the chain before it. Entries therefore cannot be swapped,
//! dropped from the middle or mixed from two histories; opening the log replays it and stops at the first that does not fit.
//! Cutting off the end cannot be seen from the log alone: receipts held by clients show it.
//!
//! Two more things are sealed with it. The *freshness floor* ([`FreshnessFloor`](sesemi_attest::freshness::FreshnessFloor))
//! is sealed to the end of the log, so that an older one does not fit. The *identity* is sealed to the policy by which
//! enclaves are appraised: a service has one policy for life, and whoever pinned the service has pinned its policy.

use std::path::Path;

use minicbor::bytes::ByteVec;
use minicbor::{Decode, Encode, Encoder};
use redb::{Database, Durability, ReadableDatabase as _, ReadableTable as _, TableDefinition};
use sesemi_attest::freshness::Level;
use sesemi_attest::sealing::{SealError, Sealer};
use sesemi_protocol::cbor::{self, CborError};
use sesemi_protocol::identity::IdentityError;
use sesemi_protocol::limits::MAX_SIGNED;
use sesemi_protocol::{Digest, Entropy, SecretKey, SigningIdentity};

const ENTRIES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("entries");
const IDENTITIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("identity");
const IDENTITY_KEY: &str = "service";
const FLOOR: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("floor");
const FLOOR_KEY: &str = "floor";
/// Longest freshness floor that is read back, in bytes.
const MAX_FLOOR: usize = 128 * 1024;
/// Longest sealed entry that is read back, in bytes.
const MAX_ENTRY: usize = MAX_SIGNED + 1024;

/// Why the log cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Another process has the database open.
    #[error(
        "the state folder is in use by another KeyService; stop that one, or choose another folder"
    )]
    InUse,
    /// The database file cannot be opened, read or written.
    #[error("the state database failed: {0}; check the disk, then restart")]
    Database(Box<redb::Error>),
    /// Sealed data does not open.
    #[error("{what}: {source}")]
    Seal {
        /// Which part of the state.
        what: String,
        /// What went wrong.
        source: SealError,
    },
    /// An entry is missing.
    #[error(
        "the log has a gap: entry {expected} is missing, {found} comes next; restore the state folder from a backup"
    )]
    Gap {
        /// The number that should come.
        expected: u64,
        /// The number that comes.
        found: u64,
    },
    /// An entry is authentic, but not of a form that this version knows.
    #[error("log entry {sequence} cannot be read: {source}")]
    Entry {
        /// Its number.
        sequence: u64,
        /// What is wrong.
        source: CborError,
    },
    /// The freshness floor is missing though there are entries.
    #[error(
        "the freshness floor is missing from the state; restore the state folder from a backup"
    )]
    NoFloor,
    /// The freshness floor is not of a form that this version knows.
    #[error("the freshness floor cannot be read: {0}")]
    Floor(CborError),
    /// The service's identity could not be made.
    #[error(transparent)]
    Identity(IdentityError),
}

impl<E: Into<redb::Error>> From<E> for LogError {
    fn from(error: E) -> Self {
        Self::Database(Box::new(error.into()))
    }
}

/// What is logged of a command.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Entry {
    /// The signed command, as it came.
    #[n(0)]
    pub signed: ByteVec,
    /// When it was accepted, in seconds since 1970, by the host's clock: for people, not for decisions.
    #[n(1)]
    pub accepted: u64,
}

/// The open log.
pub struct Log {
    database: Database,
    sealer: Sealer,
    floor_sealer: Sealer,
    sequence: u64,
    chain: Digest,
}

impl core::fmt::Debug for Log {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Log")
            .field("sequence", &self.sequence)
            .finish_non_exhaustive()
    }
}

/// What opening a log gives: the log and the service identity that is sealed with it.
#[derive(Debug)]
pub struct Opened {
    /// The log, ready for more.
    pub log: Log,
    /// The service's identity: made at the first start, the same ever after.
    pub identity: SigningIdentity,
    /// The freshness floor as it was kept last.
    pub floor: Vec<Level>,
}

/// What opens a log, besides its file.
#[derive(Debug, Clone, Copy)]
pub struct Unlock<'a> {
    /// The TEE's sealing key.
    pub sealing_key: &'a SecretKey,
    /// Digest of the policy to which the service is bound.
    pub policy: Digest,
}

impl Log {
    /// Opens or creates the log at `path`, verifies it from the first entry on, and hands each entry to `replay` with its
    /// number and the chain's digest after it.
    ///
    /// # Errors
    /// [`LogError`], or whatever `replay` refuses.
    pub fn open<E: From<LogError>>(
        path: &Path,
        unlock: Unlock<'_>,
        entropy: &dyn Entropy,
        mut replay: impl FnMut(&SigningIdentity, Entry, Digest) -> Result<(), E>,
    ) -> Result<Opened, E> {
        let database = Database::create(path).map_err(|error| match error {
            redb::DatabaseError::DatabaseAlreadyOpen => LogError::InUse,
            other => LogError::from(other),
        })?;
        let identity = load_identity(&database, unlock, entropy)?;
        let sealer =
            |purpose, what| Sealer::new(unlock.sealing_key, purpose).map_err(sealing(what));
        let mut log = Self {
            database,
            sealer: sealer("keyservice/log", "the log's key")?,
            floor_sealer: sealer("keyservice/floor", "the freshness floor's key")?,
            sequence: 0,
            chain: Digest([0; 32]),
        };
        let read = log.database.begin_read().map_err(LogError::from)?;
        let table = read.open_table(ENTRIES).map_err(LogError::from)?;
        for item in table.iter().map_err(LogError::from)? {
            let (sequence, sealed) = item.map_err(LogError::from)?;
            let entry = log.read_next(sequence.value(), sealed.value())?;
            replay(&identity, entry, log.chain)?;
        }
        drop(table);
        drop(read);
        let floor = log.read_floor()?;
        Ok(Opened {
            log,
            identity,
            floor,
        })
    }

    /// Number of entries.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Appends an entry and returns once it is on disk together with the freshness floor, with the chain's digest after it.
    ///
    /// # Errors
    /// [`LogError`]; the log is then as before.
    pub fn append(
        &mut self,
        entry: &Entry,
        floor: &[Level],
        entropy: &dyn Entropy,
    ) -> Result<Digest, LogError> {
        let sequence = self.sequence.saturating_add(1);
        let plaintext =
            cbor::encode(entry).map_err(|source| LogError::Entry { sequence, source })?;
        let place = place(sequence, &self.chain);
        let sealed = self
            .sealer
            .seal(&place, &plaintext, entropy)
            .map_err(sealing("a log entry"))?;
        let chain = extend(&place, &plaintext);
        let floor = self.seal_floor(sequence, &chain, floor, entropy)?;
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        write
            .open_table(ENTRIES)?
            .insert(sequence, sealed.as_slice())?;
        write
            .open_table(FLOOR)?
            .insert(FLOOR_KEY, floor.as_slice())?;
        write.commit()?;
        self.sequence = sequence;
        self.chain = chain;
        Ok(self.chain)
    }

    /// Keeps the freshness floor, at the end of the log as it is.
    ///
    /// # Errors
    /// [`LogError`]; what was kept before is then still there.
    pub fn keep_floor(&self, floor: &[Level], entropy: &dyn Entropy) -> Result<(), LogError> {
        let sealed = self.seal_floor(self.sequence, &self.chain, floor, entropy)?;
        let mut write = self.database.begin_write()?;
        write.set_durability(Durability::Immediate)?;
        write
            .open_table(FLOOR)?
            .insert(FLOOR_KEY, sealed.as_slice())?;
        Ok(write.commit()?)
    }

    fn seal_floor(
        &self,
        sequence: u64,
        chain: &Digest,
        floor: &[Level],
        entropy: &dyn Entropy,
    ) -> Result<Vec<u8>, LogError> {
        let plaintext = cbor::encode(&floor).map_err(LogError::Floor)?;
        self.floor_sealer
            .seal(&place(sequence, chain), &plaintext, entropy)
            .map_err(sealing("the freshness floor"))
    }

    fn read_floor(&self) -> Result<Vec<Level>, LogError> {
        let read = self.database.begin_read()?;
        let table = read.open_table(FLOOR)?;
        let Some(sealed) = table.get(FLOOR_KEY)? else {
            return match self.sequence {
                0 => Ok(Vec::new()),
                _ => Err(LogError::NoFloor),
            };
        };
        if sealed.value().len() > MAX_FLOOR {
            return Err(sealing("an oversized freshness floor")(
                SealError::NotAuthentic,
            ));
        }
        let plaintext = self
            .floor_sealer
            .unseal(&place(self.sequence, &self.chain), sealed.value())
            .map_err(sealing("the freshness floor"))?;
        cbor::decode(&plaintext, MAX_FLOOR).map_err(LogError::Floor)
    }

    fn read_next(&mut self, sequence: u64, sealed: &[u8]) -> Result<Entry, LogError> {
        let expected = self.sequence.saturating_add(1);
        if sequence != expected {
            return Err(LogError::Gap {
                expected,
                found: sequence,
            });
        }
        if sealed.len() > MAX_ENTRY {
            return Err(sealing("an oversized log entry")(SealError::NotAuthentic));
        }
        let place = place(sequence, &self.chain);
        let plaintext = self
            .sealer
            .unseal(&place, sealed)
            .map_err(sealing(&format!("log entry {sequence}")))?;
        let entry = cbor::decode(&plaintext, MAX_ENTRY)
            .map_err(|source| LogError::Entry { sequence, source })?;
        self.sequence = sequence;
        self.chain = extend(&place, &plaintext);
        Ok(entry)
    }
}

fn sealing(what: &str) -> impl FnOnce(SealError) -> LogError {
    let what = what.to_owned();
    move |source| LogError::Seal { what, source }
}

/// Where an entry belongs: deterministic CBOR of `[number, chain before it]`.
fn place(sequence: u64, chain: &Digest) -> Vec<u8> {
    let mut e = Encoder::new(Vec::new());
    // Writing to a Vec cannot fail.
    let _ = e
        .array(2)
        .and_then(|e| e.u64(sequence))
        .and_then(|e| e.bytes(chain.as_bytes()));
    e.into_writer()
}

/// The chain after an entry: SHA-256 over its place, which holds the chain before it, and the SHA-256 of its plaintext.
fn extend(place: &[u8], plaintext: &[u8]) -> Digest {
    let mut bytes = place.to_vec();
    bytes.extend_from_slice(Digest::of(plaintext).as_bytes());
    Digest::of(&bytes)
}

/// What sealing says of an identity that does not open: the likeliest reason first.
const IDENTITY: &str = "this appraisal policy is not the one that the service was created with, or its identity cannot be unsealed";

/// Reads the service's identity, or makes it at the first start: all tables exist, and are durable, before anything else.
fn load_identity(
    database: &Database,
    unlock: Unlock<'_>,
    entropy: &dyn Entropy,
) -> Result<SigningIdentity, LogError> {
    let sealer = Sealer::new(unlock.sealing_key, "keyservice/identity")
        .map_err(sealing("the identity's key"))?;
    let place = unlock.policy.as_bytes();
    let mut write = database.begin_write()?;
    write.set_durability(Durability::Immediate)?;
    let identity = {
        write.open_table(ENTRIES)?;
        write.open_table(FLOOR)?;
        let mut table = write.open_table(IDENTITIES)?;
        let stored = table
            .get(IDENTITY_KEY)?
            .map(|sealed| sealed.value().to_vec());
        match stored {
            Some(sealed) => {
                let seed = sealer.unseal(place, &sealed).map_err(sealing(IDENTITY))?;
                let seed = SecretKey::from_slice(&seed)
                    .ok_or_else(|| sealing(IDENTITY)(SealError::NotAuthentic))?;
                SigningIdentity::from_seed(seed).map_err(LogError::Identity)?
            }
            None => {
                let identity = SigningIdentity::generate(entropy).map_err(LogError::Identity)?;
                let sealed = sealer
                    .seal(place, identity.seed().expose(), entropy)
                    .map_err(sealing(IDENTITY))?;
                table.insert(IDENTITY_KEY, sealed.as_slice())?;
                identity
            }
        }
    };
    write.commit()?;
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use sesemi_attest::freshness::Growing;
    use sesemi_protocol::SystemEntropy;

    use super::*;

    const KEY: [u8; 32] = [1; 32];

    const POLICY: Digest = Digest([2; 32]);

    fn open(path: &Path, key: [u8; 32]) -> Result<(Opened, Vec<Vec<u8>>), LogError> {
        open_under(path, key, POLICY)
    }

    fn open_under(
        path: &Path,
        key: [u8; 32],
        policy: Digest,
    ) -> Result<(Opened, Vec<Vec<u8>>), LogError> {
        let mut replayed = Vec::new();
        let opened = Log::open(
            path,
            Unlock {
                sealing_key: &SecretKey::from_bytes(key),
                policy,
            },
            &SystemEntropy::new(),
            |_, entry, _| {
                replayed.push(entry.signed.to_vec());
                Ok::<(), LogError>(())
            },
        )?;
        Ok((opened, replayed))
    }

    fn filled(path: &Path, entries: &[&[u8]]) -> Digest {
        let (mut opened, _) = open(path, KEY).unwrap();
        let mut chain = Digest([0; 32]);
        for signed in entries {
            let entry = Entry {
                signed: signed.to_vec().into(),
                accepted: 5,
            };
            chain = opened
                .log
                .append(&entry, &[], &SystemEntropy::new())
                .unwrap();
        }
        chain
    }

    type Entries<'t> = redb::Table<'t, u64, &'static [u8]>;

    fn tamper(path: &Path, change: impl FnOnce(&mut Entries<'_>)) {
        let database = Database::create(path).unwrap();
        let write = database.begin_write().unwrap();
        change(&mut write.open_table(ENTRIES).unwrap());
        write.commit().unwrap();
    }

    #[test]
    fn what_was_appended_is_replayed_in_order_with_the_same_chain_and_identity() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        let chain = filled(&path, &[b"one", b"two", b"three"]);
        let (first, replayed) = open(&path, KEY).unwrap();
        assert_eq!(
            replayed,
            [b"one".to_vec(), b"two".to_vec(), b"three".to_vec()]
        );
        assert_eq!((first.log.sequence, first.log.chain), (3, chain));
        let identity = *first.identity.public();
        drop(first);
        assert_eq!(*open(&path, KEY).unwrap().0.identity.public(), identity);
    }

    #[test]
    fn another_sealing_key_opens_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        filled(&path, &[b"one"]);
        assert!(matches!(open(&path, [2; 32]), Err(LogError::Seal { .. })));
    }

    #[test]
    fn a_service_has_one_policy_for_life() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        filled(&path, &[b"one"]);
        let other = open_under(&path, KEY, Digest([3; 32])).unwrap_err();
        assert!(other.to_string().contains("appraisal policy"), "{other}");
        assert!(open(&path, KEY).is_ok());
    }

    const SEEN: Level = Level {
        what: Growing::SignedDate,
        at_least: 7,
    };

    #[test]
    fn the_freshness_floor_is_kept_and_an_older_one_does_not_fit_a_longer_log() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        filled(&path, &[b"one"]);
        let (opened, _) = open(&path, KEY).unwrap();
        opened
            .log
            .keep_floor(&[SEEN], &SystemEntropy::new())
            .unwrap();
        drop(opened);
        assert_eq!(open(&path, KEY).unwrap().0.floor, [SEEN]);

        let old = stored_floor(&path);
        filled(&path, &[b"two"]);
        set_floor(&path, Some(&old));
        assert!(matches!(open(&path, KEY), Err(LogError::Seal { .. })));
        set_floor(&path, None);
        assert!(matches!(open(&path, KEY), Err(LogError::NoFloor)));
    }

    fn stored_floor(path: &Path) -> Vec<u8> {
        let database = Database::create(path).unwrap();
        let read = database.begin_read().unwrap();
        let table = read.open_table(FLOOR).unwrap();
        table.get(FLOOR_KEY).unwrap().unwrap().value().to_vec()
    }

    fn set_floor(path: &Path, sealed: Option<&[u8]>) {
        let database = Database::create(path).unwrap();
        let write = database.begin_write().unwrap();
        {
            let mut table = write.open_table(FLOOR).unwrap();
            match sealed {
                Some(sealed) => drop(table.insert(FLOOR_KEY, sealed).unwrap()),
                None => drop(table.remove(FLOOR_KEY).unwrap()),
            }
        }
        write.commit().unwrap();
    }

    #[test]
    fn entries_that_were_dropped_swapped_or_changed_are_noticed() {
        let changes: [fn(&mut Entries<'_>); 3] = [
            |table| drop(table.remove(2).unwrap()),
            |table| {
                let two = table.get(2).unwrap().unwrap().value().to_vec();
                let three = table
                    .insert(3, two.as_slice())
                    .unwrap()
                    .unwrap()
                    .value()
                    .to_vec();
                table.insert(2, three.as_slice()).unwrap();
            },
            |table| {
                let mut two = table.get(2).unwrap().unwrap().value().to_vec();
                two[20] ^= 1;
                table.insert(2, two.as_slice()).unwrap();
            },
        ];
        for change in changes {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("state.redb");
            filled(&path, &[b"one", b"two", b"three"]);
            tamper(&path, change);
            assert!(open(&path, KEY).is_err());
        }
    }

    #[test]
    fn histories_that_diverged_cannot_be_mixed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state.redb");
        filled(&path, &[b"one"]);
        let fork = folder.path().join("fork.redb");
        std::fs::copy(&path, &fork).unwrap();
        filled(&path, &[b"two", b"three"]);
        filled(&fork, &[b"TWO", b"THREE"]);
        let mut stolen = Vec::new();
        tamper(&fork, |table| {
            stolen = table.get(3).unwrap().unwrap().value().to_vec()
        });
        tamper(&path, |table| {
            drop(table.insert(3, stolen.as_slice()).unwrap())
        });
        assert!(matches!(open(&path, KEY), Err(LogError::Seal { .. })));
    }
}
