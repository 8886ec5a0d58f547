//! The files that hold the state key: what opens them, what does not, and what is left after a failure.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use sesemi_keyservice::unlock::{Scheme, Share, ShareError, UnlockError, UnlockFolder, split};
use sesemi_protocol::{CodeIdentityDigest, SecretKey, ServiceId, SystemEntropy};
use tempfile::TempDir;

const SERVICE: ServiceId = ServiceId([7; 32]);
const CODE: CodeIdentityDigest = CodeIdentityDigest([0xc0; 32]);
const NEXT_CODE: CodeIdentityDigest = CodeIdentityDigest([0xc1; 32]);

fn key(byte: u8) -> SecretKey {
    SecretKey::from_bytes([byte; 32])
}

fn state_key() -> SecretKey {
    key(0x5a)
}

fn sealing_key() -> SecretKey {
    key(0x7e)
}

fn make_shares(service: ServiceId) -> Vec<Share> {
    let scheme = Scheme::new(3, 5).unwrap();
    let entropy = SystemEntropy::new();
    let key = SecretKey::generate(&entropy).unwrap();
    split(&key, service, scheme, &entropy).unwrap()
}

/// A state folder that both ways lead into.
struct State {
    folder: TempDir,
    unlock: UnlockFolder,
    shares: Vec<Share>,
}

impl State {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let unlock = UnlockFolder::new(folder.path());
        let shares = make_shares(SERVICE);
        let entropy = SystemEntropy::new();
        unlock
            .write_tee(SERVICE, CODE, &sealing_key(), &state_key(), &entropy)
            .unwrap();
        unlock
            .write_recovery(&shares, &state_key(), &entropy)
            .unwrap();
        Self {
            folder,
            unlock,
            shares,
        }
    }

    fn open_tee(&self) -> Result<SecretKey, UnlockError> {
        self.unlock
            .open_tee(CODE, &sealing_key())
            .map(|unlocked| unlocked.state_key)
    }

    fn recover(&self, shares: &[Share]) -> Result<SecretKey, UnlockError> {
        self.unlock
            .read_recovery()
            .and_then(|recovery| recovery.open(shares))
            .map(|unlocked| unlocked.state_key)
    }

    fn pick(&self, indexes: &[usize]) -> Vec<Share> {
        indexes
            .iter()
            .map(|index| self.shares[index - 1].clone())
            .collect()
    }
}

#[test]
fn the_same_code_on_the_same_platform_opens_the_state_again() {
    let state = State::new();
    let unlocked = state.unlock.open_tee(CODE, &sealing_key()).unwrap();
    assert_eq!(unlocked.service, SERVICE);
    assert_eq!(unlocked.state_key, state_key());
}

#[test]
fn another_platform_is_told_what_to_do() {
    let state = State::new();
    let error = state.unlock.open_tee(CODE, &key(1)).unwrap_err();
    assert!(matches!(error, UnlockError::OtherPlatform(_)), "{error}");
    let said = error.to_string();
    assert!(said.contains("--predecessor") && said.contains("sesemi keyservice recover"));
}

#[test]
fn code_that_never_opened_the_state_is_told_what_to_do() {
    let state = State::new();
    let error = state
        .unlock
        .open_tee(NEXT_CODE, &sealing_key())
        .unwrap_err();
    assert!(matches!(error, UnlockError::NoTeeFile(_)), "{error}");
    let said = error.to_string();
    assert!(said.contains("--predecessor") && said.contains("sesemi keyservice recover"));
    assert!(said.contains(&NEXT_CODE.to_string()));
}

#[test]
fn a_file_cannot_stand_in_for_another() {
    let state = State::new();
    let next = state.unlock.tee_path(NEXT_CODE);
    fs::copy(state.unlock.tee_path(CODE), &next).unwrap();
    let error = state
        .unlock
        .open_tee(NEXT_CODE, &sealing_key())
        .unwrap_err();
    assert!(matches!(error, UnlockError::Misplaced { .. }), "{error}");

    // With the other code's name in it as well, it is not what was sealed.
    let mut bytes = fs::read(&next).unwrap();
    let at = bytes.windows(32).position(|it| it == CODE.0).unwrap();
    bytes[at..at + 32].copy_from_slice(&NEXT_CODE.0);
    fs::write(&next, &bytes).unwrap();
    let error = state
        .unlock
        .open_tee(NEXT_CODE, &sealing_key())
        .unwrap_err();
    assert!(matches!(error, UnlockError::OtherPlatform(_)), "{error}");

    fs::copy(state.unlock.recovery_path(), state.unlock.tee_path(CODE)).unwrap();
    assert!(matches!(
        state.open_tee(),
        Err(UnlockError::Malformed { .. })
    ));
}

#[test]
fn a_file_of_a_later_format_is_refused() {
    let state = State::new();
    for path in [state.unlock.tee_path(CODE), state.unlock.recovery_path()] {
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.windows(2).position(|it| it == b"v1").unwrap();
        bytes[at + 1] = b'2';
        fs::write(&path, &bytes).unwrap();
    }
    let misplaced = |result| matches!(result, Err(UnlockError::Misplaced { .. }));
    assert!(misplaced(state.open_tee()));
    assert!(misplaced(state.recover(&state.shares)));
}

#[test]
fn custodians_open_the_state_wherever_it_is() {
    let state = State::new();
    let recovery = state.unlock.read_recovery().unwrap();
    assert_eq!(recovery.service(), SERVICE);
    assert_eq!(recovery.scheme(), Scheme::new(3, 5).unwrap());
    for group in [&[1, 2, 3][..], &[5, 3, 1], &[2, 4, 5], &[1, 2, 3, 4, 5]] {
        let shares = state.pick(group);
        for share in &shares {
            recovery.check(share).unwrap();
        }
        let unlocked = recovery.open(&shares).unwrap();
        assert_eq!(unlocked.service, SERVICE);
        assert_eq!(unlocked.state_key, state_key());
    }
}

#[test]
fn shares_that_do_not_open_the_state_are_refused_each_with_its_reason() {
    let state = State::new();
    let refused = |shares: &[Share]| match state.recover(shares) {
        Err(UnlockError::Share(error)) => error,
        other => panic!("{other:?}"),
    };
    for have in 0..3 {
        let shares = state.pick(&[1, 2, 3][..have]);
        assert_eq!(refused(&shares), ShareError::TooFew { have, need: 3 });
    }
    assert_eq!(refused(&state.pick(&[1, 2, 2])), ShareError::Duplicate(2));
    let other = ServiceId([8; 32]);
    let mut shares = state.pick(&[1, 2]);
    shares.push(make_shares(other)[2].clone());
    let expected = ShareError::OtherService {
        index: 3,
        found: other,
        expected: SERVICE,
    };
    assert_eq!(refused(&shares), expected);
    // The right service and number, made at another time.
    let mut shares = state.pick(&[1, 2]);
    shares.push(make_shares(SERVICE)[2].clone());
    assert_eq!(refused(&shares), ShareError::Wrong(3));
}

#[test]
fn a_share_is_told_from_a_wrong_one_before_there_are_enough() {
    let state = State::new();
    let recovery = state.unlock.read_recovery().unwrap();
    let strangers = make_shares(SERVICE);
    for (good, wrong) in state.shares.iter().zip(&strangers) {
        assert_eq!(recovery.check(good), Ok(()));
        assert_eq!(recovery.check(wrong), Err(ShareError::Wrong(wrong.index())));
    }
    // A number that this service has no share for.
    let scheme = Scheme::new(3, 6).unwrap();
    let more = split(&key(1), SERVICE, scheme, &SystemEntropy::new()).unwrap();
    assert_eq!(recovery.check(&more[5]), Err(ShareError::Wrong(6)));
}

#[test]
fn wrong_shares_that_the_file_vouches_for_still_do_not_open_it() {
    // The host writes digests of shares of its own into the file.
    let state = State::new();
    let mut bytes = fs::read(state.unlock.recovery_path()).unwrap();
    let strangers = make_shares(SERVICE);
    for (good, wrong) in state.shares.iter().zip(&strangers) {
        let (good, wrong) = (good.commitment().unwrap(), wrong.commitment().unwrap());
        let at = bytes.windows(32).position(|it| it == good.0).unwrap();
        bytes[at..at + 32].copy_from_slice(&wrong.0);
    }
    fs::write(state.unlock.recovery_path(), &bytes).unwrap();
    let error = state.recover(&strangers).unwrap_err();
    assert!(
        matches!(error, UnlockError::NotOpenedByShares(_)),
        "{error}"
    );
}

#[test]
fn no_change_of_a_single_bit_and_no_cut_goes_unnoticed() {
    let state = State::new();
    for path in [state.unlock.tee_path(CODE), state.unlock.recovery_path()] {
        let good = fs::read(&path).unwrap();
        let opens = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            state.open_tee().is_ok() && state.recover(&state.shares).is_ok()
        };
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << (at % 8);
            assert!(!opens(&bytes), "{} byte {at}", path.display());
            assert!(!opens(&good[..at]), "{} cut at {at}", path.display());
        }
        assert!(opens(&good));
    }
}

#[test]
fn an_oversized_file_is_refused_unread() {
    let state = State::new();
    for path in [state.unlock.tee_path(CODE), state.unlock.recovery_path()] {
        fs::write(&path, vec![0; 4097]).unwrap();
    }
    let too_long = |result| matches!(result, Err(UnlockError::TooLong(_)));
    assert!(too_long(state.open_tee()));
    assert!(too_long(state.recover(&state.shares)));
}

#[test]
fn without_a_recovery_file_shares_are_refused_with_a_reason() {
    let state = State::new();
    fs::remove_file(state.unlock.recovery_path()).unwrap();
    let error = state.recover(&state.shares).unwrap_err();
    assert!(matches!(error, UnlockError::NoRecoveryFile(_)), "{error}");
    assert!(error.to_string().contains("no custodians"));
}

#[test]
fn the_recovery_file_is_written_from_all_shares_of_one_key_only() {
    let state = State::new();
    let write = |shares: &[Share]| {
        state
            .unlock
            .write_recovery(shares, &key(1), &SystemEntropy::new())
    };
    let mut mixed = state.shares.clone();
    mixed[4] = make_shares(SERVICE)[4].clone();
    let mut turned = state.shares.clone();
    turned.reverse();
    for shares in [&[][..], &state.shares[..4], &mixed, &turned] {
        assert!(matches!(write(shares), Err(UnlockError::NotAllShares)));
    }
    let few = write(&state.shares[..2]);
    assert!(matches!(
        few,
        Err(UnlockError::Share(ShareError::TooFew { .. }))
    ));
    // What was there still opens.
    assert_eq!(state.recover(&state.shares).unwrap(), state_key());
}

#[test]
fn neither_file_holds_a_key_or_a_share_in_the_clear() {
    let state = State::new();
    let files = [state.unlock.tee_path(CODE), state.unlock.recovery_path()];
    let files = files.map(|path| fs::read(path).unwrap());
    let mut secrets = vec![*state_key().expose(), *sealing_key().expose()];
    for share in &state.shares {
        let encoded = sesemi_protocol::cbor::encode(share).unwrap();
        secrets.push(*encoded.last_chunk().unwrap());
    }
    for secret in secrets {
        let found = |bytes: &Vec<u8>| bytes.windows(8).any(|it| it == &secret[..8]);
        assert!(!files.iter().any(found));
    }
}

#[test]
fn files_and_folder_are_for_this_user_only_and_nothing_else_is_left() {
    let state = State::new();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(state.unlock.tee_path(CODE)), 0o600);
    assert_eq!(mode(state.unlock.recovery_path()), 0o600);
    let folder = state.folder.path().join("unlock");
    assert_eq!(mode(folder.clone()), 0o700);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 2);
}

#[test]
fn what_a_crash_left_behind_is_replaced() {
    let state = State::new();
    let left = state.folder.path().join("unlock/recovery.new");
    fs::write(&left, b"half a file").unwrap();
    fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
    state
        .unlock
        .write_recovery(&state.shares, &key(1), &SystemEntropy::new())
        .unwrap();
    assert!(!left.exists());
    assert_eq!(state.recover(&state.shares).unwrap(), key(1));
    let mode = fs::metadata(state.unlock.recovery_path())
        .unwrap()
        .permissions();
    assert_eq!(mode.mode() & 0o777, 0o600);
}

#[test]
fn a_write_that_fails_leaves_what_was_there() {
    let state = State::new();
    let tee = state.unlock.tee_path(CODE);
    // A folder stands where the new file is to be made.
    fs::create_dir(tee.with_extension("tee.new")).unwrap();
    let entropy = SystemEntropy::new();
    let error = state
        .unlock
        .write_tee(SERVICE, CODE, &sealing_key(), &key(1), &entropy)
        .unwrap_err();
    assert!(
        matches!(
            error,
            UnlockError::Io {
                action: "write",
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(state.open_tee().unwrap(), state_key());
}

#[test]
fn a_missing_state_folder_is_an_error_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let unlock = UnlockFolder::new(&folder.path().join("absent"));
    let entropy = SystemEntropy::new();
    let error = unlock
        .write_tee(SERVICE, CODE, &sealing_key(), &state_key(), &entropy)
        .unwrap_err();
    assert!(error.to_string().contains("absent/unlock"), "{error}");
}

#[test]
fn what_is_unlocked_cannot_be_printed() {
    let state = State::new();
    let recovery = state.unlock.read_recovery().unwrap();
    let unlocked = recovery.open(&state.shares).unwrap();
    let printed = format!("{unlocked:?} {:?}", state.shares).to_lowercase();
    assert!(printed.contains("secretkey(..)"), "{printed}");
    for share in &state.shares {
        let text = share.to_text();
        let secret = text.split(' ').nth(5).unwrap();
        assert!(!printed.contains(secret.get(..8).unwrap()));
    }
    assert!(!printed.contains("5a5a") && !printed.contains("90, 90"));
}
