//! Isolation in the leases of a running service, before and after it was started again from its log.

use std::sync::Arc;

use sesemi_keyservice::service::KeyService;
use sesemi_protocol::command::Action;
use sesemi_protocol::{Isolation, IsolationLevel, VersionSelector};

use crate::world::{CODE, TestClock, open, pair, put_key, put_model, release, stop, version};

fn isolated(mut action: Action, asked: Isolation) -> Action {
    match &mut action {
        Action::PutModel { isolation, .. } | Action::PutRequestKey { isolation, .. } => {
            *isolation = asked;
        }
        other => panic!("{other:?}"),
    }
    action
}

#[tokio::test]
async fn leases_carry_the_stricter_isolation_also_after_a_restart_without_snapshots() {
    let (folder, clock) = (tempfile::tempdir().unwrap(), TestClock::new());
    let service = open(folder.path(), &clock);
    let mut pair = pair(&service).await;
    assert_eq!(
        pair.release(&service).await.unwrap().isolation,
        Isolation::default()
    );

    let owners = Isolation::new(IsolationLevel::Sequential, 20).unwrap();
    let users = Isolation::new(IsolationLevel::DedicatedUser, 250).unwrap();
    let (action, key) = put_model(2);
    pair.owner
        .submit(&service, isolated(action, owners), key)
        .await
        .unwrap();
    let (action, key) = put_key(1, None);
    pair.user
        .submit(&service, isolated(action, users), key)
        .await
        .unwrap();

    let mut request = pair.request();
    request.model.version = VersionSelector::Exact(version(2));
    let both = Isolation::new(IsolationLevel::Sequential, 250).unwrap();
    let leases = async |service: &Arc<KeyService>| {
        let second = release(service, CODE, request.clone()).await;
        let first = pair.release(service).await;
        [first.unwrap().isolation, second.unwrap().isolation]
    };
    assert_eq!(leases(&service).await, [users, both]);

    stop(service);
    std::fs::remove_dir_all(folder.path().join("snapshots")).unwrap();
    let service = open(folder.path(), &clock);
    assert_eq!(leases(&service).await, [users, both]);
    // And from the snapshot that this stop leaves.
    stop(service);
    let service = open(folder.path(), &clock);
    assert_eq!(leases(&service).await, [users, both]);
}
