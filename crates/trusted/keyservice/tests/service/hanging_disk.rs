//! What needs the disk waits for it on threads of its own: while a disk hangs, whatever memory answers is answered.

use std::sync::Arc;
use std::sync::mpsc::channel;

use sesemi_attest::channel::Peer;
use sesemi_keyservice::service::KeyService;
use sesemi_protocol::receipt::Point;
use sesemi_protocol::wire::{CallBody, ReplyBody};

use crate::gate::{Gate, PATIENCE, on_gated_disk};
use crate::world::{Actor, CODE, enclave, pair, put_model, send};

fn status(
    service: &Arc<KeyService>,
    peer: Peer,
    seen: Point,
) -> impl Future<Output = ReplyBody> + use<> {
    let service = service.clone();
    async move { service.answer(&peer, CallBody::Status { seen }).await }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_need_a_disk_that_hangs_keep_no_other_from_being_answered() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Gate::default());
    let service = on_gated_disk(folder.path(), &gate);
    let pair = pair(&service).await;
    let mut owner = Actor::registered(3, &service).await;
    let (action, key) = put_model(1);
    let command = owner.sign(&service, action);
    let receipt = send(&service, &command, key.clone()).await;
    let old = service.reader().read(1).unwrap().point();
    let end = service.reader().point();

    gate.hang_at_next_write();
    let (action, other_key) = put_model(2);
    let (signed, writing) = (owner.sign(&service, action), service.clone());
    let written = tokio::spawn(async move { send(&writing, &signed, other_key).await });
    gate.until_it_hangs();
    // More calls that have to read the log than there are threads that answer.
    let mut request = pair.request();
    request.seen = old;
    let (releasing, repeating) = (service.clone(), service.clone());
    let (repeated, repeated_key) = (command.clone(), key.clone());
    let reading = [
        tokio::spawn(status(&service, Peer::Principal, old)),
        tokio::spawn(status(&service, enclave(CODE), old)),
        tokio::spawn(async move {
            let call = CallBody::Release(vec![request]);
            releasing.answer(&enclave(2), call).await
        }),
        tokio::spawn(async move { send(&repeating, &repeated, repeated_key).await }),
    ];
    // The state is known without the disk, and so are the log's start and end.
    let (answer, answered) = channel();
    for seen in [Point::START, end] {
        let (asked, answer) = (status(&service, Peer::Principal, seen), answer.clone());
        tokio::spawn(async move { answer.send(asked.await).unwrap() });
    }
    let mut request = pair.request();
    request.seen = end;
    let releasing = service.clone();
    tokio::spawn(async move {
        let call = CallBody::Release(vec![request]);
        answer
            .send(releasing.answer(&enclave(CODE), call).await)
            .unwrap();
    });
    let replies: Vec<_> = (0..3).map(|_| answered.recv_timeout(PATIENCE)).collect();
    // Whatever came of it, the threads end.
    gate.hold(false);
    for reply in replies {
        let reply = reply.expect("an answer while the disk hangs");
        assert!(
            matches!(reply, ReplyBody::Status(_) | ReplyBody::Released(_)),
            "{reply:?}"
        );
    }
    assert!(matches!(written.await.unwrap(), ReplyBody::Refused(_)));
    for read in reading {
        read.await.unwrap();
    }
    // And what needs it is answered again.
    let reply = status(&service, Peer::Principal, old).await;
    assert!(matches!(reply, ReplyBody::Status(_)), "{reply:?}");
    assert_eq!(send(&service, &command, key).await, receipt);
}
