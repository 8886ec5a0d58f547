//! The key to the state stays with the enclave and with the custodians that the service has: a host that turns a copy back, founds
//! again or brings a state of its own making gets another key, or none.

use std::path::Path;
use std::sync::Arc;

use sesemi_attest::channel::Peer;
use sesemi_keyservice::locked::LockedService;
use sesemi_keyservice::service::KeyService;
use sesemi_keyservice::start::{How, Opening, Setup, StartError};
use sesemi_keyservice::unlock::{Scheme, Share, UnlockFolder, Unlocked, split};
use sesemi_protocol::command::Action;
use sesemi_protocol::query::{QueryAnswer, Question};
use sesemi_protocol::wire::CallBody;
use sesemi_protocol::{PrincipalId, SecretKey, ServiceId, SystemEntropy};

use crate::world::{
    Actor, Pair, START, TestClock, copy, open, pair, resources, setup, stop, try_open,
};

/// Two principals name themselves custodians and fetch both shares.
async fn name(service: &Arc<KeyService>, seeds: [u8; 2]) -> Vec<Share> {
    let mut custodians = Vec::new();
    for seed in seeds {
        custodians.push(Actor::registered(seed, service).await);
    }
    custodians.sort_by_key(Actor::id);
    let ids: Vec<PrincipalId> = custodians.iter().map(Actor::id).collect();
    let action = Action::NameCustodians {
        custodians: ids,
        threshold: 2,
    };
    custodians[0].submit(service, action, None).await.unwrap();
    let mut shares = Vec::new();
    for custodian in &custodians {
        match custodian
            .ask(service, START, Question::Share)
            .await
            .unwrap()
        {
            QueryAnswer::Share(share) => shares.push(share),
            other => panic!("{other:?}"),
        }
    }
    shares
}

/// What a host gets out of the recovery file with all shares: no TEE is needed.
fn key_of(folder: &Path, shares: &[Share]) -> Unlocked {
    let recovery = UnlockFolder::new(folder).read_recovery().unwrap();
    recovery.open(shares).unwrap()
}

fn opens(folder: &Path, key: &Unlocked, clock: &TestClock) -> bool {
    let stolen = tempfile::tempdir().unwrap();
    copy(folder, stolen.path());
    let outside = Setup {
        sealing_key: None,
        ..setup(stolen.path())
    };
    let opened = outside.open_with(key, &How::Alone, resources(clock));
    opened.is_ok_and(|service| {
        service.stop();
        true
    })
}

async fn governed(folder: &Path, clock: &TestClock) -> (Pair, Vec<Share>, ServiceId) {
    let service = open(folder, clock);
    let shares = name(&service, [11, 12]).await;
    let pair = pair(&service).await;
    let id = service.id();
    stop(service);
    (pair, shares, id)
}

#[tokio::test]
async fn a_copy_from_before_the_custodians_were_named_gives_a_host_that_names_its_own_another_key()
{
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let young = tempfile::tempdir().unwrap();
    stop(open(folder.path(), &clock));
    copy(folder.path(), young.path());
    let (_, shares, _) = governed(folder.path(), &clock).await;

    let service = open(young.path(), &clock);
    let stolen = name(&service, [21, 22]).await;
    stop(service);
    let stolen = key_of(young.path(), &stolen);
    assert!(
        opens(young.path(), &stolen, &clock),
        "it is a key to the copy"
    );
    assert!(
        !opens(folder.path(), &stolen, &clock),
        "and not to the service"
    );
    // The right custodians' shares do open it.
    assert!(opens(
        folder.path(),
        &key_of(folder.path(), &shares),
        &clock
    ));
}

#[tokio::test]
async fn a_copy_from_before_does_not_open_what_was_deposited_without_custodians_either() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let young = tempfile::tempdir().unwrap();
    stop(open(folder.path(), &clock));
    copy(folder.path(), young.path());
    let service = open(folder.path(), &clock);
    pair(&service).await;
    stop(service);
    let service = open(young.path(), &clock);
    let stolen = name(&service, [21, 22]).await;
    stop(service);
    assert!(!opens(
        folder.path(),
        &key_of(young.path(), &stolen),
        &clock
    ));
}

#[tokio::test]
async fn a_service_whose_log_is_gone_is_not_founded_again_with_the_same_key() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let (_, _, id) = governed(folder.path(), &clock).await;
    std::fs::remove_file(folder.path().join("state.redb")).unwrap();
    let error = try_open(&setup(folder.path()), &clock).unwrap_err();
    assert!(
        error.to_string().contains("older than the snapshot"),
        "{error}"
    );
    std::fs::remove_dir_all(folder.path().join("snapshots")).unwrap();
    let error = try_open(&setup(folder.path()), &clock).unwrap_err();
    assert!(matches!(error, StartError::LogMissing), "{error}");
    // Whatever else the host removes: another service comes up, with another key.
    std::fs::remove_file(folder.path().join("unlock/recovery")).unwrap();
    let service = open(folder.path(), &clock);
    assert_ne!(service.id(), id);
    stop(service);
}

#[tokio::test]
async fn a_key_of_the_hosts_own_making_opens_no_service() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let entropy = SystemEntropy::new();
    let chosen = SecretKey::from_bytes([0x42; 32]);
    let scheme = Scheme::new(2, 2).unwrap();
    let recovery_key = SecretKey::from_bytes([7; 32]);
    let shares = split(&recovery_key, ServiceId([5; 32]), scheme, &entropy).unwrap();
    UnlockFolder::new(folder.path())
        .write_recovery(&shares, &chosen, &entropy)
        .unwrap();
    let setup = setup(folder.path());
    let Opening::Locked(recovery) = setup.open(resources(&clock)).unwrap() else {
        panic!("it opened by itself")
    };
    let locked = LockedService::new(recovery);
    for share in shares {
        let _ = locked.answer(&Peer::Principal, CallBody::Unlock(share));
    }
    let (unlocked, used) = locked.take().unwrap();
    let opened = setup.open_with(&unlocked, &How::Recovered(used), resources(&clock));
    assert!(matches!(opened, Err(StartError::LogMissing)));
}

#[tokio::test]
async fn a_crash_while_custodians_are_named_leaves_a_state_that_opens() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let before = tempfile::tempdir().unwrap();
    stop(open(folder.path(), &clock));
    copy(folder.path(), before.path());
    let (pair, _, id) = governed(folder.path(), &clock).await;
    let unlock = |name: &str| {
        let mut files = std::fs::read_dir(folder.path().join(name)).unwrap();
        files
            .find_map(|file| {
                let path = file.unwrap().path();
                path.extension()
                    .is_some_and(|it| it == "tee")
                    .then_some(path)
            })
            .unwrap()
    };
    let tee = unlock("unlock");
    let next = tee.with_extension("tee.next");
    let old = before.path().join("unlock").join(tee.file_name().unwrap());
    // After the log was sealed anew and before the key took its place.
    std::fs::rename(&tee, &next).unwrap();
    std::fs::copy(&old, &tee).unwrap();
    let service = open(folder.path(), &clock);
    assert_eq!(service.id(), id);
    assert!(pair.release(&service).await.is_ok());
    stop(service);
    assert!(!next.exists());

    // After the next key was kept and before the log was sealed anew.
    std::fs::copy(&tee, old.with_extension("tee.next")).unwrap();
    let service = open(before.path(), &clock);
    assert_eq!(service.id(), id);
    name(&service, [11, 12]).await;
    stop(service);
    stop(open(before.path(), &clock));
}

#[tokio::test]
async fn a_founding_that_was_broken_off_at_any_step_is_begun_again() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let unlock = folder.path().join("unlock");
    std::fs::create_dir(&unlock).unwrap();
    let first = open(folder.path(), &clock);
    let id = first.id();
    stop(first);
    // The key was kept, and nothing else.
    std::fs::remove_file(folder.path().join("state.redb")).unwrap();
    std::fs::remove_dir_all(folder.path().join("snapshots")).unwrap();
    let second = open(folder.path(), &clock);
    assert_ne!(second.id(), id);
    stop(second);
}
